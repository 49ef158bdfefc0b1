// Package home is the directory in which a key service keeps its state: the sealed root key, the store
// and its slots, the audit log, the lock and the socket. One process at a time has it open.
//
// FORMAT.md specifies its files.
package home

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"kmsfs/keyservice/material"
	"kmsfs/keyservice/sealer"
	"kmsfs/keyservice/store"
)

// Home is an open home, which no other process has open.
type Home struct {
	Facts Facts
	Ring  *material.Keyring
	Store *store.Store
	Slots *store.Slots

	dir, audit *Dir
	lock       *os.File
	rootKey    *lockedKey
}

// Open opens a home. Its errors wrap ErrMissing, ErrLocked, ErrWrongSecret, ErrSealerMismatch,
// ErrDamaged or ErrUnsafe where one of them applies.
func Open(dir string, secret sealer.Sealer) (*Home, error) {
	h := &Home{}
	if err := h.open(dir, secret); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, nil
}

func (h *Home) open(dir string, secret sealer.Sealer) (err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	if h.dir, err = openDirectory(dir); err != nil {
		return err
	}
	sealed, err := h.dir.readRootKey()
	if err != nil {
		return err
	}
	if h.lock, err = h.dir.lock(); err != nil {
		return err
	}
	rootKey, err := sealed.unseal(secret)
	if err != nil {
		return err
	}
	if h.rootKey, err = lockKey(rootKey); err != nil {
		return err
	}
	if h.Ring, err = material.NewKeyring(h.rootKey.bytes()); err != nil {
		return err
	}
	if err := h.openStore(); err != nil {
		return err
	}
	h.audit, err = h.dir.sub(auditDir)
	return err
}

func (h *Home) openStore() (err error) {
	h.Store, err = store.Open(filepath.Join(h.dir.Name(), storeFile), h.Ring, func(flag int) (*os.File, error) {
		return h.dir.open(storeFile, flag, maxStoreFile)
	})
	if err != nil {
		return AsError(err)
	}
	file, err := h.dir.open(slotsFile, os.O_RDWR, maxSlotsFile)
	if err != nil {
		return err
	}
	if h.Slots, err = store.OpenSlots(file); err != nil {
		return errors.Join(err, file.Close())
	}
	var facts []byte
	if err := h.Store.View(func(tx *store.Tx) (err error) {
		facts, err = tx.Facts()
		return err
	}); err != nil {
		return AsError(err)
	}
	if err := json.Unmarshal(facts, &h.Facts); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return nil
}

// MemoryLocked says whether the root key can't be swapped; the limit on locked memory may forbid that.
func (h *Home) MemoryLocked() bool { return h.rootKey.locked }

// Close wipes the root key, and gives back what has been opened, the lock last.
func (h *Home) Close() error {
	var errs []error
	if h.audit != nil {
		errs = append(errs, h.audit.Close())
	}
	if h.Slots != nil {
		errs = append(errs, h.Slots.Close())
	}
	if h.Store != nil {
		errs = append(errs, h.Store.Close())
	}
	if h.Ring != nil {
		h.Ring.Wipe()
	}
	if h.rootKey != nil {
		errs = append(errs, h.rootKey.close())
	}
	if h.lock != nil {
		errs = append(errs, h.lock.Close())
	}
	if h.dir != nil {
		errs = append(errs, h.dir.Close())
	}
	return errors.Join(errs...)
}
