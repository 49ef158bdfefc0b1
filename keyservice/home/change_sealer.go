package home

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"kmsfs/keyservice/sealer"
)

// newRootKeyFile is where a root key is sealed anew before it takes the old one's place.
const newRootKeyFile = rootKeyFile + ".new"

// ChangeSealer seals a home's root key with another secret. A crash at any point leaves it sealed with one of the two. The errors are Open's.
// Whoever has a copy of the home from before, and the old secret, can still open that copy.
func ChangeSealer(dir string, old, secret sealer.Sealer) error {
	home, err := openDirectory(dir)
	if err != nil {
		return err
	}
	defer home.Close()
	sealed, err := home.readRootKey()
	if err != nil {
		return err
	}
	lock, err := home.lock()
	if err != nil {
		return err
	}
	defer lock.Close()
	rootKey, err := sealed.unseal(old)
	if err != nil {
		return err
	}
	defer clear(rootKey)
	text, err := encodeRootKey(secret, rootKey)
	if err != nil {
		return fmt.Errorf("seal the root key: %w", err)
	}
	if err := home.replace(newRootKeyFile, rootKeyFile, text); err != nil {
		return fmt.Errorf("write the sealed root key: %w", err)
	}
	return nil
}

// replace writes a file beside another one's place, and then puts it there, durably.
func (d *Dir) replace(beside, name string, content []byte) error {
	if err := unix.Unlinkat(int(d.Fd()), beside, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	fd, err := openat(int(d.Fd()), beside, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), beside)
	defer f.Close()
	if _, err := f.Write(content); err != nil {
		return err
	}
	if err := f.Chown(int(d.owner), -1); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := unix.Renameat(int(d.Fd()), beside, int(d.Fd()), name); err != nil {
		return err
	}
	return d.Sync()
}
