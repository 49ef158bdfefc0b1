package keyservice

import (
	"cmp"
	"errors"
	"slices"

	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/catalog"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/material"
	"kmsfs/keyservice/store"
)

// ignoreCiphertext is the modifier by which a dry run needs no ciphertext.
const ignoreCiphertext = "IGNORE_CIPHERTEXT"

// encryption is what to encrypt under, and how: the inputs of Encrypt, and of ReEncrypt's second half.
type encryption struct {
	keyID, algorithm string
	context          map[string]string
	// action is what the caller needs to be allowed. The others are the input's names of keyID, algorithm and context.
	action, keyMember, algorithmMember, contextMember string
}

func newEncryption(e encryption) encryption {
	if e.algorithm == "" {
		e.algorithm = kms.SpecSymmetric
	}
	return e
}

func (e *encryption) describe(r *request) {
	r.textParam(e.keyMember, e.keyID)
	r.textParam(e.algorithmMember, e.algorithm)
	r.contextParam(e.contextMember, e.context)
}

func (e *encryption) check() error {
	return cmp.Or(
		kms.CheckIdentifier(e.keyMember, e.keyID),
		kms.CheckContext(e.contextMember, e.context),
		checkEncryptionAlgorithm(e.algorithmMember, e.algorithm))
}

func checkEncryptionAlgorithm(member, algorithm string) error {
	return kms.CheckEnum(member, algorithm, kms.SpecSymmetric, "RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256", "SM2PKE")
}

// encryptionOperations encrypt and decrypt.
type encryptionOperations struct{ *core }

// admitEncryption finds the key and lets the caller encrypt under it.
func (o encryptionOperations) admitEncryption(r *request, e *encryption) (*catalog.Key, error) {
	k, err := o.anyKey(r, e.keyID)
	if err != nil {
		return nil, err
	}
	r.authz.Set("kms:encryptionalgorithm", e.algorithm)
	if err := o.authorizeIn(r, e.action, k, e.context); err != nil {
		return nil, err
	}
	return k.Key, cmp.Or(k.Fits(r.name, e.algorithm, e.contextMember, e.context), k.Usable())
}

func (o encryptionOperations) encrypt(r *request, in *kms.EncryptInput) (*kms.EncryptOutput, error) {
	e := newEncryption(encryption{
		in.KeyId, in.EncryptionAlgorithm, in.EncryptionContext, "kms:Encrypt", "keyId", "encryptionAlgorithm", "encryptionContext",
	})
	e.describe(r)
	if err := cmp.Or(e.check(), kms.CheckLength("plaintext", len(in.Plaintext), 1, kms.MaxPlaintext), o.tokens.CheckGrants(in.GrantTokens)); err != nil {
		return nil, err
	}
	k, err := o.admitEncryption(r, &e)
	if err != nil {
		return nil, err
	}
	if err := cmp.Or(k.CheckPlaintext(e.algorithm, in.Plaintext), dryRun(r, in.DryRun)); err != nil {
		return nil, err
	}
	sealed, err := o.seal(r, k, &e, in.Plaintext, "keyMaterialId")
	if err != nil {
		return nil, err
	}
	return &kms.EncryptOutput{CiphertextBlob: sealed, KeyId: k.ARN, EncryptionAlgorithm: e.algorithm}, nil
}

// seal encrypts under the key's current material.
func (o encryptionOperations) seal(r *request, k *catalog.Key, e *encryption, plaintext []byte, materialName string) (sealed []byte, err error) {
	r.uses(k)
	if !k.KeySpec.Symmetric() {
		return k.KeySpec.Encrypt(e.algorithm, k.PublicKey, plaintext)
	}
	m := k.CurrentMaterial()
	err = o.ring.Use(m, func(secret []byte) error {
		sealed, err = material.SealBlob(secret, k.ID, m.ID, plaintext, e.context)
		return err
	})
	r.additional = append(r.additional, audit.Text(materialName, k.CurrentID))
	return sealed, err
}

// dryRun ends a call that was made only to see whether it would be let through.
func dryRun(r *request, only bool) error {
	if !only {
		return nil
	}
	r.additional = append(r.additional, audit.Bool("dryRun", true))
	return kms.Errorf(kms.CodeDryRun, "The request would have succeeded, but the DryRun option is set.")
}

// ciphertext is what to decrypt, and how: the inputs of Decrypt, and of ReEncrypt's first half. keyID may be empty, for the ciphertext's.
type ciphertext struct {
	encryption
	blob []byte
	// absent says that there is no ciphertext, as is allowed for dry runs.
	absent bool
}

func newCiphertext(e encryption, blob []byte, dryRun bool, modifiers []string) ciphertext {
	return ciphertext{newEncryption(e), blob, dryRun && slices.Contains(modifiers, ignoreCiphertext)}
}

func (c *ciphertext) check(modifiers []string) error {
	for _, modifier := range modifiers {
		if err := kms.CheckEnum("dryRunModifiers", modifier, ignoreCiphertext); err != nil {
			return err
		}
	}
	err := cmp.Or(kms.CheckContext(c.contextMember, c.context), checkEncryptionAlgorithm(c.algorithmMember, c.algorithm))
	if err == nil && !c.absent {
		err = kms.CheckLength("ciphertextBlob", len(c.blob), 1, kms.MaxBlob)
	}
	if err == nil && (c.keyID != "" || c.absent || c.algorithm != kms.SpecSymmetric) {
		err = kms.CheckIdentifier(c.keyMember, c.keyID)
	}
	return err
}

func (o encryptionOperations) decrypt(r *request, in *kms.DecryptInput) (*kms.DecryptOutput, error) {
	c := newCiphertext(encryption{
		in.KeyId, in.EncryptionAlgorithm, in.EncryptionContext, "kms:Decrypt", "keyId", "encryptionAlgorithm", "encryptionContext",
	}, in.CiphertextBlob, in.DryRun, in.DryRunModifiers)
	c.describe(r)
	if err := cmp.Or(
		c.check(in.DryRunModifiers),
		o.tokens.CheckGrants(in.GrantTokens),
		kms.CheckUnsupported("Recipient", kms.IsGiven(in.Recipient))); err != nil {
		return nil, err
	}
	k, parsed, err := o.source(r, &c)
	if err != nil {
		return nil, err
	}
	if c.absent {
		return nil, dryRun(r, true)
	}
	plaintext, materialID, err := o.unseal(r, k, &c, parsed, "keyMaterialId")
	if err != nil {
		return nil, err
	}
	if err := dryRun(r, in.DryRun); err != nil {
		clear(plaintext)
		return nil, err
	}
	return &kms.DecryptOutput{KeyId: k.ARN, Plaintext: plaintext, EncryptionAlgorithm: c.algorithm, KeyMaterialId: materialID}, nil
}

// source finds the ciphertext's key and lets the caller use it.
func (o encryptionOperations) source(r *request, c *ciphertext) (k *catalog.Key, parsed material.Blob, err error) {
	isBlob := c.algorithm == kms.SpecSymmetric && !c.absent
	if isBlob {
		if parsed, err = material.ParseBlob(c.blob); err != nil {
			return nil, material.Blob{}, kms.ErrInvalidCiphertext()
		}
	}
	if c.keyID == "" {
		k, err := o.blobKey(r, c, parsed.Key)
		return k, parsed, err
	}
	if k, err = o.admitEncryption(r, &c.encryption); err != nil {
		return nil, material.Blob{}, err
	}
	if isBlob && k.ID != parsed.Key {
		return nil, material.Blob{}, kms.Errorf(kms.CodeIncorrectKey, "The key ID in the request does not identify a CMK that can perform this operation.")
	}
	return k, parsed, nil
}

// blobKey is the key of that ID, which a blob names. A caller without permission doesn't learn whether there is such a key.
func (o encryptionOperations) blobKey(r *request, c *ciphertext, id store.KeyID) (*catalog.Key, error) {
	k, err := o.catalog.Existing(id)
	if err == nil {
		r.authz.Set("kms:encryptionalgorithm", c.algorithm)
		err = o.authorizeIn(r, c.action, namedKey{Key: k}, c.context)
	}
	if e, ok := errors.AsType[*kms.Error](err); ok && (e.Code == kms.CodeNotFound || e.Code == kms.CodeAccessDenied) {
		return nil, kms.Errorf(kms.CodeAccessDenied, "The ciphertext refers to a customer master key that does not exist, does not exist in this region, or you are not allowed to access.")
	}
	if err != nil {
		return nil, err
	}
	return k, cmp.Or(k.Fits(r.name, c.algorithm, c.contextMember, c.context), k.Usable())
}

// unseal decrypts the ciphertext; parsed is empty for an asymmetric key's. The material's ID is empty for such.
func (o encryptionOperations) unseal(r *request, k *catalog.Key, c *ciphertext, parsed material.Blob, materialName string) (plaintext []byte, materialID string, err error) {
	r.uses(k)
	m := k.CurrentMaterial()
	isBlob := parsed.Header != nil
	if isBlob {
		if m = k.Present[parsed.Material]; m == nil {
			return nil, "", kms.ErrInvalidCiphertext()
		}
		materialID = k.CurrentID
		if m.ID != k.Materials[k.Current].ID {
			materialID = m.ID.String()
		}
	}
	err = o.ring.Use(m, func(secret []byte) (err error) {
		if isBlob {
			plaintext, err = parsed.Open(secret, c.context)
		} else {
			plaintext, err = k.KeySpec.Decrypt(c.algorithm, secret, c.blob)
		}
		if err != nil {
			return kms.ErrInvalidCiphertext()
		}
		return nil
	})
	if err == nil && materialID != "" {
		r.additional = append(r.additional, audit.Text(materialName, materialID))
	}
	return plaintext, materialID, err
}

func (o encryptionOperations) reEncrypt(r *request, in *kms.ReEncryptInput) (*kms.ReEncryptOutput, error) {
	c := newCiphertext(encryption{
		in.SourceKeyId, in.SourceEncryptionAlgorithm, in.SourceEncryptionContext,
		"kms:ReEncryptFrom", "sourceKeyId", "sourceEncryptionAlgorithm", "sourceEncryptionContext",
	}, in.CiphertextBlob, in.DryRun, in.DryRunModifiers)
	e := newEncryption(encryption{
		in.DestinationKeyId, in.DestinationEncryptionAlgorithm, in.DestinationEncryptionContext,
		"kms:ReEncryptTo", "destinationKeyId", "destinationEncryptionAlgorithm", "destinationEncryptionContext",
	})
	c.describe(r)
	e.describe(r)
	if err := cmp.Or(c.check(in.DryRunModifiers), e.check(), o.tokens.CheckGrants(in.GrantTokens)); err != nil {
		return nil, err
	}
	from, parsed, to, err := o.admitReEncryption(r, &c, &e)
	if err != nil {
		return nil, err
	}
	if c.absent {
		return nil, dryRun(r, true)
	}
	plaintext, source, err := o.unseal(r, from, &c, parsed, "sourceKeyMaterialId")
	if err != nil {
		return nil, err
	}
	defer clear(plaintext)
	if err := cmp.Or(to.CheckPlaintext(e.algorithm, plaintext), dryRun(r, in.DryRun)); err != nil {
		return nil, err
	}
	sealed, err := o.seal(r, to, &e, plaintext, "destinationKeyMaterialId")
	if err != nil {
		return nil, err
	}
	return &kms.ReEncryptOutput{
		CiphertextBlob: sealed, SourceKeyId: from.ARN, KeyId: to.ARN,
		SourceEncryptionAlgorithm: c.algorithm, DestinationEncryptionAlgorithm: e.algorithm,
		SourceKeyMaterialId: source, DestinationKeyMaterialId: to.CurrentID,
	}, nil
}

// admitReEncryption finds both keys and lets the caller use them.
func (o encryptionOperations) admitReEncryption(r *request, c *ciphertext, e *encryption) (from *catalog.Key, parsed material.Blob, to *catalog.Key, err error) {
	// Both are needed for the condition that they are the same, and whether the caller may know of them is decided below.
	sameKey := o.namesSameKey(r, c, e)
	r.authz.SetBool("kms:reencryptonsamekey", sameKey)
	if from, parsed, err = o.source(r, c); err != nil {
		return nil, material.Blob{}, nil, err
	}
	to, err = o.admitEncryption(r, e)
	return from, parsed, to, err
}

// namesSameKey says whether the source and the destination of ReEncrypt are one key.
func (o encryptionOperations) namesSameKey(r *request, c *ciphertext, e *encryption) bool {
	to, err := o.anyKey(r, e.keyID)
	if err != nil {
		return false
	}
	if c.keyID != "" {
		from, err := o.anyKey(r, c.keyID)
		return err == nil && from.ID == to.ID
	}
	parsed, err := material.ParseBlob(c.blob)
	return err == nil && parsed.Key == to.ID
}
