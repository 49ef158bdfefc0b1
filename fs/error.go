package fs

import (
	"errors"
	"fmt"
	"io"
	"syscall"

	"kmsfs/envelope"
	"kmsfs/fs/keys"
	disk "kmsfs/fs/volume"
)

// What can be wrong with a mountpoint, wrapped with its path.
var (
	ErrMountpointInUse = errors.New("the mountpoint is in use or not empty")
	ErrNoFusermount    = errors.New("fusermount3 is missing")
)

// errLocked says that nobody who has a file open may use it any more.
var errLocked = fmt.Errorf("the file's data key was dropped: %w", keys.ErrDenied)

// errno is the one place where errors become error numbers. What an attacker or a fault may have caused is logged: op and
// path say where it was found.
func (v *volume) errno(err error, op, path string) syscall.Errno {
	var number syscall.Errno
	switch {
	case err == nil, errors.Is(err, io.EOF):
		return 0
	case errors.Is(err, keys.ErrDenied):
		return syscall.EACCES
	case errors.Is(err, envelope.ErrTooLong):
		return syscall.ENAMETOOLONG
	case errors.Is(err, envelope.ErrExhausted):
		number = syscall.EFBIG
	case errors.Is(err, disk.ErrMismatch), errors.Is(err, envelope.ErrAuthentication), errors.Is(err, envelope.ErrFormat):
		number = syscall.EIO
	case errors.As(err, &number):
		return number
	default:
		number = syscall.EIO
	}
	v.log.Error("can't "+op, "path", path, "error", err)
	return number
}
