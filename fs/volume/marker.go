package volume

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
)

// slack is how much earlier than the mark a change may be dated: file systems date changes by a
// clock that ticks some milliseconds late.
const slack = time.Second

// Tolerance says which files an unclean end may have left one step behind (envelope's FORMAT.md,
// section 9).
type Tolerance struct {
	// since is when the mount began that ended uncleanly; zero if none did.
	Since time.Time
	// rebooted says that the system was started anew after that.
	Rebooted bool
}

// add allows for the unclean end of the mount that made the marker. boot is the ID of the present
// boot.
func (t *Tolerance) add(marker envelope.Mark, boot [16]byte) {
	if t.Since.IsZero() || marker.Time.Before(t.Since) {
		t.Since = marker.Time
	}
	t.Rebooted = t.Rebooted || marker.BootID != boot
}

// Covers says whether a file that was last changed at that time may be one step behind.
func (t Tolerance) Covers(changed unix.Timespec) bool {
	return !t.Since.IsZero() && !time.Unix(changed.Unix()).Before(t.Since.Add(-slack))
}

// takeMarkers finds out what the markers of unclean ends allow, and marks the volume as being
// changed. That is durable when it returns.
func (s *Session) takeMarkers() error {
	unlock, err := s.Sharing.lockMarkers(!s.ReadOnly)
	if err != nil {
		return err
	}
	defer unlock()
	if s.markers, err = s.deadMarkers(); err != nil {
		return err
	}
	boot, err := bootID()
	if err != nil {
		return err
	}
	for _, name := range s.markers {
		marker, err := s.ReadMarker(name)
		if err != nil {
			return err
		}
		s.Tolerance.add(marker, boot)
	}
	if s.ReadOnly {
		return nil
	}
	return s.Sharing.mark(s, boot, len(s.markers) > 0)
}

// deadMarkers returns the names of the markers whose mounts are no more.
func (s *Session) deadMarkers() (dead []string, err error) {
	names, err := s.markerNames()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		alive, err := s.Sharing.isAlive(s.Root, name)
		if err != nil {
			return nil, s.badMarker(name, err)
		}
		if !alive {
			dead = append(dead, name)
		}
	}
	return dead, nil
}

// IsMarker says whether an entry of the root directory is a dirty marker.
func IsMarker(name string) bool {
	return name == envelope.MarkName || strings.HasPrefix(name, ownMarkerPrefix)
}

// markerNames returns the names of all dirty markers.
func (b *Volume) markerNames() (names []string, err error) {
	dir, err := unix.Openat(b.Root, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	err = EachBatch(dir, func(entries []Entry) error {
		for _, e := range entries {
			if IsMarker(e.Name) {
				names = append(names, e.Name)
			}
		}
		return nil
	})
	return names, err
}

// UncleanEnd returns what an unclean end may have left behind. With locked, the caller holds the
// volume alone; else nothing is tolerated while a mount has the volume, as the markers are that
// mount's then. Markers that can't be read count for nothing.
func (b *Volume) UncleanEnd(locked bool) (t Tolerance, err error) {
	names, err := b.markerNames()
	if err != nil || len(names) == 0 {
		return t, err
	}
	if !locked {
		free, err := b.IsFree()
		if err != nil || !free {
			return t, err
		}
	}
	boot, err := bootID()
	if err != nil {
		return t, err
	}
	for _, name := range names {
		if marker, err := b.ReadMarker(name); err == nil {
			t.add(marker, boot)
		}
	}
	return t, nil
}

// ReadMarker reads and opens a dirty marker.
func (b *Volume) ReadMarker(name string) (envelope.Mark, error) {
	content, err := b.readControl(b.Root, name, envelope.MarkSize, envelope.MarkSize)
	if err != nil {
		return envelope.Mark{}, b.badMarker(name, err)
	}
	mark, err := b.Sealed.OpenMark(content)
	if err != nil {
		return envelope.Mark{}, b.badMarker(name, err)
	}
	return mark, nil
}

func (b *Volume) badMarker(name string, err error) error {
	return fmt.Errorf("%s: %w: the mark of an unclean end can't be read; remove %s to mount without repairs: %w", b.Path, ErrDamaged, name, err)
}

// ownMarkerPrefix begins the names of the markers of mounts that share a volume.
const ownMarkerPrefix = envelope.MarkName + "."

func newOwnMarkerName() string { return ownMarkerPrefix + randomHex() }

// makeMarker makes a dirty marker, durably.
func (s *Session) makeMarker(name string, boot [16]byte) error {
	restore, err := s.keepRootTime()
	if err != nil {
		return err
	}
	if err := s.fillSpareMarker(s.Sealed.SealMark(envelope.Mark{Time: time.Now(), BootID: boot})); err != nil {
		return err
	}
	if err := unix.Renameat(s.Root, SpareMarker, s.Root, name); err != nil {
		return fmt.Errorf("making %s: %w", name, err)
	}
	s.markers = append(s.markers, name)
	if err := restore(); err != nil {
		return err
	}
	return SyncDir(s.Root)
}

// clearMarkers says that all changes of this session, and of those that it has repaired, are
// durable and whole.
func (s *Session) clearMarkers() error {
	unlock, err := s.Sharing.lockMarkers(true)
	if err != nil {
		return err
	}
	defer unlock()
	if err := unix.Syncfs(s.Root); err != nil {
		return fmt.Errorf("syncing %s: %w", s.Path, err)
	}
	restore, err := s.keepRootTime()
	if err != nil {
		return err
	}
	for _, name := range s.markers {
		// Another mount of a shared volume may have repaired the same.
		if err := unix.Renameat(s.Root, name, s.Root, SpareMarker); err != nil && err != unix.ENOENT {
			return fmt.Errorf("removing %s: %w", name, err)
		}
	}
	if err := restore(); err != nil {
		return err
	}
	if err := SyncDir(s.Root); err != nil {
		return err
	}
	return s.fillSpareMarker(make([]byte, envelope.MarkSize)) // so that nobody finds a marker to put back
}

// SpareMarker is the marker's file while there is no marker. Its block is there when the next mount
// needs it, even if the disk is full.
const SpareMarker = TempPrefix + "mark"

// fillSpareMark writes the spare file in its place, or a new one if there is none that can be
// trusted to be just that.
func (b *Volume) fillSpareMarker(content []byte) error {
	fd, err := unix.Openat(b.Root, SpareMarker, unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err == nil {
		defer unix.Close(fd)
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return fmt.Errorf("opening %s: %w", SpareMarker, err)
		}
		if st.Mode&unix.S_IFMT == unix.S_IFREG && st.Nlink == 1 && (st.Uid == b.Owner || st.Uid == b.UID) && st.Size == envelope.MarkSize {
			return overwrite(fd, SpareMarker, content)
		}
	}
	if err := unix.Unlinkat(b.Root, SpareMarker, 0); err != nil && err != unix.ENOENT {
		return fmt.Errorf("removing %s: %w", SpareMarker, err)
	}
	if err := WriteControl(b.Root, SpareMarker, content, false); err != nil {
		_ = unix.Unlinkat(b.Root, SpareMarker, 0) // it has no block
		return err
	}
	return SyncControl(b.Root, SpareMarker)
}

// overwrite writes content over as much that is there, durably.
func overwrite(fd int, name string, content []byte) error {
	if _, err := (&Storage{FD: fd}).WriteAt(content, 0); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	if err := unix.Fsync(fd); err != nil {
		return fmt.Errorf("syncing %s: %w", name, err)
	}
	return nil
}

// keepRootTime returns what puts the root directory's modification time back: the mark's coming and
// going is nothing that users did.
func (b *Volume) keepRootTime() (restore func() error, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(b.Root, &st); err != nil {
		return nil, err
	}
	return func() error { return SetModified(b.Root, st.Mtim) }, nil
}

// bootID is the kernel's random name for the time since it started (random(4)).
func bootID() (id [16]byte, err error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return id, fmt.Errorf("reading the boot ID: %w", err)
	}
	b, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(string(text)), "-", ""))
	if err != nil || len(b) != len(id) {
		return id, errors.New("the boot ID is malformed")
	}
	return [16]byte(b), nil
}
