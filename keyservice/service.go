// Package keyservice is a key service with AWS KMS's semantics: KMS keys, aliases and data keys, for every caller on its own account, with an
// audit log of every call. It keeps its state in a directory, the home, which one process at a time has open; that process
// serves others on a socket.
//
// FORMAT.md specifies ciphertext blobs and what a home holds.
package keyservice

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/sealer"
	"kmsfs/keyservice/store"
)

// Service is an open home. It is safe for concurrent use.
type Service struct {
	dir, auditDir *homeDir
	lock          *os.File
	facts         facts
	names         names
	users         users
	rootKey       *lockedKey
	ring          *keyring
	store         *store.Store
	index         *index
	log           *audit.Log

	life   sync.RWMutex // held by every call, and for writing by Close; guards closed
	closed bool

	changes sync.Mutex // held by every change, from its checks to its end; taken after life

	serving sync.Mutex // guards server; taken before life
	server  *listener
}

var _ API = (*Service)(nil)

// Open opens a home. Its errors wrap ErrNoHome, ErrLocked, ErrWrongSecret, ErrSealerMismatch, ErrDamagedHome or
// ErrUnsafeHome where one of them applies, and nothing is changed then.
func Open(dir string, s sealer.Sealer) (*Service, error) {
	service := &Service{}
	if err := service.open(dir, s); err != nil {
		return nil, errors.Join(err, service.release())
	}
	return service, nil
}

func (s *Service) open(dir string, secret sealer.Sealer) (err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	if s.dir, err = openHomeDir(dir); err != nil {
		return err
	}
	sealed, err := s.dir.readRootKey()
	if err != nil {
		return err
	}
	if s.lock, err = s.dir.lock(); err != nil {
		return err
	}
	rootKey, err := sealed.unseal(secret)
	if err != nil {
		return err
	}
	if s.rootKey, err = lockKey(rootKey); err != nil {
		return err
	}
	if s.ring, err = newKeyring(s.rootKey.bytes()); err != nil {
		return err
	}
	if err := s.openStore(); err != nil {
		return err
	}
	return s.openLog()
}

func (s *Service) openStore() (err error) {
	var contents *store.Contents
	s.store, contents, err = store.Open(filepath.Join(s.dir.Name(), storeFile), func(flag int) (*os.File, error) {
		return s.dir.open(storeFile, flag, maxStoreFile)
	})
	if err != nil {
		return homeError(err)
	}
	if s.facts, err = openFacts(s.ring, contents.Home); err != nil {
		return err
	}
	s.names = names{s.facts.Name, s.facts.Account}
	s.index, err = newIndex(contents, s.ring, s.names)
	return err
}

func (s *Service) openLog() (err error) {
	if s.auditDir, err = s.dir.sub(auditDir); err != nil {
		return err
	}
	file, err := s.auditDir.open(auditFile, os.O_RDWR|os.O_APPEND, maxAuditFile)
	if err != nil {
		return err
	}
	if s.log, err = audit.Open(int(s.auditDir.Fd()), auditFile, file); err != nil {
		return errors.Join(fmt.Errorf("%w: %w", ErrDamagedHome, err), file.Close())
	}
	return nil
}

// OwnerUID is the UID of the user whose home it is.
func (s *Service) OwnerUID() uint32 { return s.facts.Owner }

// MemoryLocked says whether the root key can't be swapped; the limit on locked memory may forbid that.
func (s *Service) MemoryLocked() bool { return s.rootKey.locked }

// Close ends the service after the calls that are under way, and wipes the root key. Closing twice is no error.
func (s *Service) Close() error {
	s.life.Lock()
	ended := s.closed
	s.closed = true
	s.life.Unlock()
	if ended {
		return nil
	}
	// No call is under way now, and none comes any more.
	return errors.Join(s.stopServing(), s.release())
}

// release gives back what has been opened, the lock last.
func (s *Service) release() error {
	var errs []error
	if s.log != nil {
		errs = append(errs, s.log.Close())
	}
	if s.auditDir != nil {
		errs = append(errs, s.auditDir.Close())
	}
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	if s.rootKey != nil {
		errs = append(errs, s.rootKey.close())
	}
	s.ring = nil
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	if s.dir != nil {
		errs = append(errs, s.dir.Close())
	}
	return errors.Join(errs...)
}
