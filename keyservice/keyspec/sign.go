package keyspec

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha512" // for the schemes

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	k1ecdsa "github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
)

// What a message to be signed is.
const (
	// Raw is a message that the algorithm hashes; the default.
	Raw = "RAW"
	// Digest is a message's hash.
	Digest = "DIGEST"
	// externalMu is for ML-DSA keys only.
	externalMu = "EXTERNAL_MU"
)

// scheme is a signing algorithm.
type scheme struct {
	// hash is what RAW messages are hashed with, and what a DIGEST has the size of; 0 if the algorithm does its own hashing.
	hash crypto.Hash
	// only is the one message type that the algorithm is for; empty if for both.
	only string
	// rehashes says that even a DIGEST is hashed.
	rehashes bool
	options  crypto.SignerOpts
}

var schemes = map[string]scheme{
	"RSASSA_PSS_SHA_256":        pss(crypto.SHA256),
	"RSASSA_PSS_SHA_384":        pss(crypto.SHA384),
	"RSASSA_PSS_SHA_512":        pss(crypto.SHA512),
	"RSASSA_PKCS1_V1_5_SHA_256": {hash: crypto.SHA256, options: crypto.SHA256},
	"RSASSA_PKCS1_V1_5_SHA_384": {hash: crypto.SHA384, options: crypto.SHA384},
	"RSASSA_PKCS1_V1_5_SHA_512": {hash: crypto.SHA512, options: crypto.SHA512},
	"ECDSA_SHA_256":             {hash: crypto.SHA256, options: crypto.SHA256},
	"ECDSA_SHA_384":             {hash: crypto.SHA384, options: crypto.SHA384},
	"ECDSA_SHA_512":             {hash: crypto.SHA512, options: crypto.SHA512},
	"ED25519_SHA_512":           {only: Raw, options: &ed25519.Options{}},
	// AWS takes a SHA-512 digest for Ed25519ph and hashes it once more: "KMS still performs the SHA-512 prehash described in Step 1 of
	// Section 7.8.1 in FIPS 186-5. This means the input is hashed twice: once by you and once by KMS." (API reference, Sign). So
	// elsewhere the signature is one of Ed25519ph for the digest as the message.
	"ED25519_PH_SHA_512": {hash: crypto.SHA512, only: Digest, rehashes: true, options: &ed25519.Options{Hash: crypto.SHA512}},
}

// otherSchemes are AWS's algorithms of specs that are not supported.
var otherSchemes = []string{"SM2DSA", "ML_DSA_SHAKE_256"}

// pss is RSASSA-PSS with MGF1 of the same hash and a salt of its size.
func pss(hash crypto.Hash) scheme {
	return scheme{hash: hash, options: &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash}}
}

// scheme finds the algorithm, if it is one of the spec's.
func (s *Spec) scheme(algorithm string) (scheme, error) {
	others := otherSchemes
	if _, ok := schemes[algorithm]; ok {
		others = append(others[:len(others):len(others)], algorithm)
	}
	return schemes[algorithm], s.admit(algorithm, s.SigningAlgorithms, others...)
}

// input is what is signed for a message: its hash, or itself if the algorithm hashes it.
func (c scheme) input(algorithm, messageType string, message []byte) ([]byte, error) {
	switch messageType {
	case "":
		messageType = Raw
	case Raw, Digest, externalMu:
	default:
		return nil, refuse(ErrUnknown, "unknown message type %q", messageType)
	}
	switch {
	case messageType == externalMu || c.only != "" && messageType != c.only:
		return nil, refuse(ErrMessage, "Message type %s is invalid for algorithm %s.", messageType, algorithm)
	case messageType == Digest && len(message) != c.hash.Size():
		return nil, refuse(ErrMessage, "Digest is invalid length for algorithm %s.", algorithm)
	case c.hash == 0 || messageType == Digest && !c.rehashes:
		return message, nil
	}
	h := c.hash.New()
	h.Write(message)
	return h.Sum(nil), nil
}

// Sign signs a message, which is Raw (or "") or a Digest.
func (s *Spec) Sign(algorithm, messageType string, material, message []byte) ([]byte, error) {
	c, err := s.scheme(algorithm)
	if err != nil {
		return nil, err
	}
	input, err := c.input(algorithm, messageType, message)
	if err != nil {
		return nil, err
	}
	key, err := s.private(material)
	if err != nil {
		return nil, err
	}
	defer wipe(key)
	return key.Sign(rand.Reader, input, c.options)
}

// Verify says whether the signature is the key's for the message; if it isn't, that is ErrSignature.
func (s *Spec) Verify(algorithm, messageType string, spki, message, signature []byte) error {
	c, err := s.scheme(algorithm)
	if err != nil {
		return err
	}
	input, err := c.input(algorithm, messageType, message)
	if err != nil {
		return err
	}
	key, err := s.public(spki)
	if err != nil {
		return err
	}
	if !c.verifies(key, input, signature) {
		return ErrSignature
	}
	return nil
}

func (c scheme) verifies(key crypto.PublicKey, input, signature []byte) bool {
	switch key := key.(type) {
	case *rsa.PublicKey:
		if options, ok := c.options.(*rsa.PSSOptions); ok {
			return rsa.VerifyPSS(key, c.hash, input, signature, options) == nil
		}
		return rsa.VerifyPKCS1v15(key, c.hash, input, signature) == nil
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(key, input, signature)
	case *secp256k1.PublicKey:
		// Both values of s are valid, as in AWS.
		parsed, err := k1ecdsa.ParseDERSignature(signature)
		return err == nil && parsed.Verify(input, key)
	case ed25519.PublicKey:
		return ed25519.VerifyWithOptions(key, input, signature, c.options.(*ed25519.Options)) == nil
	}
	return false
}
