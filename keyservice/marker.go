package keyservice

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"

	"kmsfs/keyservice/kms"
)

// A marker says where the next page of a list begins: a MAC, so that nobody makes up places, and the last item that was listed, which
// may have gone since.

// marker makes one for an operation.
func (k *keyring) marker(operation string, last []byte) string {
	return base64.RawURLEncoding.EncodeToString(append(k.markerMAC(operation, last), last...))
}

// readMarker returns the last item that was listed.
func (k *keyring) readMarker(operation, marker string) ([]byte, error) {
	if err := kms.CheckLength("marker", len(marker), 1, kms.MaxMarker); err != nil {
		return nil, err
	}
	b, err := base64.RawURLEncoding.DecodeString(marker)
	if err != nil || len(b) <= sha256.Size || !hmac.Equal(b[:sha256.Size], k.markerMAC(operation, b[sha256.Size:])) {
		return nil, errInvalidMarker()
	}
	return b[sha256.Size:], nil
}

func errInvalidMarker() *kms.Error {
	return kms.Errorf(kms.CodeInvalidMarker, "The marker is not one of this operation's.")
}

func (k *keyring) markerMAC(operation string, last []byte) []byte {
	mac := hmac.New(sha256.New, k.markers)
	mac.Write([]byte(operation + "/"))
	mac.Write(last)
	return mac.Sum(nil)
}

// pageSize is the number of items that are asked for.
func pageSize(limit *int32, standard, most int32) (int, error) {
	if limit == nil {
		return int(standard), nil
	}
	return int(*limit), kms.CheckNumber("limit", limit, 1, most)
}
