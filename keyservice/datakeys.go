package keyservice

import (
	"cmp"
	"crypto/rand"

	"kmsfs/keyservice/catalog"
	"kmsfs/keyservice/keyspec"
	"kmsfs/keyservice/kms"
)

// dataKeyOperations make data keys and data key pairs.
type dataKeyOperations struct{ encryptionOperations }

func (o dataKeyOperations) generateDataKey(r *request, in *kms.GenerateDataKeyInput) (*kms.GenerateDataKeyOutput, error) {
	return o.newDataKey(r, "kms:GenerateDataKey", in)
}

func (o dataKeyOperations) generateSealedDataKey(r *request, in *kms.GenerateDataKeyWithoutPlaintextInput) (*kms.GenerateDataKeyWithoutPlaintextOutput, error) {
	out, err := o.newDataKey(r, "kms:GenerateDataKeyWithoutPlaintext", &kms.GenerateDataKeyInput{
		KeyId: in.KeyId, EncryptionContext: in.EncryptionContext, KeySpec: in.KeySpec, NumberOfBytes: in.NumberOfBytes,
		GrantTokens: in.GrantTokens, DryRun: in.DryRun,
	})
	if err != nil {
		return nil, err
	}
	out.Wipe()
	return &kms.GenerateDataKeyWithoutPlaintextOutput{CiphertextBlob: out.CiphertextBlob, KeyId: out.KeyId, KeyMaterialId: out.KeyMaterialId}, nil
}

func (o dataKeyOperations) newDataKey(r *request, action string, in *kms.GenerateDataKeyInput) (*kms.GenerateDataKeyOutput, error) {
	r.textParam("keyId", in.KeyId)
	r.textParam("keySpec", in.KeySpec)
	if in.NumberOfBytes != nil {
		r.paramNumber("numberOfBytes", int64(*in.NumberOfBytes))
	}
	r.contextParam("encryptionContext", in.EncryptionContext)
	size, err := dataKeySize(in.KeySpec, in.NumberOfBytes)
	if err := cmp.Or(
		kms.CheckIdentifier("keyId", in.KeyId), err,
		kms.CheckContext("encryptionContext", in.EncryptionContext),
		o.tokens.CheckGrants(in.GrantTokens),
		kms.CheckUnsupported("Recipient", kms.IsGiven(in.Recipient))); err != nil {
		return nil, err
	}
	k, err := o.dataKeyKey(r, action, in.KeyId, in.EncryptionContext)
	if err != nil {
		return nil, err
	}
	if err := dryRun(r, in.DryRun); err != nil {
		return nil, err
	}
	plaintext := make([]byte, size)
	rand.Read(plaintext)
	sealed, err := o.seal(r, k, &encryption{context: in.EncryptionContext}, plaintext, "keyMaterialId")
	if err != nil {
		clear(plaintext)
		return nil, err
	}
	return &kms.GenerateDataKeyOutput{CiphertextBlob: sealed, Plaintext: plaintext, KeyId: k.ARN, KeyMaterialId: k.CurrentID}, nil
}

// dataKeyKey finds the key that is to encrypt a data key or the private key of a pair, and lets the caller use it.
func (o dataKeyOperations) dataKeyKey(r *request, action, id string, context map[string]string) (*catalog.Key, error) {
	k, err := o.anyKey(r, id)
	if err != nil {
		return nil, err
	}
	r.authz.Set("kms:encryptionalgorithm", kms.SpecSymmetric)
	if err := o.authorizeIn(r, action, k, context); err != nil {
		return nil, err
	}
	if !k.KeySpec.Symmetric() {
		return nil, kms.Errorf(kms.CodeInvalidKeyUsage, "%s key usage is %s which is not valid for %s.", k.ARN, k.Usage, r.name)
	}
	return k.Key, k.Usable()
}

// dataKeySize is the size in bytes of the data key that is asked for.
func dataKeySize(spec string, bytes *int32) (int, error) {
	if err := cmp.Or(kms.CheckEnum("keySpec", spec, "AES_256", "AES_128"), kms.CheckNumber("numberOfBytes", bytes, 1, kms.MaxDataKey)); err != nil {
		return 0, err
	}
	switch {
	case (spec == "") == (bytes == nil):
		return 0, kms.Errorf(kms.CodeValidation, "Please specify either number of bytes or key spec.")
	case bytes != nil:
		return int(*bytes), nil
	case spec == "AES_128":
		return 16, nil
	}
	return 32, nil
}

func (o dataKeyOperations) generateRandom(r *request, in *kms.GenerateRandomInput) (*kms.GenerateRandomOutput, error) {
	if in.NumberOfBytes != nil {
		r.paramNumber("numberOfBytes", int64(*in.NumberOfBytes))
	}
	if err := cmp.Or(
		kms.CheckNumber("numberOfBytes", in.NumberOfBytes, 1, kms.MaxDataKey),
		kms.CheckUnsupported("CustomKeyStoreId", in.CustomKeyStoreId != ""),
		kms.CheckUnsupported("Recipient", kms.IsGiven(in.Recipient))); err != nil {
		return nil, err
	}
	if in.NumberOfBytes == nil {
		return nil, kms.Errorf(kms.CodeValidation, "NumberOfBytes is required.")
	}
	if err := o.authorizeAccount(r, "kms:GenerateRandom", "*"); err != nil {
		return nil, err
	}
	out := &kms.GenerateRandomOutput{Plaintext: make([]byte, *in.NumberOfBytes)}
	rand.Read(out.Plaintext)
	return out, nil
}

func (o dataKeyOperations) generateDataKeyPair(r *request, in *kms.GenerateDataKeyPairInput) (*kms.GenerateDataKeyPairOutput, error) {
	return o.newDataKeyPair(r, "kms:GenerateDataKeyPair", in)
}

func (o dataKeyOperations) generateSealedDataKeyPair(r *request, in *kms.GenerateDataKeyPairWithoutPlaintextInput) (*kms.GenerateDataKeyPairWithoutPlaintextOutput, error) {
	out, err := o.newDataKeyPair(r, "kms:GenerateDataKeyPairWithoutPlaintext", &kms.GenerateDataKeyPairInput{
		KeyId: in.KeyId, EncryptionContext: in.EncryptionContext, KeyPairSpec: in.KeyPairSpec, GrantTokens: in.GrantTokens, DryRun: in.DryRun,
	})
	if err != nil {
		return nil, err
	}
	out.Wipe()
	return &kms.GenerateDataKeyPairWithoutPlaintextOutput{PrivateKeyCiphertextBlob: out.PrivateKeyCiphertextBlob, PublicKey: out.PublicKey, KeyId: out.KeyId, KeyPairSpec: out.KeyPairSpec, KeyMaterialId: out.KeyMaterialId}, nil
}

// pairSpecs are the specs of data key pairs.
func pairSpecs() []string {
	return []string{
		"RSA_2048", "RSA_3072", "RSA_4096", "ECC_NIST_P256", "ECC_NIST_P384", "ECC_NIST_P521", "ECC_SECG_P256K1", "SM2", "ECC_NIST_EDWARDS25519",
	}
}

func (o dataKeyOperations) newDataKeyPair(r *request, action string, in *kms.GenerateDataKeyPairInput) (*kms.GenerateDataKeyPairOutput, error) {
	r.textParam("keyId", in.KeyId)
	r.textParam("keyPairSpec", in.KeyPairSpec)
	r.contextParam("encryptionContext", in.EncryptionContext)
	r.authz.Set("kms:datakeypairspec", in.KeyPairSpec)
	if err := cmp.Or(
		kms.CheckIdentifier("keyId", in.KeyId),
		checkGiven("keyPairSpec", in.KeyPairSpec, pairSpecs()...),
		kms.CheckContext("encryptionContext", in.EncryptionContext),
		o.tokens.CheckGrants(in.GrantTokens),
		kms.CheckUnsupported("Recipient", kms.IsGiven(in.Recipient))); err != nil {
		return nil, err
	}
	spec, ok := keyspec.Find(in.KeyPairSpec)
	if !ok {
		return nil, kms.CheckUnsupported("KeyPairSpec "+in.KeyPairSpec, true)
	}
	k, err := o.dataKeyKey(r, action, in.KeyId, in.EncryptionContext)
	if err != nil {
		return nil, err
	}
	if err := dryRun(r, in.DryRun); err != nil {
		return nil, err
	}
	private, public, err := o.generator.GeneratePair(r.ctx, spec)
	if err != nil {
		return nil, err
	}
	sealed, err := o.seal(r, k, &encryption{context: in.EncryptionContext}, private, "keyMaterialId")
	if err != nil {
		clear(private)
		return nil, err
	}
	return &kms.GenerateDataKeyPairOutput{PrivateKeyCiphertextBlob: sealed, PrivateKeyPlaintext: private, PublicKey: public, KeyId: k.ARN, KeyPairSpec: spec.Name, KeyMaterialId: k.CurrentID}, nil
}
