package envelope

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
)

// IDSize is the length in bytes of volume, file and directory IDs.
const IDSize = 16

// VolumeID names a volume; its text form is 32 lower-case hex digits.
type VolumeID [IDSize]byte

// FileID names a file, for as long as it exists.
type FileID [IDSize]byte

// DirectoryID names a directory, for as long as it exists. The zero DirectoryID is the parent of a volume's root.
type DirectoryID [IDSize]byte

// NewVolumeID returns a random volume ID.
func NewVolumeID() VolumeID { return VolumeID(randomID()) }

// NewFileID returns a random file ID.
func NewFileID() FileID { return FileID(randomID()) }

// NewDirectoryID returns a random directory ID.
func NewDirectoryID() DirectoryID { return DirectoryID(randomID()) }

func (id VolumeID) String() string    { return hex.EncodeToString(id[:]) }
func (id FileID) String() string      { return hex.EncodeToString(id[:]) }
func (id DirectoryID) String() string { return hex.EncodeToString(id[:]) }

// ParseVolumeID reads a volume ID's text form, and no other spelling of it.
func ParseVolumeID(s string) (VolumeID, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != IDSize || hex.EncodeToString(b) != s {
		return VolumeID{}, fmt.Errorf("volume ID %q is not %d lower-case hex digits", s, 2*IDSize)
	}
	return VolumeID(b), nil
}

func randomID() (id [IDSize]byte) {
	rand.Read(id[:]) // never fails: crypto/rand ends the process if the kernel gives no random bytes
	return id
}

// Location is where an entry lies: the ID of its directory and its plaintext name there, 1 to 255 bytes.
type Location struct {
	Directory DirectoryID
	Name      string
}

// MaxName is the longest name in bytes, as Linux has it (NAME_MAX).
const MaxName = 255
