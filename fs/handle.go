package fs

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/keys"
)

var (
	_ gofs.NodeOpener         = (*node)(nil)
	_ gofs.NodeCopyFileRanger = (*node)(nil)
	_ gofs.FileReader         = (*handle)(nil)
	_ gofs.FileWriter         = (*handle)(nil)
	_ gofs.FileFsyncer        = (*handle)(nil)
	_ gofs.FileFlusher        = (*handle)(nil)
	_ gofs.FileReleaser       = (*handle)(nil)
	_ gofs.FileAllocater      = (*handle)(nil)
	_ gofs.FileLseeker        = (*handle)(nil)
)

// handle is an open regular file as a process has it.
type handle struct {
	c      *content
	in     *inode
	parent *inode // the directory where it was opened, which a sync makes findable
	// inode is the kernel's, which may hold data that it has not written yet.
	inode *gofs.Inode
	write bool
	// call is who opened it, and link by which name.
	call keys.Call
	link link
	// revoked says that its opener may not use it any more. Changed by the watch, and at its release.
	revoked atomic.Bool
}

// Open opens a regular file.
func (n *node) Open(ctx context.Context, flags uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	v := n.v
	write := flags&unix.O_ACCMODE != unix.O_RDONLY
	if err := v.tree.RLock(); err != nil {
		return nil, 0, v.errno(err, "open", n.describe())
	}
	defer v.tree.RUnlock()
	call := v.callOf(ctx, "open for read")
	if write {
		call.Operation = "open for write"
	}
	if n.sharedUnwatched(call) {
		return nil, 0, unix.ESTALE
	}
	c, at, err := v.openKnown(call, n.in, write, write)
	if err != nil {
		return nil, 0, v.errno(err, "open", n.in.path())
	}
	c.opener.CompareAndSwap(nil, &call.Caller)
	if n.sharedUnwatched(call) { // with somebody who came at the same time
		_ = c.release() // which others have open
		return nil, 0, unix.ESTALE
	}
	return n.newHandle(call, c, n.in, at, &n.Inode, flags), v.openFlags(), 0
}

// sharedUnwatched says whether the caller is about to share with another one a file whose attributes the kernel may believe for long: then it wouldn't ask before it
// serves the one what it has read for the other, once one of them loses access. The caller of open gets ESTALE, for which the kernel looks the file up again, and
// is told its attributes anew.
func (n *node) sharedUnwatched(call keys.Call) bool {
	v := n.v
	if !v.allowOther || v.shared() {
		return false
	}
	c := v.contents.find(n.in.identity)
	if c == nil || c.watched.Load() {
		return false
	}
	opener := c.opener.Load()
	if opener == nil || sameCaller(opener, &call.Caller) {
		return false
	}
	const attributesAlone = -1
	_ = n.NotifyContent(attributesAlone, 0) // for those who come without a path, by /proc
	return true
}

// openFlags tell the kernel how to cache a file's content.
func (v *volume) openFlags() uint32 {
	if v.shared() {
		return fuse.FOPEN_DIRECT_IO
	}
	return fuse.FOPEN_KEEP_CACHE
}

// newHandle gives the watch a new handle, whole: of a file that was opened by that name, if it has any.
func (n *node) newHandle(call keys.Call, c *content, in *inode, at link, known *gofs.Inode, flags uint32) *handle {
	h := &handle{call: call, c: c, in: in, parent: n.in, link: at, inode: known, write: flags&unix.O_ACCMODE != unix.O_RDONLY}
	if at.parent != nil {
		h.parent = at.parent
	}
	if h.write {
		c.writers.Add(1)
	}
	c.handles.Add(1)
	n.v.handles.add(h)
	return h
}

// allowed refuses a handle whose opener has lost access to the file.
func (h *handle) allowed() error {
	if h.revoked.Load() {
		return errLocked
	}
	return nil
}

func (h *handle) errno(err error, op string) syscall.Errno { return h.c.v.errno(err, op, h.c.path) }

// Read opens the sealed blocks straight into the kernel's buffer.
func (h *handle) Read(_ context.Context, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	n, err := h.readAt(dest, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, h.errno(err, "read")
	}
	return fuse.ReadResultData(dest[:n]), 0
}

func (h *handle) readAt(p []byte, off int64) (n int, err error) {
	if err := h.allowed(); err != nil {
		return 0, err
	}
	err = h.c.use(false, func(f *envelope.File) error {
		n, err = f.ReadAt(p, off)
		return err
	})
	return n, err
}

// Write seals data.
func (h *handle) Write(ctx context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	timed := h.c.stamp
	caller, ok := fuse.FromContext(ctx)
	if ok && caller.Pid != 0 { // not from the kernel's cache: the process writes itself
		timed = h.c.setTime
		if err := h.allowed(); err != nil {
			return 0, h.errno(err, "write")
		}
	}
	err := h.c.use(true, func(f *envelope.File) error {
		if off == atEnd {
			off = f.Size()
		}
		return timed(func() error {
			_, err := f.WriteAt(data, off)
			return err
		})
	})
	if err == nil && ok && caller.Pid != 0 && caller.Uid != 0 {
		err = target{fd: h.c.storage.FD}.dropPrivileges() // the kernel has left it to the file system
	}
	if err != nil {
		if errors.Is(err, errLocked) { // only the kernel comes so far; it tells those who close the file or sync it
			h.c.v.log.Error("data that was not written back before access was revoked is lost", "path", h.c.path, "offset", off, "bytes", len(data))
		}
		return 0, h.errno(err, "write")
	}
	return uint32(len(data)), 0
}

// Flush has nothing to do, as writes are in the volume when they return. Who has lost access is told: what he wrote last may not be there.
func (h *handle) Flush(context.Context) syscall.Errno {
	if !h.write {
		return 0
	}
	return h.errno(h.allowed(), "close")
}

// Fsync makes the file durable, and the directories on the way to it openable.
func (h *handle) Fsync(context.Context, uint32) syscall.Errno {
	v := h.c.v
	if err := h.allowed(); err != nil {
		return h.errno(err, "sync")
	}
	sync := func(f *envelope.File) error {
		if f.Settled() {
			return f.Sync()
		}
		return h.c.keepTime(f.Sync)
	}
	if err := h.c.use(h.c.writable, sync); err != nil {
		return h.errno(err, "sync")
	}
	if err := v.tree.RLock(); err != nil {
		return h.errno(err, "sync")
	}
	defer v.tree.RUnlock()
	err := v.syncRecords(h.parent)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESTALE) { // removed meanwhile, and so need not be found
		err = nil
	}
	return h.errno(err, "sync")
}

// Release ends the use of the file.
func (h *handle) Release(context.Context) syscall.Errno {
	if h.write {
		h.c.writers.Add(-1)
	}
	h.c.v.handles.remove(h)
	h.unrevoke()
	h.c.handles.Add(-1)
	path := h.c.path // afterwards, it may be opened for somebody else
	return h.c.v.errno(h.c.release(), "close", path)
}

// Allocate is fallocate(2).
func (h *handle) Allocate(_ context.Context, off, size uint64, mode uint32) syscall.Errno {
	keep := mode&unix.FALLOC_FL_KEEP_SIZE != 0
	allocate := func(f *envelope.File) error {
		switch mode &^ unix.FALLOC_FL_KEEP_SIZE {
		case 0:
			return f.Allocate(int64(off), int64(size), keep)
		case unix.FALLOC_FL_PUNCH_HOLE:
			return f.PunchHole(int64(off), int64(size))
		case unix.FALLOC_FL_ZERO_RANGE:
			return f.ZeroRange(int64(off), int64(size), keep)
		}
		return unix.EOPNOTSUPP
	}
	if err := h.allowed(); err != nil {
		return h.errno(err, "allocate")
	}
	err := h.c.use(true, func(f *envelope.File) error {
		return h.c.stamp(func() error { return allocate(f) })
	})
	return h.errno(err, "allocate")
}

// Lseek finds data and holes. While somebody writes, the kernel may hold data that isn't here yet, and asks without
// writing it back: it is told to, by dropping what it caches.
func (h *handle) Lseek(_ context.Context, off uint64, whence uint32) (uint64, syscall.Errno) {
	if err := h.allowed(); err != nil {
		return 0, h.errno(err, "seek")
	}
	if h.c.writers.Load() > 0 && !h.c.v.shared() {
		if errno := h.inode.NotifyContent(0, 0); errno != 0 && errno != unix.ENOENT {
			return 0, errno
		}
	}
	var at int64
	err := h.c.use(false, func(f *envelope.File) (err error) {
		switch whence {
		case unix.SEEK_DATA:
			at, err = f.SeekData(int64(off))
		case unix.SEEK_HOLE:
			at, err = f.SeekHole(int64(off))
		default:
			err = unix.EINVAL
		}
		return err
	})
	return uint64(at), h.errno(err, "seek")
}

// copyChunk is how much CopyFileRange opens and seals at once, in bytes.
const copyChunk = 1 << 20

// CopyFileRange copies between two files without a detour through the kernel.
func (n *node) CopyFileRange(_ context.Context, in gofs.FileHandle, offIn uint64, _ *gofs.Inode, out gofs.FileHandle, offOut, size, _ uint64) (uint32, syscall.Errno) {
	from, ok := in.(*handle)
	to, ok2 := out.(*handle)
	if !ok || !ok2 {
		return 0, unix.EBADF
	}
	if err := to.allowed(); err != nil {
		return 0, to.errno(err, "copy")
	}
	const most = 1 << 30 // fits the answer's 32 bits
	size = min(size, most)
	buffer := make([]byte, min(size, copyChunk))
	defer clear(buffer)
	var done uint64
	for done < size {
		p := buffer[:min(size-done, copyChunk)]
		got, err := from.readAt(p, int64(offIn+done))
		if err != nil && !errors.Is(err, io.EOF) {
			return uint32(done), from.errno(err, "copy")
		}
		if got == 0 {
			break
		}
		write := func(f *envelope.File) error {
			return to.c.stamp(func() error {
				_, err := f.WriteAt(p[:got], int64(offOut+done))
				return err
			})
		}
		if err := to.c.use(true, write); err != nil {
			if done > 0 {
				break
			}
			return 0, to.errno(err, "copy")
		}
		done += uint64(got)
	}
	return uint32(done), 0
}
