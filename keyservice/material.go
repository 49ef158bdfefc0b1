package keyservice

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/store"
)

const (
	rootKeySize = 32 // bytes
	wrapNonce   = 12 // bytes, GCM's

	wrapLabel   = "kmsfs wrapped record"
	slotLabel   = "kmsfs wrapped key material"
	markerLabel = "kmsfs list marker"
	tokenLabel  = "kmsfs grant token"
)

// keyring holds what is derived from the root key.
//
// The standard library keeps the expanded form of a cipher's key on Go's heap and offers no way to wipe it: so the record
// key's and the memory key's are there, out of core dumps' reach, but not out of the swap's.
type keyring struct {
	// records seals what lies in the store.
	records cipher.AEAD
	// memory seals key materials in memory. Its key is this process's own.
	memory cipher.AEAD
	// materials derives, with a slot's content, the keys that seal materials in the store.
	materials []byte
	// markers and tokens authenticate list markers and grant tokens.
	markers, tokens []byte
}

func newKeyring(rootKey []byte) (*keyring, error) {
	derive := func(label string) ([]byte, error) { return hkdf.Key(sha256.New, rootKey, nil, label, rootKeySize) }
	k := &keyring{}
	wrap, err := derive(wrapLabel)
	if err != nil {
		return nil, err
	}
	defer clear(wrap)
	if k.records, err = newGCM(wrap); err != nil {
		return nil, err
	}
	var fresh [rootKeySize]byte
	defer clear(fresh[:])
	rand.Read(fresh[:])
	if k.memory, err = newGCM(fresh[:]); err != nil {
		return nil, err
	}
	for label, key := range map[string]*[]byte{slotLabel: &k.materials, markerLabel: &k.markers, tokenLabel: &k.tokens} {
		if *key, err = derive(label); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// wipe clears what can be cleared.
func (k *keyring) wipe() {
	clear(k.materials)
	clear(k.markers)
	clear(k.tokens)
}

// Seal returns nonce || ciphertext || tag. The table and the ID are authenticated, so that no record can take another's place.
func (k *keyring) Seal(table string, id, plaintext []byte) []byte {
	return sealWith(k.records, recordName(table, id), plaintext)
}

// Open reverses Seal. The plaintext is appended to dst.
func (k *keyring) Open(dst []byte, table string, id, sealed []byte) ([]byte, error) {
	return openWith(k.records, dst, recordName(table, id), sealed)
}

func recordName(table string, id []byte) []byte {
	b := make([]byte, 0, len(table)+1+len(id))
	b = append(b, table...)
	b = append(b, '/')
	return append(b, id...)
}

func sealWith(aead cipher.AEAD, name, plaintext []byte) []byte {
	sealed := make([]byte, wrapNonce, wrapNonce+len(plaintext)+aead.Overhead())
	rand.Read(sealed)
	return aead.Seal(sealed, sealed[:wrapNonce], plaintext, name)
}

func openWith(aead cipher.AEAD, dst, name, sealed []byte) ([]byte, error) {
	if len(sealed) < wrapNonce+aead.Overhead() {
		return nil, fmt.Errorf("sealed record of %d bytes: want %d or more", len(sealed), wrapNonce+aead.Overhead())
	}
	return aead.Open(dst, sealed[:wrapNonce], sealed[wrapNonce:], name)
}

// slotCipher seals a material with a slot's content.
func (k *keyring) slotCipher(content []byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, content, k.materials, slotLabel, rootKeySize)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	return newGCM(key)
}

// secretName is what a material is authenticated with: the key's ID followed by the material's.
type secretName [16 + 32]byte

func newSecretName(key store.KeyID, id store.MaterialID) (name secretName) {
	copy(name[:], key[:])
	copy(name[len(key):], id[:])
	return name
}

// wrapSecret makes a material's secret fit for the store: the slot's number, and the secret sealed with the slot's content.
func (k *keyring) wrapSecret(slots *store.Slots, key store.KeyID, id store.MaterialID, secret []byte) (wrapped []byte, slot uint32, err error) {
	slot, content, err := slots.Take()
	if err != nil {
		return nil, 0, fmt.Errorf("write the slots: %w", err)
	}
	defer clear(content[:])
	aead, err := k.slotCipher(content[:])
	if err != nil {
		return nil, 0, err
	}
	name := newSecretName(key, id)
	return append(binary.BigEndian.AppendUint32(nil, slot), sealWith(aead, name[:], secret)...), slot, nil
}

// secretSlot is the slot that a wrapped secret needs.
func secretSlot(wrapped []byte) (slot uint32, sealed []byte, err error) {
	if len(wrapped) < 4 {
		return 0, nil, errors.New("wrapped secret too short")
	}
	return binary.BigEndian.Uint32(wrapped), wrapped[4:], nil
}

// material is a key material in memory.
type material struct {
	store.Material
	name    secretName
	wrapped []byte
}

// load takes a material's wrapped secret from the store into memory.
func (k *keyring) load(slots *store.Slots, key store.KeyID, m store.Material, wrapped []byte) (*material, error) {
	slot, sealed, err := secretSlot(wrapped)
	if err != nil {
		return nil, err
	}
	content, err := slots.Read(slot)
	if err != nil {
		return nil, err
	}
	defer clear(content[:])
	loaded := &material{Material: m, name: newSecretName(key, m.ID)}
	erasing(func() {
		var aead cipher.AEAD
		if aead, err = k.slotCipher(content[:]); err != nil {
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

// use unwraps the material for the time of one call of f.
func (k *keyring) use(m *material, f func(secret []byte) error) (err error) {
	erasing(func() {
		var buffer [64]byte // symmetric and MAC keys fit; others take memory of their own
		defer clear(buffer[:])
		secret, openErr := openWith(k.memory, buffer[:0], m.name[:], m.wrapped)
		if openErr != nil {
			err = kms.Errorf(kms.CodeInternal, "the key material is damaged")
			return
		}
		defer clear(secret)
		err = f(secret)
	})
	return err
}

// materialID names a material by a digest, with the key's ID, so that the same material in two keys is not seen to be the same.
func materialID(key store.KeyID, secret []byte) store.MaterialID {
	digest := sha256.New()
	digest.Write([]byte("kmsfs key material ID"))
	digest.Write(key[:])
	digest.Write(secret)
	var id store.MaterialID
	digest.Sum(id[:0])
	return id
}
