package control

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Why a mount does not do as it is told. Errors wrap them with the path.
var (
	ErrNotMounted       = errors.New("not a mountpoint of kmsfs")
	ErrIsMountpoint     = errors.New("is a mountpoint")
	ErrKeyDenied        = errors.New("the KMS key can't be used: it is missing or disabled, or the key service denies it")
	ErrNotOwner         = errors.New("only the owner and root may do that")
	ErrNotAdministrator = errors.New("only root and the user who mounted it may do that")
	ErrReadOnly         = errors.New("the mount is read-only, or does not support that")
)

// maxValue bounds the attributes' values in bytes: the name of a KMS key has at most 2,048.
const maxValue = 4096

// Directory is an open directory on a mount of kmsfs.
type Directory struct {
	f *os.File
	// named is the path as the user gave it.
	named string
}

// Open opens a directory on a mount of kmsfs.
func Open(path string) (*Directory, error) {
	resolved, _, err := onMount(path)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Open(resolved, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return newDirectory(fd, path), nil
}

func newDirectory(fd int, path string) *Directory {
	return &Directory{os.NewFile(uintptr(fd), path), path}
}

// onMount resolves a path to something that exists, and returns the mount on which it lies.
func onMount(path string) (resolved string, on Mount, err error) {
	if resolved, err = Resolve(path, true); err != nil {
		return "", Mount{}, err
	}
	var st unix.Stat_t
	if err := unix.Lstat(resolved, &st); err != nil {
		return "", Mount{}, fmt.Errorf("%s: %w", path, err)
	}
	on, ok, err := Above(resolved)
	if err == nil && !ok {
		err = fmt.Errorf("%s: %w", path, ErrNotMounted)
	}
	return resolved, on, err
}

// openParent opens the directory of a path's last element, which is not followed, and returns the
// element's name.
func openParent(path string) (dir *Directory, name string, err error) {
	resolved, err := Resolve(path, false)
	if err != nil {
		return nil, "", err
	}
	if _, ok, err := At(resolved); err != nil || ok {
		return nil, "", errors.Join(err, fmt.Errorf("%s: %w", path, ErrIsMountpoint))
	}
	if dir, err = Open(filepath.Dir(resolved)); err != nil {
		return nil, "", err
	}
	return dir, filepath.Base(resolved), nil
}

// Close closes the directory.
func (d *Directory) Close() { d.f.Close() }

// Set sets an attribute of the directory.
func (d *Directory) Set(attribute, value string) error {
	if err := d.order(attribute, value); err != nil {
		return fmt.Errorf("%s: %w", d.named, err)
	}
	return nil
}

// Remove removes an attribute of the directory.
func (d *Directory) Remove(attribute string) error {
	if err := unix.Fremovexattr(int(d.f.Fd()), attribute); err != nil {
		return fmt.Errorf("%s: %w", d.named, reason(attribute, err))
	}
	return nil
}

// Get reads an attribute of the directory; empty if it is not set.
func (d *Directory) Get(attribute string) (string, error) {
	value := make([]byte, maxValue)
	n, err := unix.Fgetxattr(int(d.f.Fd()), attribute, value)
	if errors.Is(err, unix.ENODATA) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", d.named, err)
	}
	return string(value[:n]), nil
}

// order sets an attribute. Its error does not name the directory.
func (d *Directory) order(attribute, value string) error {
	return reason(attribute, unix.Fsetxattr(int(d.f.Fd()), attribute, []byte(value), 0))
}

// reason says what the error number of an attribute means.
func reason(attribute string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EACCES):
		return ErrKeyDenied
	case errors.Is(err, unix.EPERM) && (attribute == Adopt || attribute == Locked):
		return ErrNotAdministrator
	case errors.Is(err, unix.EPERM):
		return ErrNotOwner
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EROFS):
		return ErrReadOnly
	case errors.Is(err, unix.EIO):
		return fmt.Errorf("%w: the mount's log says why", err)
	}
	return err
}

// IsLocked says whether a mount is locked, as far as this user may know.
func IsLocked(mountpoint string) bool {
	n, err := unix.Lgetxattr(mountpoint, Locked, make([]byte, len(Yes)))
	return err == nil && n > 0
}
