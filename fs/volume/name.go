package volume

import (
	"crypto/rand"
	"encoding/hex"
	"strings"

	"kmsfs/envelope"
	"kmsfs/fs/volume/backing"
)

// TempPrefix begins the names of directories that are prepared before they appear, or taken apart
// after they vanished. They lie beside the place that they come from or go to, so that what
// directories inherit from their parent is the kernel's affair.
const TempPrefix = envelope.TempName + "."

// NewTempName returns a name that no entry has.
func NewTempName() string { return TempPrefix + randomHex() }

func randomHex() string {
	var random [16]byte
	rand.Read(random[:])
	return hex.EncodeToString(random[:])
}

// IsControl says that an entry is never a user's: more than package envelope names, since all that
// begins like control files is theirs.
func (b *Volume) IsControl(entry string) bool {
	if !strings.HasPrefix(entry, "kmsfs.") {
		return false
	}
	return envelope.IsControl(entry) || !envelope.IsLong(entry) && !strings.HasPrefix(entry, "kmsfs.=")
}

// NameOf returns the name, as users see it, of an entry in the directory with that ID.
func (b *Volume) NameOf(dir backing.Dir, id envelope.DirectoryID, e backing.Entry) (string, error) {
	var long string
	if envelope.IsLong(e.Name) {
		content, err := b.readControl(dir, envelope.LongFile(e.Name), 1, envelope.MaxLongFile)
		if err != nil {
			return "", err
		}
		long = string(content)
	}
	return b.Sealed.DecryptName(id, e.Name, long)
}
