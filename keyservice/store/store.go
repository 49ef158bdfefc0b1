// Package store keeps a key service's keys, wrapped materials, aliases, policies and grants
// durably, in a bbolt file. Every record is sealed, so that the file shows little and nothing in it
// can be made up, changed or put in another's place; only what is missing, or an older whole file,
// is not noticed.
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
const version = 5

// lockPatience is how long to wait for somebody who has the file open without holding the home's
// lock.
const lockPatience = time.Second

// Sealer seals records. Table and ID are authenticated.
type Sealer interface {
	Seal(table string, id, plaintext []byte) []byte
	// Open appends the plaintext to dst.
	Open(dst []byte, table string, id, sealed []byte) ([]byte, error)
}

// Store is an open store. Its methods are safe for concurrent use.
type Store struct {
	db     *bbolt.DB
	sealer Sealer
}

// Create makes a store with nothing in it but the home's facts. There must be no such file.
func Create(path string, sealer Sealer, facts []byte) error {
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
		for _, name := range buckets {
			if _, err := tx.CreateBucket([]byte(name)); err != nil {
				return err
			}
		}
		t := &Tx{tx, sealer}
		return errors.Join(t.bucket(metaBucket).Put([]byte(versionKey), []byte{version}), t.seal(metaBucket, []byte(factsKey), facts))
	})
	return errors.Join(err, db.Close())
}

// Open opens the store that Create made, by a function that opens its file. It changes nothing. It
// looks at all pages, but at no record.
func Open(path string, sealer Sealer, open func(flag int) (*os.File, error)) (s *Store, err error) {
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
		if err := db.View(func(tx *bbolt.Tx) error { return check(tx) }); err != nil {
			return errors.Join(err, db.Close())
		}
		s = &Store{db, sealer}
		return nil
	})
	if err != nil {
		if file != nil {
			// If bbolt has panicked, the file is open, locked and mapped still, and the mapping
			// would keep the lock.
			_ = unix.Flock(int(file.Fd()), unix.LOCK_UN) // fails if bbolt has closed it
			file.Close()
		}
		return nil, fmt.Errorf("open the key store: %w", err)
	}
	return s, nil
}

// openExisting opens a file that bbolt can be let loose on. It would make a new store of one that
// has nothing in it.
func openExisting(open func(flag int) (*os.File, error), flag int) (*os.File, error) {
	f, err := open(flag &^ os.O_CREATE)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Size() == 0 {
		err = fmt.Errorf("%w: the file is empty", ErrDamaged)
	}
	if err == nil {
		err = lock(f)
	}
	if err == nil {
		err = checkStructure(f)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// lock locks the file, as bbolt does again, which changes nothing.
func lock(f *os.File) error {
	for deadline := time.Now().Add(lockPatience); ; time.Sleep(lockPatience / 20) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) || time.Now().After(deadline) {
			return err
		}
	}
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
		return s.db.Update(func(tx *bbolt.Tx) error { return f(&Tx{tx, s.sealer}) })
	})
}

// View reads: f sees one state of the store.
func (s *Store) View(f func(*Tx) error) error {
	return guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) error { return f(&Tx{tx, s.sealer}) })
	})
}

// WriteTo writes a copy of the file, of one state of the store.
func (s *Store) WriteTo(f *os.File) error {
	return guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			_, err := tx.WriteTo(f)
			return err
		})
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
