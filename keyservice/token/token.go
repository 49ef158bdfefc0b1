// Package token makes and reads the texts that the key service gives out and takes back: list
// markers, grant tokens, import tokens and audit sessions. A MAC or a cipher keeps them from being
// made up.
package token

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"slices"
	"time"

	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/material"
	"kmsfs/keyservice/store"
)

// Maker makes and reads tokens. It is safe for concurrent use.
type Maker struct {
	markers, grants, sessions material.MACKey
}

// NewMaker returns a maker whose list markers and grant tokens are good as long as the root key is.
// Its sessions end with the process.
func NewMaker(ring *material.Keyring) Maker {
	sessions := make(material.MACKey, sha256.Size)
	rand.Read(sessions)
	return Maker{ring.Markers, ring.Tokens, sessions}
}

// Marker says where the next page of an operation's list begins: behind the last item that was
// listed, which may be gone by then.
func (m Maker) Marker(operation string, last []byte) string {
	return base64.RawURLEncoding.EncodeToString(append(m.markerMAC(operation, last), last...))
}

// ReadMarker returns the last item that was listed.
func (m Maker) ReadMarker(operation, marker string) ([]byte, error) {
	if err := kms.CheckLength("marker", len(marker), 1, kms.MaxMarker); err != nil {
		return nil, err
	}
	b, err := base64.RawURLEncoding.DecodeString(marker)
	if err != nil || len(b) <= sha256.Size || !hmac.Equal(b[:sha256.Size], m.markerMAC(operation, b[sha256.Size:])) {
		return nil, ErrInvalidMarker()
	}
	return b[sha256.Size:], nil
}

// ReadKeyMarker returns what a marker of one key's list names behind the key's ID; nil for no marker.
func (m Maker) ReadKeyMarker(operation, marker string, key store.KeyID) ([]byte, error) {
	if marker == "" {
		return nil, nil
	}
	last, err := m.ReadMarker(operation, marker)
	if err != nil {
		return nil, err
	}
	if len(last) <= len(key) || store.KeyID(last[:len(key)]) != key {
		return nil, ErrInvalidMarker()
	}
	return last[len(key):], nil
}

// ErrInvalidMarker returns the error for a marker that was not made for the operation and the key.
func ErrInvalidMarker() *kms.Error {
	return kms.Errorf(kms.CodeInvalidMarker, "The marker is not one of this operation's.")
}

func (m Maker) markerMAC(operation string, last []byte) []byte {
	return m.markers.Sum([]byte(operation+"/"), last)
}

// grantNonce is the size in bytes of what makes a grant's tokens differ.
const grantNonce = 16

// Grant makes a grant token. It is no secret, and gives nobody a permission: it names a grant, which
// holds as soon as it is made.
func (m Maker) Grant(key store.KeyID, id store.GrantID) string {
	token := slices.Concat(key[:], id[:], make([]byte, grantNonce))
	rand.Read(token[len(key)+len(id):])
	return base64.RawURLEncoding.EncodeToString(append(token, m.grants.Sum(token)...))
}

// ReadGrant returns the grant that a token names, which may have ended.
func (m Maker) ReadGrant(text string) (key store.KeyID, id store.GrantID, err error) {
	const size = len(key) + len(id) + grantNonce
	token, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(token) != size+sha256.Size || !hmac.Equal(token[size:], m.grants.Sum(token[:size])) {
		return key, id, kms.Errorf(kms.CodeInvalidGrantToken, "The grant token is not one of this key service's.")
	}
	copy(key[:], token)
	copy(id[:], token[len(key):])
	return key, id, nil
}

// CheckGrants returns an error for tokens that this key service never gave out. Others change
// nothing, as grants hold at once, and for their grantees only.
func (m Maker) CheckGrants(tokens []string) error {
	if err := kms.CheckLength("grantTokens", len(tokens), 0, kms.MaxGrantTokens); err != nil {
		return err
	}
	for _, token := range tokens {
		if err := kms.CheckLength("grantTokens", len(token), 1, kms.MaxIdentifier*4); err != nil {
			return err
		}
		if _, _, err := m.ReadGrant(token); err != nil {
			return err
		}
	}
	return nil
}

// Session stands for a reading of the audit log that is recorded. It lasts until a time, for one
// caller.
func (m Maker) Session(until time.Time, uid uint32, accessKey string) []byte {
	end := binary.BigEndian.AppendUint64(nil, uint64(until.UnixMilli()))
	return append(end, m.sessionMAC(end, uid, accessKey)...)
}

// IsSession says whether a session is the caller's, and lasts now.
func (m Maker) IsSession(session []byte, now time.Time, uid uint32, accessKey string) bool {
	if len(session) != 8+sha256.Size || !hmac.Equal(session[8:], m.sessionMAC(session[:8], uid, accessKey)) {
		return false
	}
	return now.UnixMilli() <= int64(binary.BigEndian.Uint64(session))
}

func (m Maker) sessionMAC(end []byte, uid uint32, accessKey string) []byte {
	return m.sessions.Sum(end, binary.BigEndian.AppendUint32(nil, uid), []byte(accessKey))
}
