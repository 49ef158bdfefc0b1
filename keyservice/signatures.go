package keyservice

import (
	"cmp"

	"kmsfs/keyservice/catalog"
	"kmsfs/keyservice/keyspec"
	"kmsfs/keyservice/kms"
)

// signatureOperations sign, verify and agree on keys.
type signatureOperations struct{ *core }

// use finds the key that a cryptographic operation without an encryption context names, and lets the caller use it.
func (o signatureOperations) use(r *request, id, usage string) (*catalog.Key, error) {
	k, err := o.anyKey(r, id)
	if err != nil {
		return nil, err
	}
	if err := o.authorizeIn(r, "kms:"+r.name, k, nil); err != nil {
		return nil, err
	}
	r.uses(k.Key)
	return k.Key, cmp.Or(k.Serves(r.name, usage), k.Usable())
}

// signing describes and checks what Sign and Verify have in common.
func (o signatureOperations) signing(r *request, in *kms.SignInput) error {
	messageType := in.MessageType
	if messageType == "" {
		messageType = keyspec.Raw
	}
	r.textParam("keyId", in.KeyId)
	r.textParam("messageType", messageType)
	r.textParam("signingAlgorithm", in.SigningAlgorithm)
	r.authz.Set("kms:messagetype", messageType)
	r.authz.Set("kms:signingalgorithm", in.SigningAlgorithm)
	return cmp.Or(
		kms.CheckIdentifier("keyId", in.KeyId),
		kms.CheckLength("message", len(in.Message), 1, kms.MaxMessage),
		kms.CheckEnum("messageType", messageType, keyspec.Raw, keyspec.Digest, "EXTERNAL_MU"),
		kms.CheckUnsupported("MessageType EXTERNAL_MU", messageType == "EXTERNAL_MU"),
		checkGiven("signingAlgorithm", in.SigningAlgorithm, "RSASSA_PSS_SHA_256", "RSASSA_PSS_SHA_384", "RSASSA_PSS_SHA_512",
			"RSASSA_PKCS1_V1_5_SHA_256", "RSASSA_PKCS1_V1_5_SHA_384", "RSASSA_PKCS1_V1_5_SHA_512",
			"ECDSA_SHA_256", "ECDSA_SHA_384", "ECDSA_SHA_512", "SM2DSA", "ML_DSA_SHAKE_256", "ED25519_SHA_512", "ED25519_PH_SHA_512"),
		o.tokens.CheckGrants(in.GrantTokens))
}

func (o signatureOperations) sign(r *request, in *kms.SignInput) (*kms.SignOutput, error) {
	if err := o.signing(r, in); err != nil {
		return nil, err
	}
	k, err := o.use(r, in.KeyId, kms.UsageSigning)
	if err != nil {
		return nil, err
	}
	var signature []byte
	err = o.ring.Use(k.CurrentMaterial(), func(secret []byte) (err error) {
		signature, err = k.KeySpec.Sign(in.SigningAlgorithm, in.MessageType, secret, in.Message)
		return k.SpecError(in.SigningAlgorithm, err)
	})
	if err := cmp.Or(err, dryRun(r, in.DryRun)); err != nil {
		return nil, err
	}
	return &kms.SignOutput{KeyId: k.ARN, Signature: signature, SigningAlgorithm: in.SigningAlgorithm}, nil
}

func (o signatureOperations) verify(r *request, in *kms.VerifyInput) (*kms.VerifyOutput, error) {
	common := kms.SignInput{KeyId: in.KeyId, Message: in.Message, MessageType: in.MessageType, SigningAlgorithm: in.SigningAlgorithm, GrantTokens: in.GrantTokens}
	if err := cmp.Or(o.signing(r, &common), kms.CheckLength("signature", len(in.Signature), 1, kms.MaxSignature)); err != nil {
		return nil, err
	}
	k, err := o.use(r, in.KeyId, kms.UsageSigning)
	if err != nil {
		return nil, err
	}
	err = k.KeySpec.Verify(in.SigningAlgorithm, in.MessageType, k.PublicKey, in.Message, in.Signature)
	if err := cmp.Or(k.SpecError(in.SigningAlgorithm, err), dryRun(r, in.DryRun)); err != nil {
		return nil, err
	}
	return &kms.VerifyOutput{KeyId: k.ARN, SignatureValid: true, SigningAlgorithm: in.SigningAlgorithm}, nil
}

// macking describes and checks what GenerateMac and VerifyMac have in common.
func (o signatureOperations) macking(r *request, in *kms.GenerateMacInput) error {
	r.textParam("keyId", in.KeyId)
	r.textParam("macAlgorithm", in.MacAlgorithm)
	r.authz.Set("kms:macalgorithm", in.MacAlgorithm)
	return cmp.Or(
		kms.CheckIdentifier("keyId", in.KeyId),
		kms.CheckLength("message", len(in.Message), 1, kms.MaxMessage),
		checkGiven("macAlgorithm", in.MacAlgorithm, "HMAC_SHA_224", "HMAC_SHA_256", "HMAC_SHA_384", "HMAC_SHA_512"),
		o.tokens.CheckGrants(in.GrantTokens))
}

func (o signatureOperations) generateMac(r *request, in *kms.GenerateMacInput) (*kms.GenerateMacOutput, error) {
	if err := o.macking(r, in); err != nil {
		return nil, err
	}
	k, err := o.use(r, in.KeyId, kms.UsageMAC)
	if err != nil {
		return nil, err
	}
	var mac []byte
	err = o.ring.Use(k.CurrentMaterial(), func(secret []byte) (err error) {
		mac, err = k.KeySpec.GenerateMAC(in.MacAlgorithm, secret, in.Message)
		return k.SpecError(in.MacAlgorithm, err)
	})
	if err := cmp.Or(err, dryRun(r, in.DryRun)); err != nil {
		return nil, err
	}
	return &kms.GenerateMacOutput{Mac: mac, MacAlgorithm: in.MacAlgorithm, KeyId: k.ARN}, nil
}

func (o signatureOperations) verifyMac(r *request, in *kms.VerifyMacInput) (*kms.VerifyMacOutput, error) {
	common := kms.GenerateMacInput{KeyId: in.KeyId, Message: in.Message, MacAlgorithm: in.MacAlgorithm, GrantTokens: in.GrantTokens}
	if err := cmp.Or(o.macking(r, &common), kms.CheckLength("mac", len(in.Mac), 1, kms.MaxSignature)); err != nil {
		return nil, err
	}
	k, err := o.use(r, in.KeyId, kms.UsageMAC)
	if err != nil {
		return nil, err
	}
	err = o.ring.Use(k.CurrentMaterial(), func(secret []byte) error {
		return k.SpecError(in.MacAlgorithm, k.KeySpec.VerifyMAC(in.MacAlgorithm, secret, in.Message, in.Mac))
	})
	if err := cmp.Or(err, dryRun(r, in.DryRun)); err != nil {
		return nil, err
	}
	return &kms.VerifyMacOutput{KeyId: k.ARN, MacValid: true, MacAlgorithm: in.MacAlgorithm}, nil
}

func (o signatureOperations) getPublicKey(r *request, in *kms.GetPublicKeyInput) (*kms.GetPublicKeyOutput, error) {
	r.textParam("keyId", in.KeyId)
	if err := cmp.Or(kms.CheckIdentifier("keyId", in.KeyId), o.tokens.CheckGrants(in.GrantTokens)); err != nil {
		return nil, err
	}
	k, err := o.anyKey(r, in.KeyId)
	if err != nil {
		return nil, err
	}
	if err := o.authorizeIn(r, "kms:GetPublicKey", k, nil); err != nil {
		return nil, err
	}
	if !k.KeySpec.Asymmetric() {
		return nil, kms.Errorf(kms.CodeUnsupportedOperation, "%s key spec is %s which is not valid for this operation.", k.ARN, k.Spec)
	}
	if err := k.Usable(); err != nil {
		return nil, err
	}
	m := metadata(k.Key, o.facts.Account)
	return &kms.GetPublicKeyOutput{
		KeyId: k.ARN, PublicKey: k.PublicKey, CustomerMasterKeySpec: k.Spec, KeySpec: k.Spec, KeyUsage: k.Usage,
		EncryptionAlgorithms: m.EncryptionAlgorithms, SigningAlgorithms: m.SigningAlgorithms, KeyAgreementAlgorithms: m.KeyAgreementAlgorithms,
	}, nil
}

func (o signatureOperations) deriveSharedSecret(r *request, in *kms.DeriveSharedSecretInput) (*kms.DeriveSharedSecretOutput, error) {
	r.textParam("keyId", in.KeyId)
	r.textParam("keyAgreementAlgorithm", in.KeyAgreementAlgorithm)
	r.authz.Set("kms:keyagreementalgorithm", in.KeyAgreementAlgorithm)
	if err := cmp.Or(
		kms.CheckIdentifier("keyId", in.KeyId),
		checkGiven("keyAgreementAlgorithm", in.KeyAgreementAlgorithm, "ECDH"),
		kms.CheckLength("publicKey", len(in.PublicKey), 1, kms.MaxPublicKey),
		o.tokens.CheckGrants(in.GrantTokens),
		kms.CheckUnsupported("Recipient", kms.IsGiven(in.Recipient))); err != nil {
		return nil, err
	}
	k, err := o.use(r, in.KeyId, kms.UsageAgreement)
	if err != nil {
		return nil, err
	}
	var shared []byte
	err = o.ring.Use(k.CurrentMaterial(), func(secret []byte) (err error) {
		shared, err = k.KeySpec.DeriveSharedSecret(secret, in.PublicKey)
		return k.SpecError(in.KeyAgreementAlgorithm, err)
	})
	if err := cmp.Or(err, dryRun(r, in.DryRun)); err != nil {
		clear(shared)
		return nil, err
	}
	return &kms.DeriveSharedSecretOutput{KeyId: k.ARN, SharedSecret: shared, KeyAgreementAlgorithm: in.KeyAgreementAlgorithm, KeyOrigin: k.Origin}, nil
}
