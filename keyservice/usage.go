package keyservice

import (
	"sync"

	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/store"
)

// usage remembers the last use of each key until it is stored.
type usage struct {
	mu   sync.Mutex // guards what follows
	last map[store.KeyID]store.Usage
}

// note remembers a use that has succeeded.
func (u *usage) note(id store.KeyID, use store.Usage) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.last == nil {
		u.last = map[store.KeyID]store.Usage{}
	}
	u.last[id] = use
}

// uses notes that the request uses the key.
func (r *request) uses(k *key) {
	if r.used[0] == nil {
		r.used[0] = k
	} else {
		r.used[1] = k
	}
}

// noteUses remembers what a request that has succeeded has used.
func (s *Service) noteUses(r *request) {
	for _, k := range r.used {
		if k != nil {
			s.usage.note(k.ID, store.Usage{Time: millis(r.time), Operation: r.name, EventID: r.eventID, RequestID: r.id})
		}
	}
}

// get returns what is remembered of a key.
func (u *usage) get(id store.KeyID) (store.Usage, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	use, ok := u.last[id]
	return use, ok
}

// take returns all that is remembered, and forgets it.
func (u *usage) take() map[store.KeyID]store.Usage {
	u.mu.Lock()
	defer u.mu.Unlock()
	all := u.last
	u.last = nil
	return all
}

// flushUsage stores the last uses. A crash loses those since the last time; the audit log has them.
func (s *Service) flushUsage() error {
	uses := s.usage.take()
	if len(uses) == 0 {
		return nil
	}
	err := s.store.Update(func(tx *store.Tx) error {
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
			if _, newer := s.usage.get(id); !newer {
				s.usage.note(id, use)
			}
		}
	}
	return err
}

func (s *Service) getKeyLastUsage(r *request, in *kms.GetKeyLastUsageInput) (*kms.GetKeyLastUsageOutput, error) {
	k, err := s.named(r, "kms:GetKeyLastUsage", in.KeyId)
	if err != nil {
		return nil, err
	}
	out := &kms.GetKeyLastUsageOutput{KeyId: k.ARN, TrackingStartDate: kms.Timestamp{Time: k.Created}, KeyCreationDate: kms.Timestamp{Time: k.Created}}
	use, ok := s.usage.get(k.ID)
	if !ok {
		err = s.store.View(func(tx *store.Tx) error {
			stored, err := tx.Usage(k.ID)
			if stored != nil {
				use, ok = *stored, true
			}
			return err
		})
	}
	if ok {
		out.KeyLastUsage = kms.KeyLastUsage{CloudTrailEventId: use.EventID.String(), KmsRequestId: use.RequestID.String(), Operation: use.Operation, Timestamp: &kms.Timestamp{Time: use.Time}}
	}
	return out, err
}
