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
)

var _ gofs.NodeSetattrer = (*node)(nil)

// Setattr changes size, owner, mode and times.
func (n *node) Setattr(ctx context.Context, f gofs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	err := n.setattr(ctx, f, in)
	const times = fuse.FATTR_ATIME | fuse.FATTR_MTIME | fuse.FATTR_CTIME | fuse.FATTR_FH
	if errors.Is(err, unix.ESTALE) && in.Valid&^times == 0 {
		// The kernel writes back the times of a file that has been removed: nobody will see them.
		out.Ino, out.Mode = n.in.number, n.in.kind
		return 0
	}
	if err != nil {
		return n.v.errno(err, "change attributes", n.describe())
	}
	return n.Getattr(ctx, nil, out)
}

func (n *node) setattr(ctx context.Context, f gofs.FileHandle, in *fuse.SetAttrIn) error {
	lock, unlock := n.v.tree.RLock, n.v.tree.RUnlock
	if n.in.kind == unix.S_IFDIR && in.Valid&fuse.FATTR_UID != 0 { // its record changes
		lock, unlock = n.v.tree.Lock, n.v.tree.Unlock
	}
	if err := lock(); err != nil {
		return err
	}
	defer unlock()
	if size, ok := in.GetSize(); ok {
		if err := n.truncate(ctx, f, int64(size)); err != nil {
			return err
		}
	}
	if in.Valid&(fuse.FATTR_UID|fuse.FATTR_GID) != 0 {
		if err := n.chown(ctx, in); err != nil {
			return err
		}
	}
	t, err := n.target()
	if err != nil {
		return err
	}
	defer t.release()
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
		return h.c.truncate(size)
	}
	call := n.v.callOf(ctx, "truncate")
	c, _, err := n.v.openKnown(call, n.in, true, true)
	if err != nil {
		return err
	}
	return errors.Join(c.truncate(size), c.release())
}

func (c *content) truncate(size int64) error {
	return c.use(true, func(f *envelope.File) error {
		return c.setTime(func() error { return f.Truncate(size) })
	})
}

// target is a backing inode whose attributes are changed: an open descriptor, or an entry.
type target struct {
	fd int // -1: the spot
	// content is the open file that fd belongs to; nil if there is none.
	content *content
	spot    spot
	release func()
}

// target finds the node's backing inode. The caller holds volume.tree.
func (n *node) target() (target, error) {
	if n.in.kind == unix.S_IFDIR {
		if fd, ok := n.v.dirs.take(n.in); ok {
			return target{fd: fd, release: func() { n.v.release(n.in) }}, nil
		}
	}
	if n.in.kind == unix.S_IFREG {
		return n.v.fileTarget(n.in, n.entryTarget)
	}
	return n.entryTarget()
}

// fileTarget is the descriptor of a file that is open, or the entry of one that nobody opens before the target is released.
func (v *volume) fileTarget(in *inode, entry func() (target, error)) (target, error) {
	c := v.contents.acquire(v, in)
	c.mu.Lock()
	if c.file() != nil {
		c.mu.Unlock()
		return target{fd: c.storage.FD, content: c, release: func() { _ = c.release() }}, nil
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

func (n *node) entryTarget() (target, error) {
	l, ok := n.in.link()
	if !ok {
		return target{}, unix.ESTALE
	}
	s, err := n.v.spot(l)
	if err != nil {
		return target{}, err
	}
	st, err := s.stat()
	if err == nil && !n.in.is(&st) {
		err = unix.ESTALE
	}
	if err != nil {
		s.release()
		return target{}, err
	}
	return target{fd: -1, spot: s, release: s.release}, nil
}

func (t target) stat() (st unix.Stat_t, err error) {
	if t.fd < 0 {
		return t.spot.stat()
	}
	err = unix.Fstat(t.fd, &st)
	return st, err
}

func (t target) chmod(mode uint32) error {
	if t.fd >= 0 {
		return unix.Chmod(disk.ProcPath(t.fd), mode)
	}
	return unix.Fchmodat(t.spot.fd, t.spot.entry(), mode, unix.AT_SYMLINK_NOFOLLOW)
}

func (t target) chown(uid, gid int) error {
	if t.fd >= 0 {
		return unix.Chown(disk.ProcPath(t.fd), uid, gid)
	}
	return t.spot.chown(uid, gid)
}

// dropPrivileges clears what a write or a change of owner by others must not leave: see FUSE_HANDLE_KILLPRIV_V2.
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

// chown changes owner and group. A file's data key is bound to its owner: its header names the next one before the change, and is
// bound to it after.
func (n *node) chown(ctx context.Context, in *fuse.SetAttrIn) error {
	uid, gid := -1, -1
	if id, ok := in.GetUID(); ok {
		uid = int(id)
	}
	if id, ok := in.GetGID(); ok {
		gid = int(id)
	}
	if n.in.kind == unix.S_IFREG && uid >= 0 {
		return n.chownFile(n.v.callOf(ctx, "chown"), uint32(uid), gid)
	}
	if n.in.kind == unix.S_IFDIR && uid >= 0 {
		return n.v.chownDirectory(n.in, uint32(uid), gid)
	}
	t, err := n.target()
	if err != nil {
		return err
	}
	defer t.release()
	return t.chown(uid, gid)
}

// chownDirectory has the record name both owners before the change, durably, and the right one after it.
func (v *volume) chownDirectory(in *inode, uid uint32, gid int) error {
	u, err := v.use(in)
	if err != nil {
		return err
	}
	defer u.release()
	present, err := v.record(in)
	if err != nil {
		return err
	}
	owner, err := disk.OwnerOf(u.fd)
	if err != nil || owner == uid {
		return errors.Join(err, unix.Chown(disk.ProcPath(u.fd), int(uid), gid))
	}
	both, one := *present, *present
	both.Owners, one.Owners = []uint32{owner, uid}, []uint32{uid}
	if err := v.replaceRecord(u, &both); err != nil {
		return err
	}
	err = unix.Chown(disk.ProcPath(u.fd), int(uid), gid)
	if err != nil {
		one.Owners = []uint32{owner}
	}
	return errors.Join(err, v.replaceRecord(u, &one))
}

func (n *node) chownFile(call keys.Call, uid uint32, gid int) error {
	c, err := n.v.openHeld(call, n.in, false)
	if err != nil {
		return err
	}
	return errors.Join(c.chown(call, uid, gid), c.release())
}

func (c *content) chown(call keys.Call, uid uint32, gid int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.use(c.writable, func(f *envelope.File) error {
		h := f.Header()
		if h.Owner == uid {
			return unix.Fchown(c.storage.FD, int(uid), gid)
		}
		if !c.writable {
			return unix.EACCES
		}
		if err := c.nameNextOwner(&uid); err != nil {
			return err
		}
		if err := unix.Fchown(c.storage.FD, int(uid), gid); err != nil {
			return errors.Join(err, c.nameNextOwner(nil))
		}
		_, err := c.rewrap(call, h.KeyARN, h.Path, uid, true)
		return err
	})
}

// nameNextOwner notes in the header whose file it is about to be. c.mu is held.
func (c *content) nameNextOwner(uid *uint32) error {
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
	if t.content != nil {
		return t.content.setTime(func() error { return unix.UtimesNanoAt(unix.AT_FDCWD, disk.ProcPath(t.fd), times, 0) })
	}
	if t.fd >= 0 {
		return unix.UtimesNanoAt(unix.AT_FDCWD, disk.ProcPath(t.fd), times, 0)
	}
	return unix.UtimesNanoAt(t.spot.fd, t.spot.entry(), times, unix.AT_SYMLINK_NOFOLLOW)
}
