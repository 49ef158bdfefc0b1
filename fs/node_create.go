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
	v := n.v
	if err := v.tree.LockToMake(); err != nil {
		return nil, nil, 0, v.errno(err, "create", name)
	}
	defer v.tree.UnlockMade()
	l := link{n.in, name}
	call := v.callOf(ctx, "create")
	c, in, err := v.createFile(call, l, mode)
	if errors.Is(err, unix.EEXIST) && flags&unix.O_EXCL == 0 {
		err = unix.ESTALE // the kernel looks again, and finds it
	}
	if err != nil {
		return nil, nil, 0, v.errno(err, "create", l.path())
	}
	if err := c.attributes(&out.Attr, in); err != nil {
		return nil, nil, 0, v.errno(errors.Join(err, c.release()), "create", l.path())
	}
	known := n.newNode(ctx, in)
	c.opener.Store(&call.Caller)
	return known, n.newHandle(call, c, in, l, known, flags), v.openFlags(), 0
}

// createFile makes a regular file, open and in use.
func (v *volume) createFile(call keys.Call, l link, mode uint32) (*content, *inode, error) {
	s, err := v.spot(l)
	if err != nil {
		return nil, nil, err
	}
	defer s.release()
	if err := s.prepareName(); err != nil {
		return nil, nil, err
	}
	fd, err := unix.Openat(s.fd, s.entry(), newFile, modeIn(s.fd, mode)&0o7777)
	if err != nil {
		return nil, nil, err
	}
	c, in, err := v.fillFile(call, fd, s.use, l.path(), mode, s.location())
	if err != nil {
		err = errors.Join(err, unix.Unlinkat(s.fd, s.entry(), 0))
		s.dropName()
		return nil, nil, err
	}
	in.addLink(l)
	return c, in, nil
}

// fillFile gives the new and empty file fd, made in dir, an owner and a header. It closes fd if it fails.
func (v *volume) fillFile(call keys.Call, fd int, dir use, path string, mode uint32, locations ...envelope.Location) (*content, *inode, error) {
	var st unix.Stat_t
	under, err := v.governing(dir.in)
	if err != nil {
		unix.Close(fd)
		return nil, nil, err
	}
	err = v.own(call.Caller, dir.fd, mode, func(uid, gid int) error { return unix.Fchown(fd, uid, gid) },
		func(mode uint32) error { return unix.Fchmod(fd, mode) })
	if err == nil {
		err = unix.Fstat(fd, &st)
	}
	if err != nil {
		unix.Close(fd)
		return nil, nil, err
	}
	in := v.inodes.create(&st)
	c := v.contents.acquire(v, in)
	c.mu.Lock()
	c.in, c.storage, c.writable, c.path = in, &disk.Storage{FD: fd}, true, path
	err = c.makeFile(call, under, path, st.Uid, envelope.NewFileID(), locations...)
	if err == nil {
		err = c.setTime(func() error { return nil })
	}
	if err != nil {
		c.sealed.Store(nil)
		unix.Close(fd)
	}
	c.mu.Unlock()
	if err != nil {
		v.inodes.remove(in)
		return nil, nil, errors.Join(err, c.release())
	}
	return c, in, nil
}

// own gives what was just made in dir to its creator: this process made it, as root. A set-group-ID directory gives its own group
// instead, as the kernel has done already. A change of owner clears set-user-ID and set-group-ID, so mode is set anew.
func (v *volume) own(caller caller.Caller, dir int, mode uint32, chown func(uid, gid int) error, chmod func(mode uint32) error) error {
	if !v.multiUser || caller.UID == 0 && caller.GID == 0 {
		return nil
	}
	gid := int(caller.GID)
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_ISGID != 0 {
		gid = -1
	}
	if err := chown(int(caller.UID), gid); err != nil {
		return err
	}
	if mode&(unix.S_ISUID|unix.S_ISGID) != 0 && chmod != nil {
		return chmod(modeIn(dir, mode) & 0o7777)
	}
	return nil
}

// attributes fills in those of an open file.
func (c *content) attributes(out *fuse.Attr, in *inode) error {
	return c.v.attr(out, in, target{fd: c.storage.FD, content: c})
}

// Tmpfile makes a regular file that has no name.
func (n *node) Tmpfile(ctx context.Context, flags, mode uint32, out *fuse.EntryOut) (*gofs.Inode, gofs.FileHandle, uint32, syscall.Errno) {
	v := n.v
	if err := v.tree.RLock(); err != nil {
		return nil, nil, 0, v.errno(err, "create a temporary file", n.describe())
	}
	defer v.tree.RUnlock()
	call := v.callOf(ctx, "create")
	c, in, err := v.createTemporary(call, n.in, flags, mode)
	if err == nil {
		err = c.attributes(&out.Attr, in)
	}
	if err != nil {
		return nil, nil, 0, v.errno(err, "create a temporary file", n.in.path())
	}
	known := n.newNode(ctx, in)
	return known, n.newHandle(call, c, in, link{}, known, flags), v.openFlags(), 0
}

func (v *volume) createTemporary(call keys.Call, dir *inode, flags, mode uint32) (*content, *inode, error) {
	u, err := v.use(dir)
	if err != nil {
		return nil, nil, err
	}
	defer u.release()
	fd, err := unix.Openat(u.fd, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC|int(flags&unix.O_EXCL), modeIn(u.fd, mode)&0o7777)
	if err != nil {
		return nil, nil, err
	}
	var random [8]byte
	id := envelope.NewFileID()
	copy(random[:], id[:])
	return v.fillFile(call, fd, u, link{dir, fmt.Sprintf("#%x", random)}.path(), mode)
}

// Mkdir makes a directory: whole, with its record, under a temporary name, which it then leaves.
func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	v := n.v
	if err := v.tree.LockToMake(); err != nil {
		return nil, v.errno(err, "make directory", name)
	}
	defer v.tree.UnlockMade()
	l := link{n.in, name}
	in, err := v.makeDirectory(v.callOf(ctx, "mkdir"), l, mode, &out.Attr)
	if err != nil {
		return nil, v.errno(err, "make directory", l.path())
	}
	return n.newNode(ctx, in), 0
}

func (v *volume) makeDirectory(call keys.Call, l link, mode uint32, out *fuse.Attr) (*inode, error) {
	s, err := v.spot(l)
	if err != nil {
		return nil, err
	}
	defer s.release()
	if _, err := s.stat(); err == nil {
		return nil, unix.EEXIST
	}
	temp := disk.NewTempName()
	if err := unix.Mkdirat(s.fd, temp, modeIn(s.fd, mode)&0o7777); err != nil {
		return nil, err
	}
	record := &envelope.Directory{ID: envelope.NewDirectoryID(), Locations: []envelope.Location{s.location()}}
	st, err := v.fillDirectory(call, s, temp, mode, record)
	if err == nil {
		err = s.prepareName()
	}
	if err == nil {
		err = s.rename(temp)
	}
	if err != nil {
		return nil, errors.Join(err, v.disk.Dismantle(s.fd, temp))
	}
	in := v.inodes.create(&st)
	in.record, in.dirID, in.unsynced = record, record.ID, true
	in.addLink(l)
	l.parent.addFresh(in)
	v.setAttr(out, in, &st)
	return in, nil
}

// rename gives a new directory its name, if nothing has it. No flag says so, as network file systems have none: a directory takes no file's
// place, nor that of a directory that isn't empty, and each has a record.
func (s spot) rename(temp string) error {
	err := unix.Renameat(s.fd, temp, s.fd, s.entry())
	if err == unix.ENOTEMPTY || err == unix.ENOTDIR {
		return unix.EEXIST
	}
	return err
}

// fillDirectory gives a new directory its owner and its record.
func (v *volume) fillDirectory(call keys.Call, s spot, temp string, mode uint32, record *envelope.Directory) (st unix.Stat_t, err error) {
	fd, err := unix.Openat(s.fd, temp, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EACCES) { // mode lets nobody read it, but its owner may still get hold of it
		fd, err = unix.Openat(s.fd, temp, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return st, err
	}
	defer unix.Close(fd)
	err = v.own(call.Caller, s.fd, mode, func(uid, gid int) error { return unix.Fchownat(s.fd, temp, uid, gid, unix.AT_SYMLINK_NOFOLLOW) }, nil)
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

// writeNewRecord writes a new directory's record, though its mode may forbid its owner to write in it.
func (v *volume) writeNewRecord(fd int, mode uint32, record *envelope.Directory) error {
	if v.multiUser || mode&0o300 == 0o300 {
		return v.disk.WriteDirectory(fd, record, false)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if err := unix.Chmod(disk.ProcPath(fd), 0o700); err != nil {
		return err
	}
	if err := v.disk.WriteDirectory(fd, record, false); err != nil {
		return err
	}
	return unix.Chmod(disk.ProcPath(fd), st.Mode&0o7777)
}

// Mknod makes a FIFO, a socket, a device, or an empty regular file.
func (n *node) Mknod(ctx context.Context, name string, mode, dev uint32, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	v := n.v
	if err := v.tree.LockToMake(); err != nil {
		return nil, v.errno(err, "make", name)
	}
	defer v.tree.UnlockMade()
	l := link{n.in, name}
	call := v.callOf(ctx, "create")
	var in *inode
	var err error
	if mode&unix.S_IFMT == unix.S_IFREG {
		var c *content
		if c, in, err = v.createFile(call, l, mode); err == nil {
			err = errors.Join(c.attributes(&out.Attr, in), c.release())
		}
	} else {
		in, err = v.makeSpecial(l, &out.Attr, func(s spot) error {
			if err := unix.Mknodat(s.fd, s.entry(), modeIn(s.fd, mode)&(unix.S_IFMT|0o7777), int(dev)); err != nil {
				return err
			}
			return v.own(call.Caller, s.fd, 0, s.chown, nil)
		})
	}
	if err != nil {
		return nil, v.errno(err, "make", l.path())
	}
	return n.newNode(ctx, in), 0
}

// Symlink makes a symlink.
func (n *node) Symlink(ctx context.Context, target, name string, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	v := n.v
	if err := v.tree.LockToMake(); err != nil {
		return nil, v.errno(err, "make symlink", name)
	}
	defer v.tree.UnlockMade()
	l := link{n.in, name}
	call := v.callOf(ctx, "symlink")
	in, err := v.makeSpecial(l, &out.Attr, func(s spot) error {
		sealed, err := v.sealed.SealTarget(target)
		if err != nil {
			return err
		}
		if err := unix.Symlinkat(sealed, s.fd, s.entry()); err != nil {
			return err
		}
		return v.own(call.Caller, s.fd, 0, s.chown, nil)
	})
	if err != nil {
		return nil, v.errno(err, "make symlink", l.path())
	}
	return n.newNode(ctx, in), 0
}

func (s spot) chown(uid, gid int) error {
	return unix.Fchownat(s.fd, s.entry(), uid, gid, unix.AT_SYMLINK_NOFOLLOW)
}

// makeSpecial makes what has no content of its own.
func (v *volume) makeSpecial(l link, out *fuse.Attr, bring func(spot) error) (*inode, error) {
	s, err := v.spot(l)
	if err != nil {
		return nil, err
	}
	defer s.release()
	if _, err := s.stat(); err == nil {
		return nil, unix.EEXIST
	}
	if err := s.prepareName(); err != nil {
		return nil, err
	}
	if err := bring(s); err != nil {
		_ = unix.Unlinkat(s.fd, s.entry(), 0)
		s.dropName()
		return nil, err
	}
	st, err := s.stat()
	if err != nil {
		return nil, err
	}
	in := v.inodes.create(&st)
	in.addLink(l)
	v.setAttr(out, in, &st)
	return in, nil
}
