package store

// aliasCounter is what a key's aliases are counted under.
func aliasCounter(key KeyID) []byte { return join([]byte("aliases "), key[:]) }

// Alias returns an alias; nil if there is none of the name.
func (t *Tx) Alias(name string) (*Alias, error) {
	a := &Alias{Name: name}
	if ok, err := t.get(aliasBucket, []byte(name), a); !ok || err != nil {
		return nil, err
	}
	return a, nil
}

// PutAlias stores an alias in place of the one of that name, if there is one.
func (t *Tx) PutAlias(a *Alias) error {
	if err := t.DeleteAlias(a.Name); err != nil {
		return err
	}
	if err := t.bucket(keyAliasBucket).Put(join(a.Target[:], []byte(a.Name)), nil); err != nil {
		return err
	}
	if err := t.count(aliasCounter(a.Target), 1); err != nil {
		return err
	}
	return t.put(aliasBucket, []byte(a.Name), a)
}

// DeleteAlias removes the alias of that name, if there is one.
func (t *Tx) DeleteAlias(name string) error {
	old, err := t.Alias(name)
	if old == nil || err != nil {
		return err
	}
	if err := t.bucket(keyAliasBucket).Delete(join(old.Target[:], []byte(name))); err != nil {
		return err
	}
	if err := t.count(aliasCounter(old.Target), -1); err != nil {
		return err
	}
	return t.bucket(aliasBucket).Delete([]byte(name))
}

// AliasCount is the number of a key's aliases.
func (t *Tx) AliasCount(key KeyID) int { return t.counted(aliasCounter(key)) }

// Aliases calls f with the aliases whose names come behind after, in their order, as long as it
// returns true.
func (t *Tx) Aliases(after string, f func(*Alias) bool) error {
	return t.within(aliasBucket, nil, []byte(after), func(name, _ []byte) (bool, error) {
		a, err := t.Alias(string(name))
		if err != nil {
			return false, err
		}
		return f(a), nil
	})
}

// KeyAliases calls f with a key's aliases whose names come behind after, in their order, as long as
// it returns true.
func (t *Tx) KeyAliases(key KeyID, after string, f func(*Alias) bool) error {
	return t.within(keyAliasBucket, key[:], []byte(after), func(name, _ []byte) (bool, error) {
		a, err := t.Alias(string(name))
		if err != nil {
			return false, err
		}
		if a == nil || a.Target != key {
			return true, nil // the index is not sealed, and does not decide
		}
		return f(a), nil
	})
}

func (t *Tx) deleteAliases(key KeyID) error {
	var names []string
	err := t.KeyAliases(key, "", func(a *Alias) bool {
		names = append(names, a.Name)
		return true
	})
	for _, name := range names {
		if err == nil {
			err = t.DeleteAlias(name)
		}
	}
	return err
}
