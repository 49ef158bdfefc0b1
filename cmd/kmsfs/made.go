package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"kmsfs/keyservice"
	"kmsfs/keyservice/sealer"
)

// made holds what undoes each step that made something, so that a failed command leaves nothing behind.
type made []func() error

// undo unmakes everything, the last first.
func (m *made) undo() error {
	var errs []error
	for i := len(*m) - 1; i >= 0; i-- {
		errs = append(errs, (*m)[i]())
	}
	*m = nil
	return errors.Join(errs...)
}

// keyFile makes the key file if the secret is one and it isn't there.
func (m *made) keyFile(s *secret) error {
	if s.Kind != sealer.KindKeyFile {
		return nil
	}
	if _, err := os.Lstat(s.Path); !errors.Is(err, fs.ErrNotExist) {
		return nil // it is there, or whoever opens it will say what is wrong
	}
	if err := sealer.CreateKeyFile(s.Path); err != nil {
		return fmt.Errorf("key file: %w", err)
	}
	*m = append(*m, func() error { return os.Remove(s.Path) })
	return nil
}

// home makes a key service home.
func (m *made) home(dir string, s *secret) error {
	sealer, err := s.sealer()
	if err != nil {
		return err
	}
	// The directories above are no less welcome if the home comes to nothing; the home itself may have been there, empty.
	_, err = os.Lstat(dir)
	fresh := errors.Is(err, fs.ErrNotExist)
	if err := keyservice.Init(keyservice.InitOptions{Dir: dir, Sealer: sealer, Owner: self().UID}); err != nil {
		return err
	}
	*m = append(*m, func() error {
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
