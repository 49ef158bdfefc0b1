package envelope

import (
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"

	"github.com/tink-crypto/tink-go/v2/daead/subtle"
)

// KeySize is the length in bytes of data keys and metadata keys.
const KeySize = 32

// sivKeySize is that of AES-SIV-CMAC-512: 32 bytes for CMAC, 32 for CTR (RFC 5297, section 2.2).
const sivKeySize = 64

// sivOverhead is the length of the synthetic IV in front of a SIV ciphertext.
const sivOverhead = 16

// derive is KDF of FORMAT.md, section 1. secret is KeySize bytes.
func derive(secret, salt []byte, label string, n int) ([]byte, error) {
	if len(secret) != KeySize {
		return nil, fmt.Errorf("key has %d bytes, want %d", len(secret), KeySize)
	}
	return hkdf.Key(sha256.New, secret, salt, label, n)
}

// newSIV derives a key of that label and returns SIV under it.
func newSIV(secret, salt []byte, label string) (*subtle.AESSIV, error) {
	key, err := derive(secret, salt, label, sivKeySize)
	if err != nil {
		return nil, err
	}
	return subtle.NewAESSIV(key)
}
