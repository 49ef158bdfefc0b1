package envelope

import (
	"fmt"
	"slices"
	"strings"
)

const (
	// AttributePrefix begins the names of backing attributes that hold users' attributes.
	AttributePrefix = "user.kmsfs.x."
	// AttributeOverhead is how much longer a sealed value is, in bytes.
	AttributeOverhead = nonceBefore + sivOverhead
)

// SealAttributeName returns the backing name of an extended attribute of the object with that ID: a file or directory. The error
// wraps ErrTooLong.
func (v *Volume) SealAttributeName(object [IDSize]byte, name string) (string, error) {
	sealed, err := v.attribute.EncryptDeterministically([]byte(name), slices.Concat([]byte("n"), object[:]))
	if err != nil {
		return "", fmt.Errorf("sealing an attribute's name: %w", err)
	}
	backing := AttributePrefix + b64.EncodeToString(sealed)
	if len(backing) > maxEntry {
		return "", fmt.Errorf("attribute's name has %d bytes: %w", len(name), ErrTooLong)
	}
	return backing, nil
}

// OpenAttributeName is the inverse of SealAttributeName. The error wraps ErrFormat or ErrAuthentication.
func (v *Volume) OpenAttributeName(object [IDSize]byte, backing string) (string, error) {
	encoded, ok := strings.CutPrefix(backing, AttributePrefix)
	if !ok || len(backing) > maxEntry {
		return "", fmt.Errorf("not a sealed attribute: %w", ErrFormat)
	}
	sealed, err := decodeB64(encoded)
	if err != nil {
		return "", err
	}
	name, err := v.attribute.DecryptDeterministically(sealed, slices.Concat([]byte("n"), object[:]))
	if err != nil {
		return "", fmt.Errorf("attribute's name does not open: %w", ErrAuthentication)
	}
	return string(name), nil
}

// SealAttribute seals an attribute's value.
func (v *Volume) SealAttribute(object [IDSize]byte, name string, value []byte) ([]byte, error) {
	nonce := randomNonce()
	sealed, err := v.attribute.EncryptDeterministically(value, attributeData(object, nonce, name))
	if err != nil {
		return nil, fmt.Errorf("sealing an attribute: %w", err)
	}
	return slices.Concat(nonce, sealed), nil
}

// OpenAttribute is the inverse of SealAttribute. The error wraps ErrFormat or ErrAuthentication.
func (v *Volume) OpenAttribute(object [IDSize]byte, name string, sealed []byte) ([]byte, error) {
	if len(sealed) < AttributeOverhead {
		return nil, fmt.Errorf("attribute is too short for a sealed one: %w", ErrFormat)
	}
	value, err := v.attribute.DecryptDeterministically(sealed[nonceBefore:], attributeData(object, sealed[:nonceBefore], name))
	if err != nil {
		return nil, fmt.Errorf("attribute does not open: %w", ErrAuthentication)
	}
	return value, nil
}

func attributeData(object [IDSize]byte, nonce []byte, name string) []byte {
	return slices.Concat([]byte("v"), object[:], nonce, []byte(name))
}
