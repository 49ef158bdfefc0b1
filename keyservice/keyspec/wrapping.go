package keyspec

import (
	"crypto/rsa"
	"fmt"
	"slices"

	"github.com/tink-crypto/tink-go/v2/kwp/subtle"
)

// GenerateWrappingKey makes a key pair under whose public key a material is sent for import. The caller wipes the private key.
func GenerateWrappingKey(wrappingSpec string) (pkcs8, spki []byte, err error) {
	s, ok := Find(wrappingSpec)
	switch {
	case wrappingSpec == "SM2":
		return nil, nil, refuse(ErrAlgorithm, "Wrapping key spec SM2 is not supported.")
	case !ok || !slices.Contains(s.EncryptionAlgorithms, oaep[0]):
		return nil, nil, refuse(ErrUnknown, "unknown wrapping key spec %q", wrappingSpec)
	}
	key, err := s.pair.generate()
	if err != nil {
		return nil, nil, err
	}
	if pkcs8, err = marshalPrivate(s.pair, key); err != nil {
		return nil, nil, err
	}
	spki, err = marshalPublic(s.pair, key.Public())
	return pkcs8, spki, err
}

// wrappings are the wrapping algorithms with that by which they encrypt under the RSA key, be it the material or an AES key.
var wrappings = map[string]string{
	"RSAES_OAEP_SHA_1":         "RSAES_OAEP_SHA_1",
	"RSAES_OAEP_SHA_256":       "RSAES_OAEP_SHA_256",
	"RSA_AES_KEY_WRAP_SHA_1":   "RSAES_OAEP_SHA_1",
	"RSA_AES_KEY_WRAP_SHA_256": "RSAES_OAEP_SHA_256",
}

// UnwrapImport decrypts a material that was sent for import. Whatever is wrong with it is the same ErrDecryption; what the material is for
// is for Check to say. RSAES_PKCS1_V1_5, whose padding gives the plaintext away to whoever may try often, is refused, as AWS does now. The
// caller wipes the material.
func UnwrapImport(algorithm string, wrappingPKCS8, encrypted []byte) (material []byte, err error) {
	inner, ok := wrappings[algorithm]
	switch {
	case algorithm == "RSAES_PKCS1_V1_5" || algorithm == "SM2PKE":
		return nil, refuse(ErrAlgorithm, "Wrapping algorithm %s is not supported.", algorithm)
	case !ok:
		return nil, refuse(ErrUnknown, "unknown wrapping algorithm %q", algorithm)
	}
	signer, err := parsePrivate(rsaPair{}, wrappingPKCS8)
	if err != nil {
		return nil, fmt.Errorf("%w of a wrapping key: %w", ErrMaterial, err)
	}
	key := signer.(*rsa.PrivateKey)
	if inner == algorithm {
		return decryptOAEP(oaepHashes[inner], key, encrypted)
	}
	if len(encrypted) <= key.Size() {
		return nil, ErrDecryption
	}
	kek, err := decryptOAEP(oaepHashes[inner], key, encrypted[:key.Size()])
	if err != nil {
		return nil, err
	}
	defer clear(kek)
	return unwrapKWP(kek, encrypted[key.Size():])
}

// unwrapKWP is AES key wrap with padding (RFC 5649), under an AES key of 16 or 32 bytes; AWS has its users take one of 32.
func unwrapKWP(kek, wrapped []byte) ([]byte, error) {
	kwp, err := subtle.NewKWP(kek)
	if err != nil {
		return nil, ErrDecryption
	}
	material, err := kwp.Unwrap(wrapped)
	if err != nil {
		return nil, ErrDecryption
	}
	return material, nil
}
