package keyservice

import (
	"bytes"
	"cmp"
	"errors"
	"slices"
	"time"

	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/catalog"
	"kmsfs/keyservice/keyspec"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/material"
	"kmsfs/keyservice/store"
	"kmsfs/keyservice/token"
)

const (
	// importKey is the owned key that import tokens are encrypted under.
	importKey = "import"

	expires     = "KEY_MATERIAL_EXPIRES"
	neverEnds   = "KEY_MATERIAL_DOES_NOT_EXPIRE"
	newOne      = "NEW_KEY_MATERIAL"
	existingOne = "EXISTING_KEY_MATERIAL"
)

func expirationModel(validTo time.Time) string {
	if validTo.IsZero() {
		return neverEnds
	}
	return expires
}

// importOperations import key material.
type importOperations struct{ *core }

func (o importOperations) getParametersForImport(r *request, in *kms.GetParametersForImportInput) (*kms.GetParametersForImportOutput, error) {
	r.textParam("wrappingAlgorithm", in.WrappingAlgorithm)
	r.textParam("wrappingKeySpec", in.WrappingKeySpec)
	r.authz.Set("kms:wrappingalgorithm", in.WrappingAlgorithm)
	r.authz.Set("kms:wrappingkeyspec", in.WrappingKeySpec)
	if err := cmp.Or(
		checkGiven("wrappingAlgorithm", in.WrappingAlgorithm, "RSAES_PKCS1_V1_5", "RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256",
			"RSA_AES_KEY_WRAP_SHA_1", "RSA_AES_KEY_WRAP_SHA_256", "SM2PKE"),
		checkGiven("wrappingKeySpec", in.WrappingKeySpec, "RSA_2048", "RSA_3072", "RSA_4096", "SM2")); err != nil {
		return nil, err
	}
	k, err := o.named(r, "kms:GetParametersForImport", in.KeyId)
	if err != nil {
		return nil, err
	}
	if err := cmp.Or(
		k.Imports(), k.NotIn(kms.StatePendingDeletion),
		kms.CheckUnsupported("WrappingAlgorithm "+in.WrappingAlgorithm, in.WrappingAlgorithm == "RSAES_PKCS1_V1_5" || in.WrappingAlgorithm == "SM2PKE"),
		kms.CheckUnsupported("WrappingKeySpec SM2", in.WrappingKeySpec == "SM2")); err != nil {
		return nil, err
	}
	private, public, err := o.wrappingKey(r, in.WrappingKeySpec)
	if err != nil {
		return nil, err
	}
	defer clear(private)
	issued := token.Import{Key: k.ID, Algorithm: in.WrappingAlgorithm, Spec: in.WrappingKeySpec, ValidTo: millis(r.time).Add(kms.ImportTokenLife)}
	sealed, err := o.sealToken(&issued, private)
	if err != nil {
		return nil, err
	}
	return &kms.GetParametersForImportOutput{KeyId: k.ARN, ImportToken: sealed, PublicKey: public, ParametersValidTo: kms.Timestamp{Time: issued.ValidTo}}, nil
}

// wrappingKey makes a key pair to wrap key material with; the caller wipes the private key.
func (o importOperations) wrappingKey(r *request, name string) (private, public []byte, err error) {
	spec, ok := keyspec.Find(name)
	if !ok {
		return nil, nil, kms.Errorf(kms.CodeInternal, "unknown key spec %s", name)
	}
	return o.generator.GeneratePair(r.ctx, spec)
}

// checkGiven checks a text that has to be there.
func checkGiven(member, value string, values ...string) error {
	if value == "" {
		return kms.Invalid(member, "", "Member must not be null")
	}
	return kms.CheckEnum(member, value, values...)
}

// sealToken encrypts a token's private key under an owned key.
func (o importOperations) sealToken(t *token.Import, private []byte) ([]byte, error) {
	k, err := internalKeys(o).owned(importKey, store.Key{})
	if err != nil {
		return nil, err
	}
	var sealed []byte
	err = o.ring.Use(k.CurrentMaterial(), func(secret []byte) (err error) {
		sealed, err = material.SealBlob(secret, k.ID, k.CurrentMaterial().ID, private, t.Context())
		return err
	})
	return t.Append(sealed), err
}

// openToken reverses sealToken, for the key that the token is used for.
func (o importOperations) openToken(id store.KeyID, text []byte, now time.Time) (*token.Import, []byte, error) {
	t, sealed, err := token.ReadImport(id, text)
	if err != nil {
		return nil, nil, err
	}
	blob, err := material.ParseBlob(sealed)
	if err != nil {
		return nil, nil, token.ErrInvalidImport()
	}
	k, err := internalKeys(o).owned(importKey, store.Key{})
	if err != nil {
		return nil, nil, err
	}
	m := k.Present[blob.Material]
	if m == nil || blob.Key != k.ID {
		return nil, nil, token.ErrInvalidImport()
	}
	var private []byte
	if err := o.ring.Use(m, func(secret []byte) (err error) {
		private, err = blob.Open(secret, t.Context())
		return err
	}); err != nil {
		return nil, nil, token.ErrInvalidImport()
	}
	if !now.Before(t.ValidTo) {
		clear(private)
		return nil, nil, kms.Errorf(kms.CodeExpiredImportToken, "The import token has expired: get new parameters for import.")
	}
	return t, private, nil
}

func (o importOperations) importKeyMaterial(r *request, in *kms.ImportKeyMaterialInput) (*kms.ImportKeyMaterialOutput, error) {
	r.readOnly = false
	validTo, err := importEnd(r, in)
	if err := cmp.Or(
		err,
		kms.CheckLength("importToken", len(in.ImportToken), 1, kms.MaxImport),
		kms.CheckLength("encryptedKeyMaterial", len(in.EncryptedKeyMaterial), 1, kms.MaxImport),
		kms.CheckEnum("importType", in.ImportType, newOne, existingOne),
		kms.CheckLength("keyMaterialDescription", len(in.KeyMaterialDescription), 0, kms.MaxMaterialDescription),
		checkMaterialID(in.KeyMaterialId)); err != nil {
		return nil, err
	}
	// What is slow, and needs the owned key, comes before the lock; what it finds is checked again under it.
	k, err := o.named(r, "kms:ImportKeyMaterial", in.KeyId)
	if err != nil {
		return nil, err
	}
	if err := cmp.Or(k.Imports(), k.NotIn(kms.StatePendingDeletion)); err != nil {
		return nil, err
	}
	secret, err := o.openImport(k, in, r.time)
	if err != nil {
		return nil, err
	}
	defer clear(secret)
	o.changes.Lock()
	defer o.changes.Unlock()
	if k, err = o.catalog.Existing(k.ID); err != nil {
		return nil, err
	}
	if err := k.NotIn(kms.StatePendingDeletion); err != nil {
		return nil, err
	}
	defer o.scheduler.Wake()
	return o.addImported(r, k, in, secret, validTo)
}

func checkMaterialID(id string) error {
	var parsed store.MaterialID
	if id != "" && parsed.UnmarshalText([]byte(id)) != nil {
		return kms.Invalid("keyMaterialId", "", "Member must satisfy regular expression pattern: ^[a-f0-9]{64}$")
	}
	return nil
}

// importEnd is when the material is to expire; zero for never.
func importEnd(r *request, in *kms.ImportKeyMaterialInput) (time.Time, error) {
	model := in.ExpirationModel
	if model == "" {
		model = expires
	}
	r.textParam("expirationModel", in.ExpirationModel)
	r.authz.Set("kms:expirationmodel", model)
	if err := kms.CheckEnum("expirationModel", model, expires, neverEnds); err != nil {
		return time.Time{}, err
	}
	switch {
	case model == neverEnds && in.ValidTo != nil:
		return time.Time{}, kms.Errorf(kms.CodeValidation, "A validTo date must not be set if the ExpirationModel is KEY_MATERIAL_DOES_NOT_EXPIRE")
	case model == neverEnds:
		return time.Time{}, nil
	case in.ValidTo == nil:
		return time.Time{}, kms.Errorf(kms.CodeValidation, "A validTo date must be set if the ExpirationModel is KEY_MATERIAL_EXPIRES")
	}
	end := millis(in.ValidTo.Time)
	r.param("validTo", end.Format(time.RFC3339))
	r.authz.SetNumber("kms:validto", end.Unix())
	if !end.After(r.time) || end.After(r.time.Add(kms.MaxImportLife)) {
		return end, kms.Errorf(kms.CodeValidation, "The validTo date must be in the future, and at most 365 days ahead")
	}
	return end, nil
}

// openImport is the key material in the clear, which the caller wipes.
func (o importOperations) openImport(k *catalog.Key, in *kms.ImportKeyMaterialInput, now time.Time) ([]byte, error) {
	issued, private, err := o.openToken(k.ID, in.ImportToken, now)
	if err != nil {
		return nil, err
	}
	defer clear(private)
	secret, err := material.UnwrapImport(k.KeySpec, issued.Algorithm, private, in.EncryptedKeyMaterial)
	switch {
	case errors.Is(err, keyspec.ErrDecryption):
		return nil, kms.ErrInvalidCiphertext()
	case err != nil:
		return nil, kms.Errorf(kms.CodeIncorrectKeyMaterial, "The key material is not what key spec %s needs.", k.Spec)
	}
	return secret, nil
}

// addImported stores imported material: the key's first, one that was there before, or the next.
func (o importOperations) addImported(r *request, k *catalog.Key, in *kms.ImportKeyMaterialInput, secret []byte, validTo time.Time) (*kms.ImportKeyMaterialOutput, error) {
	id := material.NewID(k.ID, secret)
	if in.KeyMaterialId != "" && in.KeyMaterialId != id.String() {
		return nil, kms.Errorf(kms.CodeIncorrectKeyMaterial, "The key material is not that of ID %s.", in.KeyMaterialId)
	}
	changed := k.Key
	changed.Materials = slices.Clone(k.Materials)
	at := slices.IndexFunc(changed.Materials, func(m store.Material) bool { return m.ID == id })
	switch {
	case at < 0 && in.ImportType == existingOne, at < 0 && len(k.Materials) > 0 && in.ImportType != newOne:
		return nil, kms.Errorf(kms.CodeIncorrectKeyMaterial, "The key material is not the one that was imported before.")
	case at < 0:
		if err := k.TakesNext(); err != nil {
			return nil, err
		}
		at = len(changed.Materials)
		changed.Materials = append(changed.Materials, store.Material{ID: id, Pending: at > 0})
	}
	m := &changed.Materials[at]
	wasPresent := m.Present
	m.Present, m.ValidTo = true, validTo
	if in.KeyMaterialDescription != "" {
		m.Description = in.KeyMaterialDescription
	}
	if changed.Current < 0 {
		changed.Current = at
	}
	if err := setPublicKey(k, &changed, secret); err != nil {
		return nil, err
	}
	if k.IsIn(kms.StatePendingImport) && !catalog.LacksMaterial(&changed) {
		changed.State = kms.StateEnabled
	}
	r.response = append(r.response, audit.Text("keyId", k.ARN), audit.Text("keyMaterialId", id.String()))
	var made *material.Plain
	if !wasPresent {
		made = &material.Plain{Key: k.ID, ID: id, Secret: bytes.Clone(secret)}
		defer made.Wipe()
	}
	err := o.changeMaterial(r, made, func(tx *store.Tx) error { return cmp.Or(tx.PutKey(&changed), noteDue(tx, &changed)) }, k.ID)
	if err != nil {
		return nil, err
	}
	return &kms.ImportKeyMaterialOutput{KeyId: k.ARN, KeyMaterialId: id.String()}, nil
}

func setPublicKey(k *catalog.Key, changed *store.Key, secret []byte) (err error) {
	if k.KeySpec.Asymmetric() {
		changed.PublicKey, err = k.KeySpec.PublicKey(secret)
	}
	return err
}

func (o importOperations) deleteImportedKeyMaterial(r *request, in *kms.DeleteImportedKeyMaterialInput) (*kms.DeleteImportedKeyMaterialOutput, error) {
	r.readOnly = false
	if err := checkMaterialID(in.KeyMaterialId); err != nil {
		return nil, err
	}
	o.changes.Lock()
	defer o.changes.Unlock()
	k, err := o.named(r, "kms:DeleteImportedKeyMaterial", in.KeyId)
	if err != nil {
		return nil, err
	}
	if err := k.Imports(); err != nil {
		return nil, err
	}
	if k.Current < 0 {
		return &kms.DeleteImportedKeyMaterialOutput{KeyId: k.ARN}, nil // as AWS, without effect
	}
	id := k.Materials[k.Current].ID
	if in.KeyMaterialId != "" {
		if err := id.UnmarshalText([]byte(in.KeyMaterialId)); err != nil {
			return nil, err
		}
	}
	if !slices.ContainsFunc(k.Materials, func(m store.Material) bool { return m.ID == id }) {
		return nil, kms.Errorf(kms.CodeNotFound, "%s has no key material %s", k.ARN, id)
	}
	if err := dueWork(o).dropMaterial(r, k, id); err != nil {
		return nil, err
	}
	return &kms.DeleteImportedKeyMaterialOutput{KeyId: k.ARN, KeyMaterialId: id.String()}, nil
}
