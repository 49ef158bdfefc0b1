package home

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/store"
)

// What a home holds.
const (
	rootKeyFile = "rootkey"
	storeFile   = "keys.db"
	slotsFile   = "slots"
	lockFile    = "lock"
	socketFile  = "socket"
	auditDir    = audit.Directory
	auditFile   = audit.OpenName
)

// How large files of a home can be, in bytes; larger ones are not this program's.
const (
	maxRootKeyFile = 4096
	maxStoreFile   = 1 << 40
	maxSlotsFile   = store.SlotSize << 32
	maxLockFile    = 0
	maxAuditFile   = 1 << 50
)

// Dir is an open directory of a home. What lies in it is reached through the descriptor, wherever the
// directory's name leads by then.
type Dir struct {
	*os.File
	owner uint32
}

// openDirectory opens a home's directory; the error is ErrMissing if it is missing or empty.
func openDirectory(path string) (*Dir, error) {
	dir, err := openDir(unix.AT_FDCWD, path, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w in %s", ErrMissing, path)
	}
	if err != nil {
		return nil, err
	}
	if _, err := dir.Readdirnames(1); errors.Is(err, io.EOF) {
		return nil, errors.Join(fmt.Errorf("%w in %s: the directory is empty", ErrMissing, path), dir.Close())
	}
	if euid := os.Geteuid(); euid != 0 && dir.owner != uint32(euid) {
		return nil, errors.Join(fmt.Errorf("%w: %s belongs to uid %d, and not to uid %d", ErrUnsafe, path, dir.owner, euid), dir.Close())
	}
	return dir, nil
}

// openDir opens a directory that its owner alone can change.
func openDir(at int, path string, flags int) (*Dir, error) {
	fd, err := openat(at, path, unix.O_RDONLY|unix.O_DIRECTORY|flags, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	dir := &Dir{File: os.NewFile(uintptr(fd), path)}
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	dir.owner = stat.Uid
	if stat.Mode&0o022 != 0 {
		return nil, errors.Join(fmt.Errorf("%w: mode %04o of %s lets others change it", ErrUnsafe, stat.Mode&0o7777, path), dir.Close())
	}
	return dir, nil
}

// openat opens without following a link at the end, and without waiting for the other end of a pipe.
func openat(at int, path string, flags int, mode uint32) (int, error) {
	for {
		fd, err := unix.Openat(at, path, flags|unix.O_CLOEXEC|unix.O_NONBLOCK, mode)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// sub opens a directory in it.
func (d *Dir) sub(name string) (*Dir, error) {
	sub, err := openDir(int(d.Fd()), name, unix.O_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, filepath.Join(d.Name(), name), err)
	}
	if err != nil {
		return nil, err
	}
	if err := d.checkOwner(name, sub.owner); err != nil {
		return nil, errors.Join(err, sub.Close())
	}
	return sub, nil
}

// open opens a file in it after checking that it can be one of a home's: regular, of at most maxSize bytes, and nobody else's to change.
func (d *Dir) open(name string, flags int, maxSize int64) (*os.File, error) {
	path := filepath.Join(d.Name(), name)
	fd, err := openat(int(d.Fd()), name, flags|unix.O_NOFOLLOW, 0)
	switch {
	case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.EISDIR):
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, path, err)
	case err != nil:
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	if err := d.check(name, fd, maxSize); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (d *Dir) check(name string, fd int, maxSize int64) error {
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return err
	}
	path := filepath.Join(d.Name(), name)
	switch {
	case stat.Mode&unix.S_IFMT != unix.S_IFREG:
		return fmt.Errorf("%w: %s is not a regular file", ErrDamaged, path)
	case stat.Size > maxSize:
		return fmt.Errorf("%w: %s has %d bytes: want at most %d", ErrDamaged, path, stat.Size, maxSize)
	case stat.Mode&0o022 != 0:
		return fmt.Errorf("%w: mode %04o of %s lets others change it", ErrUnsafe, stat.Mode&0o7777, path)
	}
	return d.checkOwner(name, stat.Uid)
}

// checkOwner lets files belong to the directory's owner, and to root.
func (d *Dir) checkOwner(name string, uid uint32) error {
	if uid != d.owner && uid != 0 {
		return fmt.Errorf("%w: %s belongs to uid %d, and its directory to uid %d", ErrUnsafe, filepath.Join(d.Name(), name), uid, d.owner)
	}
	return nil
}

// lock locks the home for this process until the file is closed.
func (d *Dir) lock() (*os.File, error) {
	f, err := d.open(lockFile, os.O_RDWR, maxLockFile)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = fmt.Errorf("%w: %s", ErrLocked, d.Name())
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Exists says whether the directory is a home. A missing or empty one is none; any other content gives ErrDamaged.
func Exists(dir string) (bool, error) {
	_, err := SealerKind(dir)
	if errors.Is(err, ErrMissing) {
		return false, nil
	}
	return err == nil, err
}

// SealerKind says what the home's root key is sealed by: a Kind constant of package sealer.
func SealerKind(dir string) (string, error) {
	home, err := openDirectory(dir)
	if err != nil {
		return "", err
	}
	defer home.Close()
	root, err := home.readRootKey()
	if err != nil {
		return "", err
	}
	return root.Sealer, nil
}
