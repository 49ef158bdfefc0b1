package fs

import (
	"errors"
	"os"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"kmsfs/envelope"
)

// shared says that other mounts may change the volume at the same time.
func (v *volume) shared() bool { return !v.tree.Alone() }

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
	c.turn.Lock()
	if err := c.v.tree.LockFile(c.storage.FD, write); err != nil {
		c.turn.Unlock()
		return err
	}
	return nil
}

func (c *content) endTurn() {
	if c.v.shared() {
		c.v.tree.UnlockFile(c.storage.FD)
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
