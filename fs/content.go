package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/keys"
	disk "kmsfs/fs/volume"
	"kmsfs/policy/caller"
)

// content is an open regular file: one for each backing inode, shared by all handles.
type content struct {
	v  *volume
	id identity

	// uses counts those who hold the content; guarded by contents.mu, and falls with mu held.
	uses int

	times times

	// writers counts the handles that are open for writing.
	writers atomic.Int32

	// mu serialises opening, and changes of the header. It is taken after volume.tree; turn, and package envelope's lock in file, are
	// taken under it.
	mu sync.Mutex
	// turn is held, in a shared volume only, by who uses file while mu is not held, or replaces it.
	turn sync.Mutex
	// sealed is nil until opened. It is read without mu by those who hold the content.
	sealed atomic.Pointer[envelope.File]
	// locked says that nobody who has the file open may use it any more: sealed is closed, and its keys are wiped. Changed with mu held.
	locked atomic.Bool
	// handles counts those that are open, and revoked those of them that may not be used any more.
	handles, revoked atomic.Int32
	// opener is who opened the file first, and watched says that the kernel has been told since then not to believe its attributes for long.
	opener   atomic.Pointer[caller.Caller]
	watched  atomic.Bool
	in       *inode // for whom it was opened
	storage  *disk.Storage
	writable bool
	path     string // for messages: where it was opened
}

// contents are the open regular files, by their identity, which can't be reused while they are open.
type contents struct {
	mu   sync.Mutex // guards what follows, and uses; taken after content.mu; no other lock is taken under it
	open map[identity]*content
}

func (t *contents) acquire(v *volume, in *inode) *content {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.open[in.identity]
	if c == nil {
		c = &content{v: v, id: in.identity}
		t.open[in.identity] = c
	}
	c.uses++
	return c
}

// hold begins another use of a content, unless its last one has just ended.
func (t *contents) hold(c *content) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.uses == 0 {
		return false
	}
	c.uses++
	return true
}

func (t *contents) usesOf(c *content) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return c.uses
}

// release ends a use; the last one closes the file. It stays known until it is closed, so that nobody opens it a second time
// before. mu is not held.
func (c *content) release() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.v.contents.drop(c) {
		return nil
	}
	err := c.close()
	c.v.contents.forget(c)
	return err
}

// drop says whether the use that ends is the last.
func (t *contents) drop(c *content) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	c.uses--
	return c.uses == 0
}

// forget drops a content that has been closed, unless somebody has come to use it meanwhile.
func (t *contents) forget(c *content) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.uses == 0 {
		delete(t.open, c.id)
	}
}

// close is called with mu held.
func (c *content) close() error {
	if c.file() == nil {
		return nil
	}
	var err error
	if !c.locked.Swap(false) {
		err = c.closeFile()
	}
	if closed := unix.Close(c.storage.FD); err == nil {
		err = closed
	}
	c.sealed.Store(nil)
	c.opener.Store(nil)
	c.watched.Store(false)
	return err
}

func (c *content) file() *envelope.File { return c.sealed.Load() }

// closeFile closes the sealed file, which may write what had been left undone: when it is this mount's turn, unless another one has done so. mu is
// held.
func (c *content) closeFile() error {
	if c.file().Settled() {
		return c.file().Close()
	}
	if c.v.shared() {
		if err := c.takeTurn(true); err != nil {
			return err
		}
		defer c.endTurn()
		_ = c.catchUp() // if it fails, closing the file does too, or there is nothing left to do
	}
	return c.keepTime(c.file().Close)
}

// place is where a regular file was found: the directory, the backing name in it, what the location must say, and the path.
type place struct {
	dir      int
	entry    string
	location envelope.Location
	path     string
}

// open gives the content of the file at p to call's caller: authenticated, at its place, its owner's, and by leave of the
// key service. The caller releases it.
func (v *volume) open(call keys.Call, in *inode, p place, write bool) (*content, error) {
	call.Path = v.seen(p.path)
	c := v.contents.acquire(v, in)
	if err := c.openFor(call, in, p, write); err != nil {
		_ = c.release() // what it was opened for has failed already
		return nil, err
	}
	return c, nil
}

// openAgain gives the content of a file that has no name any more.
func (v *volume) openAgain(call keys.Call, in *inode, write bool) (*content, error) {
	c := v.contents.acquire(v, in)
	c.mu.Lock()
	call.Path = v.seen(c.path)
	err := c.reopen(call, in)
	if err == nil && write && !c.writable {
		err = unix.EACCES
	}
	c.mu.Unlock()
	if err != nil {
		_ = c.release() // what it was opened for has failed already
		return nil, err
	}
	return c, nil
}

// reopen opens what has no name any more, or asks for leave to use it as it is open. mu is held.
func (c *content) reopen(call keys.Call, in *inode) error {
	v := c.v
	if c.file() == nil {
		o := in.takeOrphan()
		if o == nil {
			return unix.ESTALE
		}
		c.in, c.storage, c.writable, c.path = in, &disk.Storage{FD: o.fd}, !v.readOnly, o.place.path
		if err := c.setTime(func() error { return nil }); err != nil {
			return err
		}
		return c.openStored(call, o.place)
	}
	if c.in != in {
		return unix.ESTALE // the number is another file's by now
	}
	if c.locked.Load() {
		return c.unlock(call, c.lastPlace())
	}
	return c.use(false, func(f *envelope.File) error {
		h := f.Header()
		key, err := v.keys.Decrypt(context.Background(), call, h.KeyARN, h.WrappedKey, h.Context(v.sealed.ID()))
		clear(key)
		return err
	})
}

// openStored opens the sealed file in c.storage, or closes that. mu is held.
func (c *content) openStored(call keys.Call, p place) error {
	err := c.takeTurn(c.writable)
	if err == nil {
		err = c.openFile(call, p)
		c.endTurn()
	}
	if err != nil {
		unix.Close(c.storage.FD)
		c.sealed.Store(nil)
	}
	return err
}

// unlock opens a file anew that was locked, on call's caller's account. mu is held.
func (c *content) unlock(call keys.Call, p place) error {
	if err := c.takeTurn(c.writable); err != nil {
		return err
	}
	defer c.endTurn()
	if err := c.openFile(call, p); err != nil {
		return err
	}
	c.locked.Store(false)
	return nil
}

// lock wipes the file's keys, until somebody who may use it comes. The caller uses the content. If others do than those whose handles are revoked, they may be
// about to open it, and nothing is done: the watch will come again. Who comes after that waits for mu.
func (c *content) lock() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	handles := c.handles.Load()
	if c.file() == nil || c.revoked.Load() != handles || c.v.contents.usesOf(c) > int(handles)+1 || c.locked.Swap(true) {
		return nil
	}
	return c.file().Close()
}

// lastPlace is where a file without a name has lain, as its header says.
func (c *content) lastPlace() place {
	h := c.file().Header()
	p := place{path: h.Path}
	if len(h.Locations) > 0 {
		p.location = h.Locations[0]
	}
	return p
}

func (c *content) openFor(call keys.Call, in *inode, p place, write bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.file() == nil {
		c.in = in
		if err := c.openStorage(p); err != nil {
			return err
		}
		if err := c.openStored(call, p); err != nil {
			return err
		}
	} else if c.locked.Load() {
		if err := c.unlock(call, p); err != nil {
			return err
		}
	} else if err := c.use(c.writable, func(*envelope.File) error { return c.authorize(call, p) }); err != nil {
		return err
	}
	if write && !c.writable {
		return unix.EACCES
	}
	return nil
}

// openStorage opens the backing file: for writing too, if that can be, since a block is read to be changed.
func (c *content) openStorage(p place) error {
	const flags = unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC | unix.O_NOCTTY
	c.writable = !c.v.readOnly
	fd, err := -1, error(nil)
	if c.writable {
		fd, err = unix.Openat(p.dir, p.entry, unix.O_RDWR|flags, 0)
		for _, refusal := range []error{unix.EACCES, unix.EPERM, unix.EROFS, unix.ETXTBSY} {
			c.writable = c.writable && !errors.Is(err, refusal)
		}
	}
	if !c.writable {
		fd, err = unix.Openat(p.dir, p.entry, unix.O_RDONLY|flags, 0)
	}
	if !c.writable && !c.v.readOnly && !c.v.multiUser {
		if owned, forced := disk.OpenOwned(p.dir, p.entry, flags); forced == nil {
			if err == nil {
				unix.Close(fd)
			}
			fd, err, c.writable = owned, nil, true
		}
	}
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return err
	}
	c.times.modified = st.Mtim
	if identityOf(&st) != c.id || st.Mode&unix.S_IFMT != unix.S_IFREG {
		unix.Close(fd)
		return unix.ESTALE // the kernel looks the name up again
	}
	c.storage = &disk.Storage{FD: fd}
	c.path = p.path
	return nil
}

// openFile opens the sealed file in c.storage.
func (c *content) openFile(call keys.Call, p place) error {
	v := c.v
	var st unix.Stat_t
	if err := unix.Fstat(c.storage.FD, &st); err != nil {
		return err
	}
	tolerant := v.tolerance.Covers(st.Ctim)
	header, err := v.sealed.ReadHeader(c.storage, tolerant)
	if errors.Is(err, envelope.ErrEmpty) {
		return c.giveHeader(call, p, st.Uid)
	}
	if err != nil {
		return err
	}
	current := header.Path == p.path && header.Owner == st.Uid
	opener := call
	if !current {
		opener = call.BySelf()
	}
	file, err := c.unseal(opener, header, tolerant)
	if err != nil {
		return err
	}
	c.sealed.Store(file)
	if tolerant && c.writable { // repairs are not the users' doing
		if err := disk.SetModified(c.storage.FD, c.times.modified); err != nil {
			return errors.Join(err, file.Close())
		}
	}
	if err := c.check(call, header, p, st); err != nil {
		return errors.Join(err, file.Close())
	}
	if !current {
		if err := c.authorize(call, p); err != nil {
			return errors.Join(err, file.Close())
		}
	}
	return nil
}

// unseal opens the sealed file in c.storage, whose header that is, with the key that the service unwraps for opener.
func (c *content) unseal(opener keys.Call, header *envelope.Header, tolerant bool) (*envelope.File, error) {
	v := c.v
	if err := v.refuseIfLocked(); err != nil {
		return nil, err
	}
	if !v.disk.Allows(header.KeyARN) {
		return nil, fmt.Errorf("header names the key %s, which is none of the volume's: %w", header.KeyARN, envelope.ErrAuthentication)
	}
	key, err := v.keys.Decrypt(context.Background(), opener, header.KeyARN, header.WrappedKey, header.Context(v.sealed.ID()))
	if err != nil {
		return nil, c.explain(err)
	}
	defer clear(key)
	return v.sealed.OpenFile(c.storage, header, key, c.options(tolerant))
}

// reload takes what another mount has made of the file meanwhile, even if that has given it a new data key.
func (c *content) reload() error {
	err := c.file().Reload()
	if !errors.Is(err, envelope.ErrAuthentication) {
		return err
	}
	header, err := c.v.sealed.ReadHeader(c.storage, false)
	if err != nil {
		return err
	}
	if header.FileID != c.file().Header().FileID {
		return fmt.Errorf("the header is another file's: %w", envelope.ErrAuthentication)
	}
	file, err := c.unseal(keys.Self("reload"), header, false)
	if err != nil {
		return err
	}
	err = c.file().Close()
	c.sealed.Store(file)
	return err
}

// explain makes a wrapped key that doesn't open a fault of the file.
func (c *content) explain(err error) error {
	if errors.Is(err, keys.ErrDenied) {
		return err
	}
	return fmt.Errorf("data key doesn't open: %w", err)
}

func (c *content) options(tolerant bool) envelope.FileOptions {
	v := c.v
	return envelope.FileOptions{
		Tolerant: tolerant,
		ReadOnly: !c.writable,
		Repaired: func(block int64, what string) {
			v.log.Warn("accepted after an unclean end", "path", c.path, "block", block, "what", what)
			event := keys.Event{Name: keys.EventRepaired, Details: map[string]string{"path": c.path, "block": fmt.Sprint(block), "what": what}}
			if err := v.keys.Record(context.Background(), keys.Self("repair"), event); err != nil {
				v.log.Error("can't record a repair", "path", c.path, "error", err)
			}
		},
		Fresh: func(old envelope.Header) (envelope.Header, []byte, error) {
			key, err := v.keys.GenerateDataKey(context.Background(), keys.Self("truncate"), old.KeyARN, old.Context(v.sealed.ID()))
			if err != nil {
				return envelope.Header{}, nil, err
			}
			old.KeyARN, old.WrappedKey = key.KeyARN, key.Wrapped
			return old, key.Plaintext, nil
		},
	}
}

// check refuses a file that is not where, or not whose, its header says.
func (c *content) check(call keys.Call, header *envelope.Header, p place, st unix.Stat_t) error {
	v := c.v
	lies, owned := v.sealed.LiesAt(header, p.location), header.OwnedBy(st.Uid)
	if st.Nlink == 0 && len(header.Locations) == 0 && len(header.LinkDigests) == 0 { // made with O_TMPFILE
		lies = true
	}
	if lies && owned {
		return nil
	}
	event := keys.Event{
		Name: keys.EventContextMismatch, KeyARN: header.KeyARN, Context: header.Context(v.sealed.ID()),
		Details: places(header.Locations, p.location, p.path),
	}
	event.Details["foundOwner"] = disk.OwnerName(st.Uid)
	if owned && v.tolerance.Rebooted && v.tolerance.Covers(st.Ctim) {
		event.Name = keys.EventRepaired
		v.log.Warn("a file lay one rename behind its header: accepted after an unclean end", "path", p.path)
		if err := v.keys.Record(context.Background(), call.BySelf(), event); err != nil || !c.writable {
			return err
		}
		return c.changeHeader(func(h *envelope.Header) error {
			v.sealed.AddLocation(h, p.location)
			return nil
		})
	}
	event.Error = disk.ErrMismatch
	return errors.Join(disk.ErrMismatch, v.keys.Record(context.Background(), call.BySelf(), event))
}

// authorize asks the key service whether call's caller may use the file at p, where and whose it has been found to be. A wrap that is
// bound to another path or owner is renewed by the file system itself; the caller is judged by what is true now. c.mu is held.
func (c *content) authorize(call keys.Call, p place) error {
	v := c.v
	var st unix.Stat_t
	if err := unix.Fstat(c.storage.FD, &st); err != nil {
		return err
	}
	h := c.file().Header()
	if !v.sealed.LiesAt(&h, p.location) || !h.OwnedBy(st.Uid) {
		return c.check(call, &h, p, st)
	}
	if err := v.refuseIfLocked(); err != nil {
		return err
	}
	if h.Path != p.path || h.Owner != st.Uid {
		var err error
		if h, err = c.rewrap(call, h.KeyARN, p.path, st.Uid, c.writable && st.Nlink == 1); err != nil {
			return err
		}
	}
	key, err := v.keys.Decrypt(context.Background(), call, h.KeyARN, h.WrappedKey, h.Context(v.sealed.ID()))
	clear(key)
	if err != nil {
		return c.explain(err)
	}
	return nil
}

// allowWrite refuses a caller who may not encrypt where the file is, and ends its use then. What it may decrypt, opening it has decided.
func (c *content) allowWrite(call keys.Call, path string) (err error) {
	v := c.v
	defer func() {
		if err != nil {
			err = errors.Join(err, c.release())
		}
	}()
	h := c.file().Header()
	h.Path = path
	call.Path = v.seen(path)
	use := keys.Use{Caller: call.Caller, Action: keys.ActionGenerateDataKey, Wrap: keys.Wrap{Key: h.KeyARN, Context: h.Context(v.sealed.ID())}}
	answers, err := v.keys.Check(context.Background(), []keys.Use{use})
	if err != nil || answers[0].Denied == nil {
		return err
	}
	return v.mayGenerate(call, use.Wrap) // which has the refusal recorded
}

// mayGenerate refuses a caller who may not make data keys under a KMS key (ID, alias or ARN), by making one.
func (v *volume) mayGenerate(call keys.Call, w keys.Wrap) error {
	key, err := v.keys.GenerateDataKey(context.Background(), call, w.Key, w.Context)
	clear(key.Plaintext)
	return err
}

// rewrap binds the data key to a KMS key, a path and an owner, and returns the header that says so. With store it becomes the file's. c.mu is held.
func (c *content) rewrap(call keys.Call, key, path string, owner uint32, store bool) (envelope.Header, error) {
	v := c.v
	call.Path = v.seen(path)
	for {
		h := c.file().Header()
		from, old := h.WrappedKey, keys.Wrap{Key: h.KeyARN, Context: h.Context(v.sealed.ID())}
		h.Path, h.Owner = path, owner
		if h.NextOwner != nil && *h.NextOwner == owner {
			h.NextOwner = nil
		}
		made, err := v.keys.ReEncrypt(context.Background(), call.BySelf(), from, old, keys.Wrap{Key: key, Context: h.Context(v.sealed.ID())})
		if err != nil {
			return h, c.explain(err)
		}
		if err := v.disk.Allow(made.KeyARN); err != nil {
			return h, err
		}
		h.KeyARN, h.WrappedKey = made.KeyARN, made.Wrapped
		if !store {
			return h, nil
		}
		err = c.changeHeader(func(now *envelope.Header) error {
			if !bytes.Equal(now.WrappedKey, from) {
				return errRekeyed
			}
			*now = h
			return nil
		})
		if !errors.Is(err, errRekeyed) {
			return h, err
		}
	}
}

// errRekeyed says that a file was given a new data key while its old one was wrapped anew.
var errRekeyed = errors.New("the file has another data key by now")

// giveHeader makes a file that an unclean end left without a header an empty one.
func (c *content) giveHeader(call keys.Call, p place, owner uint32) error {
	if !c.writable {
		return fmt.Errorf("an unclean end left it without a header, and it can't be written: %w", envelope.ErrFormat)
	}
	if err := c.storage.Truncate(0); err != nil {
		return err
	}
	c.v.log.Warn("empty after an unclean end", "path", p.path)
	event := keys.Event{Name: keys.EventRepaired, Details: map[string]string{"path": p.path, "what": "no header: made empty"}}
	if err := c.v.keys.Record(context.Background(), keys.Self("repair"), event); err != nil {
		return err
	}
	parent := c.v.root
	if l, ok := c.in.link(); ok {
		parent = l.parent
	}
	under, err := c.v.governing(parent)
	if err != nil {
		return err
	}
	return c.makeFile(call, under, p.path, owner, envelope.NewFileID(), p.location)
}

// makeFile gives the empty storage a header with a new data key, as the policy says.
func (c *content) makeFile(call keys.Call, under governing, path string, owner uint32, id envelope.FileID, locations ...envelope.Location) error {
	v := c.v
	h := &envelope.Header{FileID: id, Owner: owner, Path: path, Locations: locations, Compression: under.compression}
	call.Path = v.seen(path)
	if err := v.refuseIfLocked(); err != nil {
		return err
	}
	key, err := v.keys.GenerateDataKey(context.Background(), call, under.key, h.Context(v.sealed.ID()))
	if err != nil {
		return err
	}
	defer clear(key.Plaintext)
	if err := v.disk.Allow(key.KeyARN); err != nil {
		return err
	}
	h.KeyARN, h.WrappedKey = key.KeyARN, key.Wrapped
	file, err := v.sealed.CreateFile(c.storage, h, key.Plaintext, c.options(false))
	if err != nil {
		return err
	}
	c.sealed.Store(file)
	return nil
}

// change changes the header by edit.
func (c *content) change(edit func(h *envelope.Header)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.writable {
		return unix.EACCES
	}
	return c.use(true, func(*envelope.File) error {
		return c.changeHeader(func(h *envelope.Header) error {
			edit(h)
			return nil
		})
	})
}

// changeHeader changes the header without a trace in the file's modification time, which is its content's. c.mu is held.
func (c *content) changeHeader(edit func(h *envelope.Header) error) error {
	return c.keepTime(func() error { return c.file().ChangeHeader(edit) })
}
