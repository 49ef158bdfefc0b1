package fs

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

// findMark returns what the mark of an unclean end allows; nothing if there is none.
func (b *backing) findMark() (tolerance, error) {
	content, err := b.readControl(b.root, envelope.MarkName, envelope.MarkSize, envelope.MarkSize)
	if errors.Is(err, unix.ENOENT) {
		return tolerance{}, nil
	}
	if err != nil {
		return tolerance{}, b.badMark(err)
	}
	mark, err := b.sealed.OpenMark(content)
	if err != nil {
		return tolerance{}, b.badMark(err)
	}
	boot, err := bootID()
	if err != nil {
		return tolerance{}, err
	}
	return tolerance{since: mark.Time, rebooted: mark.BootID != boot}, nil
}

func (b *backing) badMark(err error) error {
	return fmt.Errorf("%s: %w: the mark of an unclean end can't be read; remove %s to mount without repairs: %w",
		b.path, ErrVolumeDamaged, envelope.MarkName, err)
}

// setMark says that the volume is being changed. It is durable when setMark returns.
func (b *backing) setMark() error {
	boot, err := bootID()
	if err != nil {
		return err
	}
	restore, err := b.keepRootTime()
	if err != nil {
		return err
	}
	if err := b.fillSpareMark(b.sealed.SealMark(envelope.Mark{Time: time.Now(), BootID: boot})); err != nil {
		return err
	}
	if err := unix.Renameat(b.root, spareMark, b.root, envelope.MarkName); err != nil {
		return fmt.Errorf("making %s: %w", envelope.MarkName, err)
	}
	if err := restore(); err != nil {
		return err
	}
	return syncDir(b.root)
}

// clearMark says that all changes are durable and whole.
func (b *backing) clearMark() error {
	if err := unix.Syncfs(b.root); err != nil {
		return fmt.Errorf("syncing %s: %w", b.path, err)
	}
	restore, err := b.keepRootTime()
	if err != nil {
		return err
	}
	if err := unix.Renameat(b.root, envelope.MarkName, b.root, spareMark); err != nil {
		return fmt.Errorf("removing %s: %w", envelope.MarkName, err)
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
