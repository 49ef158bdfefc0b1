package fs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/keys"
	"kmsfs/fs/lock"
	disk "kmsfs/fs/volume"
	"kmsfs/fs/volume/backing"
	"kmsfs/policy/caller"
)

// openFile is an open regular file: one for each backing inode, shared by all handles.
type openFile struct {
	v  *volume
	id identity

	// users counts those that hold the openFile; guarded by openFiles.mu. It falls with mu held.
	users int

	// holders are the file's handles.
	holders holders
	times   times
	fresh   freshKey

	// mu serializes opening, and changes of the header. turn and the locks that turn names are
	// taken under it.
	mu lock.Mutex[lock.OpenFile]
	// turn is held, in a shared volume only, to use or replace what sealed points to. times.mu and
	// envelope.File's lock are taken under it.
	turn lock.Mutex[lock.Turn]
	// sealed is nil until the file is opened. Users read it without mu.
	sealed atomic.Pointer[envelope.File]
	// wiped says that no holder may use the file any more: sealed is closed, and its keys are
	// wiped. It changes with mu held.
	wiped atomic.Bool
	// opener is the caller that opened the file first. watched says that the kernel has been told
	// since then not to believe the file's attributes for long.
	opener   atomic.Pointer[caller.Caller]
	watched  atomic.Bool
	in       *inode // for which it was opened
	storage  *disk.Storage
	writable bool
	path     string // where it was opened, for messages
}

// openFiles are the open regular files, by their identity, which can't be another file's while they
// are open.
type openFiles struct {
	mu   lock.Mutex[lock.OpenFiles] // guards what follows, and openFile.users
	open map[identity]*openFile
}

func newOpenFiles() *openFiles { return &openFiles{open: map[identity]*openFile{}} }

func (t *openFiles) acquire(v *volume, in *inode) *openFile {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.open[in.identity]
	if c == nil {
		c = &openFile{v: v, id: in.identity}
		t.open[in.identity] = c
	}
	c.users++
	return c
}

// acquireAll returns all files, each acquired.
func (t *openFiles) acquireAll() (all []*openFile) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.open {
		if c.users > 0 { // else it is being closed
			c.users++
			all = append(all, c)
		}
	}
	return all
}

func (t *openFiles) usersOf(c *openFile) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return c.users
}

// find returns an open file; nil if it isn't open.
func (t *openFiles) find(id identity) *openFile {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.open[id]
}

// drop says whether the user that leaves is the last.
func (t *openFiles) drop(c *openFile) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	c.users--
	return c.users == 0
}

// remove drops a file that has been closed, unless it has come into use meanwhile.
func (t *openFiles) remove(c *openFile) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.users == 0 {
		delete(t.open, c.id)
	}
}

// close closes all files, which have no users any more.
func (t *openFiles) close() error {
	t.mu.Lock()
	all := make([]*openFile, 0, len(t.open))
	for _, c := range t.open {
		all = append(all, c)
	}
	t.mu.Unlock()
	var err error
	for _, c := range all {
		c.mu.Lock()
		err = errors.Join(err, c.close())
		c.mu.Unlock()
	}
	return err
}

// release ends a use. The last one closes the file, which stays known until then, so that it is not
// opened a second time before. mu is not held.
func (c *openFile) release() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.v.files.drop(c) {
		return nil
	}
	err := c.close()
	c.v.files.remove(c)
	return err
}

// close is called with mu held.
func (c *openFile) close() error {
	if c.unsealed() == nil {
		return nil
	}
	var err error
	if !c.wiped.Swap(false) {
		err = c.closeSealed()
	}
	if closed := unix.Close(backing.Descriptor(c.storage.File)); err == nil {
		err = closed
	}
	c.sealed.Store(nil)
	c.fresh.wipe()
	c.opener.Store(nil)
	c.watched.Store(false)
	return err
}

// unsealed is the file as package envelope has it open; nil if it isn't.
func (c *openFile) unsealed() *envelope.File { return c.sealed.Load() }

// closeSealed closes the sealed file, which may write what was left undone: when it is this mount's
// turn, unless another mount has done so. mu is held.
func (c *openFile) closeSealed() error {
	if c.unsealed().Settled() {
		return c.unsealed().Close()
	}
	if c.v.shared() {
		if err := c.takeTurn(true); err != nil {
			return err
		}
		defer c.endTurn()
		if err := c.setTime(func() error { return nil }); err == nil {
			_ = c.unsealed().Reload() // if it fails, closing the file does too
		}
	}
	return c.keepTime(c.unsealed().Close)
}

// do calls f with the file for a handle, as use does, and calls the key service, without a lock,
// for what f needs.
func (c *openFile) do(ctx context.Context, write bool, f func(*envelope.File) error) error {
	if !c.v.shared() {
		err := c.unlessWiped(f)
		if !errors.Is(err, errNoFreshKey) {
			return err
		}
	}
	o := c.v.operation(ctx)
	defer o.end()
	return o.repeat(func() error { return c.use(o, write, f) })
}

// use calls f with the file. In a shared volume it waits for this mount's turn, which is one of
// many at once if it isn't for writing, and learns what other mounts have done to the file. f must
// not keep the file.
func (c *openFile) use(o *operation, write bool, f func(*envelope.File) error) error {
	err := c.useInTurn(o, write, f)
	if errors.Is(err, errNoFreshKey) {
		return c.fetchFreshKey(o)
	}
	return err
}

func (c *openFile) useInTurn(o *operation, write bool, f func(*envelope.File) error) error {
	if !c.v.shared() {
		return c.unlessWiped(f)
	}
	if err := c.takeTurn(write); err != nil {
		return err
	}
	defer c.endTurn()
	if c.wiped.Load() {
		return errWiped
	}
	if err := c.catchUp(o); err != nil {
		return err
	}
	return c.unlessWiped(f)
}

// unlessWiped calls f with the file, unless its keys are wiped.
func (c *openFile) unlessWiped(f func(*envelope.File) error) error {
	if c.wiped.Load() {
		return errWiped
	}
	err := f(c.unsealed())
	if errors.Is(err, os.ErrClosed) { // wiped meanwhile
		return errWiped
	}
	return err
}

func (c *openFile) takeTurn(write bool) error {
	if !c.v.shared() {
		return nil
	}
	c.turn.Lock()
	if err := c.v.tree.LockFile(c.storage.File, write); err != nil {
		c.turn.Unlock()
		return err
	}
	return nil
}

func (c *openFile) endTurn() {
	if c.v.shared() {
		c.v.tree.UnlockFile(c.storage.File)
		c.turn.Unlock()
	}
}

// catchUp learns what other mounts have done to the file. It is this mount's turn.
func (c *openFile) catchUp(o *operation) error {
	if err := c.setTime(func() error { return nil }); err != nil {
		return err
	}
	return c.reload(o)
}

// reload takes what another mount has made of the file, even if that has given it a new data key.
func (c *openFile) reload(o *operation) error {
	err := c.unsealed().Reload()
	if !errors.Is(err, envelope.ErrAuthentication) {
		return err
	}
	header, err := c.v.sealed.ReadHeader(c.storage, false)
	if err != nil {
		return err
	}
	if header.FileID != c.unsealed().Header().FileID {
		return fmt.Errorf("the header is another file's: %w", envelope.ErrAuthentication)
	}
	file, err := c.unseal(o, keys.Self("reload"), header, false)
	if err != nil {
		return err
	}
	err = c.unsealed().Close()
	c.sealed.Store(file)
	return err
}

// wipe wipes the file's keys, until a caller comes that may use it. The caller of wipe uses the
// file. If there are other users than the revoked handles, they may be about to open it, and
// nothing is done: the watch will come again. Whoever comes later waits for mu.
func (c *openFile) wipe() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	handles, revoked := c.holders.count()
	if c.unsealed() == nil || revoked != handles || c.v.files.usersOf(c) > handles+1 || c.wiped.Swap(true) {
		return nil
	}
	c.fresh.wipe()
	return c.unsealed().Close()
}

// change changes the header by edit.
func (c *openFile) change(o *operation, edit func(h *envelope.Header)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.writable {
		return unix.EACCES
	}
	return c.use(o, true, func(*envelope.File) error {
		return c.changeHeader(func(h *envelope.Header) error {
			edit(h)
			return nil
		})
	})
}

// changeHeader changes the header without a trace in the modification time, which is the content's.
// mu is held.
func (c *openFile) changeHeader(edit func(h *envelope.Header) error) error {
	return c.keepTime(func() error { return c.unsealed().ChangeHeader(edit) })
}
