package keyservice

import (
	"context"
	"crypto/rand"
)

// GenerateDataKey makes a data key.
func (s *Service) GenerateDataKey(ctx context.Context, c Caller, in *GenerateDataKeyInput) (*GenerateDataKeyOutput, error) {
	return run(ctx, s, c, "GenerateDataKey", in, (*Service).generateDataKey)
}

// GenerateDataKeyWithoutPlaintext makes a data key for later use.
func (s *Service) GenerateDataKeyWithoutPlaintext(ctx context.Context, c Caller, in *GenerateDataKeyWithoutPlaintextInput) (*GenerateDataKeyWithoutPlaintextOutput, error) {
	return run(ctx, s, c, "GenerateDataKeyWithoutPlaintext", in, (*Service).generateSealedDataKey)
}

// GenerateRandom makes random bytes.
func (s *Service) GenerateRandom(ctx context.Context, c Caller, in *GenerateRandomInput) (*GenerateRandomOutput, error) {
	return run(ctx, s, c, "GenerateRandom", in, (*Service).generateRandom)
}

func (s *Service) generateDataKey(r *request, in *GenerateDataKeyInput) (*GenerateDataKeyOutput, error) {
	return s.newDataKey(r, "kms:GenerateDataKey", in)
}

func (s *Service) generateSealedDataKey(r *request, in *GenerateDataKeyWithoutPlaintextInput) (*GenerateDataKeyWithoutPlaintextOutput, error) {
	out, err := s.newDataKey(r, "kms:GenerateDataKeyWithoutPlaintext", &GenerateDataKeyInput{
		KeyId: in.KeyId, EncryptionContext: in.EncryptionContext, KeySpec: in.KeySpec, NumberOfBytes: in.NumberOfBytes,
		GrantTokens: in.GrantTokens, DryRun: in.DryRun,
	})
	if err != nil {
		return nil, err
	}
	out.wipe()
	return &GenerateDataKeyWithoutPlaintextOutput{out.CiphertextBlob, out.KeyId, out.KeyMaterialId}, nil
}

func (s *Service) newDataKey(r *request, action string, in *GenerateDataKeyInput) (*GenerateDataKeyOutput, error) {
	r.textParam("keyId", in.KeyId)
	r.textParam("keySpec", in.KeySpec)
	if in.NumberOfBytes != nil {
		r.paramNumber("numberOfBytes", int64(*in.NumberOfBytes))
	}
	r.contextParam("encryptionContext", in.EncryptionContext)
	size, err := dataKeySize(in.KeySpec, in.NumberOfBytes)
	if err := firstError(
		checkIdentifier("keyId", in.KeyId), err,
		checkContext("encryptionContext", in.EncryptionContext),
		s.checkGrantTokens(in.GrantTokens),
		checkUnsupported("Recipient", isGiven(in.Recipient))); err != nil {
		return nil, err
	}
	k, err := s.dataKeyKey(r, action, in.KeyId, in.EncryptionContext)
	if err != nil {
		return nil, err
	}
	if err := dryRun(r, in.DryRun); err != nil {
		return nil, err
	}
	plaintext := make([]byte, size)
	rand.Read(plaintext)
	sealed, err := s.seal(r, k, &encryption{context: in.EncryptionContext}, plaintext, "keyMaterialId")
	if err != nil {
		clear(plaintext)
		return nil, err
	}
	return &GenerateDataKeyOutput{sealed, plaintext, k.arn, k.currentID}, nil
}

// dataKeyKey finds the key that is to encrypt a data key or the private key of a pair, and lets the caller use it.
func (s *Service) dataKeyKey(r *request, action, id string, context map[string]string) (*key, error) {
	k, err := s.anyKey(r, id)
	if err != nil {
		return nil, err
	}
	r.about("kms:encryptionalgorithm", specSymmetric)
	if err := s.admitIn(r, action, k, context); err != nil {
		return nil, err
	}
	if !k.spec.Symmetric() {
		return nil, refuse(CodeInvalidKeyUsage, "%s key usage is %s which is not valid for %s.", k.arn, k.Usage, r.name)
	}
	return k, k.usable()
}

// dataKeySize is the size in bytes of the data key that is asked for.
func dataKeySize(spec string, bytes *int32) (int, error) {
	if err := firstError(checkEnum("keySpec", spec, "AES_256", "AES_128"), checkNumber("numberOfBytes", bytes, 1, maxDataKey)); err != nil {
		return 0, err
	}
	switch {
	case (spec == "") == (bytes == nil):
		return 0, refuse(CodeValidation, "Please specify either number of bytes or key spec.")
	case bytes != nil:
		return int(*bytes), nil
	case spec == "AES_128":
		return 16, nil
	}
	return 32, nil
}

func (s *Service) generateRandom(r *request, in *GenerateRandomInput) (*GenerateRandomOutput, error) {
	if in.NumberOfBytes != nil {
		r.paramNumber("numberOfBytes", int64(*in.NumberOfBytes))
	}
	if err := firstError(
		checkNumber("numberOfBytes", in.NumberOfBytes, 1, maxDataKey),
		checkUnsupported("CustomKeyStoreId", in.CustomKeyStoreId != ""),
		checkUnsupported("Recipient", isGiven(in.Recipient))); err != nil {
		return nil, err
	}
	if in.NumberOfBytes == nil {
		return nil, refuse(CodeValidation, "NumberOfBytes is required.")
	}
	if err := s.admitAccount(r, "kms:GenerateRandom", "*"); err != nil {
		return nil, err
	}
	out := &GenerateRandomOutput{make([]byte, *in.NumberOfBytes)}
	rand.Read(out.Plaintext)
	return out, nil
}
