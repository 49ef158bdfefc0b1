// Package catalog finds KMS keys and their aliases, and says what a key can be used for.
package catalog

import (
	"fmt"
	"sync"

	"kmsfs/keyservice/authz"
	"kmsfs/keyservice/home"
	"kmsfs/keyservice/keyspec"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/material"
	"kmsfs/keyservice/store"
	"kmsfs/policy"
)

// Catalog finds keys and aliases, and keeps those in memory that were used of late. It is safe for
// concurrent use.
type Catalog struct {
	names    kms.ARNs
	ring     *material.Keyring
	store    *store.Store
	slots    *store.Slots
	policies *authz.Policies

	mu         sync.RWMutex // guards what follows
	generation uint64       // counts changes, so that what was read before one is not kept after it
	keys       map[store.KeyID]*Key
	aliases    map[string]store.KeyID
}

// New returns the catalog of an open home.
func New(h *home.Home, names kms.ARNs, policies *authz.Policies) *Catalog {
	return &Catalog{names: names, ring: h.Ring, store: h.Store, slots: h.Slots, policies: policies}
}

// load reads a key with all that is its own; nil if there is none of the ID.
func (c *Catalog) load(tx *store.Tx, id store.KeyID) (*Key, error) {
	record, err := tx.Key(id)
	if record == nil || err != nil {
		return nil, err
	}
	spec, ok := keyspec.Find(record.Spec)
	if !ok {
		return nil, fmt.Errorf("%w: key %s: unknown key spec %q", home.ErrDamaged, id, record.Spec)
	}
	k := &Key{
		Resource: authz.Resource{Key: *record, ARN: c.names.Key(id)},
		KeySpec:  spec,
		Present:  map[store.MaterialID]*material.Material{},
	}
	if tx.GrantCount(id) > 0 {
		k.Grants = authz.NewGrants(func(p policy.Principal) ([]*store.Grant, error) { return c.grantsOf(id, p) })
	}
	if spec.Symmetric() && k.Current >= 0 {
		k.CurrentID = k.Materials[k.Current].ID.String()
	}
	if err := c.loadMaterials(tx, k); err != nil {
		return nil, err
	}
	if k.Policy, err = c.loadPolicy(tx, k); err != nil {
		return nil, err
	}
	return k, tx.KeyAliases(id, "", func(a *store.Alias) bool {
		k.Aliases = append(k.Aliases, a.Name)
		return true
	})
}

func (c *Catalog) loadMaterials(tx *store.Tx, k *Key) error {
	for _, m := range k.Materials {
		if !m.Present {
			continue
		}
		wrapped, err := tx.Secret(k.ID, m.ID)
		if err != nil {
			return err
		}
		if k.Present[m.ID], err = c.loadMaterial(k.ID, m, wrapped); err != nil {
			return fmt.Errorf("%w: key %s: material %s: %w", home.ErrDamaged, k.ID, m.ID, err)
		}
	}
	return nil
}

func (c *Catalog) loadMaterial(id store.KeyID, m store.Material, wrapped []byte) (*material.Material, error) {
	slot, _, err := material.Slot(wrapped)
	if err != nil {
		return nil, err
	}
	content, err := c.slots.Read(slot)
	if err != nil {
		return nil, err
	}
	defer clear(content[:])
	return c.ring.Load(content[:], id, m, wrapped)
}

func (c *Catalog) loadPolicy(tx *store.Tx, k *Key) (*policy.Document, error) {
	if k.Manager == kms.ManagerService {
		return c.policies.Managed, nil
	}
	text, err := tx.KeyPolicy(k.ID)
	if err != nil || text == nil {
		return c.policies.Standard, err
	}
	document, err := authz.Scope(c.names, nil).Parse(string(text))
	if err != nil {
		return nil, fmt.Errorf("%w: key %s: policy: %w", home.ErrDamaged, k.ID, err)
	}
	return document, nil
}

// grantsOf reads a principal's grants for a key.
func (c *Catalog) grantsOf(id store.KeyID, p policy.Principal) (found []*store.Grant, err error) {
	err = c.store.View(func(tx *store.Tx) error {
		return tx.GranteeGrants(id, p.ARN(c.names.Account), nil, func(g *store.Grant) bool {
			found = append(found, g)
			return true
		})
	})
	return found, err
}

// maxCached bounds the number of keys, and that of aliases, in the cache.
const maxCached = 10_000

// Find returns the key of the ID; nil if there is none.
func (c *Catalog) Find(id store.KeyID) (*Key, error) {
	c.mu.RLock()
	k, generation := c.keys[id], c.generation
	c.mu.RUnlock()
	if k != nil {
		return k, nil
	}
	err := c.store.View(func(tx *store.Tx) (err error) {
		k, err = c.load(tx, id)
		return err
	})
	if k == nil || err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.generation == generation {
		c.keys = withRoom(c.keys)
		c.keys[id] = k
	}
	return k, nil
}

// Target returns what key an alias names; false if there is no such alias.
func (c *Catalog) Target(alias string) (id store.KeyID, ok bool, err error) {
	c.mu.RLock()
	id, ok = c.aliases[alias]
	generation := c.generation
	c.mu.RUnlock()
	if ok {
		return id, true, nil
	}
	var found *store.Alias
	err = c.store.View(func(tx *store.Tx) (err error) {
		found, err = tx.Alias(alias)
		return err
	})
	if found == nil || err != nil {
		return id, false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.generation == generation {
		c.aliases = withRoom(c.aliases)
		c.aliases[alias] = found.Target
	}
	return found.Target, true, nil
}

// withRoom returns the map with room for one more, dropping any others if need be.
func withRoom[K comparable, V any](m map[K]V) map[K]V {
	if m == nil {
		return map[K]V{}
	}
	for k := range m {
		if len(m) < maxCached {
			break
		}
		delete(m, k)
	}
	return m
}

// Forget drops what a change has made out of date: keys, and all aliases of the names.
func (c *Catalog) Forget(ids []store.KeyID, aliases ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.generation++
	for _, id := range ids {
		delete(c.keys, id)
	}
	for _, name := range aliases {
		delete(c.aliases, name)
	}
}

// Named finds the key that an ID or ARN names; aliases are denied, as by AWS's administrative operations.
func (c *Catalog) Named(id string) (*Key, error) {
	local, err := c.names.Local(id)
	if err != nil {
		return nil, err
	}
	return c.ByID(local)
}

// ByID finds the key that an ID names.
func (c *Catalog) ByID(id string) (*Key, error) {
	parsed, err := kms.ParseKeyID(id)
	if err != nil {
		return nil, err
	}
	return c.Existing(parsed)
}

// Existing returns the key of the ID, unless it is the key service's own.
func (c *Catalog) Existing(id store.KeyID) (*Key, error) {
	k, err := c.Find(id)
	if err != nil {
		return nil, err
	}
	if k == nil || k.Manager == kms.ManagerOwned {
		return nil, kms.Errorf(kms.CodeNotFound, "Key '%s' does not exist", c.names.Key(id))
	}
	return k, nil
}

// Any returns a key that is there, whoever manages it.
func (c *Catalog) Any(id store.KeyID) (*Key, error) {
	k, err := c.Find(id)
	if err == nil && k == nil {
		err = kms.Errorf(kms.CodeNotFound, "Key '%s' does not exist", c.names.Key(id))
	}
	return k, err
}
