package token

import (
	"encoding/binary"
	"strconv"
	"time"

	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/store"
)

// Import is what an import token says. The private key that unwraps the imported material is in the
// token, encrypted, so that the key service doesn't have to remember it.
type Import struct {
	Key             store.KeyID
	Algorithm, Spec string
	ValidTo         time.Time
}

// Context binds a token's parts to the encrypted private key.
func (t *Import) Context() map[string]string {
	return map[string]string{
		"kmsfs:import": t.Key.String(), "algorithm": t.Algorithm, "spec": t.Spec,
		"validTo": strconv.FormatInt(t.ValidTo.UnixMilli(), 10),
	}
}

// Append returns the token: the time, the algorithm and the spec in the clear, and the encrypted
// private key.
func (t *Import) Append(sealed []byte) []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(t.ValidTo.UnixMilli()))
	for _, text := range []string{t.Algorithm, t.Spec} {
		b = append(b, byte(len(text)))
		b = append(b, text...)
	}
	return append(b, sealed...)
}

// ReadImport reads a token that is used for a key. Nothing in it is to be believed before the private
// key is decrypted.
func ReadImport(key store.KeyID, token []byte) (t *Import, sealed []byte, err error) {
	if len(token) < 9 {
		return nil, nil, ErrInvalidImport()
	}
	t = &Import{Key: key, ValidTo: time.UnixMilli(int64(binary.BigEndian.Uint64(token)))}
	rest := token[8:]
	for _, text := range []*string{&t.Algorithm, &t.Spec} {
		if len(rest) == 0 || len(rest) <= int(rest[0]) {
			return nil, nil, ErrInvalidImport()
		}
		*text, rest = string(rest[1:1+rest[0]]), rest[1+rest[0]:]
	}
	return t, rest, nil
}

// ErrInvalidImport returns the error for a token that was not made for the key.
func ErrInvalidImport() *kms.Error {
	return kms.Errorf(kms.CodeInvalidImportToken, "The import token is not one of this key's.")
}
