package material

import (
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"errors"

	"kmsfs/keyservice/store"
)

// secretName is what a material is authenticated with: the key's ID followed by the material's.
type secretName [16 + 32]byte

func newSecretName(key store.KeyID, id store.MaterialID) (name secretName) {
	copy(name[:], key[:])
	copy(name[len(key):], id[:])
	return name
}

// Wrap makes a material's secret fit for the store: the slot's number, and the secret sealed with the
// slot's content, without which nothing opens it.
func (k *Keyring) Wrap(slot uint32, content []byte, key store.KeyID, id store.MaterialID, secret []byte) ([]byte, error) {
	aead, err := k.slotCipher(content)
	if err != nil {
		return nil, err
	}
	name := newSecretName(key, id)
	return append(binary.BigEndian.AppendUint32(nil, slot), sealWith(aead, name[:], secret)...), nil
}

// Slot returns the slot that a wrapped secret needs.
func Slot(wrapped []byte) (slot uint32, sealed []byte, err error) {
	if len(wrapped) < 4 {
		return 0, nil, errors.New("wrapped secret too short")
	}
	return binary.BigEndian.Uint32(wrapped), wrapped[4:], nil
}

// errDamaged says that a material in memory doesn't open.
var errDamaged = errors.New("the key material is damaged")

// Material is a key material in memory.
type Material struct {
	store.Material
	name    secretName
	wrapped []byte
}

// Load takes a material's wrapped secret from the store into memory, with the content of its slot.
func (k *Keyring) Load(content []byte, key store.KeyID, m store.Material, wrapped []byte) (*Material, error) {
	_, sealed, err := Slot(wrapped)
	if err != nil {
		return nil, err
	}
	loaded := &Material{Material: m, name: newSecretName(key, m.ID)}
	erasing(func() {
		var aead cipher.AEAD
		if aead, err = k.slotCipher(content); err != nil {
			return
		}
		var secret []byte
		if secret, err = openWith(aead, nil, loaded.name[:], sealed); err != nil {
			return
		}
		defer clear(secret)
		loaded.wrapped = sealWith(k.memory, loaded.name[:], secret)
	})
	return loaded, err
}

// Use unwraps the material for the time of one call of f.
func (k *Keyring) Use(m *Material, f func(secret []byte) error) (err error) {
	erasing(func() {
		var buffer [64]byte // symmetric and MAC keys fit; others take memory of their own
		defer clear(buffer[:])
		secret, openErr := openWith(k.memory, buffer[:0], m.name[:], m.wrapped)
		if openErr != nil {
			err = errDamaged
			return
		}
		defer clear(secret)
		err = f(secret)
	})
	return err
}

// NewID names a material by a digest, with the key's ID, so that the same material in two keys is not seen to be the same.
func NewID(key store.KeyID, secret []byte) store.MaterialID {
	digest := sha256.New()
	digest.Write([]byte("kmsfs key material ID"))
	digest.Write(key[:])
	digest.Write(secret)
	var id store.MaterialID
	digest.Sum(id[:0])
	return id
}
