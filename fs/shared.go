package fs

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"kmsfs/envelope"
)

// hosts is how this mount of a shared volume takes turns with the others, in whatever process or host they are: by locks on bytes of
// kmsfs.lock that belong to the open file (F_OFD_SETLK of fcntl(2)), which network file systems pass on.
type hosts struct {
	fd int

	mu      sync.Mutex // guards what follows, and is held while the tree's lock is waited for
	none    *sync.Cond // readers is 0
	readers int        // of this mount, who hold the tree's lock together
	since   time.Time  // when the first of them came
}

// The bytes of kmsfs.lock.
const (
	gateByte   = iota // held by whoever waits for treeByte, so that readers who come and go don't keep a writer out for ever
	treeByte          // the volume's names
	marksByte         // the marks, and who begins to share, while that is looked through and changed
	sharedByte        // held for reading by each mount that shares the volume
)

// turnByte is the byte of a regular file that is locked by whoever reads or changes it: beyond all content.
const turnByte = 1 << 62

// longestShare is how long the readers of a mount may keep the tree's lock from others by coming one after another.
const longestShare = 10 * time.Millisecond

// join makes this mount one of those that share the volume: nobody has it alone.
func (v *volume) join() error {
	if err := v.openLock(); err != nil {
		return err
	}
	var err error
	if v.tree.hosts, err = v.openHosts(); err != nil {
		return fmt.Errorf("%s: %w", v.path, err)
	}
	unlock, err := v.lockMarks()
	if err != nil {
		return err
	}
	defer unlock()
	fd := v.tree.hosts.fd
	shared, err := isLocked(fd, sharedByte)
	if err != nil {
		return err
	}
	if !shared { // a mount that has the volume alone doesn't want it changed, by this mount or by one that joins it
		err := v.flock(unix.LOCK_EX)
		if err != nil && (!v.readOnly || !errors.Is(err, unix.EBADF)) { // what is open for reading, network file systems lock for reading only
			return err
		}
	}
	if err := lockByte(fd, sharedByte, unix.F_RDLCK); err != nil {
		return err
	}
	return v.flock(unix.LOCK_SH)
}

// isShared says whether others share the volume, which this mount has for itself.
func (b *backing) isShared() (bool, error) {
	fd, err := unix.Openat(b.root, envelope.LockName, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("%s: opening %s: %w", b.path, envelope.LockName, err)
	}
	defer unix.Close(fd)
	return isLocked(fd, sharedByte)
}

// openHosts opens the lock's file, and makes it if it isn't there.
func (v *volume) openHosts() (*hosts, error) {
	flags := unix.O_RDWR
	if v.readOnly {
		flags = unix.O_RDONLY
	}
	fd, err := unix.Openat(v.backing.root, envelope.LockName, flags|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", envelope.LockName, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		unix.Close(fd)
		return nil, fmt.Errorf("%s is not a regular file: %w", envelope.LockName, envelope.ErrFormat)
	}
	h := &hosts{fd: fd}
	h.none = sync.NewCond(&h.mu)
	return h, nil
}

func (h *hosts) close() { unix.Close(h.fd) }

// lockByte waits for a lock on one byte of an open file: unix.F_RDLCK or F_WRLCK.
func lockByte(fd int, at int64, kind int16) error {
	lock := unix.Flock_t{Type: kind, Start: at, Len: 1}
	err := ignoreEINTR(func() error { return unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLKW, &lock) })
	if err != nil {
		return fmt.Errorf("waiting for other hosts: %w", err)
	}
	return nil
}

// isLocked says whether others have a lock on one byte of an open file.
func isLocked(fd int, at int64) (bool, error) {
	lock := unix.Flock_t{Type: unix.F_WRLCK, Start: at, Len: 1}
	if err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_GETLK, &lock); err != nil {
		return false, fmt.Errorf("asking for the locks of other hosts: %w", err)
	}
	return lock.Type != unix.F_UNLCK, nil
}

// unlockByte ends a lock. If that fails, the lock had been lost.
func unlockByte(fd int, at int64) {
	_ = unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_UNLCK, Start: at, Len: 1})
}

// lockTree waits until no other mount changes names, or, with F_WRLCK, uses them.
func (h *hosts) lockTree(kind int16) error {
	if err := lockByte(h.fd, gateByte, kind); err != nil {
		return err
	}
	defer unlockByte(h.fd, gateByte)
	return lockByte(h.fd, treeByte, kind)
}

func (h *hosts) share() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.readers > 0 && time.Since(h.since) > longestShare {
		h.none.Wait()
	}
	if h.readers == 0 {
		if err := h.lockTree(unix.F_RDLCK); err != nil {
			return err
		}
		h.since = time.Now()
	}
	h.readers++
	return nil
}

func (h *hosts) unshare() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.readers--
	if h.readers == 0 {
		unlockByte(h.fd, treeByte)
		h.none.Broadcast()
	}
}

// tree guards the names of inodes against the names in the volume: it is held for reading while a name is resolved and used, and for
// writing while one is renamed or removed; in a shared volume against the other mounts too, and also while something is made, which they
// must not see unfinished. It is taken before all other locks, and never twice.
type tree struct {
	mu    sync.RWMutex
	hosts *hosts // nil unless the volume is shared; taken after mu
}

// RLock locks for reading; RUnlock ends it if it returns no error.
func (t *tree) RLock() error {
	t.mu.RLock()
	if t.hosts != nil {
		if err := t.hosts.share(); err != nil {
			t.mu.RUnlock()
			return err
		}
	}
	return nil
}

// RUnlock ends RLock.
func (t *tree) RUnlock() {
	if t.hosts != nil {
		t.hosts.unshare()
	}
	t.mu.RUnlock()
}

// Lock locks for writing; Unlock ends it if it returns no error.
func (t *tree) Lock() error {
	t.mu.Lock()
	if t.hosts != nil {
		if err := t.hosts.lockTree(unix.F_WRLCK); err != nil {
			t.mu.Unlock()
			return err
		}
	}
	return nil
}

// Unlock ends Lock.
func (t *tree) Unlock() {
	if t.hosts != nil {
		unlockByte(t.hosts.fd, treeByte)
	}
	t.mu.Unlock()
}

// LockToMake locks while something is made that has no name yet; UnlockMade ends it if it returns no error.
func (t *tree) LockToMake() error {
	if t.hosts != nil {
		return t.Lock()
	}
	return t.RLock()
}

// UnlockMade ends LockToMake.
func (t *tree) UnlockMade() {
	if t.hosts != nil {
		t.Unlock()
	} else {
		t.RUnlock()
	}
}

// shared says that other mounts may change the volume at the same time.
func (v *volume) shared() bool { return v.tree.hosts != nil }

// atEnd is the offset of a write that goes to the file's end, wherever that is when its turn has come.
const atEnd = -1

// appending says which writes to a shared volume are those of O_APPEND, by their offset: go-fuse's node API has no argument for the flags
// that the file has when it is written to. What the kernel writes back of a mapping is none, whatever the handle by which it comes.
type appending struct{ fuse.RawFileSystem }

func (a *appending) Writev(cancel <-chan struct{}, in *fuse.WriteIn, data [][]byte) (uint32, fuse.Status) {
	if in.Flags&unix.O_APPEND != 0 && in.WriteFlags&fuse.WRITE_CACHE == 0 {
		end := int64(atEnd)
		in.Offset = uint64(end)
	}
	return a.RawFileSystem.Writev(cancel, in, data)
}

// use calls do with the file: in a shared volume when it is this mount's turn with it, which is one of many at once if it isn't for
// writing, and after what others have done to the file is known. do must not keep the file.
func (c *content) use(write bool, do func(f *envelope.File) error) error {
	if !c.v.shared() {
		return c.unlessLocked(do)
	}
	if err := c.takeTurn(write); err != nil {
		return err
	}
	defer c.endTurn()
	if c.locked.Load() {
		return errLocked
	}
	if err := c.catchUp(); err != nil {
		return err
	}
	return c.unlessLocked(do)
}

// unlessLocked calls do with the file, unless nobody may use it.
func (c *content) unlessLocked(do func(f *envelope.File) error) error {
	if c.locked.Load() {
		return errLocked
	}
	err := do(c.file())
	if errors.Is(err, os.ErrClosed) { // locked meanwhile
		return errLocked
	}
	return err
}

func (c *content) takeTurn(write bool) error {
	if !c.v.shared() {
		return nil
	}
	kind := int16(unix.F_RDLCK)
	if write {
		kind = unix.F_WRLCK
	}
	c.turn.Lock()
	if err := lockByte(c.storage.fd, turnByte, kind); err != nil {
		c.turn.Unlock()
		return err
	}
	return nil
}

func (c *content) endTurn() {
	if c.v.shared() {
		unlockByte(c.storage.fd, turnByte)
		c.turn.Unlock()
	}
}

// catchUp finds out what other mounts have done to the file. It is this mount's turn.
func (c *content) catchUp() error {
	if err := c.setTime(func() error { return nil }); err != nil {
		return err
	}
	return c.reload()
}
