package keyservice

import (
	"cmp"
	"runtime"

	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/keyspec"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/store"
)

// newMaterial is a key material that is not in the store yet.
type newMaterial struct {
	key    store.KeyID
	id     store.MaterialID
	secret []byte
}

func (m *newMaterial) wipe() {
	if m != nil {
		clear(m.secret)
	}
}

// generateMaterial makes a material for a key, as the key's next and current one. For RSA keys it takes its time: no lock is to be held.
func (s *Service) generateMaterial(r *request, k *store.Key) (*newMaterial, error) {
	spec, ok := keyspec.Find(k.Spec)
	if !ok {
		return nil, kms.Errorf(kms.CodeInternal, "unknown key spec %s", k.Spec)
	}
	secret, err := s.generate(r, spec)
	if err != nil {
		return nil, err
	}
	made := &newMaterial{key: k.ID, id: materialID(k.ID, secret), secret: secret}
	if spec.Asymmetric() {
		if k.PublicKey, err = spec.PublicKey(secret); err != nil {
			made.wipe()
			return nil, err
		}
	}
	k.Materials = append(k.Materials, store.Material{ID: made.id, Present: true})
	k.Current = len(k.Materials) - 1
	if spec.Symmetric() {
		r.response = append(r.response, audit.Text("keyMaterialId", made.id.String()))
	}
	return made, nil
}

// generate makes a spec's key material. Only as many key pairs are made at a time as there are processors.
func (s *Service) generate(r *request, spec *keyspec.Spec) (secret []byte, err error) {
	if spec.Asymmetric() {
		select {
		case s.generating <- struct{}{}:
			defer func() { <-s.generating }()
		case <-r.ctx.Done():
			return nil, r.ctx.Err()
		}
	}
	erasing(func() { secret, err = spec.Generate() })
	return secret, err
}

// newGenerating is the semaphore of generate.
func newGenerating() chan struct{} { return make(chan struct{}, runtime.GOMAXPROCS(0)) }

// changeMaterial makes a change that adds a material; nil for none. The caller holds s.changes.
func (s *Service) changeMaterial(r *request, m *newMaterial, f func(*store.Tx) error, keys ...store.KeyID) error {
	if m == nil {
		return s.change(r, f, keys...)
	}
	wrapped, slot, err := s.ring.wrapSecret(s.slots, m.key, m.id, m.secret)
	if err != nil {
		return err
	}
	err = s.change(r, func(tx *store.Tx) error {
		return cmp.Or(f(tx), tx.PutSecret(m.key, m.id, wrapped))
	}, keys...)
	if err != nil {
		_ = s.slots.Erase(slot) // if it can't be, nothing is lost but its place
		return err
	}
	return nil
}
