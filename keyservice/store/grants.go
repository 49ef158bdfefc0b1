package store

import "fmt"

// grantCounter is what a key's grants are counted under.
func grantCounter(key KeyID) []byte { return join([]byte("grants "), key[:]) }

// Grant returns a grant; nil if there is none of the ID.
func (t *Tx) Grant(key KeyID, id GrantID) (*Grant, error) {
	g := &Grant{Key: key, ID: id}
	if ok, err := t.get(grantBucket, join(key[:], id[:]), g); !ok || err != nil {
		return nil, err
	}
	return g, nil
}

// AddGrant stores a new grant. Of those with a name, parameters stand for what makes it the same
// grant.
func (t *Tx) AddGrant(g *Grant, parameters string) error {
	id := join(g.Key[:], g.ID[:])
	if err := t.bucket(granteeBucket).Put(join(g.Key[:], digest(g.Grantee), g.ID[:]), nil); err != nil {
		return err
	}
	if g.Retirer != "" {
		if err := t.bucket(retirerBucket).Put(join(digest(g.Retirer), id), nil); err != nil {
			return err
		}
	}
	if g.Name != "" {
		if err := t.bucket(nameBucket).Put(join(g.Key[:], digest(parameters)), g.ID[:]); err != nil {
			return err
		}
	}
	if err := t.count(grantCounter(g.Key), 1); err != nil {
		return err
	}
	return t.put(grantBucket, id, g)
}

// NamedGrant returns the grant of those parameters that AddGrant stored; nil if there is none.
func (t *Tx) NamedGrant(key KeyID, parameters string) (*Grant, error) {
	value := t.bucket(nameBucket).Get(join(key[:], digest(parameters)))
	var id GrantID
	if len(value) != len(id) {
		return nil, nil
	}
	copy(id[:], value)
	return t.Grant(key, id)
}

// DeleteGrant removes a grant, if it is there. What NamedGrant finds it by may stay: it finds
// nothing then.
func (t *Tx) DeleteGrant(key KeyID, id GrantID) error {
	g, err := t.Grant(key, id)
	if g == nil || err != nil {
		return err
	}
	if err := t.bucket(granteeBucket).Delete(join(key[:], digest(g.Grantee), id[:])); err != nil {
		return err
	}
	if g.Retirer != "" {
		if err := t.bucket(retirerBucket).Delete(join(digest(g.Retirer), key[:], id[:])); err != nil {
			return err
		}
	}
	if err := t.count(grantCounter(key), -1); err != nil {
		return err
	}
	return t.bucket(grantBucket).Delete(join(key[:], id[:]))
}

// GrantCount is the number of a key's grants.
func (t *Tx) GrantCount(key KeyID) int { return t.counted(grantCounter(key)) }

// Grants calls f with a key's grants whose IDs come behind after, in their order, as long as it
// returns true.
func (t *Tx) Grants(key KeyID, after *GrantID, f func(*Grant) bool) error {
	return t.within(grantBucket, key[:], afterGrant(after), t.grants(key, f))
}

// GranteeGrants calls f with a grantee's grants for a key, behind after, as long as it returns
// true.
func (t *Tx) GranteeGrants(key KeyID, grantee string, after *GrantID, f func(*Grant) bool) error {
	return t.within(granteeBucket, join(key[:], digest(grantee)), afterGrant(after), t.grants(key, func(g *Grant) bool {
		return g.Grantee != grantee || f(g) // the index is not sealed, and does not decide
	}))
}

func afterGrant(after *GrantID) []byte {
	if after == nil {
		return nil
	}
	return after[:]
}

// grants makes f take what within finds: a grant's ID.
func (t *Tx) grants(key KeyID, f func(*Grant) bool) func(rest, _ []byte) (bool, error) {
	return func(rest, _ []byte) (bool, error) {
		var id GrantID
		if len(rest) != len(id) {
			return false, fmt.Errorf("%w: grant ID of %d bytes", ErrDamaged, len(rest))
		}
		copy(id[:], rest)
		g, err := t.Grant(key, id)
		if err != nil {
			return false, err
		}
		return g == nil || f(g), nil
	}
}

// RetirableGrants calls f with the grants of all keys that a principal may retire, behind the one
// of the key and ID, as long as it returns true.
func (t *Tx) RetirableGrants(retirer string, afterKey *KeyID, after *GrantID, f func(*Grant) bool) error {
	var from []byte
	if afterKey != nil {
		from = join(afterKey[:], afterGrant(after))
	}
	return t.within(retirerBucket, digest(retirer), from, func(rest, _ []byte) (bool, error) {
		var key KeyID
		if len(rest) < len(key) {
			return false, fmt.Errorf("%w: key ID of %d bytes", ErrDamaged, len(rest))
		}
		copy(key[:], rest)
		return t.grants(key, func(g *Grant) bool { return g.Retirer != retirer || f(g) })(rest[len(key):], nil)
	})
}

func (t *Tx) deleteGrants(key KeyID) error {
	var ids []GrantID
	err := t.Grants(key, nil, func(g *Grant) bool {
		ids = append(ids, g.ID)
		return true
	})
	for _, id := range ids {
		if err == nil {
			err = t.DeleteGrant(key, id)
		}
	}
	if err != nil {
		return err
	}
	return t.deleteWithin(nameBucket, key[:])
}
