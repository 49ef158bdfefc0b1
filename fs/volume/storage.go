package volume

import (
	"errors"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/volume/backing"
)

// maxOverflow bounds what is read of a header's overflow, in bytes: XATTR_SIZE_MAX of the kernel.
const maxOverflow = 64 << 10

// Storage is an open file of the volume as package envelope asks for it.
type Storage struct {
	backing.File
	// unsynced says that the overflow changed, which fdatasync(2) doesn't make durable.
	unsynced atomic.Bool
}

var _ envelope.Storage = (*Storage)(nil)

// NewStorage returns the storage in an open file, which the caller closes.
func NewStorage(f backing.File) *Storage { return &Storage{File: f} }

// Size returns the file's size in bytes.
func (s *Storage) Size() (int64, error) {
	st, err := s.Stat()
	return st.Size, err
}

// PunchHole writes zeros where the file system has no holes.
func (s *Storage) PunchHole(off, n int64) error {
	err := s.File.Allocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	if !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	zeros := make([]byte, min(n, 1<<20))
	for end := off + n; off < end; off += int64(len(zeros)) {
		zeros = zeros[:min(int64(len(zeros)), end-off)]
		if _, err := s.WriteAt(zeros, off); err != nil {
			return err
		}
	}
	return nil
}

// Allocate makes room for n bytes at off; keepSize leaves the file's size as it is.
func (s *Storage) Allocate(off, n int64, keepSize bool) error {
	var mode uint32
	if keepSize {
		mode = unix.FALLOC_FL_KEEP_SIZE
	}
	return s.File.Allocate(mode, off, n)
}

// SeekData returns where data begins, at off or behind it.
func (s *Storage) SeekData(off int64) (int64, error) { return s.Seek(off, unix.SEEK_DATA) }

// SeekHole returns where a hole begins, at off or behind it.
func (s *Storage) SeekHole(off int64) (int64, error) { return s.Seek(off, unix.SEEK_HOLE) }

// Sync makes the content durable, and the overflow if it was changed.
func (s *Storage) Sync() error {
	if s.unsynced.Swap(false) {
		return s.File.Sync()
	}
	return s.Datasync()
}

// Overflow returns the header's overflow; nil if there is none.
func (s *Storage) Overflow() ([]byte, error) {
	value := make([]byte, maxOverflow)
	n, err := s.Getxattr(OverflowAttribute, value)
	switch {
	case errors.Is(err, unix.ENODATA), errors.Is(err, unix.EOPNOTSUPP):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return value[:n], nil
}

// SetOverflow sets the header's overflow; nil removes it.
func (s *Storage) SetOverflow(value []byte) error {
	s.unsynced.Store(true)
	if value != nil {
		return s.Setxattr(OverflowAttribute, value, 0)
	}
	if err := s.Removexattr(OverflowAttribute); !errors.Is(err, unix.ENODATA) {
		return err
	}
	return nil
}
