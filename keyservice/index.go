package keyservice

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"kmsfs/keyservice/store"
)

// The states of keys.
const (
	stateEnabled  = "Enabled"
	stateDisabled = "Disabled"
)

// key is a KMS key as the index has it. It is replaced when it changes, never changed.
type key struct {
	store.Key
	// arn is the key's, and currentID the current material's ID in text: every use of the key needs both.
	arn, currentID string
	materials      map[store.MaterialID]*material
}

// newKey returns a key without materials.
func newKey(k store.Key, n names) *key {
	return &key{k, n.key(k.ID), hexText(k.Current), map[store.MaterialID]*material{}}
}

// withState is the key in another state.
func (k *key) withState(state string) *key {
	changed := *k
	changed.State = state
	return &changed
}

func (k *key) current() *material { return k.materials[k.Current] }

// index has all of the store in memory, so that uses of keys needn't read it.
type index struct {
	mu       sync.RWMutex
	keys     map[store.KeyID]*key
	aliases  map[string]store.Alias
	keyIDs   []store.KeyID // sorted
	aliasIDs []string      // sorted
}

// newIndex takes over what the store holds, after checking that it fits together and that the root key opens every material.
func newIndex(c *store.Contents, ring *keyring, n names) (*index, error) {
	x := &index{keys: map[store.KeyID]*key{}, aliases: map[string]store.Alias{}}
	for _, k := range c.Keys {
		x.keys[k.ID] = newKey(k, n)
		x.keyIDs = append(x.keyIDs, k.ID)
	}
	for _, m := range c.Materials {
		owner := x.keys[m.Key]
		if owner == nil {
			return nil, fmt.Errorf("%w: key material of a missing key %s", ErrDamagedHome, m.Key)
		}
		loaded := newMaterial(m.Key, m.ID, m.Wrapped)
		if err := ring.use(loaded, func([]byte) error { return nil }); err != nil {
			return nil, fmt.Errorf("%w: key %s: material %x does not open", ErrDamagedHome, m.Key, m.ID)
		}
		owner.materials[m.ID] = loaded
	}
	for _, k := range x.keys {
		if err := k.check(); err != nil {
			return nil, fmt.Errorf("%w: key %s: %w", ErrDamagedHome, k.ID, err)
		}
	}
	for _, a := range c.Aliases {
		if x.keys[a.Target] == nil {
			return nil, fmt.Errorf("%w: %s names a missing key %s", ErrDamagedHome, a.Name, a.Target)
		}
		x.aliases[a.Name] = a
		x.aliasIDs = append(x.aliasIDs, a.Name)
	}
	slices.SortFunc(x.keyIDs, compareKeyIDs)
	slices.Sort(x.aliasIDs)
	return x, nil
}

// check refuses keys that this version can't have made.
func (k *key) check() error {
	switch {
	case k.Spec != specSymmetric || k.Usage != usageEncryption || k.Origin != originKMS:
		return fmt.Errorf("unknown kind: %s, %s, %s", k.Spec, k.Usage, k.Origin)
	case k.State != stateEnabled && k.State != stateDisabled:
		return fmt.Errorf("unknown state %q", k.State)
	case k.current() == nil:
		return errors.New("the current material is missing")
	}
	return nil
}

func compareKeyIDs(a, b store.KeyID) int { return slices.Compare(a[:], b[:]) }

func (x *index) key(id store.KeyID) *key {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.keys[id]
}

func (x *index) alias(name string) (store.Alias, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	a, ok := x.aliases[name]
	return a, ok
}

func (x *index) keyCount() int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return len(x.keys)
}

// aliasCount counts a key's aliases.
func (x *index) aliasCount(target store.KeyID) int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	n := 0
	for _, a := range x.aliases {
		if a.Target == target {
			n++
		}
	}
	return n
}

func (x *index) putKey(k *key) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.keys[k.ID] = k
	if at, found := slices.BinarySearchFunc(x.keyIDs, k.ID, compareKeyIDs); !found {
		x.keyIDs = slices.Insert(x.keyIDs, at, k.ID)
	}
}

func (x *index) putAlias(a store.Alias) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.aliases[a.Name] = a
	if at, found := slices.BinarySearch(x.aliasIDs, a.Name); !found {
		x.aliasIDs = slices.Insert(x.aliasIDs, at, a.Name)
	}
}

func (x *index) deleteAlias(name string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.aliases, name)
	if at, found := slices.BinarySearch(x.aliasIDs, name); found {
		x.aliasIDs = slices.Delete(x.aliasIDs, at, at+1)
	}
}

// keysAfter returns at most n IDs behind the given one, and whether there are more.
func (x *index) keysAfter(after store.KeyID, n int) ([]store.KeyID, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	at, found := slices.BinarySearchFunc(x.keyIDs, after, compareKeyIDs)
	if found {
		at++
	}
	rest := x.keyIDs[at:]
	return slices.Clone(rest[:min(n, len(rest))]), len(rest) > n
}

// aliasesAfter returns at most n aliases whose names come behind the given one and that match, and whether there are more.
func (x *index) aliasesAfter(after string, n int, match func(store.Alias) bool) (found []store.Alias, more bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	at, _ := slices.BinarySearchFunc(x.aliasIDs, after+"\x00", strings.Compare)
	for _, name := range x.aliasIDs[at:] {
		if a := x.aliases[name]; match(a) {
			if len(found) == n {
				return found, true
			}
			found = append(found, a)
		}
	}
	return found, false
}
