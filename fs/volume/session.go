package volume

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/keys"
	"kmsfs/fs/lock"
	"kmsfs/fs/volume/backing"
)

// SessionOptions say how a mount uses a volume.
type SessionOptions struct {
	// ReadOnly is the use by a mount that changes nothing in the volume.
	ReadOnly bool
	// Shared lets other mounts, also on other hosts, use the volume at the same time, all of them
	// shared.
	Shared bool
}

// Session is the use of a volume by a mount. It holds the volume's lock, and while it lasts a dirty
// marker says that the volume is being changed.
type Session struct {
	*Volume
	SessionOptions
	// Sharing is how the session takes turns with other mounts.
	Sharing Sharing
	// Root is the record of the root directory.
	RootRecord *envelope.Directory
	// Tolerance is what an unclean end before this session allows.
	Tolerance Tolerance

	// lock is the configuration's file, open, which holds the lock on it; nil if there is none.
	lock backing.File
	// unsynced says that the configuration's name may not be durable.
	unsynced atomic.Bool
	// A clean end closes and removes the session's own marker and those of unclean ends before it. open
	// are those that the key service knows, markers the names of those in the volume, forgeries too.
	open    []keys.MarkerID
	markers []string

	// configuring is held while the configuration is replaced, and with it lock. It is taken after
	// all other locks but those in envelope.Volume.
	configuring lock.Mutex[lock.Config]
}

// Begin begins a session. The volume is marked as being changed when it returns.
func (b *Volume) Begin(o SessionOptions) (*Session, error) {
	s := &Session{Volume: b, SessionOptions: o, Sharing: &exclusive{}}
	if o.Shared {
		s.Sharing = newShared()
	}
	if err := s.begin(); err != nil {
		s.release()
		return nil, err
	}
	return s, nil
}

func (s *Session) begin() error {
	if err := s.Sharing.acquire(s); err != nil {
		return err
	}
	if err := s.reloadConfig(); err != nil { // it may have been replaced before it was locked
		return fmt.Errorf("%s: %w: %w", s.Path, ErrDamaged, err)
	}
	if err := s.readRoot(); err != nil {
		return err
	}
	return s.takeMarkers()
}

// readRoot reads the record of the root directory, which must be the root's and its owner's.
func (s *Session) readRoot() error {
	st, err := s.Root.Stat()
	if err != nil {
		return err
	}
	if s.RootRecord, err = s.ReadDirectory(s.Root); err != nil {
		return fmt.Errorf("%s: %w: the root directory: %w", s.Path, ErrDamaged, err)
	}
	if !s.RootRecord.LiesAt(envelope.Location{}) {
		return fmt.Errorf("%s: %w: its root directory has the record of another directory", s.Path, ErrDamaged)
	}
	if !s.RootRecord.OwnedBy(st.Uid) {
		return fmt.Errorf("%s: %w: it belongs to uid %d, and by its record to uid %d",
			s.Path, ErrDamaged, st.Uid, s.RootRecord.Owners[0])
	}
	return nil
}

// End ends the session and closes the volume. With clean, every file is known to need no tolerance,
// and the volume is marked clean.
func (s *Session) End(clean bool) error {
	var err error
	if !s.ReadOnly && clean {
		err = s.clearMarkers()
	}
	event := keys.Event{Name: keys.EventUnmounted, Details: map[string]string{"volume": s.Path}}
	err = errors.Join(err, s.Keys.Record(context.Background(), keys.Self("umount"), event))
	s.release()
	s.Close()
	return err
}

func (s *Session) release() {
	s.Sharing.release()
	if s.lock != nil {
		s.lock.Close()
	}
}

// lockConfig opens the configuration's file, if it isn't open, and locks it.
func (s *Session) lockConfig(how int) error {
	if s.lock == nil {
		if err := s.openLock(); err != nil {
			return err
		}
	}
	return s.flock(how)
}

func (s *Session) openLock() error {
	flags := unix.O_RDWR // without which a network file system gives no exclusive lock
	if s.ReadOnly {
		flags = unix.O_RDONLY
	}
	f, err := s.Root.OpenFile(envelope.ConfigName, flags, 0)
	if err != nil {
		return fmt.Errorf("locking %s: %w", s.Path, err)
	}
	s.lock = f
	return nil
}

// flock locks the configuration's file: the one that has its name once it is locked, as it may be
// replaced.
func (s *Session) flock(how int) error {
	for {
		err := s.lock.Flock(how | unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("%s: %w", s.Path, ErrInUse)
		}
		if err != nil {
			return fmt.Errorf("locking %s: %w", s.Path, err)
		}
		if hasName(s.Root, envelope.ConfigName, s.lock) {
			return nil
		}
		s.lock.Close()
		s.lock = nil
		if err := s.openLock(); err != nil {
			return err
		}
	}
}

// LockAlone makes sure that no mount has the volume, until unlock is called.
func (b *Volume) LockAlone() (unlock func(), err error) {
	f, err := b.Root.OpenFile(envelope.ConfigName, unix.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", b.Path, err)
	}
	if err := f.Flock(unix.LOCK_EX | unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: %w", b.Path, ErrInUse)
		}
		return nil, fmt.Errorf("locking %s: %w", b.Path, err)
	}
	return func() { f.Close() }, nil
}

// IsFree says whether no mount has the volume for writing.
func (b *Volume) IsFree() (bool, error) {
	f, err := b.Root.OpenFile(envelope.ConfigName, unix.O_RDONLY, 0)
	if err != nil {
		return false, err
	}
	defer f.Close()
	if err := f.Flock(unix.LOCK_SH | unix.LOCK_NB); err != nil {
		return false, nil
	}
	shared, err := b.IsShared()
	return !shared && err == nil, nil
}
