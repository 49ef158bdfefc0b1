package fs

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/keys"
	disk "kmsfs/fs/volume"
	"kmsfs/fs/volume/backing"
	"kmsfs/policy/caller"
)

var (
	_ gofs.NodeCreater   = (*node)(nil)
	_ gofs.NodeTmpfiler  = (*node)(nil)
	_ gofs.NodeMkdirer   = (*node)(nil)
	_ gofs.NodeMknoder   = (*node)(nil)
	_ gofs.NodeSymlinker = (*node)(nil)
)

const newFile = unix.O_RDWR | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC

// Create makes a regular file and opens it.
func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*gofs.Inode, gofs.FileHandle, uint32, syscall.Errno) {
	o := n.v.operation(ctx)
	defer o.end()
	l, call := link{n.in, name}, callOf(ctx, "create")
	made := creation{operation: o, call: call, mode: mode}
	err := o.run(making, func() error { return made.file(l, &out.Attr) })
	if errors.Is(err, unix.EEXIST) && flags&unix.O_EXCL == 0 {
		err = unix.ESTALE // the kernel looks again, and finds it
	}
	if err != nil {
		return nil, nil, 0, o.errnoAt(err, "create", l)
	}
	known := n.newNode(ctx, made.in)
	made.c.opener.Store(&call.Caller)
	return known, n.newHandle(call, made.c, made.in, l, known, flags), o.openFlags(), 0
}

// creation makes a regular file.
type creation struct {
	*operation
	call keys.Call
	mode uint32
	// owner is that of the caller's new files, where the backing file system gives them another
	// one than was to be expected.
	owner *uint32
	// c and in are the file that was made, in use.
	c  *openFile
	in *inode
}

// ownerOf is the owner that the new file is expected to have.
func (m *creation) ownerOf() uint32 {
	switch {
	case m.owner != nil:
		return *m.owner
	case m.multiUser:
		return m.call.Caller.UID
	}
	return m.disk.UID
}

// file makes a regular file. The caller holds volume.tree.
func (m *creation) file(l link, out *fuse.Attr) error {
	e, err := m.entry(l)
	if err != nil {
		return err
	}
	defer e.release()
	if _, err := e.stat(); err == nil {
		return unix.EEXIST
	}
	if err := m.prepare(e.in, l.path()); err != nil {
		return err
	}
	if err := e.prepareName(); err != nil {
		return err
	}
	fd, err := unix.Openat(e.fd, e.name(), newFile, modeIn(e.fd, m.mode)&0o7777)
	if err == nil {
		if err = m.fill(fd, e.dirRef, l.path(), e.location()); err == nil {
			if err = m.c.attributes(out, m.in); err != nil {
				err = errors.Join(err, m.c.release())
			}
		}
		if err != nil {
			err = errors.Join(err, unix.Unlinkat(e.fd, e.name(), 0))
		}
	}
	if err != nil {
		if !errors.Is(err, unix.EEXIST) { // else the name is another file's
			e.dropName()
		}
		return err
	}
	m.in.addLink(l)
	return nil
}

// header is that of the new file, without its data key.
func (m *creation) header(under effectivePolicy, path string) *envelope.Header {
	return &envelope.Header{Owner: m.ownerOf(), Path: path, Compression: under.compression}
}

// prepare asks for the file's data key.
func (m *creation) prepare(dir *inode, path string) error {
	under, err := m.effective(dir)
	if err != nil {
		return err
	}
	key, err := m.newDataKey(m.call, under, m.header(under, path))
	clear(key.Plaintext)
	return err
}

// newDataKey asks for a data key for a new file with that header.
func (o *operation) newDataKey(call keys.Call, under effectivePolicy, h *envelope.Header) (keys.DataKey, error) {
	if err := o.denyIfLocked(); err != nil {
		return keys.DataKey{}, err
	}
	call.Path = o.seen(h.Path)
	key, err := o.generate(call, keys.Wrap{Key: under.key, Context: h.Context(o.sealed.ID())})
	if err != nil {
		return keys.DataKey{}, err
	}
	if err := o.allow(key.KeyARN); err != nil {
		clear(key.Plaintext)
		return keys.DataKey{}, err
	}
	return key, nil
}

// fill gives the new and empty file fd, made in dir, an owner and a header. It closes fd if it
// fails.
func (m *creation) fill(fd int, dir dirRef, path string, locations ...envelope.Location) error {
	var st unix.Stat_t
	under, err := m.effective(dir.in)
	if err == nil {
		err = m.own(m.call.Caller, dir.fd, m.mode, func(uid, gid int) error { return unix.Fchown(fd, uid, gid) },
			func(mode uint32) error { return unix.Fchmod(fd, mode) })
	}
	if err == nil {
		err = unix.Fstat(fd, &st)
	}
	if err == nil && st.Uid != m.ownerOf() {
		m.owner = &st.Uid
		err = errAgain // the data key is to be bound to this owner
	}
	if err != nil {
		unix.Close(fd)
		return err
	}
	h := m.header(under, path)
	h.FileID, h.Locations = envelope.NewFileID(), locations
	in := m.inodes.create(&st)
	c := m.files.acquire(m.volume, in)
	if err := c.create(m.operation, m.call, in, fd, under, h); err != nil {
		unix.Close(fd)
		m.inodes.remove(in)
		return errors.Join(err, c.release())
	}
	m.c, m.in = c, in
	return nil
}

// create makes the empty file fd a sealed file with that header.
func (c *openFile) create(o *operation, call keys.Call, in *inode, fd int, under effectivePolicy, h *envelope.Header) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.in, c.storage, c.writable, c.path = in, disk.NewStorage(backing.FromDescriptor(fd)), true, h.Path
	err := c.makeFile(o, call, under, h)
	if err == nil {
		err = c.setTime(func() error { return nil })
	}
	if err != nil {
		c.sealed.Store(nil)
	}
	return err
}

// makeFile gives the empty storage a header with a new data key.
func (c *openFile) makeFile(o *operation, call keys.Call, under effectivePolicy, h *envelope.Header) error {
	key, err := o.newDataKey(call, under, h)
	if err != nil {
		return err
	}
	defer clear(key.Plaintext)
	h.KeyARN, h.WrappedKey = key.KeyARN, key.Wrapped
	file, err := o.sealed.CreateFile(c.storage, h, key.Plaintext, c.options(false))
	if err != nil {
		return err
	}
	c.sealed.Store(file)
	return nil
}

// giveHeader makes a file empty that an unclean end has left without a header.
func (n *opening) giveHeader(owner uint32) error {
	if !n.writable {
		return fmt.Errorf("an unclean end left it without a header, and it can't be written: %w", envelope.ErrFormat)
	}
	event := keys.Event{Name: keys.EventRepaired, Details: map[string]string{"path": n.at.path, "what": "no header: made empty"}}
	if err := n.o.record(keys.Self("repair"), event); err != nil {
		return err
	}
	parent := n.o.root
	if l, ok := n.in.link(); ok {
		parent = l.parent
	}
	under, err := n.o.effective(parent)
	if err != nil {
		return err
	}
	h := &envelope.Header{FileID: envelope.NewFileID(), Owner: owner, Path: n.at.path, Locations: []envelope.Location{n.at.location}, Compression: under.compression}
	key, err := n.o.newDataKey(n.call, under, h)
	clear(key.Plaintext)
	if err != nil {
		return err
	}
	if err := n.storage.Truncate(0); err != nil {
		return err
	}
	n.o.log.Warn("empty after an unclean end", "path", n.at.path)
	return n.makeFile(n.o, n.call, under, h)
}

// own gives what was just made in dir to its creator: this process made it, as root. A set-group-ID
// directory gives its own group instead, as the kernel has done already. A change of owner clears
// set-user-ID and set-group-ID, so mode is set anew.
func (v *volume) own(creator caller.Caller, dir int, mode uint32, chown func(uid, gid int) error, chmod func(mode uint32) error) error {
	if !v.multiUser || creator.UID == 0 && creator.GID == 0 {
		return nil
	}
	gid := int(creator.GID)
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_ISGID != 0 {
		gid = -1
	}
	if err := chown(int(creator.UID), gid); err != nil {
		return err
	}
	if mode&(unix.S_ISUID|unix.S_ISGID) != 0 && chmod != nil {
		return chmod(modeIn(dir, mode) & 0o7777)
	}
	return nil
}

// attributes fills in those of an open file.
func (c *openFile) attributes(out *fuse.Attr, in *inode) error {
	return c.v.attr(out, in, target{fd: backing.Descriptor(c.storage.File), file: c})
}

// Tmpfile makes a regular file that has no name.
func (n *node) Tmpfile(ctx context.Context, flags, mode uint32, out *fuse.EntryOut) (*gofs.Inode, gofs.FileHandle, uint32, syscall.Errno) {
	o := n.v.operation(ctx)
	defer o.end()
	call := callOf(ctx, "create")
	made := creation{operation: o, call: call, mode: mode}
	id := envelope.NewFileID() // random
	l := link{n.in, fmt.Sprintf("#%x", id[:8])}
	err := o.run(resolving, func() error { return made.temporary(l, flags, &out.Attr) })
	if err != nil {
		return nil, nil, 0, o.errnoOf(err, "create a temporary file", n.in)
	}
	known := n.newNode(ctx, made.in)
	return known, n.newHandle(call, made.c, made.in, link{}, known, flags), o.openFlags(), 0
}

// temporary makes a file without a name. l names it in its encryption context only.
func (m *creation) temporary(l link, flags uint32, out *fuse.Attr) error {
	dir, err := m.pin(l.parent)
	if err != nil {
		return err
	}
	defer dir.release()
	if err := m.prepare(dir.in, l.path()); err != nil {
		return err
	}
	fd, err := unix.Openat(dir.fd, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC|int(flags&unix.O_EXCL), modeIn(dir.fd, m.mode)&0o7777)
	if err != nil {
		return err
	}
	if err := m.fill(fd, dir, l.path()); err != nil {
		return err
	}
	if err := m.c.attributes(out, m.in); err != nil {
		return errors.Join(err, m.c.release())
	}
	return nil
}

// Mkdir makes a directory: whole, with its record, under a temporary name, which it then leaves.
func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	o := n.v.operation(ctx)
	defer o.end()
	l, call := link{n.in, name}, callOf(ctx, "mkdir")
	var in *inode
	err := o.run(making, func() (err error) {
		in, err = o.makeDirectory(call, l, mode, &out.Attr)
		return err
	})
	if err != nil {
		return nil, o.errnoAt(err, "make directory", l)
	}
	return n.newNode(ctx, in), 0
}

func (o *operation) makeDirectory(call keys.Call, l link, mode uint32, out *fuse.Attr) (*inode, error) {
	e, err := o.entry(l)
	if err != nil {
		return nil, err
	}
	defer e.release()
	if _, err := e.stat(); err == nil {
		return nil, unix.EEXIST
	}
	temp := disk.NewTempName()
	if err := unix.Mkdirat(e.fd, temp, modeIn(e.fd, mode)&0o7777); err != nil {
		return nil, err
	}
	record := &envelope.Directory{ID: envelope.NewDirectoryID(), Locations: []envelope.Location{e.location()}}
	st, err := o.fillDirectory(call, e, temp, mode, record)
	if err == nil {
		err = e.prepareName()
	}
	if err == nil {
		err = e.rename(temp)
	}
	if err != nil {
		return nil, errors.Join(err, o.disk.Dismantle(backing.FromDescriptor(e.fd), temp))
	}
	in := o.inodes.create(&st)
	in.setRecord(record, true)
	in.addLink(l)
	l.parent.addFresh(in)
	o.setAttr(out, in, &st)
	return in, nil
}

// rename gives a new directory its name, if the name is free. It uses no flag for that, as network
// file systems have none: a directory takes no file's place, nor that of a directory that isn't
// empty, and each directory has a record.
func (e dirEntry) rename(temp string) error {
	err := unix.Renameat(e.fd, temp, e.fd, e.name())
	if err == unix.ENOTEMPTY || err == unix.ENOTDIR {
		return unix.EEXIST
	}
	return err
}

// fillDirectory gives a new directory its owner and its record.
func (v *volume) fillDirectory(call keys.Call, e dirEntry, temp string, mode uint32, record *envelope.Directory) (st unix.Stat_t, err error) {
	fd, err := unix.Openat(e.fd, temp, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EACCES) { // the mode denies reading; O_PATH needs no permission
		fd, err = unix.Openat(e.fd, temp, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return st, err
	}
	defer unix.Close(fd)
	err = v.own(call.Caller, e.fd, mode, func(uid, gid int) error { return unix.Fchownat(e.fd, temp, uid, gid, unix.AT_SYMLINK_NOFOLLOW) }, nil)
	if err == nil {
		err = unix.Fstat(fd, &st)
	}
	if err != nil {
		return st, err
	}
	record.Owners = []uint32{st.Uid}
	if err := v.writeNewRecord(fd, mode, record); err != nil {
		return st, err
	}
	return st, unix.Fstat(fd, &st)
}

// writeNewRecord writes a new directory's record, though its mode may forbid its owner to write in
// it.
func (v *volume) writeNewRecord(fd int, mode uint32, record *envelope.Directory) error {
	if v.multiUser || mode&0o300 == 0o300 {
		return v.disk.WriteDirectory(backing.FromDescriptor(fd), record, false)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if err := unix.Chmod(procPath(fd), 0o700); err != nil {
		return err
	}
	if err := v.disk.WriteDirectory(backing.FromDescriptor(fd), record, false); err != nil {
		return err
	}
	return unix.Chmod(procPath(fd), st.Mode&0o7777)
}

// Mknod makes a FIFO, a socket, a device, or an empty regular file.
func (n *node) Mknod(ctx context.Context, name string, mode, dev uint32, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	o := n.v.operation(ctx)
	defer o.end()
	l, call := link{n.in, name}, callOf(ctx, "create")
	if mode&unix.S_IFMT == unix.S_IFREG {
		made := creation{operation: o, call: call, mode: mode}
		err := o.run(making, func() error { return made.file(l, &out.Attr) })
		if err == nil {
			err = made.c.release()
		}
		if err != nil {
			return nil, o.errnoAt(err, "make", l)
		}
		return n.newNode(ctx, made.in), 0
	}
	return n.makeSpecial(ctx, o, l, &out.Attr, "make", func(e dirEntry) error {
		if err := unix.Mknodat(e.fd, e.name(), modeIn(e.fd, mode)&(unix.S_IFMT|0o7777), int(dev)); err != nil {
			return err
		}
		return o.own(call.Caller, e.fd, 0, e.chown, nil)
	})
}

// Symlink makes a symlink.
func (n *node) Symlink(ctx context.Context, target, name string, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	o := n.v.operation(ctx)
	defer o.end()
	l, call := link{n.in, name}, callOf(ctx, "symlink")
	return n.makeSpecial(ctx, o, l, &out.Attr, "make symlink", func(e dirEntry) error {
		sealed, err := o.sealed.SealTarget(target)
		if err != nil {
			return err
		}
		if err := unix.Symlinkat(sealed, e.fd, e.name()); err != nil {
			return err
		}
		return o.own(call.Caller, e.fd, 0, e.chown, nil)
	})
}

// makeSpecial makes what has no content of its own.
func (n *node) makeSpecial(ctx context.Context, o *operation, l link, out *fuse.Attr, op string, bring func(dirEntry) error) (*gofs.Inode, syscall.Errno) {
	var in *inode
	err := o.run(making, func() (err error) {
		in, err = o.makeEntry(l, out, bring)
		return err
	})
	if err != nil {
		return nil, o.errnoAt(err, op, l)
	}
	return n.newNode(ctx, in), 0
}

func (o *operation) makeEntry(l link, out *fuse.Attr, bring func(dirEntry) error) (*inode, error) {
	e, err := o.entry(l)
	if err != nil {
		return nil, err
	}
	defer e.release()
	if _, err := e.stat(); err == nil {
		return nil, unix.EEXIST
	}
	if err := e.prepareName(); err != nil {
		return nil, err
	}
	if err := bring(e); err != nil {
		_ = unix.Unlinkat(e.fd, e.name(), 0)
		e.dropName()
		return nil, err
	}
	st, err := e.stat()
	if err != nil {
		return nil, err
	}
	in := o.inodes.create(&st)
	in.addLink(l)
	o.setAttr(out, in, &st)
	return in, nil
}
