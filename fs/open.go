package fs

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/keys"
	disk "kmsfs/fs/volume"
	"kmsfs/fs/volume/backing"
)

// place is where a regular file was found: the directory, the backing name in it, the location that
// its header must name, and the path.
type place struct {
	dir      int
	entry    string
	location envelope.Location
	path     string
}

// open opens the file at p for call's caller: it is authentic, lies at its location, belongs to the
// owner that its header names, and the key service allows the use. The caller of open holds
// volume.tree, and releases the file.
func (o *operation) open(call keys.Call, in *inode, p place, write bool) (*openFile, error) {
	call.Path = o.seen(p.path)
	c := o.files.acquire(o.volume, in)
	n := &opening{c, o, call, p}
	if err := n.open(in, write); err != nil {
		_ = c.release() // the error that counts is the first
		return nil, err
	}
	return c, nil
}

// opening opens a file at a place, or authorizes its use if it is open. Its methods are called with
// openFile.mu held.
type opening struct {
	*openFile
	o    *operation
	call keys.Call
	at   place
}

func (n *opening) open(in *inode, write bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.openOrAuthorize(in); err != nil {
		return err
	}
	if write && !n.writable {
		return unix.EACCES
	}
	return nil
}

func (n *opening) openOrAuthorize(in *inode) error {
	switch {
	case n.unsealed() == nil:
		n.in = in
		if err := n.openStorage(); err != nil {
			return err
		}
		return n.openStored()
	case n.wiped.Load():
		return n.openWiped()
	}
	return n.use(n.o, n.writable, func(*envelope.File) error { return n.authorize() })
}

// openNameless opens a file that has no name any more.
func (o *operation) openNameless(call keys.Call, in *inode, write bool) (*openFile, error) {
	c := o.files.acquire(o.volume, in)
	c.mu.Lock()
	call.Path = o.seen(c.path)
	n := &opening{openFile: c, o: o, call: call}
	err := n.openOrphan(in)
	if err == nil && write && !c.writable {
		err = unix.EACCES
	}
	c.mu.Unlock()
	if err != nil {
		_ = c.release() // the error that counts is the first
		return nil, err
	}
	return c, nil
}

// openOrphan opens a file by the descriptor that was kept when its last name went, or authorizes
// its use if it is open.
func (n *opening) openOrphan(in *inode) error {
	if n.unsealed() == nil {
		fd, p, err := in.dupOrphan()
		if err != nil {
			return err
		}
		n.in, n.storage, n.writable, n.path, n.at = in, disk.NewStorage(backing.FromDescriptor(fd)), !n.o.readOnly, n.at.path, p
		if err := n.setTime(func() error { return nil }); err != nil {
			unix.Close(fd)
			return err
		}
		return n.openStored()
	}
	if n.in != in {
		return unix.ESTALE // the number is another file's by now
	}
	if n.wiped.Load() {
		n.at = n.lastPlace()
		return n.openWiped()
	}
	return n.use(n.o, false, func(f *envelope.File) error {
		h := f.Header()
		return n.o.mayDecrypt(n.call, n.o.wrapOf(&h), h.WrappedKey)
	})
}

// openStored opens the sealed file in c.storage, or closes that.
func (n *opening) openStored() error {
	err := n.takeTurn(n.writable)
	if err == nil {
		err = n.openSealed()
		n.endTurn()
	}
	if err != nil {
		unix.Close(backing.Descriptor(n.storage.File))
		n.sealed.Store(nil)
	}
	return err
}

// openWiped opens a file whose keys were wiped, for call's caller.
func (n *opening) openWiped() error {
	if err := n.takeTurn(n.writable); err != nil {
		return err
	}
	defer n.endTurn()
	if err := n.openSealed(); err != nil {
		return err
	}
	n.wiped.Store(false)
	return nil
}

// lastPlace is where a file without a name has lain, as its header says.
func (c *openFile) lastPlace() place {
	h := c.unsealed().Header()
	p := place{path: h.Path}
	if len(h.Locations) > 0 {
		p.location = h.Locations[0]
	}
	return p
}

// openStorage opens the backing file: for writing too, if that is possible, since a block is read
// to be changed.
func (n *opening) openStorage() error {
	const flags = unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC | unix.O_NOCTTY
	n.writable = !n.v.readOnly
	fd, err := -1, error(nil)
	if n.writable {
		fd, err = unix.Openat(n.at.dir, n.at.entry, unix.O_RDWR|flags, 0)
		for _, denied := range []error{unix.EACCES, unix.EPERM, unix.EROFS, unix.ETXTBSY} {
			n.writable = n.writable && !errors.Is(err, denied)
		}
	}
	if !n.writable {
		fd, err = unix.Openat(n.at.dir, n.at.entry, unix.O_RDONLY|flags, 0)
	}
	if !n.writable && !n.v.readOnly && !n.v.multiUser {
		if owned, forced := openOwned(n.at.dir, n.at.entry); forced == nil {
			if err == nil {
				unix.Close(fd)
			}
			fd, err, n.writable = owned, nil, true
		}
	}
	if err != nil {
		return err
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && (identityOf(&st) != n.id || st.Mode&unix.S_IFMT != unix.S_IFREG) {
		err = unix.ESTALE // the kernel looks the name up again
	}
	if err != nil {
		unix.Close(fd)
		return err
	}
	n.times.set(st.Mtim)
	n.storage, n.path = disk.NewStorage(backing.FromDescriptor(fd)), n.at.path
	return nil
}

// openSealed opens the sealed file in c.storage.
func (n *opening) openSealed() error {
	var st unix.Stat_t
	if err := unix.Fstat(backing.Descriptor(n.storage.File), &st); err != nil {
		return err
	}
	tolerant := n.o.tolerance.Covers(st.Ctim)
	header, err := n.o.sealed.ReadHeader(n.storage, tolerant)
	if errors.Is(err, envelope.ErrEmpty) {
		return n.giveHeader(st.Uid)
	}
	if err != nil {
		return err
	}
	opener := n.call
	if header.Path != n.at.path || header.Owner != st.Uid {
		opener = n.call.BySelf() // the caller is judged by what is true now, below
	}
	file, err := n.unseal(n.o, opener, header, tolerant)
	if err != nil {
		return err
	}
	n.sealed.Store(file)
	if err := n.checkOpened(header, st); err != nil {
		return errors.Join(err, file.Close())
	}
	return nil
}

// checkOpened checks the file that was just opened, and authorizes a caller that has not been yet.
func (n *opening) checkOpened(header *envelope.Header, st unix.Stat_t) error {
	if n.o.tolerance.Covers(st.Ctim) && n.writable { // a repair is not the users' doing
		if err := disk.SetModified(n.storage.File, n.time()); err != nil {
			return err
		}
	}
	if err := n.checkPlace(header, st); err != nil {
		return err
	}
	if header.Path == n.at.path && header.Owner == st.Uid {
		return nil
	}
	return n.authorize()
}

// unseal opens the sealed file in c.storage, which has that header, with the data key that the key
// service unwraps for opener.
func (c *openFile) unseal(o *operation, opener keys.Call, header *envelope.Header, tolerant bool) (*envelope.File, error) {
	if err := o.denyIfLocked(); err != nil {
		return nil, err
	}
	if !o.disk.Allows(header.KeyARN) {
		return nil, fmt.Errorf("header names the key %s, which is none of the volume's: %w", header.KeyARN, envelope.ErrAuthentication)
	}
	key, err := o.decrypt(opener, o.wrapOf(header), header.WrappedKey)
	if err != nil {
		return nil, explain(err)
	}
	defer clear(key)
	return o.sealed.OpenFile(c.storage, header, key, c.options(tolerant))
}

// explain makes a wrapped key that doesn't open a fault of the file.
func explain(err error) error {
	if errors.Is(err, keys.ErrDenied) || isUnanswered(err) {
		return err
	}
	return fmt.Errorf("data key doesn't open: %w", err)
}

func (c *openFile) options(tolerant bool) envelope.FileOptions {
	return envelope.FileOptions{
		Tolerant: tolerant,
		ReadOnly: !c.writable,
		Repaired: func(part envelope.Part, what string) {
			c.v.log.Warn("accepted after an unclean end", "path", c.path, "part", part, "what", what)
			details := map[string]string{"path": c.path, "part": part.String(), "what": what}
			c.v.reports.add(keys.Self("repair"), keys.Event{Name: keys.EventRepaired, Details: details})
		},
		Fresh: c.fresh.take,
	}
}

// checkPlace denies a file that lies elsewhere, or has another owner, than its header says.
func (n *opening) checkPlace(header *envelope.Header, st unix.Stat_t) error {
	lies, owned := n.o.sealed.LiesAt(header, n.at.location), header.OwnedBy(st.Uid)
	if st.Nlink == 0 && len(header.Locations) == 0 && len(header.LinkDigests) == 0 { // made with O_TMPFILE
		lies = true
	}
	if lies && owned {
		return nil
	}
	event := keys.Event{
		Name: keys.EventContextMismatch, KeyARN: header.KeyARN, Context: header.Context(n.o.sealed.ID()),
		Details: places(header.Locations, n.at.location, n.at.path),
	}
	event.Details["foundOwner"] = disk.OwnerName(st.Uid)
	if owned && n.o.tolerance.Rebooted && n.o.tolerance.Covers(st.Ctim) {
		event.Name = keys.EventRepaired
		return n.acceptPlace(event)
	}
	event.Error = disk.ErrMismatch
	return errors.Join(disk.ErrMismatch, n.o.record(n.call.BySelf(), event))
}

// acceptPlace accepts a file that a power failure has left one rename ahead of its header.
func (n *opening) acceptPlace(event keys.Event) error {
	if err := n.o.record(n.call.BySelf(), event); err != nil {
		return err
	}
	n.o.log.Warn("accepted after an unclean end: a file lies one rename ahead of its header", "path", n.at.path)
	if !n.writable {
		return nil
	}
	return n.changeHeader(func(h *envelope.Header) error {
		n.o.sealed.AddLocation(h, n.at.location)
		return nil
	})
}

// authorize asks the key service whether call's caller may use the file at p, as it lies there and
// belongs to its owner now. A wrapped key that is bound to another path or owner is wrapped anew by
// the file system itself.
func (n *opening) authorize() error {
	var st unix.Stat_t
	if err := unix.Fstat(backing.Descriptor(n.storage.File), &st); err != nil {
		return err
	}
	h := n.unsealed().Header()
	if !n.o.sealed.LiesAt(&h, n.at.location) || !h.OwnedBy(st.Uid) {
		return n.checkPlace(&h, st)
	}
	if err := n.o.denyIfLocked(); err != nil {
		return err
	}
	if h.Path != n.at.path || h.Owner != st.Uid {
		next, err := n.rewrapped(n.o, n.call, h.KeyARN, n.at.path, st.Uid)
		if err != nil {
			return err
		}
		if n.writable && st.Nlink == 1 {
			if err := n.storeWrap(next); err != nil {
				return err
			}
		}
		h = next.header
	}
	if err := n.o.mayDecrypt(n.call, n.o.wrapOf(&h), h.WrappedKey); err != nil {
		return explain(err)
	}
	return nil
}

// authorizeWrite denies a caller that may not encrypt at the file's path, and ends its use then.
// What it may decrypt, opening the file has decided.
func (c *openFile) authorizeWrite(o *operation, call keys.Call, path string) error {
	err := c.mayEncrypt(o, call, path)
	if err != nil {
		err = errors.Join(err, c.release())
	}
	return err
}

func (c *openFile) mayEncrypt(o *operation, call keys.Call, path string) error {
	h := c.unsealed().Header()
	h.Path = path
	call.Path = o.seen(path)
	w := o.wrapOf(&h)
	answers, err := o.check([]keys.Use{{Caller: call.Caller, Action: keys.ActionGenerateDataKey, Wrap: w}})
	if err != nil || answers[0].Denied == nil {
		return err
	}
	_, err = o.mayGenerate(call, w) // which has the denial recorded
	return err
}

// openKnown opens a file by one of its known names that the caller may use it by, and returns that
// name, or opens it as it is open already: the kernel doesn't say which name was used. With
// encrypt, the caller needs the permission to write. The caller of openKnown holds volume.tree.
func (o *operation) openKnown(call keys.Call, in *inode, write, encrypt bool) (c *openFile, by link, err error) {
	names := in.names()
	if len(names) == 0 {
		c, err = o.openNameless(call, in, write)
		if err == nil && encrypt {
			err = c.authorizeWrite(o, call, c.unsealed().Header().Path)
		}
		return c, link{}, err
	}
	for _, by = range names {
		if c, err = o.openBy(call, in, by, write, encrypt); !errors.Is(err, keys.ErrDenied) {
			break
		}
	}
	return c, by, err
}

// openBy is openKnown for one name.
func (o *operation) openBy(call keys.Call, in *inode, by link, write, encrypt bool) (*openFile, error) {
	e, err := o.entry(by)
	if err != nil {
		return nil, err
	}
	defer e.release()
	if o.shared() {
		if err := e.leadsTo(in); err != nil {
			return nil, err
		}
	}
	c, err := o.open(call, in, e.place(), write)
	if err == nil && encrypt {
		err = c.authorizeWrite(o, call, by.path())
	}
	return c, err
}

// openHeld is openKnown for what the file system does by itself. In a shared volume, it goes on
// with a file that is open when another mount has renamed or removed it.
func (o *operation) openHeld(call keys.Call, in *inode, write bool) (*openFile, error) {
	c, _, err := o.openKnown(call, in, write, false)
	if errors.Is(err, unix.ESTALE) && o.shared() {
		return o.openNameless(call, in, write)
	}
	return c, err
}
