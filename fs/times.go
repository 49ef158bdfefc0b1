package fs

import (
	"sync"

	"golang.org/x/sys/unix"

	disk "kmsfs/fs/volume"
)

// times is the modification time of an open file, which is the kernel's to decide: with its writeback cache it writes
// later than users do, and it says when (FUSE_SETATTR) only if the time has changed in its own eyes. What the backing file
// system makes of each write is therefore taken back.
type times struct {
	mu       sync.Mutex // guards what follows, and the backing file's times against changes in between; taken last
	modified unix.Timespec
}

// keepTime makes a change to the backing file that its modification time is not to show.
func (c *content) keepTime(change func() error) error {
	if err := change(); err != nil {
		return err
	}
	c.times.mu.Lock()
	defer c.times.mu.Unlock()
	return disk.SetModified(c.storage.FD, c.times.modified)
}

// stamp makes a user's change to the backing file, of whose time the kernel tells by itself if it caches writes, as it does unless the volume
// is shared.
func (c *content) stamp(change func() error) error {
	if c.v.shared() {
		return c.setTime(change)
	}
	return c.keepTime(change)
}

// setTime notes that the backing file's modification time was set, and does it.
func (c *content) setTime(set func() error) error {
	c.times.mu.Lock()
	defer c.times.mu.Unlock()
	if err := set(); err != nil {
		return err
	}
	return c.noteTime()
}

// time returns the file's modification time.
func (c *content) time() unix.Timespec {
	c.times.mu.Lock()
	defer c.times.mu.Unlock()
	return c.times.modified
}

// noteTime takes the backing file's modification time for the right one. times.mu is held.
func (c *content) noteTime() error {
	var st unix.Stat_t
	if err := unix.Fstat(c.storage.FD, &st); err != nil {
		return err
	}
	c.times.modified = st.Mtim
	return nil
}
