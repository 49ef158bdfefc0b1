package keyspec

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/asn1"
	"errors"
	"io"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	k1ecdsa "github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	"golang.org/x/crypto/cryptobyte"
	tags "golang.org/x/crypto/cryptobyte/asn1"
)

var (
	oidP256      = asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}
	oidP384      = asn1.ObjectIdentifier{1, 3, 132, 0, 34}
	oidP521      = asn1.ObjectIdentifier{1, 3, 132, 0, 35}
	oidSecp256k1 = asn1.ObjectIdentifier{1, 3, 132, 0, 10}
	oidECKey     = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
	oidEd25519   = asn1.ObjectIdentifier{1, 3, 101, 112}
)

// ecIdentifier is the AlgorithmIdentifier of a named curve's keys (RFC 5480).
func ecIdentifier(curve asn1.ObjectIdentifier) []byte {
	return identifier(oidECKey, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(curve) })
}

// The tags in an ECPrivateKey (RFC 5915).
var (
	tagCurve = tags.Tag(0).Constructed().ContextSpecific()
	tagPoint = tags.Tag(1).Constructed().ContextSpecific()
)

// marshalECKey is an ECPrivateKey without the curve's name, which stands around it.
func marshalECKey(scalar, point []byte) ([]byte, error) {
	b := cryptobyte.NewBuilder(make([]byte, 0, len(scalar)+len(point)+32))
	b.AddASN1(tags.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(1)
		b.AddASN1OctetString(scalar)
		b.AddASN1(tagPoint, func(b *cryptobyte.Builder) { b.AddASN1BitString(point) })
	})
	return b.Bytes()
}

// parseECKey reads an ECPrivateKey, in which the curve's name and the point may be missing. The point is a bit string's contents, or nil.
func parseECKey(der []byte, curve asn1.ObjectIdentifier) (scalar, point []byte, err error) {
	input := cryptobyte.String(der)
	var key, secret, name, bits, contents cryptobyte.String
	var version int
	var hasName, hasPoint bool
	if !input.ReadASN1(&key, tags.SEQUENCE) || !input.Empty() ||
		!key.ReadASN1Integer(&version) || version != 1 ||
		!key.ReadASN1(&secret, tags.OCTET_STRING) ||
		!key.ReadOptionalASN1(&name, &hasName, tagCurve) ||
		!key.ReadOptionalASN1(&bits, &hasPoint, tagPoint) || !key.Empty() {
		return nil, nil, errSyntax
	}
	if hasName {
		var oid asn1.ObjectIdentifier
		if !name.ReadASN1ObjectIdentifier(&oid) || !name.Empty() || !oid.Equal(curve) {
			return nil, nil, errOtherKey
		}
	}
	if hasPoint && (!bits.ReadASN1(&contents, tags.BIT_STRING) || !bits.Empty()) {
		return nil, nil, errSyntax
	}
	return secret, contents, nil
}

// nist are keys on one of NIST's curves.
type nist struct {
	curve elliptic.Curve
	oid   asn1.ObjectIdentifier
}

func (n nist) algorithm() []byte { return ecIdentifier(n.oid) }

func (n nist) generate() (crypto.Signer, error) { return ecdsa.GenerateKey(n.curve, rand.Reader) }

func (n nist) secret(signer crypto.Signer) ([]byte, error) {
	key := signer.(*ecdsa.PrivateKey)
	scalar, err := key.Bytes()
	if err != nil {
		return nil, err
	}
	defer clear(scalar)
	point, err := key.PublicKey.Bytes()
	if err != nil {
		return nil, err
	}
	return marshalECKey(scalar, point)
}

func (n nist) parseSecret(der []byte) (crypto.Signer, error) {
	scalar, point, err := parseECKey(der, n.oid)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.ParseRawPrivateKey(n.curve, scalar)
	if err != nil || point == nil {
		return key, err
	}
	return key, checkPoint(n, key, point)
}

func (n nist) point(key crypto.PublicKey) ([]byte, error) { return key.(*ecdsa.PublicKey).Bytes() }

func (n nist) parsePoint(point []byte) (crypto.PublicKey, error) {
	return ecdsa.ParseUncompressedPublicKey(n.curve, point)
}

// koblitz are keys on secp256k1, whose arithmetic is Decred's. Unlike crypto/ecdsa's it doesn't take the same time for all secrets.
type koblitz struct{}

// koblitzKey makes one of Decred's keys a crypto.Signer.
type koblitzKey struct {
	key *secp256k1.PrivateKey
}

func (k koblitzKey) Public() crypto.PublicKey { return k.key.PubKey() }

// Sign makes a deterministic signature (RFC 6979) with the lesser of the two possible values of s, which every verifier takes.
func (k koblitzKey) Sign(_ io.Reader, digest []byte, _ crypto.SignerOpts) ([]byte, error) {
	return k1ecdsa.Sign(k.key, digest).Serialize(), nil
}

var koblitzAlgorithm = ecIdentifier(oidSecp256k1)

func (koblitz) algorithm() []byte { return koblitzAlgorithm }

func (koblitz) generate() (crypto.Signer, error) {
	key, err := secp256k1.GeneratePrivateKey()
	if err != nil {
		return nil, err
	}
	return koblitzKey{key}, nil
}

func (koblitz) secret(signer crypto.Signer) ([]byte, error) {
	key := signer.(koblitzKey).key
	scalar := key.Serialize()
	defer clear(scalar)
	return marshalECKey(scalar, key.PubKey().SerializeUncompressed())
}

func (k koblitz) parseSecret(der []byte) (crypto.Signer, error) {
	scalar, point, err := parseECKey(der, oidSecp256k1)
	if err != nil {
		return nil, err
	}
	var d secp256k1.ModNScalar
	// secp256k1.PrivKeyFromBytes would reduce what is too great and take zero.
	if len(scalar) != secp256k1.PrivKeyBytesLen || d.SetByteSlice(scalar) || d.IsZero() {
		d.Zero()
		return nil, errors.New("scalar out of range")
	}
	key := koblitzKey{secp256k1.NewPrivateKey(&d)}
	d.Zero()
	if point == nil {
		return key, nil
	}
	return key, checkPoint(k, key, point)
}

func (koblitz) point(key crypto.PublicKey) ([]byte, error) {
	return key.(*secp256k1.PublicKey).SerializeUncompressed(), nil
}

func (koblitz) parsePoint(point []byte) (crypto.PublicKey, error) {
	// Compressed and hybrid points are refused, as crypto/ecdsa refuses them.
	if len(point) != secp256k1.PubKeyBytesLenUncompressed || point[0] != secp256k1.PubKeyFormatUncompressed {
		return nil, errors.New("not an uncompressed point")
	}
	return secp256k1.ParsePubKey(point)
}

// edwards are Ed25519 keys (RFC 8410).
type edwards struct{}

var edwardsAlgorithm = identifier(oidEd25519, func(*cryptobyte.Builder) {})

func (edwards) algorithm() []byte { return edwardsAlgorithm }

func (edwards) generate() (crypto.Signer, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	return key, err
}

func (edwards) secret(key crypto.Signer) ([]byte, error) {
	b := cryptobyte.NewBuilder(make([]byte, 0, ed25519.SeedSize+2))
	b.AddASN1OctetString(key.(ed25519.PrivateKey)[:ed25519.SeedSize])
	return b.Bytes()
}

func (edwards) parseSecret(der []byte) (crypto.Signer, error) {
	input := cryptobyte.String(der)
	var seed cryptobyte.String
	if !input.ReadASN1(&seed, tags.OCTET_STRING) || !input.Empty() || len(seed) != ed25519.SeedSize {
		return nil, errSyntax
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

func (edwards) point(key crypto.PublicKey) ([]byte, error) { return key.(ed25519.PublicKey), nil }

func (edwards) parsePoint(point []byte) (crypto.PublicKey, error) {
	if len(point) != ed25519.PublicKeySize {
		return nil, errSyntax
	}
	return ed25519.PublicKey(point), nil
}

// wipe erases a private key, as far as it can be: crypto/rsa and crypto/ecdsa give no way to.
func wipe(key crypto.Signer) {
	switch key := key.(type) {
	case ed25519.PrivateKey:
		clear(key)
	case koblitzKey:
		key.key.Zero()
	}
}
