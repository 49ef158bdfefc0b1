package store

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"go.etcd.io/bbolt"
)

// KeyID is a KMS key's ID.
type KeyID = uuid.UUID

// MaterialID names one key material of a key.
type MaterialID [32]byte

// Key is a KMS key without its material. Its text fields hold AWS's names.
type Key struct {
	ID          KeyID     `json:"-"`
	Description string    `json:"description,omitempty"`
	Spec        string    `json:"spec"`
	Usage       string    `json:"usage"`
	Origin      string    `json:"origin"`
	State       string    `json:"state"`
	Created     time.Time `json:"created"`
	// Current is the material that encrypts; the key's others only decrypt.
	Current MaterialID `json:"-"`
}

// Material is a key material, wrapped by the root key.
type Material struct {
	Key     KeyID
	ID      MaterialID
	Wrapped []byte
}

// Alias is another name of a key.
type Alias struct {
	// Name begins with "alias/".
	Name    string    `json:"-"`
	Target  KeyID     `json:"target"`
	Created time.Time `json:"created"`
	Updated time.Time `json:"updated"`
}

// Contents is all that a store holds.
type Contents struct {
	// Home is what Create was given.
	Home      []byte
	Keys      []Key
	Materials []Material
	Aliases   []Alias
}

// keyRecord is a key as it is stored.
type keyRecord struct {
	Key
	CurrentMaterial []byte `json:"currentMaterial"`
}

// Tx is a change under way.
type Tx struct{ tx *bbolt.Tx }

// PutKey stores a key in place of the one with its ID, if there is one.
func (t *Tx) PutKey(k *Key) error {
	return t.put(keyBucket, k.ID[:], keyRecord{*k, k.Current[:]})
}

// PutMaterial stores a key's material.
func (t *Tx) PutMaterial(m *Material) error {
	return t.tx.Bucket([]byte(materialBucket)).Put(materialKey(m.Key, m.ID), m.Wrapped)
}

// PutAlias stores an alias in place of the one of that name, if there is one.
func (t *Tx) PutAlias(a *Alias) error { return t.put(aliasBucket, []byte(a.Name), a) }

// DeleteAlias removes the alias of that name, if there is one.
func (t *Tx) DeleteAlias(name string) error {
	return t.tx.Bucket([]byte(aliasBucket)).Delete([]byte(name))
}

func (t *Tx) put(bucket string, key []byte, record any) error {
	value, err := json.Marshal(record)
	if err != nil {
		return err
	}
	return t.tx.Bucket([]byte(bucket)).Put(key, value)
}

func materialKey(key KeyID, id MaterialID) []byte { return append(key[:], id[:]...) }

// load reads and checks all that the store holds.
func load(db *bbolt.DB) (*Contents, error) {
	c := &Contents{}
	err := db.View(func(tx *bbolt.Tx) error {
		for name, read := range map[string]func(k, v []byte) error{
			metaBucket: c.addMeta, keyBucket: c.addKey, materialBucket: c.addMaterial, aliasBucket: c.addAlias,
		} {
			bucket := tx.Bucket([]byte(name))
			if bucket == nil {
				return fmt.Errorf("%w: no bucket %s", ErrDamaged, name)
			}
			if err := bucket.ForEach(read); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && c.Home == nil {
		err = fmt.Errorf("%w: the home's facts are missing", ErrDamaged)
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Contents) addMeta(key, value []byte) error {
	switch string(key) {
	case versionKey:
		if !bytes.Equal(value, []byte{version}) {
			return fmt.Errorf("%w: layout version %x, want %x", ErrDamaged, value, version)
		}
	case homeKey:
		c.Home = bytes.Clone(value)
	default:
		return fmt.Errorf("%w: unknown fact %q", ErrDamaged, key)
	}
	return nil
}

func (c *Contents) addKey(key, value []byte) error {
	var r keyRecord
	if err := decode(value, &r); err != nil {
		return fmt.Errorf("%w: key %x: %w", ErrDamaged, key, err)
	}
	if len(key) != len(r.ID) || len(r.CurrentMaterial) != len(r.Current) {
		return fmt.Errorf("%w: key %x: an ID has the wrong length", ErrDamaged, key)
	}
	copy(r.ID[:], key)
	copy(r.Current[:], r.CurrentMaterial)
	c.Keys = append(c.Keys, r.Key)
	return nil
}

func (c *Contents) addMaterial(key, value []byte) error {
	m := Material{Wrapped: bytes.Clone(value)}
	if len(key) != len(m.Key)+len(m.ID) {
		return fmt.Errorf("%w: key material %x: got %d bytes of ID, want %d", ErrDamaged, key, len(key), len(m.Key)+len(m.ID))
	}
	copy(m.Key[:], key)
	copy(m.ID[:], key[len(m.Key):])
	c.Materials = append(c.Materials, m)
	return nil
}

func (c *Contents) addAlias(key, value []byte) error {
	a := Alias{Name: string(key)}
	if err := decode(value, &a); err != nil {
		return fmt.Errorf("%w: alias %q: %w", ErrDamaged, key, err)
	}
	c.Aliases = append(c.Aliases, a)
	return nil
}

// decode is strict, so that a store with fields of a later version is not taken for one without.
func decode(value []byte, record any) error {
	d := json.NewDecoder(bytes.NewReader(value))
	d.DisallowUnknownFields()
	return d.Decode(record)
}
