// Package material keeps key material: sealed in the store and in memory, in the clear only while it is
// used. Keys derived from the root key seal it. Ciphertext blobs, which FORMAT.md specifies, are made
// with it.
//
// Package keyspec has the algorithms.
package material

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
)

// RootKeySize is the size of a root key, in bytes.
const RootKeySize = 32

const (
	wrapNonce = 12 // bytes, GCM's

	wrapLabel   = "kmsfs wrapped record"
	slotLabel   = "kmsfs wrapped key material"
	markerLabel = "kmsfs list marker"
	tokenLabel  = "kmsfs grant token"
)

// Keyring holds what is derived from the root key.
//
// The standard library keeps the expanded form of a cipher's key on Go's heap and offers no way to wipe it: so the record
// key's and the memory key's are there, out of core dumps' reach, but not out of the swap's.
type Keyring struct {
	// records seals what lies in the store.
	records cipher.AEAD
	// memory seals key materials in memory. Its key is this process's own.
	memory cipher.AEAD
	// materials derives, with a slot's content, the keys that seal materials in the store.
	materials []byte
	// Markers and Tokens authenticate list markers and grant tokens.
	Markers, Tokens MACKey
}

// NewKeyring derives the keys from the root key, which it doesn't keep.
func NewKeyring(rootKey []byte) (*Keyring, error) {
	derive := func(label string) ([]byte, error) { return hkdf.Key(sha256.New, rootKey, nil, label, RootKeySize) }
	k := &Keyring{}
	wrap, err := derive(wrapLabel)
	if err != nil {
		return nil, err
	}
	defer clear(wrap)
	if k.records, err = newGCM(wrap); err != nil {
		return nil, err
	}
	var fresh [RootKeySize]byte
	defer clear(fresh[:])
	rand.Read(fresh[:])
	if k.memory, err = newGCM(fresh[:]); err != nil {
		return nil, err
	}
	if k.materials, err = derive(slotLabel); err != nil {
		return nil, err
	}
	if k.Markers, err = derive(markerLabel); err != nil {
		return nil, err
	}
	k.Tokens, err = derive(tokenLabel)
	return k, err
}

// Wipe clears what can be cleared.
func (k *Keyring) Wipe() {
	clear(k.materials)
	clear(k.Markers)
	clear(k.Tokens)
}

// Seal returns nonce || ciphertext || tag. The table and the ID are authenticated, so that no record can take another's place.
func (k *Keyring) Seal(table string, id, plaintext []byte) []byte {
	return sealWith(k.records, recordName(table, id), plaintext)
}

// Open reverses Seal. The plaintext is appended to dst.
func (k *Keyring) Open(dst []byte, table string, id, sealed []byte) ([]byte, error) {
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

// MACKey is a key for MACs of what the key service gives out and takes back.
type MACKey []byte

// Sum is the HMAC-SHA-256 of the parts, one behind the other.
func (k MACKey) Sum(parts ...[]byte) []byte {
	mac := hmac.New(sha256.New, k)
	for _, part := range parts {
		mac.Write(part)
	}
	return mac.Sum(nil)
}

// slotCipher seals a material with a slot's content.
func (k *Keyring) slotCipher(content []byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, content, k.materials, slotLabel, RootKeySize)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	return newGCM(key)
}

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}
