package fs

import (
	"golang.org/x/sys/unix"

	"kmsfs/fs/lock"
	disk "kmsfs/fs/volume"
	"kmsfs/fs/volume/backing"
)

// times is the modification time of an open file. The kernel decides it: with its writeback cache,
// it writes later than users do, and tells the time (FUSE_SETATTR) only if the time has changed in
// its own eyes. So the time that the backing file gets from each write is taken back.
type times struct {
	// mu guards modified, and the backing file's times: held for reading by changes that are not to
	// show in them, and for writing where modified is set. envelope.File's lock is taken under it.
	mu       lock.RWMutex[lock.Times]
	modified unix.Timespec
}

// keepTime makes a change to the backing file that its modification time is not to show.
func (c *openFile) keepTime(change func() error) error {
	c.times.mu.RLock()
	defer c.times.mu.RUnlock()
	if err := change(); err != nil {
		return err
	}
	return disk.SetModified(c.storage.File, c.times.modified)
}

// stamp makes a user's change to the backing file. If the kernel caches writes, it tells the time
// by itself: always, unless the volume is shared.
func (c *openFile) stamp(change func() error) error {
	if c.v.shared() {
		return c.setTime(change)
	}
	return c.keepTime(change)
}

// setTime sets the backing file's modification time by set, and notes it.
func (c *openFile) setTime(set func() error) error {
	c.times.mu.Lock()
	defer c.times.mu.Unlock()
	if err := set(); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(backing.Descriptor(c.storage.File), &st); err != nil {
		return err
	}
	c.times.modified = st.Mtim
	return nil
}

// time returns the file's modification time.
func (c *openFile) time() unix.Timespec {
	c.times.mu.RLock()
	defer c.times.mu.RUnlock()
	return c.times.modified
}

// set notes the modification time of a file that is being opened.
func (t *times) set(modified unix.Timespec) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.modified = modified
}
