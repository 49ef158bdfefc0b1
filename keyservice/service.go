// Package keyservice is a key service with AWS KMS's semantics: KMS keys, aliases, key policies, grants and cryptographic operations, for every
// caller on its own account, with an audit log of every call. It keeps its state in a directory, the home, which one process at a time has open; that process
// serves others on a socket.
//
// FORMAT.md specifies ciphertext blobs and what a home holds.
package keyservice

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"kmsfs/keyservice/authz"
	"kmsfs/keyservice/catalog"
	"kmsfs/keyservice/home"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/material"
	"kmsfs/keyservice/scheduler"
	"kmsfs/keyservice/sealer"
	"kmsfs/keyservice/store"
	"kmsfs/keyservice/token"
	"kmsfs/keyservice/users"
)

// Service is an open home. It is safe for concurrent use.
type Service struct {
	*core
	operations map[string]operation
	strangers  strangers

	life   sync.RWMutex // held by every call, and for writing by Close; guards closed
	closed bool

	serving sync.Mutex // guards server; taken before life
	server  *server
}

var _ kms.Service = (*Service)(nil)

// Open opens a home, and makes up for what has fallen due meanwhile. Its errors wrap those of package home, such as
// ErrDamaged or ErrUnsafe where one of them applies, and nothing is changed then.
func Open(dir string, s sealer.Sealer) (*Service, error) {
	c := &core{scheduler: scheduler.New(), generator: material.NewGenerator()}
	service := &Service{core: c, operations: newOperations(c)}
	if err := service.open(dir, s); err != nil {
		return nil, errors.Join(err, service.release())
	}
	service.startScheduler()
	c.forwarder.Start(c.log)
	return service, nil
}

func (s *Service) open(dir string, secret sealer.Sealer) (err error) {
	if s.home, err = home.Open(dir, secret); err != nil {
		return err
	}
	s.facts, s.ring, s.store, s.slots = &s.home.Facts, s.home.Ring, s.home.Store, s.home.Slots
	s.tokens = token.NewMaker(s.ring)
	s.names = kms.NewARNs(s.facts.Name, s.facts.Account)
	s.users = users.New(s.names.User)
	if err := s.openPolicies(); err != nil {
		return err
	}
	return s.openLog()
}

func (s *Service) openPolicies() (err error) {
	var servicePolicy []byte
	if err := s.store.View(func(tx *store.Tx) (err error) {
		servicePolicy, err = tx.ServicePolicy()
		return err
	}); err != nil {
		return home.AsError(err)
	}
	if servicePolicy == nil {
		servicePolicy = []byte(authz.StandardServicePolicy(s.names))
	}
	document, err := authz.Scope(s.names, nil).Parse(string(servicePolicy))
	if err != nil {
		return fmt.Errorf("%w: service policy: %w", home.ErrDamaged, err)
	}
	if s.authz, err = authz.New(s.names, s.facts.Owner, s.users, document); err != nil {
		return err
	}
	s.catalog = catalog.New(s.home, s.names, s.authz.Policies)
	return nil
}

// OwnerUID is the UID of the user whose home it is.
func (s *Service) OwnerUID() uint32 { return s.facts.Owner }

// MemoryLocked says whether the root key can't be swapped; the limit on locked memory may forbid that.
func (s *Service) MemoryLocked() bool { return s.home.MemoryLocked() }

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
	s.scheduler.Stop()
	s.forwarder.Stop()
	return errors.Join(s.stopServing(), s.usage.Flush(s.store), s.release())
}

// release gives back what has been opened.
func (s *Service) release() error {
	var errs []error
	if s.log != nil {
		errs = append(errs, s.log.Close())
	}
	if s.home != nil {
		errs = append(errs, s.home.Close())
	}
	return errors.Join(errs...)
}

// startScheduler has what falls due done: the deletion of keys, the expiry of imported material and of
// grants, and rotations.
func (s *Service) startScheduler() {
	tended := time.Now()
	s.scheduler.Start(func() time.Duration {
		_ = s.usage.Flush(s.store) // what can't be stored now may be in a minute, and Close says so otherwise
		if time.Since(tended) >= tendInterval {
			tended = time.Now()
			s.log.Tend()
		}
		return dueWork{s.core}.run()
	})
}

// Invoke performs an operation and writes its record. Without the record there is no answer.
func (s *Service) Invoke(ctx context.Context, c kms.Caller, op *kms.Description, in, out any) error {
	s.life.RLock()
	defer s.life.RUnlock()
	if s.closed {
		return kms.Errorf(kms.CodeInternal, "the key service is closed")
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	o, ok := s.operations[op.Name]
	if !ok {
		return &kms.Error{Code: kms.CodeUnknownOperation}
	}
	r := s.newRequest(ctx, c, op.Name)
	defer s.endRequest(r)
	r.readOnly, r.recorded = !op.Changes, op.Unrecorded
	if err := o.handle(r, in, out); err != nil {
		failure := kms.AsError(err)
		if err := s.record(r, failure); err != nil {
			return err
		}
		return failure
	}
	if err := s.record(r, nil); err != nil {
		if secret, ok := out.(kms.Secret); ok {
			secret.Wipe()
		}
		return err
	}
	s.noteUses(r)
	return nil
}
