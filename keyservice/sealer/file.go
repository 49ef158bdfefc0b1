package sealer

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	// minSecret and maxSecret bound the size of a key file in bytes.
	minSecret = 32
	maxSecret = 4096

	// fileHeader is the size in bytes of version and salt.
	fileHeader = 1 + saltSize
)

// file is a sealer under a file's contents, which are read anew for each use.
type file struct {
	kind, path string
	// private has the file refused if others may read it.
	private bool
}

// NewKeyFile returns a sealer under the key file's contents: 32 to 4096 bytes, all of which count. The file must be
// regular and nobody's but its owner's to read or write. It need not exist before the sealer is used.
func NewKeyFile(path string) (Sealer, error) {
	if path == "" {
		return nil, fmt.Errorf("%w: the key file has no name", ErrBadSecret)
	}
	return file{KindKeyFile, path, true}, nil
}

// NewCredential returns a sealer under the systemd credential of that name, as key files are used. Its mode is systemd's affair.
func NewCredential(name string) (Sealer, error) {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return nil, fmt.Errorf("%w: $CREDENTIALS_DIRECTORY is not set, so systemd has given no credentials", ErrBadSecret)
	}
	if name == "" || name != filepath.Base(name) {
		return nil, fmt.Errorf("%w: %q is not a credential's name", ErrBadSecret, name)
	}
	return file{KindCredential, filepath.Join(dir, name), false}, nil
}

// CreateKeyFile makes a key file of 32 random bytes, readable by its owner only and on disk when it returns. There must be none yet.
func CreateKeyFile(path string) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(path))
		}
	}()
	secret := make([]byte, keySize)
	defer clear(secret)
	rand.Read(secret)
	if _, err := f.Write(secret); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

func (f file) Kind() string { return f.kind }

func (f file) Seal(rootKey []byte) ([]byte, error) {
	header := make([]byte, fileHeader)
	header[0] = version
	rand.Read(header[1:])
	key, err := f.key(header)
	if err != nil {
		return nil, err
	}
	return seal(key, header, rootKey)
}

func (f file) Open(sealed []byte) ([]byte, error) {
	if !isPlausible(sealed, fileHeader) {
		return nil, ErrMalformed
	}
	key, err := f.key(sealed[:fileHeader])
	if err != nil {
		return nil, err
	}
	return open(key, sealed, fileHeader)
}

func (f file) key(header []byte) ([]byte, error) {
	secret, err := f.read()
	if err != nil {
		return nil, fmt.Errorf("read the %s: %w", f.kind, err)
	}
	defer clear(secret)
	return hkdf.Key(sha256.New, secret, header[1:], "kmsfs root key sealed by a file", keySize)
}

func (f file) read() ([]byte, error) {
	// A named pipe that nobody writes to must not hold us up.
	in, err := os.OpenFile(f.path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return nil, err
	}
	if err := f.check(info); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrBadSecret, f.path, err)
	}
	secret := make([]byte, info.Size())
	if _, err := io.ReadFull(in, secret); err != nil {
		clear(secret)
		return nil, err
	}
	return secret, nil
}

func (f file) check(info os.FileInfo) error {
	switch size, mode := info.Size(), info.Mode(); {
	case !mode.IsRegular():
		return errors.New("not a regular file")
	case f.private && mode.Perm()&0o077 != 0:
		return fmt.Errorf("mode %04o lets others use it: want 0600 or 0400", mode.Perm())
	case size < minSecret || size > maxSecret:
		return fmt.Errorf("%d bytes: want %d to %d", size, minSecret, maxSecret)
	}
	return nil
}
