// Package keystest has a key service for tests: it wraps data keys in memory, and denies or fails on demand.
package keystest

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"sync"

	"kmsfs/fs/keys"
)

// Service is a key service. Its KMS keys are named by any text.
type Service struct {
	mu          sync.Mutex // guards what follows
	material    map[string]cipher.AEAD
	denied      map[string]bool
	unreachable bool
	events      []keys.Event
	markers     map[string][]keys.Marker // by the context of the volume's key
}

var _ keys.Service = (*Service)(nil)

// New returns a key service that has KMS keys of those names.
func New(names ...string) *Service {
	s := &Service{material: map[string]cipher.AEAD{}, denied: map[string]bool{}, markers: map[string][]keys.Marker{}}
	for _, name := range names {
		s.material[name] = newMaterial()
	}
	return s
}

func newMaterial() cipher.AEAD {
	var key [32]byte
	rand.Read(key[:])
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // the key has a length that AES has
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	return aead
}

// Deny denies the use of a KMS key from now on, or allows it again.
func (s *Service) Deny(key string, denied bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.denied[key] = denied
}

// Disconnect has the key service not answer from now on, or answer again.
func (s *Service) Disconnect(unreachable bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unreachable = unreachable
}

// Events returns the names of the events that have been recorded.
func (s *Service) Events() (names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.events {
		names = append(names, e.Name)
	}
	return names
}

// GenerateDataKey makes a data key.
func (s *Service) GenerateDataKey(_ context.Context, _ keys.Call, key string, encryptionContext map[string]string) (keys.DataKey, error) {
	var plaintext [32]byte
	rand.Read(plaintext[:])
	wrapped, err := s.wrap(plaintext[:], key, encryptionContext)
	if err != nil {
		return keys.DataKey{}, err
	}
	return keys.DataKey{KeyARN: key, Plaintext: plaintext[:], Wrapped: wrapped}, nil
}

// Decrypt unwraps a data key.
func (s *Service) Decrypt(_ context.Context, _ keys.Call, key string, wrapped []byte, encryptionContext map[string]string) ([]byte, error) {
	aead, err := s.use(key)
	if err != nil {
		return nil, err
	}
	plaintext, err := aead.Open(nil, nil, wrapped, bind(key, encryptionContext))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", keys.ErrUnopened, err)
	}
	return plaintext, nil
}

// ReEncrypt wraps a data key anew.
func (s *Service) ReEncrypt(ctx context.Context, call keys.Call, wrapped []byte, from, to keys.Wrap) (keys.DataKey, error) {
	plaintext, err := s.Decrypt(ctx, call, from.Key, wrapped, from.Context)
	if err != nil {
		return keys.DataKey{}, err
	}
	defer clear(plaintext)
	wrapped, err = s.wrap(plaintext, to.Key, to.Context)
	return keys.DataKey{KeyARN: to.Key, Wrapped: wrapped}, err
}

// Check answers what Decrypt and GenerateDataKey would.
func (s *Service) Check(_ context.Context, uses []keys.Use) ([]keys.Answer, error) {
	answers := make([]keys.Answer, len(uses))
	for i, u := range uses {
		_, err := s.use(u.Key)
		answers[i] = keys.Answer{Denied: err, Current: true}
	}
	return answers, nil
}

// OpenMarker keeps a marker.
func (s *Service) OpenMarker(ctx context.Context, call keys.Call, v keys.Volume, marker keys.Marker) error {
	return s.withMarkers(ctx, call, v, func(all []keys.Marker) []keys.Marker { return append(all, marker) })
}

// Markers returns the markers that are kept.
func (s *Service) Markers(ctx context.Context, call keys.Call, v keys.Volume) (all []keys.Marker, err error) {
	err = s.withMarkers(ctx, call, v, func(open []keys.Marker) []keys.Marker {
		all = slices.Clone(open)
		return open
	})
	return all, err
}

// CloseMarkers forgets markers.
func (s *Service) CloseMarkers(ctx context.Context, call keys.Call, v keys.Volume, ids []keys.MarkerID) error {
	return s.withMarkers(ctx, call, v, func(all []keys.Marker) []keys.Marker {
		return slices.DeleteFunc(all, func(m keys.Marker) bool { return slices.Contains(ids, m.ID) })
	})
}

func (s *Service) withMarkers(ctx context.Context, call keys.Call, v keys.Volume, edit func([]keys.Marker) []keys.Marker) error {
	key, err := s.Decrypt(ctx, call, v.Key, v.Wrapped, v.Context)
	if err != nil {
		return err
	}
	clear(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	name := v.Context["kmsfs:volume"]
	s.markers[name] = edit(s.markers[name])
	return nil
}

// Record keeps an event.
func (s *Service) Record(_ context.Context, _ keys.Call, event keys.Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unreachable {
		return keys.ErrUnreachable
	}
	s.events = append(s.events, event)
	return nil
}

func (s *Service) wrap(plaintext []byte, key string, encryptionContext map[string]string) ([]byte, error) {
	aead, err := s.use(key)
	if err != nil {
		return nil, err
	}
	return aead.Seal(nil, nil, plaintext, bind(key, encryptionContext)), nil
}

// use returns a KMS key's material, unless its use is denied.
func (s *Service) use(key string) (cipher.AEAD, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	aead := s.material[key]
	switch {
	case s.unreachable:
		return nil, keys.ErrUnreachable
	case aead == nil || s.denied[key]:
		return nil, fmt.Errorf("the KMS key %s: %w", key, keys.ErrDenied)
	}
	return aead, nil
}

// bind is the associated data of a wrapped data key.
func bind(key string, encryptionContext map[string]string) []byte {
	text, err := json.Marshal(struct {
		Key     string
		Context map[string]string
	}{key, encryptionContext})
	if err != nil {
		panic(err) // there is nothing in it that JSON lacks
	}
	return text
}
