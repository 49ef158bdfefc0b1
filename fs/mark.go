package fs

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
)

// slack is how much earlier than the mark a change may be dated: file systems date changes by a clock that ticks some
// milliseconds late.
const slack = time.Second

// tolerance says which files an unclean end may have left one step behind (envelope's FORMAT.md, section 9).
type tolerance struct {
	// since is when the mount began that ended uncleanly; zero if none did.
	since time.Time
	// rebooted says that the system was started anew after that.
	rebooted bool
}

// covers says whether a file that was last changed at that time may be one step behind.
func (t tolerance) covers(changed unix.Timespec) bool {
	return !t.since.IsZero() && !time.Unix(changed.Unix()).Before(t.since.Add(-slack))
}

// marks are those that this mount removes when it ends cleanly: its own, and what it found of mounts that ended uncleanly.
type marks struct {
	names []string
	// own is this mount's own one in a shared volume, locked for as long as the mount lives; nil if there is none.
	own *os.File
}

func (m *marks) close() {
	if m.own != nil {
		m.own.Close()
	}
}

// takeMarks returns what the marks of unclean ends allow, and says that the volume is being changed. That is durable when it returns.
func (v *volume) takeMarks() (t tolerance, err error) {
	unlock, err := v.lockMarks()
	if err != nil {
		return t, err
	}
	defer unlock()
	dead, err := v.deadMarks()
	if err != nil {
		return t, err
	}
	boot, err := bootID()
	if err != nil {
		return t, err
	}
	for _, name := range dead {
		mark, err := v.readMark(name)
		if err != nil {
			return t, err
		}
		if t.since.IsZero() || mark.Time.Before(t.since) {
			t.since = mark.Time
		}
		t.rebooted = t.rebooted || mark.BootID != boot
	}
	v.marks.names = dead
	switch {
	case v.readOnly:
	case v.shared():
		err = v.makeOwnMark(boot)
	case len(dead) == 0:
		err = v.makeMark(envelope.MarkName, boot)
	}
	return t, err
}

// lockMarks keeps the other mounts of a shared volume from the marks.
func (v *volume) lockMarks() (unlock func(), err error) {
	if !v.shared() {
		return func() {}, nil
	}
	kind := int16(unix.F_WRLCK)
	if v.readOnly {
		kind = unix.F_RDLCK
	}
	fd := v.tree.hosts.fd
	if err := lockByte(fd, marksByte, kind); err != nil {
		return nil, err
	}
	return func() { unlockByte(fd, marksByte) }, nil
}

// deadMarks returns the names of the marks whose mounts are no more.
func (v *volume) deadMarks() (names []string, err error) {
	dir, err := unix.Openat(v.backing.root, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	entries, err := listEntries(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.name != envelope.MarkName && !strings.HasPrefix(e.name, ownMarkPrefix) {
			continue
		}
		alive, err := v.isAlive(e.name)
		if err != nil {
			return nil, v.badMark(e.name, err)
		}
		if !alive {
			names = append(names, e.name)
		}
	}
	return names, nil
}

// isAlive says whether a mark is that of another mount of a shared volume, which is alive.
func (v *volume) isAlive(mark string) (bool, error) {
	if !v.shared() || mark == envelope.MarkName {
		return false, nil
	}
	fd, err := unix.Openat(v.backing.root, mark, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	return isLocked(fd, 0)
}

func (b *backing) readMark(name string) (envelope.Mark, error) {
	content, err := b.readControl(b.root, name, envelope.MarkSize, envelope.MarkSize)
	if err != nil {
		return envelope.Mark{}, b.badMark(name, err)
	}
	mark, err := b.sealed.OpenMark(content)
	if err != nil {
		return envelope.Mark{}, b.badMark(name, err)
	}
	return mark, nil
}

func (b *backing) badMark(name string, err error) error {
	return fmt.Errorf("%s: %w: the mark of an unclean end can't be read; remove %s to mount without repairs: %w", b.path, ErrVolumeDamaged, name, err)
}

// ownMarkPrefix begins the names of the marks of those who share a volume.
const ownMarkPrefix = envelope.MarkName + "."

// makeOwnMark makes this mount's own mark in a shared volume.
func (v *volume) makeOwnMark(boot [16]byte) error {
	var random [16]byte
	rand.Read(random[:])
	name := ownMarkPrefix + hex.EncodeToString(random[:])
	if err := v.makeMark(name, boot); err != nil {
		return err
	}
	fd, err := unix.Openat(v.backing.root, name, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening %s: %w", name, err)
	}
	v.marks.own = os.NewFile(uintptr(fd), name)
	return lockByte(fd, 0, unix.F_WRLCK)
}

// makeMark makes a mark, durably.
func (v *volume) makeMark(name string, boot [16]byte) error {
	restore, err := v.keepRootTime()
	if err != nil {
		return err
	}
	if err := v.fillSpareMark(v.sealed.SealMark(envelope.Mark{Time: time.Now(), BootID: boot})); err != nil {
		return err
	}
	if err := unix.Renameat(v.backing.root, spareMark, v.backing.root, name); err != nil {
		return fmt.Errorf("making %s: %w", name, err)
	}
	v.marks.names = append(v.marks.names, name)
	if err := restore(); err != nil {
		return err
	}
	return syncDir(v.backing.root)
}

// clearMarks says that all changes of this mount, and of those that it has repaired, are durable and whole.
func (v *volume) clearMarks() error {
	unlock, err := v.lockMarks()
	if err != nil {
		return err
	}
	defer unlock()
	b := v.backing
	if err := unix.Syncfs(b.root); err != nil {
		return fmt.Errorf("syncing %s: %w", b.path, err)
	}
	restore, err := b.keepRootTime()
	if err != nil {
		return err
	}
	for _, name := range v.marks.names {
		// Another mount of a shared volume may have repaired the same.
		if err := unix.Renameat(b.root, name, b.root, spareMark); err != nil && err != unix.ENOENT {
			return fmt.Errorf("removing %s: %w", name, err)
		}
	}
	if err := restore(); err != nil {
		return err
	}
	if err := syncDir(b.root); err != nil {
		return err
	}
	return b.fillSpareMark(make([]byte, envelope.MarkSize)) // so that nobody finds a mark to put back
}

// spareMark is where the mark's file lies while there is no mark: its block is there when the next mount needs it, even if the disk is full.
const spareMark = tempPrefix + "mark"

// fillSpareMark writes the spare file in its place, or a new one if there is none that can be trusted to be just that.
func (b *backing) fillSpareMark(content []byte) error {
	fd, err := unix.Openat(b.root, spareMark, unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err == nil {
		defer unix.Close(fd)
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return fmt.Errorf("opening %s: %w", spareMark, err)
		}
		if st.Mode&unix.S_IFMT == unix.S_IFREG && st.Nlink == 1 && (st.Uid == b.owner || st.Uid == b.uid) && st.Size == envelope.MarkSize {
			return overwrite(fd, spareMark, content)
		}
	}
	if err := unix.Unlinkat(b.root, spareMark, 0); err != nil && err != unix.ENOENT {
		return fmt.Errorf("removing %s: %w", spareMark, err)
	}
	if err := writeControl(b.root, spareMark, content, false); err != nil {
		_ = unix.Unlinkat(b.root, spareMark, 0) // it has no block
		return err
	}
	return syncControl(b.root, spareMark)
}

// overwrite writes content over as much that is there, durably.
func overwrite(fd int, name string, content []byte) error {
	if _, err := (&storage{fd: fd}).WriteAt(content, 0); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	if err := unix.Fsync(fd); err != nil {
		return fmt.Errorf("syncing %s: %w", name, err)
	}
	return nil
}

// keepRootTime returns what puts the root directory's modification time back: the mark's coming and going is nothing that
// users did.
func (b *backing) keepRootTime() (restore func() error, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(b.root, &st); err != nil {
		return nil, err
	}
	return func() error { return setModified(b.root, st.Mtim) }, nil
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
