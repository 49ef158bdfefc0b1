// Package keyspec is the cryptography of AWS KMS's key specs: what a key's material is, which algorithms it is for, and those
// algorithms. It knows neither keys nor callers nor where a material is kept. Only the envelope of symmetric ciphertexts is not here.
//
// A symmetric or HMAC key's material is its bytes; a key pair's is its private key in PKCS#8, and its public key is a
// SubjectPublicKeyInfo, both in DER. All that is parsed here may come from anybody: it is taken in one encoding only, and what is not
// quite right is an error.
//
// The standard library leaves copies of RSA and NIST private keys behind that nobody can wipe; callers for whom that matters run this
// package's functions under runtime/secret. What can be wiped is.
package keyspec

import (
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"slices"
)

// What a key may be used for.
const (
	EncryptDecrypt    = "ENCRYPT_DECRYPT"
	SignVerify        = "SIGN_VERIFY"
	GenerateVerifyMAC = "GENERATE_VERIFY_MAC"
	KeyAgreement      = "KEY_AGREEMENT"
)

// symmetricSize is the size in bytes of a symmetric key's material, and symmetricPlaintext that of the longest plaintext.
const (
	symmetricSize      = 32
	symmetricPlaintext = 4096
)

// Spec is one of AWS KMS's key specs. It is only to be read.
type Spec struct {
	Name string
	// Usages are those that a key of the spec can be made for; it has one of them.
	Usages []string
	// The algorithms of each usage, in AWS's order; none where the spec is not for that usage.
	EncryptionAlgorithms, SigningAlgorithms, MacAlgorithms, KeyAgreementAlgorithms []string

	// size is a secret key's in bytes; 0 for key pairs.
	size int
	// pair is nil for secret keys.
	pair pair
}

var (
	oaep = []string{"RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256"}

	rsaSignatures = []string{
		"RSASSA_PKCS1_V1_5_SHA_256", "RSASSA_PKCS1_V1_5_SHA_384", "RSASSA_PKCS1_V1_5_SHA_512",
		"RSASSA_PSS_SHA_256", "RSASSA_PSS_SHA_384", "RSASSA_PSS_SHA_512",
	}

	// specs are in the order of AWS's enumeration.
	specs = []*Spec{
		rsaSpec("RSA_2048", 2048),
		rsaSpec("RSA_3072", 3072),
		rsaSpec("RSA_4096", 4096),
		nistSpec("ECC_NIST_P256", "ECDSA_SHA_256", nist{elliptic.P256(), oidP256}),
		nistSpec("ECC_NIST_P384", "ECDSA_SHA_384", nist{elliptic.P384(), oidP384}),
		nistSpec("ECC_NIST_P521", "ECDSA_SHA_512", nist{elliptic.P521(), oidP521}),
		{Name: "ECC_SECG_P256K1", Usages: []string{SignVerify}, SigningAlgorithms: []string{"ECDSA_SHA_256"}, pair: koblitz{}},
		{Name: "SYMMETRIC_DEFAULT", Usages: []string{EncryptDecrypt}, EncryptionAlgorithms: []string{"SYMMETRIC_DEFAULT"}, size: symmetricSize},
		macSpec("HMAC_224", "HMAC_SHA_224"),
		macSpec("HMAC_256", "HMAC_SHA_256"),
		macSpec("HMAC_384", "HMAC_SHA_384"),
		macSpec("HMAC_512", "HMAC_SHA_512"),
		{Name: "ECC_NIST_EDWARDS25519", Usages: []string{SignVerify}, SigningAlgorithms: []string{"ED25519_SHA_512", "ED25519_PH_SHA_512"}, pair: edwards{}},
	}

	// unsupported are AWS's other specs. Go's standard library has no ML-DSA yet that takes an external mu, and AWS has SM2 in China only.
	unsupported = []string{"SM2", "ML_DSA_44", "ML_DSA_65", "ML_DSA_87"}
)

func rsaSpec(name string, bits int) *Spec {
	return &Spec{Name: name, Usages: []string{EncryptDecrypt, SignVerify}, EncryptionAlgorithms: oaep, SigningAlgorithms: rsaSignatures, pair: rsaPair{bits}}
}

func nistSpec(name, signatures string, curve nist) *Spec {
	return &Spec{
		Name: name, Usages: []string{SignVerify, KeyAgreement},
		SigningAlgorithms: []string{signatures}, KeyAgreementAlgorithms: []string{"ECDH"}, pair: curve,
	}
}

// macSpec is that of HMAC keys, which are as long as the MACs.
func macSpec(name, algorithm string) *Spec {
	return &Spec{Name: name, Usages: []string{GenerateVerifyMAC}, MacAlgorithms: []string{algorithm}, size: macHashes[algorithm].Size()}
}

// Find returns the spec of the name, if it is one that is supported.
func Find(name string) (*Spec, bool) {
	i := slices.IndexFunc(specs, func(s *Spec) bool { return s.Name == name })
	if i < 0 {
		return nil, false
	}
	return specs[i], true
}

// IsKnown says whether AWS KMS has a spec of the name, supported here or not.
func IsKnown(name string) bool {
	_, ok := Find(name)
	return ok || slices.Contains(unsupported, name)
}

// Symmetric says whether the spec is that of symmetric encryption keys.
func (s *Spec) Symmetric() bool { return s.pair == nil && !s.MAC() }

// Asymmetric says whether the spec is one of key pairs.
func (s *Spec) Asymmetric() bool { return s.pair != nil }

// MAC says whether the spec is one of HMAC keys.
func (s *Spec) MAC() bool { return len(s.MacAlgorithms) > 0 }

// Allows says whether a key of the spec can be for the usage.
func (s *Spec) Allows(usage string) bool { return slices.Contains(s.Usages, usage) }

// Generate makes a new key's material. The caller wipes it.
func (s *Spec) Generate() (material []byte, err error) {
	if s.pair == nil {
		material = make([]byte, s.size)
		rand.Read(material)
		return material, nil
	}
	key, err := s.pair.generate()
	if err != nil {
		return nil, err
	}
	defer wipe(key)
	return marshalPrivate(s.pair, key)
}

// Check says whether the material is one that a key of the spec can have. What is wrong with it is an ErrMaterial.
func (s *Spec) Check(material []byte) error {
	if s.pair == nil {
		if len(material) != s.size {
			return fmt.Errorf("%w: %d bytes for %s: want %d", ErrMaterial, len(material), s.Name, s.size)
		}
		return nil
	}
	key, err := s.private(material)
	if err != nil {
		return err
	}
	defer wipe(key)
	if !hasPrimes(key) {
		return fmt.Errorf("%w: a factor of the modulus is not prime", ErrMaterial)
	}
	return nil
}

// PublicKey is the public key of a key pair's material.
func (s *Spec) PublicKey(material []byte) (spki []byte, err error) {
	key, err := s.private(material)
	if err != nil {
		return nil, err
	}
	defer wipe(key)
	return marshalPublic(s.pair, key.Public())
}

// private parses a key pair's material. The caller wipes it.
func (s *Spec) private(material []byte) (crypto.Signer, error) {
	if s.pair == nil {
		return nil, refuse(ErrAlgorithm, "Key spec %s has no public key.", s.Name)
	}
	key, err := parsePrivate(s.pair, material)
	if err != nil {
		return nil, fmt.Errorf("%w of %s: %w", ErrMaterial, s.Name, err)
	}
	return key, nil
}

// public parses a public key.
func (s *Spec) public(spki []byte) (crypto.PublicKey, error) {
	if s.pair == nil {
		return nil, refuse(ErrAlgorithm, "Key spec %s has no public key.", s.Name)
	}
	key, err := parsePublic(s.pair, spki)
	if err != nil {
		return nil, fmt.Errorf("%w of %s: %w", ErrPublicKey, s.Name, err)
	}
	return key, nil
}
