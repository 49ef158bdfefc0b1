package fs

import (
	"context"
	"errors"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/keys"
	disk "kmsfs/fs/volume"
	"kmsfs/fs/volume/backing"
)

var _ gofs.NodeSetattrer = (*node)(nil)

// Setattr changes size, owner, mode and times.
func (n *node) Setattr(ctx context.Context, f gofs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	err := n.setattr(ctx, f, in, &out.Attr)
	const times = fuse.FATTR_ATIME | fuse.FATTR_MTIME | fuse.FATTR_CTIME | fuse.FATTR_FH
	if errors.Is(err, unix.ESTALE) && in.Valid&^times == 0 {
		// The kernel writes back the times of a file that has been removed: nobody will see them.
		out.Ino, out.Mode = n.in.number, n.in.kind
		return 0
	}
	if err != nil {
		return n.v.errnoOf(err, "change attributes", n.in)
	}
	n.v.attributeLife(n.in, &out.AttrValid, &out.AttrValidNsec)
	return 0
}

func (n *node) setattr(ctx context.Context, f gofs.FileHandle, in *fuse.SetAttrIn, out *fuse.Attr) error {
	if size, ok := in.GetSize(); ok {
		if err := n.truncate(ctx, f, int64(size)); err != nil {
			return err
		}
	}
	o := n.v.operation(ctx)
	defer o.end()
	how := resolving
	if n.in.kind == unix.S_IFDIR && in.Valid&fuse.FATTR_UID != 0 { // its record changes
		how = changing
	}
	var call keys.Call
	if in.Valid&(fuse.FATTR_UID|fuse.FATTR_GID) != 0 {
		call = callOf(ctx, "chown")
	}
	return o.run(how, func() error {
		owner := ownership{o, call, n.in}
		if err := owner.set(in); err != nil {
			return err
		}
		t, err := o.target(n.in)
		if err != nil {
			return err
		}
		defer t.release()
		if err := t.setMode(in); err != nil {
			return err
		}
		return o.attr(out, n.in, t) // of the same target: a file without a name may be closed next
	})
}

// setMode changes mode and times.
func (t target) setMode(in *fuse.SetAttrIn) error {
	if in.Valid&fuse.FATTR_KILL_SUIDGID != 0 {
		if err := t.dropPrivileges(); err != nil {
			return err
		}
	}
	if mode, ok := in.GetMode(); ok {
		if err := t.chmod(mode & 0o7777); err != nil {
			return err
		}
	}
	return t.setTimes(in)
}

// truncate sets the size through the handle, or through one of its own.
func (n *node) truncate(ctx context.Context, f gofs.FileHandle, size int64) error {
	if h, ok := f.(*handle); ok {
		if err := h.allowed(); err != nil {
			return err
		}
		return h.c.truncate(ctx, size)
	}
	o := n.v.operation(ctx)
	defer o.end()
	call := callOf(ctx, "truncate")
	var c *openFile
	err := o.run(resolving, func() (err error) {
		c, _, err = o.openKnown(call, n.in, true, true)
		return err
	})
	if err != nil {
		return err
	}
	return errors.Join(c.truncate(ctx, size), c.release())
}

func (c *openFile) truncate(ctx context.Context, size int64) error {
	return c.do(ctx, true, func(f *envelope.File) error {
		return c.setTime(func() error { return f.Truncate(size) })
	})
}

// target is a backing inode whose attributes are read or changed: an open descriptor, or an entry.
type target struct {
	fd int // -1: the entry
	// file is the open file that fd belongs to; nil if there is none.
	file    *openFile
	entry   dirEntry
	release func()
}

// target finds an inode's backing inode. The caller holds volume.tree.
func (o *operation) target(in *inode) (target, error) {
	entry := func() (target, error) { return o.entryTarget(in) }
	if in.kind == unix.S_IFDIR {
		if fd, ok := o.dirs.pin(in); ok {
			return target{fd: fd, release: func() { o.dirs.unpin(in) }}, nil
		}
	}
	if in.kind == unix.S_IFREG {
		return o.fileTarget(in, entry)
	}
	return entry()
}

// fileTarget is the descriptor of a file that is open, or the entry of one that is not opened
// before the target is released.
func (o *operation) fileTarget(in *inode, entry func() (target, error)) (target, error) {
	c := o.files.acquire(o.volume, in)
	c.mu.Lock()
	if c.unsealed() != nil && c.in == in {
		c.mu.Unlock()
		return target{fd: backing.Descriptor(c.storage.File), file: c, release: func() { _ = c.release() }}, nil
	}
	t, err := entry()
	if err != nil {
		c.mu.Unlock()
		return target{}, errors.Join(err, c.release())
	}
	release := t.release
	t.release = func() {
		release()
		c.mu.Unlock()
		_ = c.release()
	}
	return t, nil
}

func (o *operation) entryTarget(in *inode) (target, error) {
	l, ok := in.link()
	if !ok {
		return target{}, unix.ESTALE
	}
	e, err := o.entry(l)
	if err != nil {
		return target{}, err
	}
	st, err := e.stat()
	if err == nil && !in.is(&st) {
		err = unix.ESTALE
	}
	if err != nil {
		e.release()
		return target{}, err
	}
	return target{fd: -1, entry: e, release: e.release}, nil
}

func (t target) stat() (st unix.Stat_t, err error) {
	if t.fd < 0 {
		return t.entry.stat()
	}
	err = unix.Fstat(t.fd, &st)
	return st, err
}

func (t target) chmod(mode uint32) error {
	if t.fd >= 0 {
		return unix.Chmod(procPath(t.fd), mode)
	}
	return unix.Fchmodat(t.entry.fd, t.entry.name(), mode, unix.AT_SYMLINK_NOFOLLOW)
}

func (t target) chown(uid, gid int) error {
	if t.fd >= 0 {
		return unix.Chown(procPath(t.fd), uid, gid)
	}
	return t.entry.chown(uid, gid)
}

// dropPrivileges clears what a write or a change of owner by others must not leave: see
// FUSE_HANDLE_KILLPRIV_V2.
func (t target) dropPrivileges() error {
	st, err := t.stat()
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return err
	}
	mode := st.Mode & 0o7777 &^ unix.S_ISUID
	if mode&unix.S_IXGRP != 0 {
		mode &^= unix.S_ISGID
	}
	if mode == st.Mode&0o7777 {
		return nil
	}
	return t.chmod(mode)
}

// ownership changes owner and group.
type ownership struct {
	*operation
	call keys.Call
	in   *inode
}

// set changes owner and group. A file's data key is bound to its owner: its header names the
// next one before the change, and is bound to it after.
func (w ownership) set(to *fuse.SetAttrIn) error {
	uid, gid := -1, -1
	if id, ok := to.GetUID(); ok {
		uid = int(id)
	}
	if id, ok := to.GetGID(); ok {
		gid = int(id)
	}
	switch {
	case uid < 0 && gid < 0:
		return nil
	case w.in.kind == unix.S_IFREG && uid >= 0:
		return w.ofFile(uint32(uid), gid)
	case w.in.kind == unix.S_IFDIR && uid >= 0:
		return w.ofDirectory(uint32(uid), gid)
	}
	t, err := w.target(w.in)
	if err != nil {
		return err
	}
	defer t.release()
	return t.chown(uid, gid)
}

// ofDirectory has the record name both owners before the change, durably, and the new one after
// it.
func (w ownership) ofDirectory(uid uint32, gid int) error {
	dir, err := w.pin(w.in)
	if err != nil {
		return err
	}
	defer dir.release()
	present, err := w.directoryRecord(w.in)
	if err != nil {
		return err
	}
	owner, err := disk.OwnerOf(backing.FromDescriptor(dir.fd))
	if err != nil {
		return err
	}
	chown := func() error { return unix.Chown(procPath(dir.fd), int(uid), gid) }
	if owner == uid {
		return chown()
	}
	both, one := *present, *present
	both.Owners, one.Owners = []uint32{owner, uid}, []uint32{uid}
	if err := w.replaceRecord(dir, &both); err != nil {
		return err
	}
	err = chown()
	if err != nil {
		one.Owners = []uint32{owner}
	}
	return errors.Join(err, w.replaceRecord(dir, &one))
}

func (w ownership) ofFile(uid uint32, gid int) error {
	c, err := w.openHeld(w.call, w.in, false)
	if err != nil {
		return err
	}
	return errors.Join(c.chown(w.operation, w.call, uid, gid), c.release())
}

func (c *openFile) chown(o *operation, call keys.Call, uid uint32, gid int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.use(o, c.writable, func(f *envelope.File) error {
		h := f.Header()
		if h.Owner == uid {
			return unix.Fchown(backing.Descriptor(c.storage.File), int(uid), gid)
		}
		if !c.writable {
			return unix.EACCES
		}
		next, err := c.rewrapped(o, call, h.KeyARN, h.Path, uid)
		if err != nil {
			return err
		}
		if err := c.nameNextOwner(&uid); err != nil {
			return err
		}
		if err := unix.Fchown(backing.Descriptor(c.storage.File), int(uid), gid); err != nil {
			return errors.Join(err, c.nameNextOwner(nil))
		}
		return c.storeWrap(next)
	})
}

// nameNextOwner notes in the header which owner the file is about to have. c.mu is held.
func (c *openFile) nameNextOwner(uid *uint32) error {
	return c.changeHeader(func(h *envelope.Header) error {
		h.NextOwner = uid
		return nil
	})
}

// setTimes is utimensat(2).
func (t target) setTimes(in *fuse.SetAttrIn) error {
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_OMIT}}
	set := func(i int, valid, now uint32, seconds uint64, nanos uint32) {
		switch {
		case in.Valid&valid == 0:
		case in.Valid&now != 0:
			times[i].Nsec = unix.UTIME_NOW
		default:
			times[i] = unix.Timespec{Sec: int64(seconds), Nsec: int64(nanos)}
		}
	}
	set(0, fuse.FATTR_ATIME, fuse.FATTR_ATIME_NOW, in.Atime, in.Atimensec)
	set(1, fuse.FATTR_MTIME, fuse.FATTR_MTIME_NOW, in.Mtime, in.Mtimensec)
	if times[0].Nsec == unix.UTIME_OMIT && times[1].Nsec == unix.UTIME_OMIT {
		return nil
	}
	if t.file != nil {
		return t.file.setTime(func() error { return unix.UtimesNanoAt(unix.AT_FDCWD, procPath(t.fd), times, 0) })
	}
	if t.fd >= 0 {
		return unix.UtimesNanoAt(unix.AT_FDCWD, procPath(t.fd), times, 0)
	}
	return unix.UtimesNanoAt(t.entry.fd, t.entry.name(), times, unix.AT_SYMLINK_NOFOLLOW)
}
