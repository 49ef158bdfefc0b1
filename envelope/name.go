package envelope

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
)

const (
	controlPrefix = "kmsfs."
	longPrefix    = "kmsfs.long."
	longSuffix    = ".name"
	movedPrefix   = "kmsfs.="

	// maxEntry is the longest name that backing file systems take, in bytes.
	maxEntry = 255

	// MaxLongFile bounds the content of a long name's file: the sealed form of the longest name, in bytes.
	MaxLongFile = (MaxName+sivOverhead)*4/3 + 2
)

// b64 is base64url without padding, strict: one spelling for each content.
var b64 = base64.RawURLEncoding.Strict()

// BackingName is what the volume has in place of a name.
type BackingName struct {
	// Entry is the name of the backing entry.
	Entry string
	// Long is the content of the file LongFile(Entry), beside the entry; empty if there is none.
	Long string
}

// EncryptName returns the backing name of an entry of the directory with that ID. The error wraps ErrTooLong for a name of more
// than 255 bytes, and ErrFormat for what is no name.
func (v *Volume) EncryptName(dir DirectoryID, name string) (BackingName, error) {
	if err := checkName(name); err != nil {
		return BackingName{}, err
	}
	s, err := v.sealName(dir, name)
	if err != nil {
		return BackingName{}, err
	}
	if len(s) <= maxEntry {
		return BackingName{Entry: s}, nil
	}
	return BackingName{Entry: longEntry(s), Long: s}, nil
}

func checkName(name string) error {
	switch {
	case len(name) > MaxName:
		return fmt.Errorf("name has %d bytes, at most %d fit: %w", len(name), MaxName, ErrTooLong)
	case name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00"):
		return fmt.Errorf("not a name: %w", ErrFormat)
	}
	return nil
}

// sealName is s of FORMAT.md, section 6.
func (v *Volume) sealName(dir DirectoryID, name string) (string, error) {
	if v.config.PlaintextNames {
		if strings.HasPrefix(name, controlPrefix) {
			return movedPrefix + name, nil
		}
		return name, nil
	}
	sealed, err := v.name.EncryptDeterministically([]byte(name), dir[:])
	if err != nil {
		return "", fmt.Errorf("encrypting a name: %w", err)
	}
	return b64.EncodeToString(sealed), nil
}

func longEntry(s string) string {
	hash := sha256.Sum256([]byte(s))
	return longPrefix + b64.EncodeToString(hash[:])
}

// DecryptName returns the name of a backing entry in the directory with that ID. long is the content of LongFile(entry) if
// IsLong(entry), else empty. The error wraps ErrFormat or ErrAuthentication.
func (v *Volume) DecryptName(dir DirectoryID, entry, long string) (string, error) {
	s := entry
	if IsLong(entry) {
		if len(long) <= maxEntry || len(long) > MaxLongFile || longEntry(long) != entry {
			return "", fmt.Errorf("long name is not that of its entry: %w", ErrAuthentication)
		}
		s = long
	} else if len(entry) > maxEntry || long != "" {
		return "", fmt.Errorf("name is long without being a long name: %w", ErrFormat)
	}
	name, err := v.openName(dir, s)
	if err != nil {
		return "", err
	}
	if checkName(name) != nil {
		return "", fmt.Errorf("what opens is not a name: %w", ErrFormat)
	}
	return name, nil
}

func (v *Volume) openName(dir DirectoryID, s string) (string, error) {
	if v.config.PlaintextNames {
		name, moved := strings.CutPrefix(s, movedPrefix)
		if moved != strings.HasPrefix(name, controlPrefix) {
			return "", fmt.Errorf("name has another form than it should: %w", ErrFormat)
		}
		return name, nil
	}
	sealed, err := decodeB64(s)
	if err != nil {
		return "", err
	}
	name, err := v.name.DecryptDeterministically(sealed, dir[:])
	if err != nil {
		return "", fmt.Errorf("name does not open: %w", ErrAuthentication)
	}
	return string(name), nil
}

// decodeB64 decodes what must be at least a synthetic IV.
func decodeB64(s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") { // which the decoder would skip
		return nil, fmt.Errorf("not base64: %w", ErrFormat)
	}
	b, err := b64.DecodeString(s)
	if err != nil || len(b) < sivOverhead {
		return nil, fmt.Errorf("not base64, or too short: %w", ErrFormat)
	}
	return b, nil
}

// IsControl says whether a backing entry is a control file or directory, which users never see.
func IsControl(entry string) bool {
	switch entry {
	case ConfigName, MarkName, LockName, TempName, DirectoryName:
		return true
	}
	return strings.HasPrefix(entry, TempName+".") || strings.HasPrefix(entry, MarkName+".") ||
		strings.HasPrefix(entry, longPrefix) && strings.HasSuffix(entry, longSuffix)
}

// IsLong says whether a backing entry stands for a long name, whose content LongFile holds.
func IsLong(entry string) bool {
	return strings.HasPrefix(entry, longPrefix) && !strings.HasSuffix(entry, longSuffix)
}

// LongFile is the name of the control file that holds the long name of an entry.
func LongFile(entry string) string { return entry + longSuffix }
