package envelope

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// DirectorySize is the size of a directory's record in bytes: one page.
const DirectorySize = pageSize

// Offsets in the record (FORMAT.md, section 7), in bytes.
const (
	directoryMagic    = "kmsfd\r\n\x1a"
	directoryVersion  = 1
	directoryLenAt    = 12
	directoryNonceAt  = 16
	directorySealedAt = directoryNonceAt + nonceBefore
	maxDirectoryPlain = DirectorySize - directorySealedAt - sivOverhead
)

// Compression says how files made beneath a directory are compressed.
type Compression uint8

// The compressions.
const (
	CompressionInherited Compression = 0
	CompressionNone      Compression = 1
	CompressionZstd      Compression = 2
)

// Directory is a directory's record. It is not changed once sealed or opened: copies share its slices.
type Directory struct {
	ID DirectoryID
	// Owners are the users (uid) whose the directory may be: one, or two while it is given to another.
	Owners []uint32
	// Locations are where the directory may be found: one, or two while it is renamed.
	Locations []Location
	// Key is the KMS key for files made beneath: an alias, ID or ARN; empty if inherited.
	Key         string
	Compression Compression
}

// LiesAt says whether the directory may be found there.
func (d *Directory) LiesAt(l Location) bool { return slices.Contains(d.Locations, l) }

// OwnedBy says whether the directory may be that user's.
func (d *Directory) OwnedBy(uid uint32) bool { return slices.Contains(d.Owners, uid) }

// SealDirectory returns a directory's record: one page.
func (v *Volume) SealDirectory(d *Directory) ([]byte, error) {
	plain, err := d.marshal()
	if err != nil {
		return nil, err
	}
	page := make([]byte, directorySealedAt, DirectorySize)
	copy(page, directoryMagic)
	binary.BigEndian.PutUint16(page[versionAt:], directoryVersion)
	binary.BigEndian.PutUint32(page[directoryLenAt:], uint32(len(plain)+sivOverhead))
	copy(page[directoryNonceAt:], randomNonce())
	sealed, err := v.directory.EncryptDeterministically(plain, v.directoryData(page))
	if err != nil {
		return nil, fmt.Errorf("sealing a directory's record: %w", err)
	}
	return append(page, sealed...)[:DirectorySize], nil
}

func (v *Volume) directoryData(page []byte) []byte {
	return slices.Concat(v.config.VolumeID[:], page[:directorySealedAt])
}

func (d *Directory) marshal() ([]byte, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	if len(d.Key) > maxDirectoryPlain {
		return nil, fmt.Errorf("directory's key has %d bytes: %w", len(d.Key), ErrTooLong)
	}
	b := append(append([]byte(nil), d.ID[:]...), byte(len(d.Owners)))
	for _, uid := range d.Owners {
		b = binary.BigEndian.AppendUint32(b, uid)
	}
	b = append(b, byte(len(d.Locations)))
	for _, l := range d.Locations {
		b = append(b, l.Directory[:]...)
		b = append(b, byte(len(l.Name)))
		b = append(b, l.Name...)
	}
	b = appendLen16(b, d.Key)
	b = append(b, byte(d.Compression))
	if len(b) > maxDirectoryPlain {
		return nil, fmt.Errorf("directory's record has %d bytes, at most %d fit: %w", len(b), maxDirectoryPlain, ErrTooLong)
	}
	return b, nil
}

func (d *Directory) check() error {
	bad := d.ID == DirectoryID{} || len(d.Owners) < 1 || len(d.Owners) > 2 || len(d.Locations) < 1 || len(d.Locations) > 2 || d.Compression > CompressionZstd
	for _, l := range d.Locations {
		root := l == Location{}
		bad = bad || root && len(d.Locations) > 1 || !root && (l.Directory == DirectoryID{} || checkName(l.Name) != nil)
	}
	if bad {
		return fmt.Errorf("not a directory's record: %w", ErrFormat)
	}
	return nil
}

// OpenDirectory opens a directory's record. The error wraps ErrFormat or ErrAuthentication.
func (v *Volume) OpenDirectory(page []byte) (*Directory, error) {
	if len(page) != DirectorySize || string(page[:versionAt]) != directoryMagic ||
		binary.BigEndian.Uint16(page[versionAt:]) != directoryVersion || !allZero(page[flagsAt:directoryLenAt]) {
		return nil, fmt.Errorf("not a directory's record: %w", ErrFormat)
	}
	n := int64(binary.BigEndian.Uint32(page[directoryLenAt:]))
	if n < sivOverhead || n > DirectorySize-directorySealedAt || !allZero(page[directorySealedAt+n:]) {
		return nil, fmt.Errorf("directory's record: lengths do not fit: %w", ErrFormat)
	}
	plain, err := v.directory.DecryptDeterministically(page[directorySealedAt:][:n], v.directoryData(page))
	if err != nil {
		return nil, fmt.Errorf("directory's record does not open: %w", ErrAuthentication)
	}
	return parseDirectory(plain)
}

func parseDirectory(plain []byte) (*Directory, error) {
	d := decoder{b: plain}
	r := new(Directory)
	copy(r.ID[:], d.take(IDSize))
	for range d.uint8() {
		if d.bad {
			break
		}
		r.Owners = append(r.Owners, d.uint32())
	}
	for range d.uint8() {
		if d.bad {
			break
		}
		var l Location
		copy(l.Directory[:], d.take(IDSize))
		l.Name = string(d.take(int(d.uint8())))
		r.Locations = append(r.Locations, l)
	}
	r.Key = string(d.len16())
	r.Compression = Compression(d.uint8())
	if !d.done() {
		return nil, fmt.Errorf("directory's record: lengths do not fit: %w", ErrFormat)
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	return r, nil
}
