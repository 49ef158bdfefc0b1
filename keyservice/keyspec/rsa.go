package keyspec

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha1" // for OAEP, which needs no collision resistance
	_ "crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	tags "golang.org/x/crypto/cryptobyte/asn1"
)

// rsaPair are RSA keys.
type rsaPair struct {
	// bits is the modulus's length; 0 for any of AWS's.
	bits int
}

var rsaAlgorithm = identifier(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}, func(b *cryptobyte.Builder) {
	b.AddASN1(tags.NULL, func(*cryptobyte.Builder) {})
})

// minExponent is the least public exponent that FIPS 186-5 (section 5.1) allows.
const minExponent = 1<<16 + 1

// primeRounds is the number of Miller-Rabin tests of an imported key's primes. Whoever imports what isn't prime harms only himself, so
// they are against mistakes.
const primeRounds = 8

func (p rsaPair) algorithm() []byte { return rsaAlgorithm }

func (p rsaPair) generate() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, p.bits) }

func (p rsaPair) secret(key crypto.Signer) ([]byte, error) {
	return x509.MarshalPKCS1PrivateKey(key.(*rsa.PrivateKey)), nil
}

func (p rsaPair) parseSecret(der []byte) (crypto.Signer, error) {
	key, err := x509.ParsePKCS1PrivateKey(der)
	if err != nil {
		return nil, err
	}
	if len(key.Primes) != 2 {
		return nil, errors.New("more than two primes")
	}
	again := x509.MarshalPKCS1PrivateKey(key)
	defer clear(again)
	if !bytes.Equal(again, der) {
		return nil, errSyntax
	}
	return key, p.check(&key.PublicKey)
}

func (p rsaPair) point(key crypto.PublicKey) ([]byte, error) {
	return x509.MarshalPKCS1PublicKey(key.(*rsa.PublicKey)), nil
}

func (p rsaPair) parsePoint(der []byte) (crypto.PublicKey, error) {
	key, err := x509.ParsePKCS1PublicKey(der)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(x509.MarshalPKCS1PublicKey(key), der) {
		return nil, errSyntax
	}
	return key, p.check(key)
}

func (p rsaPair) check(key *rsa.PublicKey) error {
	bits := key.N.BitLen()
	switch {
	case bits != p.bits && (p.bits != 0 || bits != 2048 && bits != 3072 && bits != 4096):
		return fmt.Errorf("modulus of %d bits", bits)
	case key.N.Bit(0) == 0:
		return errors.New("even modulus")
	case key.E < minExponent || key.E%2 == 0:
		return fmt.Errorf("public exponent %d", key.E)
	}
	return nil
}

// hasPrimes says whether an RSA key's factors are prime, which crypto/rsa takes for granted; other keys have none.
func hasPrimes(key crypto.Signer) bool {
	pair, ok := key.(*rsa.PrivateKey)
	if !ok {
		return true
	}
	for _, prime := range pair.Primes {
		if !prime.ProbablyPrime(primeRounds) {
			return false
		}
	}
	return true
}

// oaepHashes are the hashes of the OAEP algorithms, for MGF1 too.
var oaepHashes = map[string]crypto.Hash{"RSAES_OAEP_SHA_1": crypto.SHA1, "RSAES_OAEP_SHA_256": crypto.SHA256}

func (s *Spec) admitEncryption(algorithm string) error {
	if err := s.admit(algorithm, s.EncryptionAlgorithms, "SYMMETRIC_DEFAULT", "RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256", "SM2PKE"); err != nil {
		return err
	}
	if s.pair == nil {
		return refuse(ErrAlgorithm, "key spec %s is not encrypted with here", s.Name)
	}
	return nil
}

// MaxPlaintext is how many bytes the algorithm encrypts at most; 0 if it is not one of the spec's.
func (s *Spec) MaxPlaintext(algorithm string) int {
	if s.Symmetric() && algorithm == "SYMMETRIC_DEFAULT" {
		return symmetricPlaintext
	}
	if s.admitEncryption(algorithm) != nil {
		return 0
	}
	return s.pair.(rsaPair).bits/8 - 2*oaepHashes[algorithm].Size() - 2 // RFC 8017, section 7.1.1
}

// Encrypt encrypts the plaintext under the public key. The symmetric spec's envelope is not this package's.
func (s *Spec) Encrypt(algorithm string, spki, plaintext []byte) ([]byte, error) {
	if err := s.admitEncryption(algorithm); err != nil {
		return nil, err
	}
	if limit := s.MaxPlaintext(algorithm); len(plaintext) > limit {
		return nil, refuse(ErrMessage, "Algorithm %s and key spec %s cannot encrypt data larger than %d bytes.", algorithm, s.Name, limit)
	}
	key, err := s.public(spki)
	if err != nil {
		return nil, err
	}
	return rsa.EncryptOAEP(oaepHashes[algorithm].New(), rand.Reader, key.(*rsa.PublicKey), plaintext, nil)
}

// Decrypt decrypts what Encrypt made. Whatever is wrong with the ciphertext is the same ErrDecryption. The caller wipes the plaintext.
func (s *Spec) Decrypt(algorithm string, material, ciphertext []byte) ([]byte, error) {
	if err := s.admitEncryption(algorithm); err != nil {
		return nil, err
	}
	key, err := s.private(material)
	if err != nil {
		return nil, err
	}
	return decryptOAEP(oaepHashes[algorithm], key.(*rsa.PrivateKey), ciphertext)
}

// decryptOAEP takes ciphertexts of the modulus's size only, where crypto/rsa takes shorter ones too.
func decryptOAEP(hash crypto.Hash, key *rsa.PrivateKey, ciphertext []byte) ([]byte, error) {
	if len(ciphertext) != key.Size() {
		return nil, ErrDecryption
	}
	plaintext, err := rsa.DecryptOAEP(hash.New(), nil, key, ciphertext, nil)
	if err != nil {
		return nil, ErrDecryption
	}
	return plaintext, nil
}
