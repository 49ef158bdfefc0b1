package fs

import (
	"context"
	"syscall"

	"github.com/google/uuid"
	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/keys"
	"kmsfs/fs/volume/backing"
	"kmsfs/policy/caller"
)

var (
	_ gofs.NodeLookuper    = (*node)(nil)
	_ gofs.NodeGetattrer   = (*node)(nil)
	_ gofs.NodeReadlinker  = (*node)(nil)
	_ gofs.NodeStatfser    = (*node)(nil)
	_ gofs.NodeOnForgetter = (*node)(nil)
)

// callOf names the process behind a request, with its groups: they are looked up while the process
// waits for the answer. Later, its number may be another process's, and the files that it opens may
// be used by others with its rights.
func callOf(ctx context.Context, operation string) keys.Call {
	requester, ok := fuse.FromContext(ctx)
	if !ok {
		return keys.Self(operation)
	}
	c := caller.Caller{UID: requester.Uid, GID: requester.Gid, PID: int32(requester.Pid)}
	pid, groups := caller.Process(c.PID) // the kernel names threads
	if pid != 0 {
		c.PID = pid
	}
	c.Groups = append([]uint32{}, groups...) // not nil, which would have them looked up later
	return keys.Call{Caller: c, Operation: operation, ID: uuid.New()}
}

// Lookup finds a name in the directory.
func (n *node) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	o := n.v.operation(ctx)
	defer o.end()
	var in *inode
	l := link{n.in, name}
	err := o.run(resolving, func() (err error) {
		in, err = o.lookup(l, &out.Attr)
		return err
	})
	if err != nil {
		return nil, o.errnoAt(err, "look up", l)
	}
	o.attributeLife(in, &out.AttrValid, &out.AttrValidNsec)
	return n.newNode(ctx, in), 0
}

func (o *operation) lookup(l link, out *fuse.Attr) (*inode, error) {
	e, err := o.entry(l)
	if err != nil {
		return nil, err
	}
	defer e.release()
	st, err := e.stat()
	if err != nil {
		return nil, err
	}
	in := o.found(e, st)
	if err := o.settle(in, e, st); err != nil {
		return nil, err
	}
	if in.kind == unix.S_IFREG {
		return in, o.fileAttr(out, in, e)
	}
	o.setAttr(out, in, &st)
	return in, nil
}

// fileAttr fills in what users see of the regular file in, which is at e.
func (o *operation) fileAttr(out *fuse.Attr, in *inode, e dirEntry) error {
	t, err := o.fileTarget(in, func() (target, error) { return target{fd: -1, entry: e, release: func() {}}, nil })
	if err != nil {
		return err
	}
	defer t.release()
	return o.attr(out, in, t)
}

// Getattr is stat(2). The kernel also asks by a handle, for a caller that is about to read or write
// what the kernel caches.
func (n *node) Getattr(ctx context.Context, f gofs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	var err error
	if h, ok := f.(*handle); ok && byHandle(ctx) {
		err = h.allowed()
	}
	if err == nil {
		err = n.getattr(ctx, &out.Attr)
	}
	if err != nil {
		return n.v.errnoOf(err, "stat", n.in)
	}
	n.v.attributeLife(n.in, &out.AttrValid, &out.AttrValidNsec)
	return 0
}

// byHandle says whether raw found that the kernel has named the handle; else it is any that go-fuse
// knows.
func byHandle(ctx context.Context) bool {
	requester, ok := fuse.FromContext(ctx)
	return ok && requester.Pid != 0
}

func (n *node) getattr(ctx context.Context, out *fuse.Attr) error {
	o := n.v.operation(ctx)
	defer o.end()
	return o.run(resolving, func() error {
		t, err := o.target(n.in)
		if err != nil {
			return err
		}
		defer t.release()
		return o.attr(out, n.in, t)
	})
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

// attr fills in what users see of a target. While a file is open its backing file's size and time
// are those of a moment.
func (v *volume) attr(out *fuse.Attr, in *inode, t target) error {
	st, err := t.stat()
	if err != nil {
		return err
	}
	v.setAttr(out, in, &st)
	if c := t.file; c != nil && !v.shared() {
		modified := c.time()
		out.Size = uint64(c.unsealed().Size())
		out.Mtime, out.Mtimensec = uint64(modified.Sec), uint32(modified.Nsec)
	}
	return nil
}

// Readlink returns a symlink's target.
func (n *node) Readlink(ctx context.Context) (target []byte, errno syscall.Errno) {
	o := n.v.operation(ctx)
	defer o.end()
	err := o.run(resolving, func() (err error) {
		target, err = o.readlink(n.in)
		return err
	})
	return target, o.errnoOf(err, "read link", n.in)
}

func (o *operation) readlink(in *inode) ([]byte, error) {
	l, ok := in.link()
	if !ok {
		return nil, unix.ESTALE
	}
	e, err := o.entry(l)
	if err != nil {
		return nil, err
	}
	defer e.release()
	sealed := make([]byte, unix.PathMax)
	size, err := unix.Readlinkat(e.fd, e.name(), sealed)
	if err != nil {
		return nil, err
	}
	target, err := o.sealed.OpenTarget(string(sealed[:size]))
	return []byte(target), err
}

// Statfs is that of the file system on which the volume lies.
func (n *node) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	var st syscall.Statfs_t
	if err := syscall.Fstatfs(backing.Descriptor(n.v.disk.Root), &st); err != nil {
		return n.v.errno(err, "statfs", n.v.path)
	}
	out.FromStatfsT(&st)
	out.NameLen = envelope.MaxName
	return 0
}
