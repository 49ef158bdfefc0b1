package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// A mount is spoken to by extended attributes of its directories, which package fs defines.
const (
	keyAttribute                  = "user.kmsfs.key"
	effectiveKeyAttribute         = "user.kmsfs.effective.key"
	compressionAttribute          = "user.kmsfs.compression"
	effectiveCompressionAttribute = "user.kmsfs.effective.compression"
	rewrapAttribute               = "user.kmsfs.rewrap"
	adoptAttribute                = "user.kmsfs.adopt"
	lockAttribute                 = "user.kmsfs.locked"
)

var (
	errKeyRefused       = errors.New("the KMS key can't be used for it: it isn't there, is disabled, or you have no leave")
	errNotOwner         = errors.New("it belongs to somebody else")
	errNotAdministrator = errors.New("only root, or the user whose mount it is, may do that")
	errReadOnlyMount    = errors.New("the mount is read-only, or can't do that")
)

// onMount resolves a path and returns the mount that it lies on.
func onMount(path string) (resolved string, on mount, err error) {
	if resolved, err = resolve(path, true); err != nil {
		return "", mount{}, pathError(err)
	}
	if _, err := os.Lstat(resolved); err != nil {
		return "", mount{}, pathError(err)
	}
	on, ok, err := mountAbove(resolved)
	if err == nil && !ok {
		err = fmt.Errorf("%s: %w", path, errNotMounted)
	}
	return resolved, on, err
}

// openOnMount opens a directory on a mount, to speak to it.
func openOnMount(path string) (*os.File, error) {
	resolved, _, err := onMount(path)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Open(resolved, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// tell sets an attribute of an open directory, or with a nil value removes it. about says what the directory, or an entry of it, is called in errors.
func tell(dir *os.File, attribute string, value []byte, about string) error {
	var err error
	if value == nil {
		err = unix.Fremovexattr(int(dir.Fd()), attribute)
	} else {
		err = unix.Fsetxattr(int(dir.Fd()), attribute, value, 0)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EACCES):
		err = errKeyRefused
	case errors.Is(err, unix.EPERM) && (attribute == adoptAttribute || attribute == lockAttribute):
		err = errNotAdministrator
	case errors.Is(err, unix.EPERM):
		err = errNotOwner
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EROFS):
		err = errReadOnlyMount
	case errors.Is(err, unix.EIO):
		err = fmt.Errorf("%w: the mount's log says why", err)
	}
	return fmt.Errorf("%s: %w", about, err)
}

// readAttribute reads an attribute of an open directory; empty if there is none.
func readAttribute(dir *os.File, attribute string) (string, error) {
	value := make([]byte, 4096)
	n, err := unix.Fgetxattr(int(dir.Fd()), attribute, value)
	if errors.Is(err, unix.ENODATA) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", dir.Name(), err)
	}
	return string(value[:n]), nil
}

// openParent opens the directory of what path names, which it doesn't follow, and returns its name there.
func openParent(path string) (dir *os.File, name string, err error) {
	resolved, err := resolve(path, false)
	if err != nil {
		return nil, "", pathError(err)
	}
	if m, ok, err := mountedAt(resolved); err != nil || ok && m.fsType == fsType {
		return nil, "", errors.Join(err, fmt.Errorf("%s: is a mountpoint: name what lies in it", path))
	}
	if dir, err = openOnMount(filepath.Dir(resolved)); err != nil {
		return nil, "", err
	}
	return dir, filepath.Base(resolved), nil
}
