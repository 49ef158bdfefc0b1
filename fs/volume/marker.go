package volume

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/keys"
	"kmsfs/fs/volume/backing"
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
func (t *Tolerance) add(marker keys.Marker, boot [16]byte) {
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
	for _, name := range s.markers {
		if _, err := s.ReadMarker(name); err != nil {
			return err
		}
	}
	left, err := s.endsOf(s.markers, s.Sharing.Alone())
	if err != nil {
		return err
	}
	s.Tolerance, s.open = left.tolerance, left.open
	if !s.Sharing.Alone() { // what this host doesn't know may be another's, whose key service does
		s.markers = left.genuine
	}
	if s.ReadOnly {
		return nil
	}
	return s.Sharing.mark(s, len(left.genuine) > 0)
}

// ends are what is known of the mounts of a volume that have ended uncleanly.
type ends struct {
	tolerance Tolerance
	open      []keys.MarkerID // of theirs
	genuine   []string        // the names of the markers that they have left in the volume
}

// endsOf is the only source of tolerance. It asks the key service which markers are open: of those in
// the volume, by their names, a marker that is not is a forgery, and allows nothing. With alone, no
// mount changes the volume, and every open marker is of an unclean end, also one that somebody has
// removed from the volume.
func (b *Volume) endsOf(names []string, alone bool) (e ends, err error) {
	boot, err := bootID()
	if err != nil {
		return e, err
	}
	open, err := b.Keys.Markers(context.Background(), keys.Self("mount"), b.trusted())
	if err != nil {
		return e, fmt.Errorf("%s: asking for its markers: %w", b.Path, err)
	}
	found := make(map[keys.MarkerID]bool)
	for _, name := range names {
		id, err := b.markerID(name)
		if err != nil {
			continue // it counts for nothing
		}
		if !slices.ContainsFunc(open, func(m keys.Marker) bool { return m.ID == id }) {
			if err := b.recordForgery(name); err != nil {
				return e, err
			}
			continue
		}
		found[id] = true
		e.genuine = append(e.genuine, name)
	}
	for _, m := range open {
		if alone || found[m.ID] {
			e.tolerance.add(m, boot)
			e.open = append(e.open, m.ID)
		}
	}
	return e, nil
}

func (b *Volume) recordForgery(name string) error {
	event := keys.Event{
		Name: keys.EventForgedMarker, Details: map[string]string{"volume": b.Path, "marker": name},
		Error: errors.New("the marker is none of an unclean end: nothing is tolerated because of it"),
	}
	return b.Keys.Record(context.Background(), keys.Self("mount"), event)
}

// trusted is the volume as the key service knows it.
func (b *Volume) trusted() keys.Volume {
	c := b.Sealed.Config()
	return keys.Volume{Wrap: keys.Wrap{Key: c.MetadataKeyARN, Context: c.Context()}, Wrapped: c.MetadataKey}
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
	dir, err := b.Root.OpenDir(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	err = dir.EachBatch(func(entries []backing.Entry) error {
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
	if err != nil {
		return t, err
	}
	if !locked {
		free, err := b.IsFree()
		if err != nil || !free {
			return t, err
		}
	}
	left, err := b.endsOf(names, true)
	return left.tolerance, err
}

// ReadMarker reads and opens a dirty marker.
func (b *Volume) ReadMarker(name string) (envelope.Mark, error) {
	mark, _, err := b.readMarker(name)
	return mark, err
}

func (b *Volume) markerID(name string) (keys.MarkerID, error) {
	_, id, err := b.readMarker(name)
	return id, err
}

func (b *Volume) readMarker(name string) (mark envelope.Mark, id keys.MarkerID, err error) {
	content, err := b.readControl(b.Root, name, envelope.MarkSize, envelope.MarkSize)
	if err == nil {
		mark, err = b.Sealed.OpenMark(content)
	}
	if err != nil {
		return mark, id, b.badMarker(name, err)
	}
	return mark, sha256.Sum256(content), nil
}

func (b *Volume) badMarker(name string, err error) error {
	return fmt.Errorf("%s: %w: the mark of an unclean end can't be read; remove %s to mount without repairs: %w", b.Path, ErrDamaged, name, err)
}

// ownMarkerPrefix begins the names of the markers of mounts that share a volume.
const ownMarkerPrefix = envelope.MarkName + "."

func newOwnMarkerName() string { return ownMarkerPrefix + randomHex() }

// makeMarker makes a dirty marker, durably. The key service knows it as open before it is in the
// volume. If it doesn't come into the volume, it is closed again.
func (s *Session) makeMarker(name string) error {
	boot, err := bootID()
	if err != nil {
		return err
	}
	mark := envelope.Mark{Time: time.Now(), BootID: boot}
	content := s.Sealed.SealMark(mark)
	marker := keys.Marker{ID: sha256.Sum256(content), Time: mark.Time, BootID: boot}
	if err := s.Keys.OpenMarker(context.Background(), keys.Self("mount"), s.trusted(), marker); err != nil {
		return fmt.Errorf("%s: opening a marker: %w", s.Path, err)
	}
	if err := s.putMarker(name, content); err != nil {
		return errors.Join(err, s.Keys.CloseMarkers(context.Background(), keys.Self("mount"), s.trusted(), []keys.MarkerID{marker.ID}))
	}
	s.open = append(s.open, marker.ID)
	return nil
}

// putMarker brings a marker into the volume.
func (s *Session) putMarker(name string, content []byte) error {
	restore, err := s.keepRootTime()
	if err != nil {
		return err
	}
	if err := s.fillSpareMarker(content); err != nil {
		return err
	}
	if err := s.Root.Rename(SpareMarker, s.Root, name, 0); err != nil {
		return fmt.Errorf("making %s: %w", name, err)
	}
	if !slices.Contains(s.markers, name) { // it may have replaced a forgery
		s.markers = append(s.markers, name)
	}
	if err := restore(); err != nil {
		return err
	}
	return SyncDir(s.Root)
}

// clearMarkers says that all changes of this session, and of those that it has repaired, are
// durable and whole. The key service knows that before the markers go: a crash between leaves a
// marker that allows nothing, in a volume that needs nothing.
func (s *Session) clearMarkers() error {
	unlock, err := s.Sharing.lockMarkers(true)
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.Root.Syncfs(); err != nil {
		return fmt.Errorf("syncing %s: %w", s.Path, err)
	}
	if err := s.Keys.CloseMarkers(context.Background(), keys.Self("umount"), s.trusted(), s.open); err != nil {
		return fmt.Errorf("%s: closing its markers: %w", s.Path, err)
	}
	restore, err := s.keepRootTime()
	if err != nil {
		return err
	}
	for _, name := range s.markers {
		// Another mount of a shared volume may have repaired the same.
		if err := s.Root.Rename(name, s.Root, SpareMarker, 0); err != nil && !errors.Is(err, unix.ENOENT) {
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
	f, err := b.Root.OpenFile(SpareMarker, unix.O_WRONLY, 0)
	if err == nil {
		defer f.Close()
		st, err := f.Stat()
		if err != nil {
			return fmt.Errorf("opening %s: %w", SpareMarker, err)
		}
		if st.Mode&unix.S_IFMT == unix.S_IFREG && st.Nlink == 1 && (st.Uid == b.Owner || st.Uid == b.UID) && st.Size == envelope.MarkSize {
			return overwrite(f, SpareMarker, content)
		}
	}
	if err := b.Root.Unlink(SpareMarker); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("removing %s: %w", SpareMarker, err)
	}
	if err := WriteControl(b.Root, SpareMarker, content, false); err != nil {
		_ = b.Root.Unlink(SpareMarker) // it has no block
		return err
	}
	return SyncControl(b.Root, SpareMarker)
}

// overwrite writes content over as much that is there, durably.
func overwrite(f backing.File, name string, content []byte) error {
	if _, err := f.WriteAt(content, 0); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("syncing %s: %w", name, err)
	}
	return nil
}

// keepRootTime returns what puts the root directory's modification time back: the mark's coming and
// going is nothing that users did.
func (b *Volume) keepRootTime() (restore func() error, err error) {
	st, err := b.Root.Stat()
	if err != nil {
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
