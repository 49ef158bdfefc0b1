package keyspec

import (
	"bytes"
	"crypto"
	"encoding/asn1"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	tags "golang.org/x/crypto/cryptobyte/asn1"
)

// pair is a kind of key pairs: how they are made, and how their keys lie in PKCS#8 and SubjectPublicKeyInfo. crypto/x509 is not used for
// those two, as it doesn't know secp256k1 and overlooks what follows where nothing should.
type pair interface {
	// algorithm is the key's AlgorithmIdentifier in DER.
	algorithm() []byte
	generate() (crypto.Signer, error)
	// secret is the privateKey of PKCS#8, which the caller wipes, and parseSecret reads it.
	secret(crypto.Signer) ([]byte, error)
	parseSecret([]byte) (crypto.Signer, error)
	// point is the subjectPublicKey, and parsePoint reads it.
	point(crypto.PublicKey) ([]byte, error)
	parsePoint([]byte) (crypto.PublicKey, error)
}

// maxMaterial bounds key pairs' material in bytes, so that none takes long to be refused. An RSA_4096 key has some 2400.
const maxMaterial = 4096

var (
	errSyntax   = errors.New("not in DER or not of the right form")
	errOtherKey = errors.New("of another kind of key")
	errMismatch = errors.New("public and private key don't belong together")
)

var (
	tagAttributes = tags.Tag(0).Constructed().ContextSpecific()
	tagPublicKey  = tags.Tag(1).ContextSpecific()
)

// identifier is an AlgorithmIdentifier in DER, whose parameters are what f adds.
func identifier(oid asn1.ObjectIdentifier, f cryptobyte.BuilderContinuation) []byte {
	var b cryptobyte.Builder
	b.AddASN1(tags.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		f(b)
	})
	return b.BytesOrPanic()
}

// marshalPrivate is a key in PKCS#8 (RFC 5208).
func marshalPrivate(p pair, key crypto.Signer) ([]byte, error) {
	secret, err := p.secret(key)
	if err != nil {
		return nil, err
	}
	defer clear(secret)
	// With enough room from the start no copies are left behind.
	b := cryptobyte.NewBuilder(make([]byte, 0, len(secret)+64))
	b.AddASN1(tags.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(0)
		b.AddBytes(p.algorithm())
		b.AddASN1OctetString(secret)
	})
	return b.Bytes()
}

// parsePrivate reads a key in PKCS#8 (RFC 5208), or with its public key besides (RFC 5958), which must then be the right one.
// Attributes, which some programs add, are passed over.
func parsePrivate(p pair, der []byte) (crypto.Signer, error) {
	if len(der) > maxMaterial {
		return nil, fmt.Errorf("%d bytes: want at most %d", len(der), maxMaterial)
	}
	input := cryptobyte.String(der)
	var outer, algorithm, secret, point cryptobyte.String
	var version int
	var hasPoint bool
	if !input.ReadASN1(&outer, tags.SEQUENCE) || !input.Empty() ||
		!outer.ReadASN1Integer(&version) || version < 0 || version > 1 ||
		!outer.ReadASN1Element(&algorithm, tags.SEQUENCE) ||
		!outer.ReadASN1(&secret, tags.OCTET_STRING) ||
		!outer.SkipOptionalASN1(tagAttributes) ||
		!outer.ReadOptionalASN1(&point, &hasPoint, tagPublicKey) ||
		!outer.Empty() || hasPoint != (version == 1) {
		return nil, errSyntax
	}
	if !bytes.Equal(algorithm, p.algorithm()) {
		return nil, errOtherKey
	}
	key, err := p.parseSecret(secret)
	if err != nil {
		return nil, err
	}
	if hasPoint {
		err = checkPoint(p, key, point)
	}
	return key, err
}

// checkPoint says whether the contents of a bit string are the key's public key.
func checkPoint(p pair, key crypto.Signer, bits []byte) error {
	want, err := p.point(key.Public())
	if err != nil {
		return err
	}
	if len(bits) == 0 || bits[0] != 0 || !bytes.Equal(bits[1:], want) {
		return errMismatch
	}
	return nil
}

// marshalPublic is a public key as SubjectPublicKeyInfo (RFC 5280).
func marshalPublic(p pair, key crypto.PublicKey) ([]byte, error) {
	point, err := p.point(key)
	if err != nil {
		return nil, err
	}
	var b cryptobyte.Builder
	b.AddASN1(tags.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(p.algorithm())
		b.AddASN1BitString(point)
	})
	return b.Bytes()
}

// parsePublic reads what marshalPublic makes, and nothing else.
func parsePublic(p pair, der []byte) (crypto.PublicKey, error) {
	input := cryptobyte.String(der)
	var outer, algorithm cryptobyte.String
	var point []byte
	if !input.ReadASN1(&outer, tags.SEQUENCE) || !input.Empty() ||
		!outer.ReadASN1Element(&algorithm, tags.SEQUENCE) ||
		!outer.ReadASN1BitStringAsBytes(&point) || !outer.Empty() {
		return nil, errSyntax
	}
	if !bytes.Equal(algorithm, p.algorithm()) {
		return nil, errOtherKey
	}
	return p.parsePoint(point)
}
