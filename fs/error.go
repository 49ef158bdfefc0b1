package fs

import (
	"context"
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

// errWiped says that no holder of an open file may use it any more.
var errWiped = fmt.Errorf("the file's data key was dropped: %w", keys.ErrDenied)

// numberOf is the one place where errors become error numbers. An attacker or a fault may have
// caused what is a fault.
func numberOf(err error) (number syscall.Errno, fault bool) {
	switch {
	case err == nil, errors.Is(err, io.EOF):
		return 0, false
	case errors.Is(err, keys.ErrDenied):
		return syscall.EACCES, false
	case errors.Is(err, context.Canceled): // the caller was interrupted
		return syscall.EINTR, false
	case errors.Is(err, envelope.ErrTooLong):
		return syscall.ENAMETOOLONG, false
	case errors.Is(err, envelope.ErrExhausted):
		return syscall.EFBIG, true
	case errors.Is(err, disk.ErrMismatch), errors.Is(err, envelope.ErrAuthentication), errors.Is(err, envelope.ErrFormat):
		return syscall.EIO, true
	case errors.As(err, &number):
		return number, false
	}
	return syscall.EIO, true
}

// errno returns an error's number, and logs a fault: op and path say where it was found.
func (v *volume) errno(err error, op, path string) syscall.Errno {
	number, fault := numberOf(err)
	if fault {
		v.log.Error("can't "+op, "path", path, "error", err)
	}
	return number
}

// errnoAt is errno for what was done at a name. volume.tree is not held.
func (v *volume) errnoAt(err error, op string, l link) syscall.Errno {
	number, fault := numberOf(err)
	if fault {
		v.tree.RLockLocal()
		path := l.path()
		v.tree.RUnlockLocal()
		v.log.Error("can't "+op, "path", path, "error", err)
	}
	return number
}

// errnoOf is errno for what was done to an inode. volume.tree is not held.
func (v *volume) errnoOf(err error, op string, in *inode) syscall.Errno {
	number, fault := numberOf(err)
	if fault {
		v.tree.RLockLocal()
		path := in.path()
		v.tree.RUnlockLocal()
		v.log.Error("can't "+op, "path", path, "error", err)
	}
	return number
}
