package fs

import (
	"errors"
	"fmt"
	"io"
	"syscall"

	"kmsfs/envelope"
)

// What can be wrong with a volume or a mountpoint, wrapped with its path.
var (
	ErrNotVolume       = errors.New("not a kmsfs volume")
	ErrVolumeInUse     = errors.New("the volume is mounted already")
	ErrRepairMounted   = errors.New("the volume is mounted, and can't be repaired meanwhile")
	ErrVolumeDamaged   = errors.New("the volume's configuration is damaged")
	ErrNotEmpty        = errors.New("the directory is not empty")
	ErrMountpointInUse = errors.New("the mountpoint is in use or not empty")
	ErrNoFusermount    = errors.New("there is no fusermount3")
)

// errMismatch says that a file or directory is not where, or not whose, its authenticated location and owner say.
var errMismatch = errors.New("lies elsewhere, or belongs to somebody else, than its header says")

// errLocked says that nobody who has a file open may use it any more.
var errLocked = fmt.Errorf("the file's data key was dropped: %w", ErrRefused)

// errno is the one place where errors become error numbers. What an attacker or a fault may have caused is logged: op and
// path say where it was found.
func (v *volume) errno(err error, op, path string) syscall.Errno {
	var number syscall.Errno
	switch {
	case err == nil, errors.Is(err, io.EOF):
		return 0
	case errors.Is(err, ErrRefused):
		return syscall.EACCES
	case errors.Is(err, envelope.ErrTooLong):
		return syscall.ENAMETOOLONG
	case errors.Is(err, envelope.ErrExhausted):
		number = syscall.EFBIG
	case errors.Is(err, errMismatch), errors.Is(err, envelope.ErrAuthentication), errors.Is(err, envelope.ErrFormat):
		number = syscall.EIO
	case errors.As(err, &number):
		return number
	default:
		number = syscall.EIO
	}
	v.log.Error("can't "+op, "path", path, "error", err)
	return number
}
