package catalog

import (
	"slices"

	"kmsfs/keyservice/authz"
	"kmsfs/keyservice/keyspec"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/material"
	"kmsfs/keyservice/store"
)

// Key is a KMS key in memory, with all that its use needs. It is dropped when it changes, never changed.
type Key struct {
	authz.Resource
	KeySpec *keyspec.Spec
	// CurrentID is the current material's ID in text; empty if there is none.
	CurrentID string
	// materials are those that are present.
	Present map[store.MaterialID]*material.Material
}

// CurrentMaterial is the material that encrypts; nil if it is not there.
func (k *Key) CurrentMaterial() *material.Material {
	if k.Current < 0 {
		return nil
	}
	return k.Present[k.Materials[k.Current].ID]
}

// IsIn says whether the key is in one of the states.
func (k *Key) IsIn(states ...string) bool { return slices.Contains(states, k.State) }

// NotIn refuses what can't be done in those states.
func (k *Key) NotIn(states ...string) error {
	if !k.IsIn(states...) {
		return nil
	}
	switch k.State {
	case kms.StateDisabled:
		return kms.Errorf(kms.CodeDisabled, "%s is disabled.", k.ARN)
	case kms.StatePendingDeletion:
		return kms.Errorf(kms.CodeKMSInvalidState, "%s is pending deletion.", k.ARN)
	}
	return kms.Errorf(kms.CodeKMSInvalidState, "%s is pending import.", k.ARN)
}

// Usable says whether the key's state allows its use.
func (k *Key) Usable() error {
	if k.State == kms.StateEnabled {
		return nil
	}
	return k.NotIn(kms.StateDisabled, kms.StatePendingDeletion, kms.StatePendingImport)
}

// Serves says whether the key is for the usage that an operation ("Encrypt") makes of it.
func (k *Key) Serves(operation, usage string) error {
	if k.Usage != usage {
		return kms.Errorf(kms.CodeInvalidKeyUsage, "%s key usage is %s which is not valid for %s.", k.ARN, k.Usage, operation)
	}
	return nil
}
