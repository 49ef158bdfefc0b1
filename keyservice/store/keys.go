package store

import "fmt"

// keyCounter is what keys are counted under.
var keyCounter = []byte("keys")

// Key returns a key; nil if there is none of the ID.
func (t *Tx) Key(id KeyID) (*Key, error) {
	k := &Key{ID: id}
	if ok, err := t.get(keyBucket, id[:], k); !ok || err != nil {
		return nil, err
	}
	if k.Current < -1 || k.Current >= len(k.Materials) {
		return nil, fmt.Errorf("%w: key %s: no material %d", ErrDamaged, id, k.Current)
	}
	return k, nil
}

// AddKey stores a new key.
func (t *Tx) AddKey(k *Key) error {
	if err := t.count(keyCounter, 1); err != nil {
		return err
	}
	return t.PutKey(k)
}

// PutKey stores a key in place of the one with its ID.
func (t *Tx) PutKey(k *Key) error { return t.put(keyBucket, k.ID[:], k) }

// KeyCount is the number of keys.
func (t *Tx) KeyCount() int { return t.counted(keyCounter) }

// Keys calls f with the IDs that come behind after, in their order, as long as it returns true.
func (t *Tx) Keys(after *KeyID, f func(KeyID) bool) error {
	var from []byte
	if after != nil {
		from = after[:]
	}
	return t.within(keyBucket, nil, from, func(rest, _ []byte) (bool, error) {
		var id KeyID
		if len(rest) != len(id) {
			return false, fmt.Errorf("%w: key ID of %d bytes", ErrDamaged, len(rest))
		}
		copy(id[:], rest)
		return f(id), nil
	})
}

// DeleteKey removes a key with its policy, aliases, grants and all else that is its own; the
// materials' slots are to be erased before.
func (t *Tx) DeleteKey(id KeyID) error {
	if t.bucket(keyBucket).Get(id[:]) == nil {
		return nil
	}
	for _, remove := range []func(KeyID) error{t.deleteMaterials, t.deleteAliases, t.deleteGrants} {
		if err := remove(id); err != nil {
			return err
		}
	}
	for _, bucket := range []string{policyBucket, usageBucket, keyBucket} {
		if err := t.bucket(bucket).Delete(id[:]); err != nil {
			return err
		}
	}
	return t.count(keyCounter, -1)
}

// Secret returns a material's secret as PutSecret was given it; nil if there is none.
func (t *Tx) Secret(key KeyID, id MaterialID) ([]byte, error) {
	return t.unseal(materialBucket, join(key[:], id[:]))
}

// PutSecret stores a material's secret, which is wrapped.
func (t *Tx) PutSecret(key KeyID, id MaterialID, wrapped []byte) error {
	return t.seal(materialBucket, join(key[:], id[:]), wrapped)
}

// DeleteSecret removes a material's secret.
func (t *Tx) DeleteSecret(key KeyID, id MaterialID) error {
	return t.bucket(materialBucket).Delete(join(key[:], id[:]))
}

// Secrets calls f with each secret of a key.
func (t *Tx) Secrets(key KeyID, f func(id MaterialID, wrapped []byte) error) error {
	return t.within(materialBucket, key[:], nil, func(rest, value []byte) (bool, error) {
		var id MaterialID
		copy(id[:], rest)
		wrapped, err := t.open(materialBucket, join(key[:], rest), value)
		if err != nil {
			return false, err
		}
		return true, f(id, wrapped)
	})
}

func (t *Tx) deleteMaterials(key KeyID) error { return t.deleteWithin(materialBucket, key[:]) }

// deleteWithin removes all of a bucket whose keys begin with the prefix.
func (t *Tx) deleteWithin(bucket string, prefix []byte) error {
	var all [][]byte
	err := t.within(bucket, prefix, nil, func(rest, _ []byte) (bool, error) {
		all = append(all, join(prefix, rest))
		return true, nil
	})
	for _, k := range all {
		if err == nil {
			err = t.bucket(bucket).Delete(k)
		}
	}
	return err
}

// KeyPolicy is a key's policy; nil if none was put.
func (t *Tx) KeyPolicy(id KeyID) ([]byte, error) { return t.unseal(policyBucket, id[:]) }

// PutKeyPolicy stores a key's policy.
func (t *Tx) PutKeyPolicy(id KeyID, document []byte) error {
	return t.seal(policyBucket, id[:], document)
}

// Usage is a key's last use; nil if none is stored.
func (t *Tx) Usage(id KeyID) (*Usage, error) {
	u := &Usage{}
	if ok, err := t.get(usageBucket, id[:], u); !ok || err != nil {
		return nil, err
	}
	return u, nil
}

// PutUsage stores a key's last use.
func (t *Tx) PutUsage(id KeyID, u *Usage) error { return t.put(usageBucket, id[:], u) }
