package sealer

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
)

const (
	version   = 1
	saltSize  = 16 // bytes
	nonceSize = 12 // bytes, GCM's
	tagSize   = 16 // bytes, GCM's
	keySize   = 32 // bytes, AES-256
	// maxRootKey bounds root keys in bytes, so that a sealed one has a plausible length.
	maxRootKey = 64
)

// seal appends to header: nonce || ciphertext || tag, with the header as associated data. It wipes the key.
func seal(key, header, rootKey []byte) ([]byte, error) {
	defer clear(key)
	aead, err := newGCM(key)
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, nonceSize)
	rand.Read(nonce)
	sealed := append(append([]byte{}, header...), nonce...)
	return aead.Seal(sealed, nonce, rootKey, header), nil
}

// open reverses seal, for a header of that size. It wipes the key.
func open(key, sealed []byte, headerSize int) ([]byte, error) {
	defer clear(key)
	aead, err := newGCM(key)
	if err != nil {
		return nil, err
	}
	header, body := sealed[:headerSize], sealed[headerSize:]
	rootKey, err := aead.Open(nil, body[:nonceSize], body[nonceSize:], header)
	if err != nil {
		return nil, ErrWrongSecret
	}
	return rootKey, nil
}

// isPlausible says whether what is sealed under a header of that size has a possible length and this version.
func isPlausible(sealed []byte, headerSize int) bool {
	rootKey := len(sealed) - headerSize - nonceSize - tagSize
	return rootKey > 0 && rootKey <= maxRootKey && sealed[0] == version
}

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}
