// Package store keeps a key service's keys, wrapped materials and aliases durably, in a bbolt file.
//
// keyservice/FORMAT.md specifies the file's contents.
package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// ErrDamaged says that the file is not a store, or not one that can be trusted to be whole.
var ErrDamaged = errors.New("damaged key store")

// version is that of the layout.
const version = 1

// lockPatience is how long to wait for somebody who has the file open without holding the home's lock.
const lockPatience = time.Second

// The buckets.
const (
	metaBucket     = "meta"
	keyBucket      = "keys"
	materialBucket = "materials"
	aliasBucket    = "aliases"
)

// The keys in the meta bucket.
const (
	versionKey = "version"
	homeKey    = "home"
)

// Store is an open store. Its methods are safe for concurrent use.
type Store struct {
	db *bbolt.DB
}

// Create makes a store with nothing in it but the home's sealed facts. There must be no such file.
func Create(path string, home []byte) error {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout: lockPatience,
		OpenFile: func(path string, flag int, mode fs.FileMode) (*os.File, error) {
			return os.OpenFile(path, flag|os.O_CREATE|os.O_EXCL, mode)
		},
	})
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range []string{metaBucket, keyBucket, materialBucket, aliasBucket} {
			if _, err := tx.CreateBucket([]byte(name)); err != nil {
				return err
			}
		}
		meta := tx.Bucket([]byte(metaBucket))
		return errors.Join(meta.Put([]byte(versionKey), []byte{version}), meta.Put([]byte(homeKey), home))
	})
	return errors.Join(err, db.Close())
}

// Open opens the store that Create made, by a function that opens its file, and returns its contents. It changes nothing.
func Open(path string, open func(flag int) (*os.File, error)) (s *Store, contents *Contents, err error) {
	var file *os.File
	err = guard(func() error {
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{
			Timeout:      lockPatience,
			FreelistType: bbolt.FreelistMapType,
			OpenFile: func(_ string, flag int, _ fs.FileMode) (_ *os.File, err error) {
				file, err = openExisting(open, flag)
				return file, err
			},
		})
		if err != nil {
			return openError(err)
		}
		if contents, err = load(db); err != nil {
			return errors.Join(err, db.Close())
		}
		s = &Store{db}
		return nil
	})
	if err != nil {
		if file != nil {
			// If bbolt has panicked, the file is open, locked and mapped still, and the mapping would keep the lock.
			_ = unix.Flock(int(file.Fd()), unix.LOCK_UN) // fails if bbolt has closed it
			file.Close()
		}
		return nil, nil, fmt.Errorf("open the key store: %w", err)
	}
	return s, contents, nil
}

// openExisting opens a file that has something in it, as bbolt makes a new store of one that has not.
func openExisting(open func(flag int) (*os.File, error), flag int) (*os.File, error) {
	f, err := open(flag &^ os.O_CREATE)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Size() == 0 {
		err = fmt.Errorf("%w: the file is empty", ErrDamaged)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// openError tells bbolt's findings from the system's errors, such as the lack of permission.
func openError(err error) error {
	_, system := errors.AsType[unix.Errno](err)
	if system || errors.Is(err, ErrDamaged) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}

// Close closes the file. No other method may be called afterwards.
func (s *Store) Close() error { return s.db.Close() }

// Update makes a change: all of what f does, durably, or nothing of it if f returns an error.
func (s *Store) Update(f func(*Tx) error) error {
	return guard(func() error {
		return s.db.Update(func(tx *bbolt.Tx) error { return f(&Tx{tx}) })
	})
}

// guard makes errors of the panics by which bbolt, and the memory that it maps, answer to damage.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, cause)
		}
	}()
	return f()
}
