package keyservice

import (
	"context"

	"kmsfs/keyservice/keyspec"
)

// maxMessage bounds messages to sign or to make MACs of, in bytes, and maxSignature signatures and MACs.
const (
	maxMessage   = 4096
	maxSignature = 6144
	maxPublicKey = 8192
)

// GenerateDataKeyPair makes a key pair, whose private key is encrypted like a data key.
func (s *Service) GenerateDataKeyPair(ctx context.Context, c Caller, in *GenerateDataKeyPairInput) (*GenerateDataKeyPairOutput, error) {
	return run(ctx, s, c, "GenerateDataKeyPair", in, func(s *Service, r *request, in *GenerateDataKeyPairInput) (*GenerateDataKeyPairOutput, error) {
		return s.newDataKeyPair(r, "kms:GenerateDataKeyPair", in)
	})
}

// GenerateDataKeyPairWithoutPlaintext makes a key pair for later use.
func (s *Service) GenerateDataKeyPairWithoutPlaintext(ctx context.Context, c Caller, in *GenerateDataKeyPairWithoutPlaintextInput) (*GenerateDataKeyPairWithoutPlaintextOutput, error) {
	return run(ctx, s, c, "GenerateDataKeyPairWithoutPlaintext", in, (*Service).generateSealedDataKeyPair)
}

// Sign signs a message or a digest.
func (s *Service) Sign(ctx context.Context, c Caller, in *SignInput) (*SignOutput, error) {
	return run(ctx, s, c, "Sign", in, (*Service).sign)
}

// Verify verifies a signature.
func (s *Service) Verify(ctx context.Context, c Caller, in *VerifyInput) (*VerifyOutput, error) {
	return run(ctx, s, c, "Verify", in, (*Service).verify)
}

// GenerateMac makes a message's MAC.
func (s *Service) GenerateMac(ctx context.Context, c Caller, in *GenerateMacInput) (*GenerateMacOutput, error) {
	return run(ctx, s, c, "GenerateMac", in, (*Service).generateMac)
}

// VerifyMac verifies a MAC.
func (s *Service) VerifyMac(ctx context.Context, c Caller, in *VerifyMacInput) (*VerifyMacOutput, error) {
	return run(ctx, s, c, "VerifyMac", in, (*Service).verifyMac)
}

// GetPublicKey returns a KMS key's public key.
func (s *Service) GetPublicKey(ctx context.Context, c Caller, in *GetPublicKeyInput) (*GetPublicKeyOutput, error) {
	return run(ctx, s, c, "GetPublicKey", in, (*Service).getPublicKey)
}

// DeriveSharedSecret is the key agreement of a KMS key and a peer's public key.
func (s *Service) DeriveSharedSecret(ctx context.Context, c Caller, in *DeriveSharedSecretInput) (*DeriveSharedSecretOutput, error) {
	return run(ctx, s, c, "DeriveSharedSecret", in, (*Service).deriveSharedSecret)
}

func (s *Service) generateSealedDataKeyPair(r *request, in *GenerateDataKeyPairWithoutPlaintextInput) (*GenerateDataKeyPairWithoutPlaintextOutput, error) {
	out, err := s.newDataKeyPair(r, "kms:GenerateDataKeyPairWithoutPlaintext", &GenerateDataKeyPairInput{
		KeyId: in.KeyId, EncryptionContext: in.EncryptionContext, KeyPairSpec: in.KeyPairSpec, GrantTokens: in.GrantTokens, DryRun: in.DryRun,
	})
	if err != nil {
		return nil, err
	}
	out.wipe()
	return &GenerateDataKeyPairWithoutPlaintextOutput{out.PrivateKeyCiphertextBlob, out.PublicKey, out.KeyId, out.KeyPairSpec, out.KeyMaterialId}, nil
}

// pairSpecs are the specs of data key pairs.
func pairSpecs() []string {
	return []string{
		"RSA_2048", "RSA_3072", "RSA_4096", "ECC_NIST_P256", "ECC_NIST_P384", "ECC_NIST_P521", "ECC_SECG_P256K1", "SM2", "ECC_NIST_EDWARDS25519",
	}
}

func (s *Service) newDataKeyPair(r *request, action string, in *GenerateDataKeyPairInput) (*GenerateDataKeyPairOutput, error) {
	r.textParam("keyId", in.KeyId)
	r.textParam("keyPairSpec", in.KeyPairSpec)
	r.contextParam("encryptionContext", in.EncryptionContext)
	r.about("kms:datakeypairspec", in.KeyPairSpec)
	if err := firstError(
		checkIdentifier("keyId", in.KeyId),
		checkGiven("keyPairSpec", in.KeyPairSpec, pairSpecs()...),
		checkContext("encryptionContext", in.EncryptionContext),
		s.checkGrantTokens(in.GrantTokens),
		checkUnsupported("Recipient", isGiven(in.Recipient))); err != nil {
		return nil, err
	}
	spec, ok := keyspec.Find(in.KeyPairSpec)
	if !ok {
		return nil, checkUnsupported("KeyPairSpec "+in.KeyPairSpec, true)
	}
	k, err := s.dataKeyKey(r, action, in.KeyId, in.EncryptionContext)
	if err != nil {
		return nil, err
	}
	if err := dryRun(r, in.DryRun); err != nil {
		return nil, err
	}
	private, public, err := s.pair(r, spec)
	if err != nil {
		return nil, err
	}
	sealed, err := s.seal(r, k, &encryption{context: in.EncryptionContext}, private, "keyMaterialId")
	if err != nil {
		clear(private)
		return nil, err
	}
	return &GenerateDataKeyPairOutput{sealed, private, public, k.arn, spec.Name, k.currentID}, nil
}

// pair makes a key pair; the caller wipes the private key.
func (s *Service) pair(r *request, spec *keyspec.Spec) (private, public []byte, err error) {
	if private, err = s.generate(r, spec); err != nil {
		return nil, nil, err
	}
	if public, err = spec.PublicKey(private); err != nil {
		clear(private)
		return nil, nil, err
	}
	return private, public, nil
}

// use finds the key that a cryptographic operation without an encryption context names, and lets the caller use it.
func (s *Service) use(r *request, id, usage string) (*key, error) {
	k, err := s.anyKey(r, id)
	if err != nil {
		return nil, err
	}
	if err := s.admit(r, actionPrefix+r.name, k); err != nil {
		return nil, err
	}
	r.uses(k)
	return k, firstError(k.serves(r.name, usage), k.usable())
}

// signing describes and checks what Sign and Verify have in common.
func (s *Service) signing(r *request, in *SignInput) error {
	messageType := in.MessageType
	if messageType == "" {
		messageType = keyspec.Raw
	}
	r.textParam("keyId", in.KeyId)
	r.textParam("messageType", messageType)
	r.textParam("signingAlgorithm", in.SigningAlgorithm)
	r.about("kms:messagetype", messageType)
	r.about("kms:signingalgorithm", in.SigningAlgorithm)
	return firstError(
		checkIdentifier("keyId", in.KeyId),
		checkLength("message", len(in.Message), 1, maxMessage),
		checkEnum("messageType", messageType, keyspec.Raw, keyspec.Digest, "EXTERNAL_MU"),
		checkUnsupported("MessageType EXTERNAL_MU", messageType == "EXTERNAL_MU"),
		checkGiven("signingAlgorithm", in.SigningAlgorithm, "RSASSA_PSS_SHA_256", "RSASSA_PSS_SHA_384", "RSASSA_PSS_SHA_512",
			"RSASSA_PKCS1_V1_5_SHA_256", "RSASSA_PKCS1_V1_5_SHA_384", "RSASSA_PKCS1_V1_5_SHA_512",
			"ECDSA_SHA_256", "ECDSA_SHA_384", "ECDSA_SHA_512", "SM2DSA", "ML_DSA_SHAKE_256", "ED25519_SHA_512", "ED25519_PH_SHA_512"),
		s.checkGrantTokens(in.GrantTokens))
}

func (s *Service) sign(r *request, in *SignInput) (*SignOutput, error) {
	if err := s.signing(r, in); err != nil {
		return nil, err
	}
	k, err := s.use(r, in.KeyId, usageSigning)
	if err != nil {
		return nil, err
	}
	var signature []byte
	err = s.ring.use(k.current(), func(secret []byte) (err error) {
		signature, err = k.spec.Sign(in.SigningAlgorithm, in.MessageType, secret, in.Message)
		return specError(k, in.SigningAlgorithm, err)
	})
	if err := firstError(err, dryRun(r, in.DryRun)); err != nil {
		return nil, err
	}
	return &SignOutput{k.arn, signature, in.SigningAlgorithm}, nil
}

func (s *Service) verify(r *request, in *VerifyInput) (*VerifyOutput, error) {
	common := SignInput{KeyId: in.KeyId, Message: in.Message, MessageType: in.MessageType, SigningAlgorithm: in.SigningAlgorithm, GrantTokens: in.GrantTokens}
	if err := firstError(s.signing(r, &common), checkLength("signature", len(in.Signature), 1, maxSignature)); err != nil {
		return nil, err
	}
	k, err := s.use(r, in.KeyId, usageSigning)
	if err != nil {
		return nil, err
	}
	err = k.spec.Verify(in.SigningAlgorithm, in.MessageType, k.PublicKey, in.Message, in.Signature)
	if err := firstError(specError(k, in.SigningAlgorithm, err), dryRun(r, in.DryRun)); err != nil {
		return nil, err
	}
	return &VerifyOutput{k.arn, true, in.SigningAlgorithm}, nil
}

// macking describes and checks what GenerateMac and VerifyMac have in common.
func (s *Service) macking(r *request, in *GenerateMacInput) error {
	r.textParam("keyId", in.KeyId)
	r.textParam("macAlgorithm", in.MacAlgorithm)
	r.about("kms:macalgorithm", in.MacAlgorithm)
	return firstError(
		checkIdentifier("keyId", in.KeyId),
		checkLength("message", len(in.Message), 1, maxMessage),
		checkGiven("macAlgorithm", in.MacAlgorithm, "HMAC_SHA_224", "HMAC_SHA_256", "HMAC_SHA_384", "HMAC_SHA_512"),
		s.checkGrantTokens(in.GrantTokens))
}

func (s *Service) generateMac(r *request, in *GenerateMacInput) (*GenerateMacOutput, error) {
	if err := s.macking(r, in); err != nil {
		return nil, err
	}
	k, err := s.use(r, in.KeyId, usageMAC)
	if err != nil {
		return nil, err
	}
	var mac []byte
	err = s.ring.use(k.current(), func(secret []byte) (err error) {
		mac, err = k.spec.GenerateMAC(in.MacAlgorithm, secret, in.Message)
		return specError(k, in.MacAlgorithm, err)
	})
	if err := firstError(err, dryRun(r, in.DryRun)); err != nil {
		return nil, err
	}
	return &GenerateMacOutput{mac, in.MacAlgorithm, k.arn}, nil
}

func (s *Service) verifyMac(r *request, in *VerifyMacInput) (*VerifyMacOutput, error) {
	common := GenerateMacInput{KeyId: in.KeyId, Message: in.Message, MacAlgorithm: in.MacAlgorithm, GrantTokens: in.GrantTokens}
	if err := firstError(s.macking(r, &common), checkLength("mac", len(in.Mac), 1, maxSignature)); err != nil {
		return nil, err
	}
	k, err := s.use(r, in.KeyId, usageMAC)
	if err != nil {
		return nil, err
	}
	err = s.ring.use(k.current(), func(secret []byte) error {
		return specError(k, in.MacAlgorithm, k.spec.VerifyMAC(in.MacAlgorithm, secret, in.Message, in.Mac))
	})
	if err := firstError(err, dryRun(r, in.DryRun)); err != nil {
		return nil, err
	}
	return &VerifyMacOutput{k.arn, true, in.MacAlgorithm}, nil
}

func (s *Service) getPublicKey(r *request, in *GetPublicKeyInput) (*GetPublicKeyOutput, error) {
	r.textParam("keyId", in.KeyId)
	if err := firstError(checkIdentifier("keyId", in.KeyId), s.checkGrantTokens(in.GrantTokens)); err != nil {
		return nil, err
	}
	k, err := s.anyKey(r, in.KeyId)
	if err != nil {
		return nil, err
	}
	if err := s.admit(r, "kms:GetPublicKey", k); err != nil {
		return nil, err
	}
	if !k.spec.Asymmetric() {
		return nil, refuse(CodeUnsupportedOperation, "%s key spec is %s which is not valid for this operation.", k.arn, k.Spec)
	}
	if err := k.usable(); err != nil {
		return nil, err
	}
	m := s.metadata(k)
	return &GetPublicKeyOutput{
		KeyId: k.arn, PublicKey: k.PublicKey, CustomerMasterKeySpec: k.Spec, KeySpec: k.Spec, KeyUsage: k.Usage,
		EncryptionAlgorithms: m.EncryptionAlgorithms, SigningAlgorithms: m.SigningAlgorithms, KeyAgreementAlgorithms: m.KeyAgreementAlgorithms,
	}, nil
}

func (s *Service) deriveSharedSecret(r *request, in *DeriveSharedSecretInput) (*DeriveSharedSecretOutput, error) {
	r.textParam("keyId", in.KeyId)
	r.textParam("keyAgreementAlgorithm", in.KeyAgreementAlgorithm)
	r.about("kms:keyagreementalgorithm", in.KeyAgreementAlgorithm)
	if err := firstError(
		checkIdentifier("keyId", in.KeyId),
		checkGiven("keyAgreementAlgorithm", in.KeyAgreementAlgorithm, "ECDH"),
		checkLength("publicKey", len(in.PublicKey), 1, maxPublicKey),
		s.checkGrantTokens(in.GrantTokens),
		checkUnsupported("Recipient", isGiven(in.Recipient))); err != nil {
		return nil, err
	}
	k, err := s.use(r, in.KeyId, usageAgreement)
	if err != nil {
		return nil, err
	}
	var shared []byte
	err = s.ring.use(k.current(), func(secret []byte) (err error) {
		shared, err = k.spec.DeriveSharedSecret(secret, in.PublicKey)
		return specError(k, in.KeyAgreementAlgorithm, err)
	})
	if err := firstError(err, dryRun(r, in.DryRun)); err != nil {
		clear(shared)
		return nil, err
	}
	return &DeriveSharedSecretOutput{k.arn, shared, in.KeyAgreementAlgorithm, k.Origin}, nil
}
