package store

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// KeyID is a KMS key's ID.
type KeyID = uuid.UUID

// MaterialID names one key material of a key.
type MaterialID [32]byte

// GrantID names a grant.
type GrantID [32]byte

func (id MaterialID) String() string { return hex.EncodeToString(id[:]) }
func (id GrantID) String() string    { return hex.EncodeToString(id[:]) }

// MarshalText gives 64 hexadecimal digits.
func (id MaterialID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, id[:]), nil }

// UnmarshalText takes 64 hexadecimal digits.
func (id *MaterialID) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(id)) {
		return fmt.Errorf("key material ID of %d characters: want %d", len(text), hex.EncodedLen(len(id)))
	}
	_, err := hex.Decode(id[:], text)
	return err
}

// Key is a KMS key without its material. Its text fields hold AWS's names, its times have whole
// milliseconds.
type Key struct {
	ID          KeyID     `json:"-"`
	Description string    `json:"description,omitempty"`
	Manager     string    `json:"manager"`
	Spec        string    `json:"spec"`
	Usage       string    `json:"usage"`
	Origin      string    `json:"origin"`
	State       string    `json:"state"`
	Created     time.Time `json:"created"`
	// Materials are all that the key ever had, the oldest first; those of imported material that
	// awaits its rotation come last.
	Materials []Material `json:"materials,omitempty"`
	// Current is the place in Materials of the one that encrypts; the others only decrypt. -1 if
	// there is none yet.
	Current int `json:"current"`
	// PublicKey is an asymmetric key's, as SubjectPublicKeyInfo in DER.
	PublicKey []byte `json:"publicKey,omitempty"`
	// Deletion is when the key goes, if it is pending deletion.
	Deletion time.Time `json:"deletion,omitzero"`
	// RotationPeriod is in days, 0 for no rotation, and NextRotation when it is due.
	RotationPeriod int       `json:"rotationPeriod,omitempty"`
	NextRotation   time.Time `json:"nextRotation,omitzero"`
	// OnDemandRotations counts the rotations that were asked for.
	OnDemandRotations int `json:"onDemandRotations,omitempty"`
	// Tags are sorted by their keys.
	Tags []Tag `json:"tags,omitempty"`
}

// Material says what there is to know of a key material but its secret.
type Material struct {
	ID MaterialID `json:"id"`
	// Present says that the secret is there: it is not where imported material was deleted, or has
	// expired.
	Present bool `json:"present"`
	// Rotated is when it became current, and Rotation how; zero for the first material and for what
	// awaits its rotation.
	Rotated  time.Time `json:"rotated,omitzero"`
	Rotation string    `json:"rotation,omitempty"`
	// Pending says that it awaits its rotation.
	Pending bool `json:"pending,omitempty"`
	// ValidTo is when imported material expires; zero for never.
	ValidTo     time.Time `json:"validTo,omitzero"`
	Description string    `json:"description,omitempty"`
}

// Tag is a name and value that a key's owner gave it.
type Tag struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Alias is another name of a key.
type Alias struct {
	// Name begins with "alias/".
	Name    string    `json:"-"`
	Target  KeyID     `json:"target"`
	Created time.Time `json:"created"`
	Updated time.Time `json:"updated"`
}

// Grant lets a principal use a key.
type Grant struct {
	Key     KeyID     `json:"-"`
	ID      GrantID   `json:"-"`
	Name    string    `json:"name,omitempty"`
	Created time.Time `json:"created"`
	// Grantee and Retirer are ARNs; Retirer may be empty.
	Grantee    string   `json:"grantee"`
	Retirer    string   `json:"retirer,omitempty"`
	Operations []string `json:"operations"`
	// The constraints; empty where there is none.
	Equals     map[string]string `json:"equals,omitempty"`
	Subset     map[string]string `json:"subset,omitempty"`
	PathPrefix string            `json:"pathPrefix,omitempty"`
	// Expires is zero for never.
	Expires time.Time `json:"expires,omitzero"`
}

// AccessKey is what a user signs calls with that come over a network.
type AccessKey struct {
	ID string `json:"-"`
	// UID is the user whom it stands for.
	UID uint32 `json:"uid"`
	// Secret is in text, as the user has it.
	Secret  []byte    `json:"secret"`
	Created time.Time `json:"created"`
}

// Usage is a key's last use.
type Usage struct {
	Time      time.Time `json:"time"`
	Operation string    `json:"operation"`
	EventID   uuid.UUID `json:"eventID"`
	RequestID uuid.UUID `json:"requestID"`
}

// decode is strict, so that a store with fields of a later version is not taken for one without.
func decode(value []byte, record any) error {
	d := json.NewDecoder(bytes.NewReader(value))
	d.DisallowUnknownFields()
	return d.Decode(record)
}
