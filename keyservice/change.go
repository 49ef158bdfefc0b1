package keyservice

import (
	"cmp"
	"fmt"
	"time"

	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/keyspec"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/material"
	"kmsfs/keyservice/store"
)

// change makes a change durable, with its record, and only if that can be written. What f does is undone on an error. The keys are those that
// it changes. The caller holds c.changes.
func (c *core) change(r *request, f func(*store.Tx) error, keys ...store.KeyID) error {
	r.readOnly = false
	err := c.store.Update(func(tx *store.Tx) error {
		if err := f(tx); err != nil {
			return err
		}
		if err := c.record(r, nil); err != nil {
			return err
		}
		r.recorded = true
		return nil
	})
	c.catalog.Forget(keys)
	if err != nil {
		r.recorded, r.response = false, nil // the record that says otherwise is followed by one that says so
	}
	return err
}

// generateMaterial makes a material for a key, as the key's next and current one. For RSA keys it takes its time: no lock is to be held.
func (c *core) generateMaterial(r *request, k *store.Key) (*material.Plain, error) {
	spec, ok := keyspec.Find(k.Spec)
	if !ok {
		return nil, kms.Errorf(kms.CodeInternal, "unknown key spec %s", k.Spec)
	}
	secret, err := c.generator.Generate(r.ctx, spec)
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

// changeMaterial makes a change that adds a material; nil for none. The caller holds c.changes.
func (c *core) changeMaterial(r *request, m *material.Plain, f func(*store.Tx) error, keys ...store.KeyID) error {
	if m == nil {
		return c.change(r, f, keys...)
	}
	slot, content, err := c.slots.Take()
	if err != nil {
		return fmt.Errorf("write the slots: %w", err)
	}
	defer clear(content[:])
	wrapped, err := c.ring.Wrap(slot, content[:], m.Key, m.ID, m.Secret)
	if err != nil {
		return err
	}
	err = c.change(r, func(tx *store.Tx) error {
		return cmp.Or(f(tx), tx.PutSecret(m.Key, m.ID, wrapped))
	}, keys...)
	if err != nil {
		_ = c.slots.Erase(slot) // if it can't be, nothing is lost but its place
		return err
	}
	return nil
}

// noteDue schedules what is to happen to a key. What is there already, or holds no more, does no harm.
func noteDue(tx *store.Tx, k *store.Key) error {
	var err error
	if k.State == kms.StatePendingDeletion {
		err = tx.Remind(store.Due{Time: k.Deletion, Kind: store.DueDeletion, Key: k.ID})
	}
	if k.State == kms.StateEnabled && k.RotationPeriod > 0 {
		err = cmp.Or(err, tx.Remind(store.Due{Time: k.NextRotation, Kind: store.DueRotation, Key: k.ID}))
	}
	for _, m := range k.Materials {
		if m.Present && !m.ValidTo.IsZero() {
			err = cmp.Or(err, tx.Remind(store.Due{Time: m.ValidTo, Kind: store.DueExpiry, Key: k.ID}))
		}
	}
	return err
}

// millis is a time as it is stored: in UTC, with whole milliseconds.
func millis(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }
