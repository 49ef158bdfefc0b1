package catalog

import (
	"errors"
	"slices"

	"kmsfs/keyservice/keyspec"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/store"
)

// Fits says whether the key encrypts and decrypts by the algorithm. Only symmetric keys have use for an encryption context.
func (k *Key) Fits(operation, algorithm, member string, context map[string]string) error {
	if err := k.Serves(operation, kms.UsageEncryption); err != nil {
		return err
	}
	if !slices.Contains(k.KeySpec.EncryptionAlgorithms, algorithm) {
		return k.incompatible(algorithm)
	}
	if !k.KeySpec.Symmetric() && len(context) > 0 {
		return kms.Invalid(member, "", "Member must be empty for key spec %s", k.Spec)
	}
	return nil
}

// incompatible is the error for an algorithm of another key spec.
func (k *Key) incompatible(algorithm string) *kms.Error {
	return kms.Errorf(kms.CodeInvalidKeyUsage, "Algorithm %s is incompatible with key spec %s.", algorithm, k.Spec)
}

// CheckPlaintext returns an error for a plaintext that is too long for an RSA key.
func (k *Key) CheckPlaintext(algorithm string, plaintext []byte) error {
	if k.KeySpec.Symmetric() {
		return nil
	}
	if most := k.KeySpec.MaxPlaintext(algorithm); len(plaintext) > most {
		return kms.Errorf(kms.CodeValidation, "Algorithm %s and key spec %s cannot encrypt data larger than %d bytes.", algorithm, k.Spec, most)
	}
	return nil
}

// SpecError is what an error of package keyspec is to callers.
func (k *Key) SpecError(algorithm string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, keyspec.ErrAlgorithm):
		return k.incompatible(algorithm)
	case errors.Is(err, keyspec.ErrSignature):
		return &kms.Error{Code: kms.CodeKMSInvalidSignature}
	case errors.Is(err, keyspec.ErrMAC):
		return &kms.Error{Code: kms.CodeKMSInvalidMac}
	case errors.Is(err, keyspec.ErrDecryption):
		return kms.ErrInvalidCiphertext()
	case errors.Is(err, keyspec.ErrMaterial):
		return kms.Errorf(kms.CodeInternal, "the key material is damaged")
	}
	return kms.Errorf(kms.CodeValidation, "%v", err)
}

// Imports says whether material can be imported into the key.
func (k *Key) Imports() error {
	if k.Origin != kms.OriginExternal {
		return kms.Errorf(kms.CodeUnsupportedOperation, "%s origin is %s which is not valid for this operation.", k.ARN, k.Origin)
	}
	return nil
}

// TakesNext says whether new material can be imported: only symmetric keys ever have more than one, and one at a time awaits its rotation.
func (k *Key) TakesNext() error {
	switch {
	case len(k.Materials) == 0:
		return nil
	case !k.KeySpec.Symmetric():
		return kms.Errorf(kms.CodeIncorrectKeyMaterial, "The key material is not the one that was imported before.")
	case slices.ContainsFunc(k.Materials, func(m store.Material) bool { return m.Pending }):
		return kms.Errorf(kms.CodeKMSInvalidState, "%s has key material that is pending rotation already.", k.ARN)
	}
	return nil
}

// Rotates says whether keys of its kind are rotated at all.
func (k *Key) Rotates() error {
	if !k.KeySpec.Symmetric() {
		return kms.Errorf(kms.CodeUnsupportedOperation, "%s key spec is %s which is not valid for this operation.", k.ARN, k.Spec)
	}
	return nil
}

// RotatesItself says whether a key of its kind can be rotated by itself: imported material can't.
func (k *Key) RotatesItself() error {
	if err := k.Rotates(); err != nil {
		return err
	}
	if k.Origin == kms.OriginExternal {
		return kms.Errorf(kms.CodeUnsupportedOperation, "%s origin is %s which is not valid for this operation.", k.ARN, k.Origin)
	}
	return nil
}

// LacksMaterial says whether material that the key encrypts or decrypts with is missing.
func LacksMaterial(k *store.Key) bool {
	for _, m := range k.Materials {
		if !m.Present && !m.Pending {
			return true
		}
	}
	return k.Current < 0
}
