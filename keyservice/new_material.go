package keyservice

import (
	"cmp"
	"fmt"

	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/keyspec"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/material"
	"kmsfs/keyservice/store"
)

// generateMaterial makes a material for a key, as the key's next and current one. For RSA keys it takes its time: no lock is to be held.
func (s *Service) generateMaterial(r *request, k *store.Key) (*material.Plain, error) {
	spec, ok := keyspec.Find(k.Spec)
	if !ok {
		return nil, kms.Errorf(kms.CodeInternal, "unknown key spec %s", k.Spec)
	}
	secret, err := s.generator.Generate(r.ctx, spec)
	if err != nil {
		return nil, err
	}
	made := &material.Plain{Key: k.ID, ID: material.NewID(k.ID, secret), Secret: secret}
	if spec.Asymmetric() {
		if k.PublicKey, err = spec.PublicKey(secret); err != nil {
			made.Wipe()
			return nil, err
		}
	}
	k.Materials = append(k.Materials, store.Material{ID: made.ID, Present: true})
	k.Current = len(k.Materials) - 1
	if spec.Symmetric() {
		r.response = append(r.response, audit.Text("keyMaterialId", made.ID.String()))
	}
	return made, nil
}

// changeMaterial makes a change that adds a material; nil for none. The caller holds s.changes.
func (s *Service) changeMaterial(r *request, m *material.Plain, f func(*store.Tx) error, keys ...store.KeyID) error {
	if m == nil {
		return s.change(r, f, keys...)
	}
	slot, content, err := s.slots.Take()
	if err != nil {
		return fmt.Errorf("write the slots: %w", err)
	}
	defer clear(content[:])
	wrapped, err := s.ring.Wrap(slot, content[:], m.Key, m.ID, m.Secret)
	if err != nil {
		return err
	}
	err = s.change(r, func(tx *store.Tx) error {
		return cmp.Or(f(tx), tx.PutSecret(m.Key, m.ID, wrapped))
	}, keys...)
	if err != nil {
		_ = s.slots.Erase(slot) // if it can't be, nothing is lost but its place
		return err
	}
	return nil
}
