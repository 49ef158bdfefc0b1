package material

import (
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"

	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/store"
)

// The layout of a ciphertext blob, which FORMAT.md specifies: header || ciphertext || tag.
const (
	blobVersion   = 1
	blobAlgorithm = 1 // AES-256-GCM under a key derived by HKDF-SHA-256

	blobMaterial = 2                  // offset in bytes of the material's ID
	blobKey      = blobMaterial + 32  // of the key's ID
	blobSalt     = blobKey + 16       // of N, the derivation's salt
	blobIV       = blobSalt + 16      // of GCM's nonce
	blobHeader   = blobIV + blobNonce // size of the header

	blobNonce = 12 // bytes, GCM's
	blobTag   = 16 // bytes, GCM's

	materialSize = 32 // bytes, an AES-256 key
)

const blobLabel = "kmsfs ciphertext blob key"

// Blob is a ciphertext blob in its parts. What it says is to be believed only once it is decrypted.
type Blob struct {
	Material store.MaterialID
	Key      store.KeyID
	// Header is authenticated, and sealed is ciphertext || tag; both lie in what was parsed.
	Header, sealed []byte
}

func (b *Blob) iv() []byte { return b.Header[blobIV:blobHeader] }

// ParseBlob reads a ciphertext blob's header.
func ParseBlob(b []byte) (Blob, error) {
	switch {
	case len(b) <= blobHeader+blobTag || len(b) > blobHeader+kms.MaxPlaintext+blobTag:
		return Blob{}, fmt.Errorf("ciphertext blob of %d bytes: want %d to %d", len(b), blobHeader+blobTag+1, blobHeader+kms.MaxPlaintext+blobTag)
	case b[0] != blobVersion:
		return Blob{}, fmt.Errorf("ciphertext blob of version %d: want %d", b[0], blobVersion)
	case b[1] != blobAlgorithm:
		return Blob{}, fmt.Errorf("ciphertext blob of algorithm %d: want %d", b[1], blobAlgorithm)
	}
	parsed := Blob{Header: b[:blobHeader:blobHeader], sealed: b[blobHeader:]}
	copy(parsed.Material[:], b[blobMaterial:])
	copy(parsed.Key[:], b[blobKey:])
	return parsed, nil
}

// SealBlob encrypts plaintext in the context. The material is one of the key's.
func SealBlob(material []byte, key store.KeyID, id store.MaterialID, plaintext []byte, context map[string]string) ([]byte, error) {
	var fresh [blobHeader - blobSalt]byte
	rand.Read(fresh[:])
	return sealBlobWith(fresh, material, key, id, plaintext, context)
}

// sealBlobWith is sealBlob with fresh in the place of random bytes: N and the IV.
func sealBlobWith(fresh [blobHeader - blobSalt]byte, material []byte, key store.KeyID, id store.MaterialID, plaintext []byte, context map[string]string) ([]byte, error) {
	b := make([]byte, 0, blobHeader+len(plaintext)+blobTag)
	b = append(b, blobVersion, blobAlgorithm)
	b = append(b, id[:]...)
	b = append(b, key[:]...)
	b = append(b, fresh[:]...)
	parts := Blob{Header: b, Key: key, Material: id}
	aead, err := parts.aead(material)
	if err != nil {
		return nil, err
	}
	return aead.Seal(b, parts.iv(), plaintext, parts.additional(context)), nil
}

// Open decrypts the blob in the context.
func (b *Blob) Open(material []byte, context map[string]string) ([]byte, error) {
	aead, err := b.aead(material)
	if err != nil {
		return nil, err
	}
	return aead.Open(nil, b.iv(), b.sealed, b.additional(context))
}

// additional is what is authenticated besides the plaintext.
func (b *Blob) additional(context map[string]string) []byte {
	data := make([]byte, 0, blobHeader+kms.ContextSize(context))
	return kms.AppendContext(append(data, b.Header...), context)
}

// aead derives the blob's own key from the material, so that no number of blobs wears the material out. The material is uniformly random
// already, so HKDF's second half is enough (RFC 5869, section 3.3).
func (b *Blob) aead(material []byte) (cipher.AEAD, error) {
	mac := hmac.New(sha256.New, material)
	mac.Write([]byte(blobLabel))
	mac.Write(b.Header[blobMaterial:blobIV])
	mac.Write([]byte{1}) // HKDF's counter: it ends with its first block
	var key [sha256.Size]byte
	defer clear(key[:])
	return newGCM(mac.Sum(key[:0]))
}
