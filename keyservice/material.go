package keyservice

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"fmt"

	"kmsfs/keyservice/store"
)

const (
	rootKeySize = 32 // bytes
	wrapNonce   = 12 // bytes, GCM's

	materialTable = "materials"
	homeTable     = "home"

	wrapLabel   = "kmsfs wrapped key material"
	markerLabel = "kmsfs list marker"
)

// keyring holds what is derived from the root key.
//
// The standard library keeps the expanded form of a cipher's key on Go's heap and offers no way to wipe it: so the wrapping
// key's is there, out of core dumps' reach, but not out of the swap's.
type keyring struct {
	wrap cipher.AEAD
	// markers authenticates list markers.
	markers []byte
}

func newKeyring(rootKey []byte) (*keyring, error) {
	key, err := hkdf.Key(sha256.New, rootKey, nil, wrapLabel, rootKeySize)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	wrap, err := newGCM(key)
	if err != nil {
		return nil, err
	}
	marker, err := hkdf.Key(sha256.New, rootKey, nil, markerLabel, rootKeySize)
	if err != nil {
		return nil, err
	}
	return &keyring{wrap, marker}, nil
}

// seal returns nonce || ciphertext || tag. The table and the ID are authenticated, so that no record can take another's place.
func (k *keyring) seal(table string, id, plaintext []byte) []byte {
	sealed := make([]byte, wrapNonce, wrapNonce+len(plaintext)+k.wrap.Overhead())
	rand.Read(sealed)
	return k.wrap.Seal(sealed, sealed[:wrapNonce], plaintext, recordName(nil, table, id))
}

// open reverses seal. The plaintext is appended to dst.
func (k *keyring) open(dst []byte, table string, id, sealed []byte) ([]byte, error) {
	if len(sealed) < wrapNonce+k.wrap.Overhead() {
		return nil, fmt.Errorf("wrapped record of %d bytes: want %d or more", len(sealed), wrapNonce+k.wrap.Overhead())
	}
	return k.wrap.Open(dst, sealed[:wrapNonce], sealed[wrapNonce:], recordName(nil, table, id))
}

func recordName(b []byte, table string, id []byte) []byte {
	b = append(b, table...)
	b = append(b, '/')
	return append(b, id...)
}

// material is a key material as the index has it.
type material struct {
	// name is the key's ID followed by the material's.
	name    [16 + 32]byte
	wrapped []byte
}

func newMaterial(key store.KeyID, id store.MaterialID, wrapped []byte) *material {
	m := &material{wrapped: wrapped}
	copy(m.name[:], key[:])
	copy(m.name[len(key):], id[:])
	return m
}

// generate makes a new material for a key.
func (k *keyring) generate(key store.KeyID) *store.Material {
	var secret [materialSize]byte
	defer clear(secret[:])
	rand.Read(secret[:])
	id := materialID(key, secret[:])
	m := newMaterial(key, id, nil)
	return &store.Material{Key: key, ID: id, Wrapped: k.seal(materialTable, m.name[:], secret[:])}
}

// use unwraps the material for the time of one call of f.
func (k *keyring) use(m *material, f func(secret []byte) error) error {
	var buffer [materialSize]byte
	defer clear(buffer[:])
	secret, err := k.open(buffer[:0], materialTable, m.name[:], m.wrapped)
	if err != nil || len(secret) != materialSize {
		return refuse(CodeInternal, "the key material is damaged")
	}
	return f(secret)
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
