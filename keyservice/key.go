package keyservice

import (
	"fmt"
	"slices"
	"sync"

	"kmsfs/keyservice/authz"
	"kmsfs/keyservice/home"
	"kmsfs/keyservice/keyspec"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/material"
	"kmsfs/keyservice/store"
	"kmsfs/policy"
)

// key is a KMS key in memory, with all that its use needs. It is dropped when it changes, never changed.
type key struct {
	authz.Resource
	spec *keyspec.Spec
	// currentID is the current material's ID in text; empty if there is none.
	currentID string
	// materials are those that are present.
	materials map[store.MaterialID]*material.Material
}

// load reads a key with all that is its own; nil if there is none of the ID.
func (s *Service) load(tx *store.Tx, id store.KeyID) (*key, error) {
	record, err := tx.Key(id)
	if record == nil || err != nil {
		return nil, err
	}
	spec, ok := keyspec.Find(record.Spec)
	if !ok {
		return nil, fmt.Errorf("%w: key %s: unknown key spec %q", home.ErrDamaged, id, record.Spec)
	}
	k := &key{
		Resource:  authz.Resource{Key: *record, ARN: s.names.Key(id)},
		spec:      spec,
		materials: map[store.MaterialID]*material.Material{},
	}
	if tx.GrantCount(id) > 0 {
		k.Grants = authz.NewGrants(func(p policy.Principal) ([]*store.Grant, error) { return s.grantsOf(id, p) })
	}
	if spec.Symmetric() && k.Current >= 0 {
		k.currentID = k.Materials[k.Current].ID.String()
	}
	if err := s.loadMaterials(tx, k); err != nil {
		return nil, err
	}
	if k.Policy, err = s.loadPolicy(tx, k); err != nil {
		return nil, err
	}
	return k, tx.KeyAliases(id, "", func(a *store.Alias) bool {
		k.Aliases = append(k.Aliases, a.Name)
		return true
	})
}

func (s *Service) loadMaterials(tx *store.Tx, k *key) error {
	for _, m := range k.Materials {
		if !m.Present {
			continue
		}
		wrapped, err := tx.Secret(k.ID, m.ID)
		if err != nil {
			return err
		}
		if k.materials[m.ID], err = s.loadMaterial(k.ID, m, wrapped); err != nil {
			return fmt.Errorf("%w: key %s: material %s: %w", home.ErrDamaged, k.ID, m.ID, err)
		}
	}
	return nil
}

func (s *Service) loadMaterial(id store.KeyID, m store.Material, wrapped []byte) (*material.Material, error) {
	slot, _, err := material.Slot(wrapped)
	if err != nil {
		return nil, err
	}
	content, err := s.slots.Read(slot)
	if err != nil {
		return nil, err
	}
	defer clear(content[:])
	return s.ring.Load(content[:], id, m, wrapped)
}

func (s *Service) loadPolicy(tx *store.Tx, k *key) (*policy.Document, error) {
	if k.Manager == kms.ManagerService {
		return s.authz.Policies.Managed, nil
	}
	text, err := tx.KeyPolicy(k.ID)
	if err != nil || text == nil {
		return s.authz.Policies.Standard, err
	}
	document, err := authz.Scope(s.names, nil).Parse(string(text))
	if err != nil {
		return nil, fmt.Errorf("%w: key %s: policy: %w", home.ErrDamaged, k.ID, err)
	}
	return document, nil
}

// current is the material that encrypts; nil if it is not there.
func (k *key) current() *material.Material {
	if k.Current < 0 {
		return nil
	}
	return k.materials[k.Materials[k.Current].ID]
}

// grantsOf reads a principal's grants for a key.
func (s *Service) grantsOf(id store.KeyID, p policy.Principal) (found []*store.Grant, err error) {
	err = s.store.View(func(tx *store.Tx) error {
		return tx.GranteeGrants(id, p.ARN(s.facts.Account), nil, func(g *store.Grant) bool {
			found = append(found, g)
			return true
		})
	})
	return found, err
}

// cache has the keys and aliases that were used of late.
type cache struct {
	mu         sync.RWMutex // guards what follows
	generation uint64       // counts changes, so that what was read before one is not kept after it
	keys       map[store.KeyID]*key
	aliases    map[string]store.KeyID
}

// maxCached bounds the number of keys, and that of aliases, in the cache.
const maxCached = 10_000

// key returns the key of the ID; nil if there is none.
func (s *Service) key(id store.KeyID) (*key, error) {
	s.cache.mu.RLock()
	k, generation := s.cache.keys[id], s.cache.generation
	s.cache.mu.RUnlock()
	if k != nil {
		return k, nil
	}
	err := s.store.View(func(tx *store.Tx) (err error) {
		k, err = s.load(tx, id)
		return err
	})
	if k == nil || err != nil {
		return nil, err
	}
	s.cache.mu.Lock()
	defer s.cache.mu.Unlock()
	if s.cache.generation == generation {
		s.cache.keys = withRoom(s.cache.keys)
		s.cache.keys[id] = k
	}
	return k, nil
}

// target returns what key an alias names; false if there is no such alias.
func (s *Service) target(alias string) (id store.KeyID, ok bool, err error) {
	s.cache.mu.RLock()
	id, ok = s.cache.aliases[alias]
	generation := s.cache.generation
	s.cache.mu.RUnlock()
	if ok {
		return id, true, nil
	}
	var found *store.Alias
	err = s.store.View(func(tx *store.Tx) (err error) {
		found, err = tx.Alias(alias)
		return err
	})
	if found == nil || err != nil {
		return id, false, err
	}
	s.cache.mu.Lock()
	defer s.cache.mu.Unlock()
	if s.cache.generation == generation {
		s.cache.aliases = withRoom(s.cache.aliases)
		s.cache.aliases[alias] = found.Target
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

// forget drops what a change has made out of date: keys, and all aliases of the names.
func (c *cache) forget(ids []store.KeyID, aliases ...string) {
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

// isIn says whether the key is in one of the states.
func (k *key) isIn(states ...string) bool { return slices.Contains(states, k.State) }

// notIn refuses what can't be done in those states.
func (k *key) notIn(states ...string) error {
	if !k.isIn(states...) {
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

// usable says whether the key's state allows its use.
func (k *key) usable() error {
	if k.State == kms.StateEnabled {
		return nil
	}
	return k.notIn(kms.StateDisabled, kms.StatePendingDeletion, kms.StatePendingImport)
}

// serves says whether the key is for the usage that an operation ("Encrypt") makes of it.
func (k *key) serves(operation, usage string) error {
	if k.Usage != usage {
		return kms.Errorf(kms.CodeInvalidKeyUsage, "%s key usage is %s which is not valid for %s.", k.ARN, k.Usage, operation)
	}
	return nil
}
