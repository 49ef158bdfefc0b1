// Package usage remembers the last use of each KMS key.
package usage

import (
	"sync"

	"kmsfs/keyservice/store"
)

// Tracker remembers the last use of keys until it is stored. It is safe for concurrent use.
type Tracker struct {
	mu   sync.Mutex // guards last
	last map[store.KeyID]store.Usage
}

// Note remembers a use that has succeeded.
func (t *Tracker) Note(id store.KeyID, use store.Usage) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last == nil {
		t.last = map[store.KeyID]store.Usage{}
	}
	t.last[id] = use
}

// Last returns the last use of a key; false if there was none.
func (t *Tracker) Last(s *store.Store, id store.KeyID) (use store.Usage, ok bool, err error) {
	if use, ok = t.get(id); ok {
		return use, true, nil
	}
	err = s.View(func(tx *store.Tx) error {
		stored, err := tx.Usage(id)
		if stored != nil {
			use, ok = *stored, true
		}
		return err
	})
	return use, ok, err
}

func (t *Tracker) get(id store.KeyID) (store.Usage, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	use, ok := t.last[id]
	return use, ok
}

// take returns all that is remembered, and forgets it.
func (t *Tracker) take() map[store.KeyID]store.Usage {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := t.last
	t.last = nil
	return all
}

// Flush stores the last uses. A crash loses those since the last time; the audit log has them.
func (t *Tracker) Flush(s *store.Store) error {
	uses := t.take()
	if len(uses) == 0 {
		return nil
	}
	err := s.Update(func(tx *store.Tx) error {
		for id, use := range uses {
			k, err := tx.Key(id)
			if err != nil {
				return err
			}
			if k == nil {
				continue // it was deleted since
			}
			if err := tx.PutUsage(id, &use); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		for id, use := range uses {
			if _, newer := t.get(id); !newer {
				t.Note(id, use)
			}
		}
	}
	return err
}
