package volume

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/lock"
	"kmsfs/fs/volume/backing"
)

// Sharing is how a mount takes turns with the other mounts of its volume. Exclusive use has no
// other mounts; shared use takes turns by locks on bytes of files, which network file systems pass
// on.
//
// RLock to UnlockMade guard the volume's names: against the mount's own goroutines always, and
// against the other mounts if the volume is shared. They are taken before all other locks, and
// never twice.
type Sharing interface {
	// RLock locks the names to resolve and use them; RUnlock ends it if it returns no error.
	RLock() error
	RUnlock()
	// RLockLocal locks the names as this mount knows them, without waiting for other mounts;
	// RUnlockLocal ends it.
	RLockLocal()
	RUnlockLocal()
	// Lock locks the names to rename and remove them; Unlock ends it if it returns no error.
	Lock() error
	Unlock()
	// LockToMake locks the names while an entry is made that has no name yet, which other mounts
	// must not see unfinished. UnlockMade ends it if it returns no error.
	LockToMake() error
	UnlockMade()
	// LockFile waits for the mount's turn with an open regular file; UnlockFile ends it.
	LockFile(f backing.File, write bool) error
	UnlockFile(f backing.File)
	// Alone says that no other mount changes the volume: what is remembered of it holds.
	Alone() bool

	// acquire takes the volume for the session.
	acquire(s *Session) error
	// release gives it up.
	release()
	// configLock is the lock that is held on the configuration's file: unix.LOCK_EX or LOCK_SH.
	configLock() int
	// lockMarkers keeps the other mounts from the dirty markers, until unlock is called.
	lockMarkers(write bool) (unlock func(), err error)
	// isAlive says whether the marker of that name belongs to another mount that is alive.
	isAlive(root backing.Dir, marker string) (bool, error)
	// mark makes this mount's dirty marker; others says that there are markers of unclean ends.
	mark(s *Session, others bool) error
}

// localNames guards names against the mount's own goroutines.
type localNames struct{ names lock.RWMutex[lock.Names] }

func (l *localNames) RLockLocal()   { l.names.RLock() }
func (l *localNames) RUnlockLocal() { l.names.RUnlock() }

// exclusive is the use of a volume that no other mount may change.
type exclusive struct{ localNames }

func (e *exclusive) RLock() error                              { e.names.RLock(); return nil }
func (e *exclusive) RUnlock()                                  { e.names.RUnlock() }
func (e *exclusive) Lock() error                               { e.names.Lock(); return nil }
func (e *exclusive) Unlock()                                   { e.names.Unlock() }
func (e *exclusive) LockToMake() error                         { return e.RLock() }
func (e *exclusive) UnlockMade()                               { e.RUnlock() }
func (e *exclusive) LockFile(backing.File, bool) error         { return nil }
func (e *exclusive) UnlockFile(backing.File)                   {}
func (e *exclusive) Alone() bool                               { return true }
func (e *exclusive) release()                                  {}
func (e *exclusive) configLock() int                           { return unix.LOCK_EX }
func (e *exclusive) isAlive(backing.Dir, string) (bool, error) { return false, nil }

func (e *exclusive) lockMarkers(bool) (unlock func(), err error) { return func() {}, nil }

// acquire takes the volume alone, or, for reading, together with others that only read.
func (e *exclusive) acquire(s *Session) error {
	how := unix.LOCK_EX
	if s.ReadOnly {
		how = unix.LOCK_SH
	}
	if err := s.lockConfig(how); err != nil {
		return err
	}
	// Of mounts that share a volume not all have a lock on a configuration that one of them has
	// replaced.
	shared, err := s.IsShared()
	if err == nil && shared {
		err = fmt.Errorf("%s: %w", s.Path, ErrInUse)
	}
	return err
}

// mark makes the volume's one marker, unless an unclean end has left it.
func (e *exclusive) mark(s *Session, others bool) error {
	if others {
		return nil
	}
	return s.makeMarker(envelope.MarkName)
}

// shared is the use of a volume together with other mounts, in whatever process or host they are.
// They take turns by locks on bytes of kmsfs.lock that belong to the open file (F_OFD_SETLK of
// fcntl(2)).
type shared struct {
	localNames // taken before the bytes of the lock's file

	// file is the lock's file, marker this mount's own marker, locked for as long as the mount lives; nil
	// before they are open.
	file, marker backing.File

	mu      lock.Mutex[lock.Hosts] // guards what follows; held while the byte of the names is waited for
	none    *sync.Cond             // readers is 0
	readers int                    // of this mount, which hold the byte of the names together
	since   time.Time              // when the first of them came
}

// The bytes of kmsfs.lock.
const (
	gateByte   = iota // held while namesByte is waited for, so that readers that come and go don't keep a writer out for ever
	namesByte         // the volume's names
	marksByte         // the markers, and who begins to share, while that is looked through and changed
	sharedByte        // held for reading by each mount that shares the volume
)

// turnByte is the byte of a regular file that is locked to read or change it: beyond all content.
const turnByte = 1 << 62

// longestShare bounds how long the readers of a mount keep the names from others by coming one
// after another.
const longestShare = 10 * time.Millisecond

func newShared() *shared {
	h := &shared{}
	h.none = sync.NewCond(&h.mu)
	return h
}

// acquire makes this mount one of those that share the volume: no mount has it alone.
func (h *shared) acquire(s *Session) error {
	if err := h.open(s); err != nil {
		return fmt.Errorf("%s: %w", s.Path, err)
	}
	unlock, err := h.lockMarkers(!s.ReadOnly)
	if err != nil {
		return err
	}
	defer unlock()
	others, err := isLocked(h.file, sharedByte)
	if err != nil {
		return err
	}
	if !others { // a mount that has the volume alone doesn't want it changed, by this mount or by one that joins it
		err := s.lockConfig(unix.LOCK_EX)
		if err != nil && (!s.ReadOnly || !errors.Is(err, unix.EBADF)) { // what is open for reading, network file systems lock for reading only
			return err
		}
	}
	if err := lockByte(h.file, sharedByte, unix.F_RDLCK); err != nil {
		return err
	}
	return s.lockConfig(unix.LOCK_SH)
}

// open opens the lock's file, and makes it if it isn't there.
func (h *shared) open(s *Session) error {
	flags := unix.O_RDWR
	if s.ReadOnly {
		flags = unix.O_RDONLY
	}
	f, err := s.Root.OpenFile(envelope.LockName, flags|unix.O_CREAT, 0o600)
	if err != nil {
		return fmt.Errorf("opening %s: %w", envelope.LockName, err)
	}
	if st, err := f.Stat(); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		f.Close()
		return fmt.Errorf("%s is not a regular file: %w", envelope.LockName, envelope.ErrFormat)
	}
	h.file = f
	return nil
}

func (h *shared) release() {
	for _, f := range []backing.File{h.file, h.marker} {
		if f != nil {
			f.Close()
		}
	}
}

func (h *shared) Alone() bool     { return false }
func (h *shared) configLock() int { return unix.LOCK_SH }

func (h *shared) RLock() error {
	h.names.RLock()
	if err := h.share(); err != nil {
		h.names.RUnlock()
		return err
	}
	return nil
}

func (h *shared) RUnlock() {
	h.unshare()
	h.names.RUnlock()
}

func (h *shared) Lock() error {
	h.names.Lock()
	if err := h.lockNames(unix.F_WRLCK); err != nil {
		h.names.Unlock()
		return err
	}
	return nil
}

func (h *shared) Unlock() {
	unlockByte(h.file, namesByte)
	h.names.Unlock()
}

func (h *shared) LockToMake() error { return h.Lock() }
func (h *shared) UnlockMade()       { h.Unlock() }

// share takes the byte of the names for the readers of this mount.
func (h *shared) share() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.readers > 0 && time.Since(h.since) > longestShare {
		h.none.Wait()
	}
	if h.readers == 0 {
		if err := h.lockNames(unix.F_RDLCK); err != nil {
			return err
		}
		h.since = time.Now()
	}
	h.readers++
	return nil
}

func (h *shared) unshare() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.readers--
	if h.readers == 0 {
		unlockByte(h.file, namesByte)
		h.none.Broadcast()
	}
}

// lockNames waits until no other mount changes names, or, with F_WRLCK, uses them.
func (h *shared) lockNames(kind int16) error {
	if err := lockByte(h.file, gateByte, kind); err != nil {
		return err
	}
	defer unlockByte(h.file, gateByte)
	return lockByte(h.file, namesByte, kind)
}

func (h *shared) LockFile(f backing.File, write bool) error {
	kind := int16(unix.F_RDLCK)
	if write {
		kind = unix.F_WRLCK
	}
	return lockByte(f, turnByte, kind)
}

func (h *shared) UnlockFile(f backing.File) { unlockByte(f, turnByte) }

func (h *shared) lockMarkers(write bool) (unlock func(), err error) {
	kind := int16(unix.F_RDLCK)
	if write {
		kind = unix.F_WRLCK
	}
	if err := lockByte(h.file, marksByte, kind); err != nil {
		return nil, err
	}
	return func() { unlockByte(h.file, marksByte) }, nil
}

// isAlive finds the marker of a mount that is alive locked by it. The marker of an exclusive mount
// is not.
func (h *shared) isAlive(root backing.Dir, marker string) (bool, error) {
	if marker == envelope.MarkName {
		return false, nil
	}
	f, err := root.OpenFile(marker, unix.O_RDONLY, 0)
	if err != nil {
		return false, err
	}
	defer f.Close()
	return isLocked(f, 0)
}

// mark makes a marker of this mount's own, and locks it.
func (h *shared) mark(s *Session, _ bool) error {
	name := newOwnMarkerName()
	if err := s.makeMarker(name); err != nil {
		return err
	}
	f, err := s.Root.OpenFile(name, unix.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("opening %s: %w", name, err)
	}
	h.marker = f
	return lockByte(f, 0, unix.F_WRLCK)
}

// lockByte waits for a lock on one byte of an open file: unix.F_RDLCK or F_WRLCK.
func lockByte(f backing.File, at int64, kind int16) error {
	if err := f.LockByte(at, kind); err != nil {
		return fmt.Errorf("waiting for other hosts: %w", err)
	}
	return nil
}

// isLocked says whether others have a lock on one byte of an open file.
func isLocked(f backing.File, at int64) (bool, error) {
	locked, err := f.ByteLocked(at)
	if err != nil {
		return false, fmt.Errorf("asking for the locks of other hosts: %w", err)
	}
	return locked, nil
}

// unlockByte ends a lock. If that fails, the lock had been lost.
func unlockByte(f backing.File, at int64) { _ = f.LockByte(at, unix.F_UNLCK) }

// IsShared says whether mounts share the volume.
func (b *Volume) IsShared() (bool, error) {
	f, err := b.Root.OpenFile(envelope.LockName, unix.O_RDONLY, 0)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("%s: opening %s: %w", b.Path, envelope.LockName, err)
	}
	defer f.Close()
	return isLocked(f, sharedByte)
}
