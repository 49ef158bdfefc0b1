package session

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"

	"golang.org/x/sys/unix"

	keyhome "kmsfs/keyservice/home"
	"kmsfs/keyservice/sealer"
)

// Created holds the undoing of each step that created something: a failed command leaves nothing
// behind.
type Created []func() error

// Undo removes everything that was created, the last first.
func (c *Created) Undo() error {
	var errs []error
	for i := len(*c) - 1; i >= 0; i-- {
		errs = append(errs, (*c)[i]())
	}
	*c = nil
	return errors.Join(errs...)
}

// KeyFile creates the key file, if the secret is one that does not exist.
func (c *Created) KeyFile(s *Secret) error {
	if s.Kind != sealer.KindKeyFile {
		return nil
	}
	if _, err := os.Lstat(s.Path); !errors.Is(err, fs.ErrNotExist) {
		return nil // what is wrong with it, if anything, is said when it is opened
	}
	if err := sealer.CreateKeyFile(s.Path); err != nil {
		return fmt.Errorf("key file: %w", err)
	}
	*c = append(*c, func() error { return os.Remove(s.Path) })
	return nil
}

// Home creates a key service home.
func (c *Created) Home(dir string, s *Secret) error {
	sealer, err := s.Sealer()
	if err != nil {
		return err
	}
	// The directories above it stay. The home itself may have existed, empty.
	_, err = os.Lstat(dir)
	fresh := errors.Is(err, fs.ErrNotExist)
	if err := keyhome.Init(keyhome.InitOptions{Dir: dir, Sealer: sealer, Owner: Self().UID}); err != nil {
		return err
	}
	*c = append(*c, func() error {
		if fresh {
			return os.RemoveAll(dir)
		}
		entries, err := os.ReadDir(dir)
		for _, entry := range entries {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, entry.Name())))
		}
		return err
	})
	return nil
}

// FinishOnSignals lets the program finish what it has begun, which takes seconds, rather than end
// with something half-created.
func FinishOnSignals() {
	signal.Notify(make(chan os.Signal, 1), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
}
