package volume

import (
	"errors"
	"io"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
)

// maxOverflow bounds what is read of it: XATTR_SIZE_MAX of the kernel.
const maxOverflow = 64 << 10

// Storage is a backing file as package envelope asks for it.
type Storage struct {
	FD int
	// unsynced says that an attribute changed, which fdatasync(2) doesn't make durable.
	unsynced atomic.Bool
}

var _ envelope.Storage = (*Storage)(nil)

// ReadAt reads as io.ReaderAt does.
func (s *Storage) ReadAt(p []byte, off int64) (done int, err error) {
	for done < len(p) {
		n, err := retry(func() (int, error) { return unix.Pread(s.FD, p[done:], off+int64(done)) })
		if err != nil {
			return done, err
		}
		if n == 0 {
			return done, io.EOF
		}
		done += n
	}
	return done, nil
}

// WriteAt writes as io.WriterAt does.
func (s *Storage) WriteAt(p []byte, off int64) (done int, err error) {
	for done < len(p) {
		n, err := retry(func() (int, error) { return unix.Pwrite(s.FD, p[done:], off+int64(done)) })
		if err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

// Size returns the file's size in bytes.
func (s *Storage) Size() (int64, error) {
	var st unix.Stat_t
	err := unix.Fstat(s.FD, &st)
	return st.Size, err
}

// Truncate cuts or extends the file to that size.
func (s *Storage) Truncate(size int64) error {
	return ignoreEINTR(func() error { return unix.Ftruncate(s.FD, size) })
}

// PunchHole writes zeros where the file system has no holes.
func (s *Storage) PunchHole(off, n int64) error {
	err := ignoreEINTR(func() error {
		return unix.Fallocate(s.FD, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	})
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
	return ignoreEINTR(func() error { return unix.Fallocate(s.FD, mode, off, n) })
}

// SeekData returns where data begins, at off or behind it.
func (s *Storage) SeekData(off int64) (int64, error) { return unix.Seek(s.FD, off, unix.SEEK_DATA) }

// SeekHole returns where a hole begins, at off or behind it.
func (s *Storage) SeekHole(off int64) (int64, error) { return unix.Seek(s.FD, off, unix.SEEK_HOLE) }

// Sync makes the content durable, and the overflow if it was changed.
func (s *Storage) Sync() error {
	if s.unsynced.Swap(false) {
		return ignoreEINTR(func() error { return unix.Fsync(s.FD) })
	}
	return ignoreEINTR(func() error { return unix.Fdatasync(s.FD) })
}

// Overflow returns the header's overflow; nil if there is none.
func (s *Storage) Overflow() ([]byte, error) {
	value := make([]byte, maxOverflow)
	n, err := unix.Fgetxattr(s.FD, OverflowAttribute, value)
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
		return unix.Fsetxattr(s.FD, OverflowAttribute, value, 0)
	}
	if err := unix.Fremovexattr(s.FD, OverflowAttribute); !errors.Is(err, unix.ENODATA) {
		return err
	}
	return nil
}

// retry repeats a call as long as a signal interrupts it.
func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

func ignoreEINTR(call func() error) error {
	_, err := retry(func() (int, error) { return 0, call() })
	return err
}
