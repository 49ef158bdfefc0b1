package keyservice

import (
	"context"

	"kmsfs/keyservice/audit"
)

// Encrypt encrypts up to 4096 bytes under a KMS key.
func (s *Service) Encrypt(ctx context.Context, c Caller, in *EncryptInput) (*EncryptOutput, error) {
	return run(ctx, s, c, "Encrypt", in, (*Service).encrypt)
}

// Decrypt decrypts what was encrypted under a KMS key, in the same encryption context.
func (s *Service) Decrypt(ctx context.Context, c Caller, in *DecryptInput) (*DecryptOutput, error) {
	return run(ctx, s, c, "Decrypt", in, (*Service).decrypt)
}

// ReEncrypt encrypts anew what was encrypted under a KMS key: the plaintext stays inside.
func (s *Service) ReEncrypt(ctx context.Context, c Caller, in *ReEncryptInput) (*ReEncryptOutput, error) {
	return run(ctx, s, c, "ReEncrypt", in, (*Service).reEncrypt)
}

func field(name string, value any) audit.Field { return audit.Field{Name: name, Value: value} }

func (s *Service) encrypt(r *request, in *EncryptInput) (*EncryptOutput, error) {
	r.textParam("keyId", in.KeyId)
	r.param("encryptionAlgorithm", specSymmetric)
	r.contextParam("encryptionContext", in.EncryptionContext)
	if err := firstError(
		checkIdentifier("keyId", in.KeyId),
		checkLength("plaintext", len(in.Plaintext), 1, maxPlaintext),
		checkContext("encryptionContext", in.EncryptionContext),
		checkAlgorithm("encryptionAlgorithm", in.EncryptionAlgorithm),
		checkGrantTokens(in.GrantTokens)); err != nil {
		return nil, err
	}
	k, err := s.anyKey(in.KeyId)
	if err != nil {
		return nil, err
	}
	if err := firstError(s.admit(r, "kms:Encrypt", k, true), dryRun(r, in.DryRun)); err != nil {
		return nil, err
	}
	sealed, err := s.seal(r, k, in.Plaintext, in.EncryptionContext)
	if err != nil {
		return nil, err
	}
	return &EncryptOutput{CiphertextBlob: sealed, KeyId: k.arn, EncryptionAlgorithm: specSymmetric}, nil
}

// seal encrypts under the key's current material.
func (s *Service) seal(r *request, k *key, plaintext []byte, context map[string]string) (sealed []byte, err error) {
	err = s.ring.use(k.current(), func(secret []byte) error {
		sealed, err = sealBlob(secret, k.ID, k.Current, plaintext, context)
		return err
	})
	r.additional = append(r.additional, field("keyMaterialId", k.currentID))
	return sealed, err
}

// dryRun ends a call that was made only to see whether it would be let through.
func dryRun(r *request, only bool) error {
	if !only {
		return nil
	}
	r.additional = append(r.additional, field("dryRun", true))
	return refuse(CodeDryRun, "The request would have succeeded, but the DryRun option is set.")
}

// ciphertext is what Decrypt and ReEncrypt are given.
type ciphertext struct {
	blob    []byte
	keyID   string // as asked for; empty for the blob's
	context map[string]string
	// member and contextMember are the input's names of keyID and context, and action what the caller needs to be allowed.
	member, contextMember, action string
}

func (s *Service) decrypt(r *request, in *DecryptInput) (*DecryptOutput, error) {
	c := &ciphertext{in.CiphertextBlob, in.KeyId, in.EncryptionContext, "keyId", "encryptionContext", "kms:Decrypt"}
	c.describe(r)
	r.param("encryptionAlgorithm", specSymmetric)
	if err := firstError(
		c.check(),
		checkAlgorithm("encryptionAlgorithm", in.EncryptionAlgorithm),
		checkGrantTokens(in.GrantTokens),
		checkUnsupported("Recipient", isGiven(in.Recipient)),
		checkUnsupported("DryRunModifiers", len(in.DryRunModifiers) > 0)); err != nil {
		return nil, err
	}
	k, parsed, err := s.source(r, c)
	if err != nil {
		return nil, err
	}
	plaintext, err := s.unseal(k, parsed, in.EncryptionContext)
	if err != nil {
		return nil, err
	}
	id := hexText(parsed.material)
	r.additional = append(r.additional, field("keyMaterialId", id))
	if err := dryRun(r, in.DryRun); err != nil {
		clear(plaintext)
		return nil, err
	}
	return &DecryptOutput{KeyId: k.arn, Plaintext: plaintext, EncryptionAlgorithm: specSymmetric, KeyMaterialId: id}, nil
}

func (c *ciphertext) describe(r *request) {
	r.textParam(c.member, c.keyID)
	r.contextParam(c.contextMember, c.context)
}

func (c *ciphertext) check() error {
	err := firstError(checkLength("ciphertextBlob", len(c.blob), 1, maxBlob), checkContext(c.contextMember, c.context))
	if err == nil && c.keyID != "" {
		err = checkIdentifier(c.member, c.keyID)
	}
	return err
}

// source finds the ciphertext's key and lets the caller use it.
func (s *Service) source(r *request, c *ciphertext) (*key, *blob, error) {
	parsed, err := parseBlob(c.blob)
	if err != nil {
		return nil, nil, errInvalidCiphertext()
	}
	if c.keyID == "" {
		k, err := s.blobKey(r, c, &parsed)
		return k, &parsed, err
	}
	k, err := s.anyKey(c.keyID)
	if err != nil {
		return nil, nil, err
	}
	if err := s.admit(r, c.action, k, false); err != nil {
		return nil, nil, err
	}
	if k.ID != parsed.key {
		return nil, nil, refuse(CodeIncorrectKey, "The key ID in the request does not identify a CMK that can perform this operation.")
	}
	return k, &parsed, k.usable()
}

// blobKey is the key that the blob names. A caller without permission doesn't learn whether there is such a key.
func (s *Service) blobKey(r *request, c *ciphertext, parsed *blob) (*key, error) {
	k := s.index.key(parsed.key)
	if k == nil || s.admit(r, c.action, k, false) != nil {
		return nil, refuse(CodeAccessDenied, "The ciphertext refers to a customer master key that does not exist, does not exist in this region, or you are not allowed to access.")
	}
	return k, k.usable()
}

// unseal decrypts the blob.
func (s *Service) unseal(k *key, parsed *blob, context map[string]string) (plaintext []byte, err error) {
	m := k.materials[parsed.material]
	if m == nil {
		return nil, errInvalidCiphertext()
	}
	err = s.ring.use(m, func(secret []byte) error {
		if plaintext, err = parsed.open(secret, context); err != nil {
			return errInvalidCiphertext()
		}
		return nil
	})
	return plaintext, err
}

func (s *Service) reEncrypt(r *request, in *ReEncryptInput) (*ReEncryptOutput, error) {
	c := &ciphertext{in.CiphertextBlob, in.SourceKeyId, in.SourceEncryptionContext, "sourceKeyId", "sourceEncryptionContext", "kms:ReEncryptFrom"}
	c.describe(r)
	r.param("sourceEncryptionAlgorithm", specSymmetric)
	r.textParam("destinationKeyId", in.DestinationKeyId)
	r.contextParam("destinationEncryptionContext", in.DestinationEncryptionContext)
	r.param("destinationEncryptionAlgorithm", specSymmetric)
	if err := firstError(
		c.check(),
		checkIdentifier("destinationKeyId", in.DestinationKeyId),
		checkContext("destinationEncryptionContext", in.DestinationEncryptionContext),
		checkAlgorithm("sourceEncryptionAlgorithm", in.SourceEncryptionAlgorithm),
		checkAlgorithm("destinationEncryptionAlgorithm", in.DestinationEncryptionAlgorithm),
		checkGrantTokens(in.GrantTokens),
		checkUnsupported("DryRunModifiers", len(in.DryRunModifiers) > 0)); err != nil {
		return nil, err
	}
	from, parsed, err := s.source(r, c)
	if err != nil {
		return nil, err
	}
	to, err := s.anyKey(in.DestinationKeyId)
	if err != nil {
		return nil, err
	}
	if err := s.admit(r, "kms:ReEncryptTo", to, true); err != nil {
		return nil, err
	}
	return s.reseal(r, in, from, parsed, to)
}

// reseal does ReEncrypt's work, once it is allowed.
func (s *Service) reseal(r *request, in *ReEncryptInput, from *key, parsed *blob, to *key) (*ReEncryptOutput, error) {
	plaintext, err := s.unseal(from, parsed, in.SourceEncryptionContext)
	if err != nil {
		return nil, err
	}
	defer clear(plaintext)
	if err := dryRun(r, in.DryRun); err != nil {
		return nil, err
	}
	source := hexText(parsed.material)
	r.additional = append(r.additional, field("sourceKeyMaterialId", source))
	sealed, err := s.seal(r, to, plaintext, in.DestinationEncryptionContext)
	if err != nil {
		return nil, err
	}
	return &ReEncryptOutput{
		CiphertextBlob: sealed, SourceKeyId: from.arn, KeyId: to.arn,
		SourceEncryptionAlgorithm: specSymmetric, DestinationEncryptionAlgorithm: specSymmetric,
		SourceKeyMaterialId: source, DestinationKeyMaterialId: to.currentID,
	}, nil
}
