package volume

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/keys"
	"kmsfs/fs/volume/backing"
)

// Report is what a file, directory or symlink in a volume says of itself. Its JSON names are
// stable.
type Report struct {
	Path string `json:"path"`
	// Type is "file", "directory", "symlink", "fifo", "socket", "device", or "control" for the
	// volume's own files.
	Type          string `json:"type"`
	FormatVersion int    `json:"formatVersion,omitempty"`
	// FileID is set for files, DirectoryID for directories.
	FileID      string `json:"fileId,omitempty"`
	DirectoryID string `json:"directoryId,omitempty"`
	// KeyARN names the KMS key of a file.
	KeyARN string `json:"keyArn,omitempty"`
	// DirectoryKey is the KMS key, in any form, for files made beneath a directory that sets one.
	DirectoryKey      string            `json:"directoryKey,omitempty"`
	WrappedKey        []byte            `json:"-"`
	EncryptionContext map[string]string `json:"encryptionContext,omitempty"`
	// Locations are where the header or record says that it lies. A file with more than two has
	// DigestedLocations instead, which is their number: of those, the header has only digests.
	Locations         []ReportedLocation `json:"locations"`
	DigestedLocations int                `json:"digestedLocations,omitempty"`
	// Flags are "sparse" and "detailsSealed".
	Flags []string `json:"flags"`
	// PlaintextSize is set for files and symlinks, in bytes.
	PlaintextSize *int64 `json:"plaintextSize,omitempty"`
	// Authentic says that the header or record was found to be what was sealed. If it isn't,
	// Refusal says why the key service didn't let that be found out, or Fault what is wrong.
	Authentic bool   `json:"authentic"`
	Refusal   string `json:"refusal,omitempty"`
	Fault     string `json:"fault,omitempty"`
}

// ReportedLocation is an envelope.Location as text.
type ReportedLocation struct {
	DirectoryID string `json:"directoryId"`
	Name        string `json:"name"`
}

// The types of what Report is about.
const (
	typeFile      = "file"
	typeDirectory = "directory"
	typeSymlink   = "symlink"
	typeControl   = "control"
)

// Inspector examines what lies in a volume, mounted or not. It changes nothing.
type Inspector struct{ v *Volume }

// NewInspector opens the volume. Its errors are Mount's.
func NewInspector(keys keys.Service, volume string) (*Inspector, error) {
	b, err := Open(volume, keys, "inspect")
	if err != nil {
		return nil, err
	}
	return &Inspector{b}, nil
}

// Close forgets the volume's keys.
func (i *Inspector) Close() { i.v.Close() }

// Inspect reports on what users see at path, which is relative to the volume's root.
func (i *Inspector) Inspect(path string) (*Report, error) {
	return i.inspect(path, func(dir backing.Dir, name string) (string, error) {
		record, err := i.v.ReadDirectory(dir)
		if err != nil {
			return "", err
		}
		sealed, err := i.v.Sealed.EncryptName(record.ID, name)
		return sealed.Entry, err
	})
}

// InspectSealed reports on what the volume itself has at path, which is relative to its root.
func (i *Inspector) InspectSealed(path string) (*Report, error) {
	return i.inspect(path, func(_ backing.Dir, name string) (string, error) { return name, nil })
}

// inspect walks to path, whose elements entryOf translates, without ever following a link.
func (i *Inspector) inspect(path string, entryOf func(dir backing.Dir, name string) (string, error)) (*Report, error) {
	dir, entry := i.v.Root, "."
	defer func() {
		if dir != i.v.Root {
			dir.Close()
		}
	}()
	for name := range strings.SplitSeq(path, "/") {
		if name == "" || name == "." {
			continue
		}
		if name == ".." {
			return nil, fmt.Errorf("%s: %w", path, unix.EINVAL)
		}
		if entry != "." {
			next, err := dir.OpenDir(entry)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			if dir != i.v.Root {
				dir.Close()
			}
			dir = next
		}
		var err error
		if entry, err = entryOf(dir, name); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	report, err := i.report(dir, entry)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return report, nil
}

func (i *Inspector) report(dir backing.Dir, entry string) (*Report, error) {
	st, err := dir.StatAt(entry)
	if err != nil {
		return nil, err
	}
	r := &Report{Flags: []string{}, Locations: []ReportedLocation{}}
	switch {
	case envelope.IsControl(entry):
		r.Type = typeControl
		return r, nil
	case st.Mode&unix.S_IFMT == unix.S_IFREG:
		r.Type = typeFile
		return r, i.reportFile(r, dir, entry)
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		r.Type = typeDirectory
		return r, i.reportDirectory(r, dir, entry)
	case st.Mode&unix.S_IFMT == unix.S_IFLNK:
		r.Type = typeSymlink
		return r, i.reportSymlink(r, dir, entry)
	case st.Mode&unix.S_IFMT == unix.S_IFIFO:
		r.Type = "fifo"
	case st.Mode&unix.S_IFMT == unix.S_IFSOCK:
		r.Type = "socket"
	default:
		r.Type = "device"
	}
	return r, nil // they have nothing that could be authentic
}

func (i *Inspector) reportFile(r *Report, dir backing.Dir, entry string) error {
	f, err := dir.OpenFile(entry, unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	st := NewStorage(f)
	size, err := st.Size()
	if err != nil {
		return err
	}
	// A file that is open, or was when a mount ended uncleanly, may have a size that none at rest
	// has.
	plainSize := envelope.TolerantPlainSize(size)
	r.PlaintextSize = &plainSize
	header, err := i.v.Sealed.ReadHeader(st, true)
	if err != nil {
		return r.fault(err)
	}
	id := i.v.Sealed.ID()
	r.FormatVersion = 1 // the only one that ReadHeader reads
	r.FileID, r.KeyARN, r.WrappedKey = header.FileID.String(), header.KeyARN, header.WrappedKey
	r.EncryptionContext = header.Context(id)
	r.locate(header.Locations)
	r.DigestedLocations = len(header.LinkDigests)
	if header.Sparse {
		r.Flags = append(r.Flags, "sparse")
	}
	if !i.v.Sealed.Config().PlaintextNames {
		r.Flags = append(r.Flags, "detailsSealed")
	}
	if !i.v.Sealed.Allows(header.KeyARN) {
		r.Fault = "the KMS key is none of the volume's"
		return nil
	}
	key, err := i.v.Keys.Decrypt(context.Background(), keys.Self("inspect"), header.KeyARN, header.WrappedKey, header.Context(id))
	if errors.Is(err, keys.ErrDenied) {
		r.Refusal = err.Error()
		return nil
	}
	if err != nil {
		r.Fault = "the data key doesn't open: " + err.Error()
		return nil
	}
	defer clear(key)
	file, err := i.v.Sealed.OpenFile(st, header, key, envelope.FileOptions{Tolerant: true, ReadOnly: true})
	if err != nil {
		return r.fault(err)
	}
	r.Authentic = true
	return file.Close()
}

func (i *Inspector) reportDirectory(r *Report, dir backing.Dir, entry string) error {
	d, err := dir.OpenDir(entry)
	if err != nil {
		return err
	}
	defer d.Close()
	record, err := i.v.ReadDirectory(d)
	if err != nil {
		return r.fault(err)
	}
	r.FormatVersion, r.Authentic = 1, true
	r.DirectoryID, r.DirectoryKey = record.ID.String(), record.Key
	r.locate(record.Locations)
	return nil
}

func (i *Inspector) reportSymlink(r *Report, dir backing.Dir, entry string) error {
	sealed, err := dir.Readlink(entry)
	if err != nil {
		return err
	}
	target, err := i.v.Sealed.OpenTarget(sealed)
	if err != nil {
		return r.fault(err)
	}
	length := int64(len(target))
	r.PlaintextSize, r.Authentic = &length, true
	return nil
}

func (r *Report) locate(locations []envelope.Location) {
	for _, l := range locations {
		r.Locations = append(r.Locations, ReportedLocation{l.Directory.String(), TextPath(l.Name)})
	}
}

// fault notes an error that says that the volume holds something else than was sealed, and returns
// all others.
func (r *Report) fault(err error) error {
	if errors.Is(err, envelope.ErrAuthentication) || errors.Is(err, envelope.ErrFormat) || errors.Is(err, envelope.ErrEmpty) {
		r.Fault = err.Error()
		return nil
	}
	return err
}
