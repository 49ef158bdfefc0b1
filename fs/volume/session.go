package volume

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/keys"
	"kmsfs/fs/lock"
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

	lock int // descriptor of the configuration's file, which holds the lock on it; -1 if there is none
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
	s := &Session{Volume: b, SessionOptions: o, Sharing: &exclusive{}, lock: -1}
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
	var st unix.Stat_t
	if err := unix.Fstat(s.Root, &st); err != nil {
		return err
	}
	var err error
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
	if s.lock >= 0 {
		unix.Close(s.lock)
	}
}

// lockConfig opens the configuration's file, if it isn't open, and locks it.
func (s *Session) lockConfig(how int) error {
	if s.lock < 0 {
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
	fd, err := unix.Openat(s.Root, envelope.ConfigName, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("locking %s: %w", s.Path, err)
	}
	s.lock = fd
	return nil
}

// flock locks the configuration's file: the one that has its name once it is locked, as it may be
// replaced.
func (s *Session) flock(how int) error {
	for {
		err := unix.Flock(s.lock, how|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("%s: %w", s.Path, ErrInUse)
		}
		var locked, named unix.Stat_t
		if err == nil {
			err = errors.Join(unix.Fstat(s.lock, &locked), unix.Fstatat(s.Root, envelope.ConfigName, &named, unix.AT_SYMLINK_NOFOLLOW))
		}
		if err != nil {
			return fmt.Errorf("locking %s: %w", s.Path, err)
		}
		if locked.Ino == named.Ino && locked.Dev == named.Dev {
			return nil
		}
		unix.Close(s.lock)
		s.lock = -1
		if err := s.openLock(); err != nil {
			return err
		}
	}
}

// LockAlone makes sure that no mount has the volume, until unlock is called.
func (b *Volume) LockAlone() (unlock func(), err error) {
	fd, err := unix.Openat(b.Root, envelope.ConfigName, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", b.Path, err)
	}
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		unix.Close(fd)
		if err == unix.EWOULDBLOCK {
			return nil, fmt.Errorf("%s: %w", b.Path, ErrInUse)
		}
		return nil, fmt.Errorf("locking %s: %w", b.Path, err)
	}
	return func() { unix.Close(fd) }, nil
}

// IsFree says whether no mount has the volume for writing.
func (b *Volume) IsFree() (bool, error) {
	fd, err := unix.Openat(b.Root, envelope.ConfigName, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	if err := unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB); err != nil {
		return false, nil
	}
	shared, err := b.IsShared()
	return !shared && err == nil, nil
}
