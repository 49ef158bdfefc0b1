// Package keyservice is a key service with AWS KMS's semantics: KMS keys, aliases, key policies, grants and cryptographic operations, for every
// caller on its own account, with an audit log of every call. It keeps its state in a directory, the home, which one process at a time has open; that process
// serves others on a socket.
//
// FORMAT.md specifies ciphertext blobs and what a home holds.
package keyservice

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/material"
	"kmsfs/keyservice/sealer"
	"kmsfs/keyservice/store"
	"kmsfs/keyservice/token"
	"kmsfs/policy"
)

// Service is an open home. It is safe for concurrent use.
type Service struct {
	dir, auditDir *homeDir
	lock          *os.File
	facts         facts
	names         kms.ARNs
	users         *Users
	rootKey       *lockedKey
	ring          *material.Keyring
	store         *store.Store
	slots         *store.Slots
	log           *audit.Log
	policies      *policies
	operations    map[string]operation
	// servicePolicy is what decides where no key policy does.
	servicePolicy atomic.Pointer[policy.Document]
	cache         cache
	usage         usage
	agenda        agenda
	exporter      errand
	sender        sender
	// readings is the key to the MACs of sessions in which the audit log is read.
	readings  [32]byte
	refusals  refusals
	requests  sync.Pool // of *request, for use again
	generator material.Generator
	tokens    token.Maker

	life   sync.RWMutex // held by every call, and for writing by Close; guards closed
	closed bool

	changes sync.Mutex // held by every change, from its checks to its end; taken after life, before cache.mu and key.mu

	serving sync.Mutex // guards server; taken before life
	server  *server
}

var _ kms.Service = (*Service)(nil)

// Open opens a home, and makes up for what has fallen due meanwhile. Its errors wrap ErrNoHome, ErrLocked, ErrWrongSecret, ErrSealerMismatch,
// ErrDamagedHome or ErrUnsafeHome where one of them applies, and nothing is changed then.
func Open(dir string, s sealer.Sealer) (*Service, error) {
	service := &Service{users: NewUsers(), operations: newOperations(), generator: material.NewGenerator(), exporter: newErrand(), sender: sender{errand: newErrand()}}
	if err := service.open(dir, s); err != nil {
		return nil, errors.Join(err, service.release())
	}
	service.startAgenda()
	service.startExporting()
	service.startSending()
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
	if s.ring, err = material.NewKeyring(s.rootKey.bytes()); err != nil {
		return err
	}
	s.tokens = token.NewMaker(s.ring)
	if err := s.openStore(); err != nil {
		return err
	}
	return s.openLog()
}

func (s *Service) openStore() (err error) {
	s.store, err = store.Open(filepath.Join(s.dir.Name(), storeFile), s.ring, func(flag int) (*os.File, error) {
		return s.dir.open(storeFile, flag, maxStoreFile)
	})
	if err != nil {
		return homeError(err)
	}
	file, err := s.dir.open(slotsFile, os.O_RDWR, maxSlotsFile)
	if err != nil {
		return err
	}
	if s.slots, err = store.OpenSlots(file); err != nil {
		return errors.Join(err, file.Close())
	}
	var facts, servicePolicy []byte
	if err := s.store.View(func(tx *store.Tx) (err error) {
		if facts, err = tx.Facts(); err == nil {
			servicePolicy, err = tx.ServicePolicy()
		}
		return err
	}); err != nil {
		return homeError(err)
	}
	if err := json.Unmarshal(facts, &s.facts); err != nil {
		return fmt.Errorf("%w: %w", ErrDamagedHome, err)
	}
	s.names = kms.NewARNs(s.facts.Name, s.facts.Account)
	s.users.arn = s.names.User
	return s.openPolicies(servicePolicy)
}

func (s *Service) openPolicies(servicePolicy []byte) (err error) {
	if s.policies, err = newPolicies(s.names); err != nil {
		return err
	}
	if servicePolicy == nil {
		servicePolicy = []byte(standardServicePolicy(s.names))
	}
	document, err := policy.Parse(string(servicePolicy), s.facts.Account)
	if err != nil {
		return fmt.Errorf("%w: service policy: %w", ErrDamagedHome, err)
	}
	s.servicePolicy.Store(document)
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
	s.stopAgenda()
	s.exporter.stop()
	s.sender.stop()
	return errors.Join(s.stopServing(), s.flushUsage(), s.release())
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
	if s.slots != nil {
		errs = append(errs, s.slots.Close())
	}
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	if s.ring != nil {
		s.ring.Wipe()
	}
	if s.rootKey != nil {
		errs = append(errs, s.rootKey.close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	if s.dir != nil {
		errs = append(errs, s.dir.Close())
	}
	return errors.Join(errs...)
}
