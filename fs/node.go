package fs

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/google/uuid"
	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/keys"
	disk "kmsfs/fs/volume"
	"kmsfs/policy/caller"
)

var (
	_ gofs.NodeLookuper    = (*node)(nil)
	_ gofs.NodeGetattrer   = (*node)(nil)
	_ gofs.NodeReadlinker  = (*node)(nil)
	_ gofs.NodeStatfser    = (*node)(nil)
	_ gofs.NodeOnForgetter = (*node)(nil)
)

// callOf names the process behind a request. Where there may be other users than the mount's own, it is looked up now, with its groups: what it opens, it may
// give to others, who use it with its rights.
func (v *volume) callOf(ctx context.Context, operation string) keys.Call {
	requester, ok := fuse.FromContext(ctx)
	if !ok {
		return keys.Self(operation)
	}
	c := caller.Caller{UID: requester.Uid, GID: requester.Gid, PID: int32(requester.Pid)}
	if v.allowOther {
		pid, groups := caller.Process(c.PID) // the kernel names threads
		if pid != 0 {
			c.PID = pid
		}
		c.Groups = append([]uint32{}, groups...) // not nil, as the number may be another process's one day
	}
	return keys.Call{Caller: c, Operation: operation, ID: uuid.New()}
}

// spot is a name in a directory that is in use: both as users and as the volume have it.
type spot struct {
	use
	link    link
	backing envelope.BackingName
}

// spot resolves a name in the directory n. The caller holds volume.tree, and releases the spot.
func (v *volume) spot(l link) (spot, error) {
	u, err := v.use(l.parent)
	if err != nil {
		return spot{}, err
	}
	name, err := v.sealed.EncryptName(u.id, l.name)
	if err != nil {
		u.release()
		return spot{}, err
	}
	return spot{u, l, name}, nil
}

func (s spot) entry() string { return s.backing.Entry }

func (s spot) location() envelope.Location {
	return envelope.Location{Directory: s.id, Name: s.link.name}
}

func (s spot) stat() (st unix.Stat_t, err error) {
	err = unix.Fstatat(s.fd, s.entry(), &st, unix.AT_SYMLINK_NOFOLLOW)
	return st, err
}

// leadsTo returns ESTALE if the name is another inode's by now, or nobody's.
func (s spot) leadsTo(in *inode) error {
	st, err := s.stat()
	if errors.Is(err, unix.ENOENT) || err == nil && !in.is(&st) {
		return unix.ESTALE
	}
	return err
}

// place is where a regular file is opened.
func (s spot) place() place {
	return place{dir: s.fd, entry: s.entry(), location: s.location(), path: s.link.path()}
}

// atProc is the spot's entry for system calls that take a path and don't follow links.
func (s spot) atProc() string { return disk.ProcPath(s.fd) + "/" + s.entry() }

// prepareName writes the file that holds a long name. It comes before the entry.
func (s spot) prepareName() error {
	if s.backing.Long == "" {
		return nil
	}
	return disk.WriteControl(s.fd, envelope.LongFile(s.entry()), []byte(s.backing.Long), true)
}

// dropName removes the file of a long name after its entry is gone. One that stays behind means nothing.
func (s spot) dropName() {
	if s.backing.Long != "" {
		_ = unix.Unlinkat(s.fd, envelope.LongFile(s.entry()), 0)
	}
}

// Lookup finds a name in the directory.
func (n *node) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	v := n.v
	if err := v.tree.RLock(); err != nil {
		return nil, v.errno(err, "look up", name)
	}
	defer v.tree.RUnlock()
	l := link{n.in, name}
	s, err := v.spot(l)
	if err != nil {
		return nil, v.errno(err, "look up", l.path())
	}
	defer s.release()
	st, err := s.stat()
	if err != nil {
		return nil, v.errno(err, "look up", l.path())
	}
	in := v.found(s, st)
	v.settle(in, s, st)
	if in.kind == unix.S_IFREG {
		err = v.fileAttr(&out.Attr, in, s)
	} else {
		v.setAttr(&out.Attr, in, &st)
	}
	if err != nil {
		return nil, v.errno(err, "look up", l.path())
	}
	v.attributeLife(in, &out.AttrValid, &out.AttrValidNsec)
	return n.newNode(ctx, in), 0
}

// found returns the inode of what was found at s. What doesn't belong there is not taken for what is known of it elsewhere.
func (v *volume) found(s spot, st unix.Stat_t) *inode {
	in := v.inodes.get(&st)
	if v.shared() && v.isGone(in) {
		in = v.inodes.create(&st)
	}
	switch {
	case in.kind == unix.S_IFDIR:
		in = v.foundDirectory(in, s, st)
	case v.planted(in, s, st):
		in = v.inodes.apart(in)
	}
	if v.shared() && st.Nlink == 1 {
		in.setLink(s.link) // what else is known of it, other mounts have removed
	} else {
		in.addLink(s.link)
	}
	return in
}

// foundDirectory returns the inode of the directory that was found at s: in, which has its number, if that is known by no other name, or if its record
// says that it is the same directory, lies here, and is whose it is. What is known beneath it goes with it, and is judged by the new path.
func (v *volume) foundDirectory(in *inode, s spot, st unix.Stat_t) *inode {
	if _, known := in.link(); in == v.root || !known || in.knows(s.link) && !v.shared() {
		return in
	}
	fd, err := unix.Openat(s.fd, s.entry(), unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return v.inodes.apart(in)
	}
	defer unix.Close(fd)
	record, err := v.disk.ReadDirectory(fd)
	owner, failed := disk.OwnerOf(fd)
	switch {
	case err != nil || failed != nil || !record.LiesAt(s.location()) || !record.OwnedBy(owner):
		return v.inodes.apart(in)
	case !in.mayBe(record.ID):
		return v.inodes.create(&st)
	}
	in.dropRecord() // another mount has moved it, or it was adopted
	return in
}

// planted says whether another link to a file is one that its header doesn't name: the kernel doesn't say by which of its
// names a file is opened, so each is looked at when it is found.
func (v *volume) planted(in *inode, s spot, st unix.Stat_t) bool {
	if in.kind != unix.S_IFREG || st.Nlink < 2 || in.knows(s.link) && !v.shared() {
		return false
	}
	fd, err := unix.Openat(s.fd, s.entry(), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EACCES) {
		fd, err = disk.OpenOwned(s.fd, s.entry(), unix.O_CLOEXEC)
	}
	if err != nil {
		return true
	}
	defer unix.Close(fd)
	h, err := v.sealed.ReadHeader(&disk.Storage{FD: fd}, false)
	return err != nil || !v.sealed.LiesAt(h, s.location())
}

// settle opens a file that an unclean end may have left behind, which repairs it, before its size is told.
func (v *volume) settle(in *inode, s spot, st unix.Stat_t) {
	if in.kind != unix.S_IFREG || v.readOnly || !v.tolerance.Covers(st.Ctim) || !time.Unix(st.Ctim.Unix()).Before(v.started) {
		return
	}
	if c, err := v.open(keys.Self("repair"), in, s.place(), false); err == nil {
		_ = c.release() // what is wrong with it, those who open it will see
	}
}

// fileAttr fills in what users see of the regular file in, which is at s.
func (v *volume) fileAttr(out *fuse.Attr, in *inode, s spot) error {
	t, err := v.fileTarget(in, func() (target, error) { return target{fd: -1, spot: s, release: func() {}}, nil })
	if err != nil {
		return err
	}
	defer t.release()
	return v.attr(out, in, t)
}

// Getattr is stat(2). The kernel also asks, by the handle, for somebody who is about to read or write what it caches.
func (n *node) Getattr(ctx context.Context, f gofs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	var err error
	if h, ok := f.(*handle); ok && byHandle(ctx) {
		err = h.allowed()
	}
	if err == nil {
		err = n.getattr(&out.Attr)
	}
	if err != nil {
		return n.v.errno(err, "stat", n.describe())
	}
	n.v.attributeLife(n.in, &out.AttrValid, &out.AttrValidNsec)
	return 0
}

// byHandle says whether raw found that the kernel has named the handle; else it is any that go-fuse knows.
func byHandle(ctx context.Context) bool {
	caller, ok := fuse.FromContext(ctx)
	return ok && caller.Pid != 0
}

func (n *node) getattr(out *fuse.Attr) error {
	if err := n.v.tree.RLock(); err != nil {
		return err
	}
	defer n.v.tree.RUnlock()
	t, err := n.target()
	if err != nil {
		return err
	}
	defer t.release()
	return n.v.attr(out, n.in, t)
}

func (n *node) describe() string {
	n.v.tree.RLockLocal()
	defer n.v.tree.RUnlockLocal()
	return n.in.path()
}

// setAttr turns the backing inode's attributes into those that users see: the sizes differ.
func (v *volume) setAttr(out *fuse.Attr, in *inode, st *unix.Stat_t) {
	out.Ino, out.Mode, out.Nlink = in.number, st.Mode, uint32(st.Nlink)
	out.Owner = fuse.Owner{Uid: st.Uid, Gid: st.Gid}
	out.Rdev, out.Blocks, out.Blksize = uint32(st.Rdev), uint64(st.Blocks), 4096
	out.Atime, out.Atimensec = uint64(st.Atim.Sec), uint32(st.Atim.Nsec)
	out.Mtime, out.Mtimensec = uint64(st.Mtim.Sec), uint32(st.Mtim.Nsec)
	out.Ctime, out.Ctimensec = uint64(st.Ctim.Sec), uint32(st.Ctim.Nsec)
	out.Size = uint64(max(st.Size, 0))
	switch in.kind {
	case unix.S_IFREG:
		out.Size = plainSize(st.Size)
	case unix.S_IFLNK:
		out.Size = uint64(envelope.TargetSize(st.Size))
	}
}

func plainSize(sealed int64) uint64 {
	size, err := envelope.PlainSize(sealed)
	if err != nil {
		size = envelope.TolerantPlainSize(sealed) // reading it is an error, or is tolerated
	}
	return uint64(size)
}

// attr fills in what users see of a target. While a file is open its backing file's size and time are those of a moment.
func (v *volume) attr(out *fuse.Attr, in *inode, t target) error {
	st, err := t.stat()
	if err != nil {
		return err
	}
	v.setAttr(out, in, &st)
	if c := t.content; c != nil && !v.shared() {
		modified := c.time()
		out.Size = uint64(c.file().Size())
		out.Mtime, out.Mtimensec = uint64(modified.Sec), uint32(modified.Nsec)
	}
	return nil
}

// Readlink returns a symlink's target.
func (n *node) Readlink(context.Context) ([]byte, syscall.Errno) {
	v := n.v
	if err := v.tree.RLock(); err != nil {
		return nil, v.errno(err, "read link", n.describe())
	}
	defer v.tree.RUnlock()
	l, ok := n.in.link()
	if !ok {
		return nil, unix.ESTALE
	}
	s, err := v.spot(l)
	if err != nil {
		return nil, v.errno(err, "read link", l.path())
	}
	defer s.release()
	sealed := make([]byte, unix.PathMax)
	size, err := unix.Readlinkat(s.fd, s.entry(), sealed)
	if err != nil {
		return nil, v.errno(err, "read link", l.path())
	}
	target, err := v.sealed.OpenTarget(string(sealed[:size]))
	if err != nil {
		return nil, v.errno(err, "read link", l.path())
	}
	return []byte(target), 0
}

// Statfs is that of the file system on which the volume lies.
func (n *node) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	var st syscall.Statfs_t
	if err := syscall.Fstatfs(n.v.disk.Root, &st); err != nil {
		return n.v.errno(err, "statfs", n.v.path)
	}
	out.FromStatfsT(&st)
	out.NameLen = envelope.MaxName
	return 0
}
