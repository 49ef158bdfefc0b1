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
	"kmsfs/fs/lock"
	"kmsfs/fs/volume/backing"
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
	c      *openFile
	in     *inode
	parent *inode // the directory where it was opened, which a sync makes findable
	// inode is the kernel's, which may hold data that it has not written yet.
	inode *gofs.Inode
	write bool
	// call is who opened it, and link by which name.
	call keys.Call
	link link
	// revoked says that its caller may not use it any more: see holders.
	revoked atomic.Bool
}

// Open opens a regular file.
func (n *node) Open(ctx context.Context, flags uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	o := n.v.operation(ctx)
	defer o.end()
	write := flags&unix.O_ACCMODE != unix.O_RDONLY
	call := callOf(ctx, "open for read")
	if write {
		call.Operation = "open for write"
	}
	if n.sharedUnwatched(call) {
		return nil, 0, unix.ESTALE
	}
	var c *openFile
	var at link
	err := o.run(resolving, func() (err error) {
		c, at, err = o.openKnown(call, n.in, write, write)
		return err
	})
	if err != nil {
		return nil, 0, o.errnoOf(err, "open", n.in)
	}
	c.opener.CompareAndSwap(nil, &call.Caller)
	if n.sharedUnwatched(call) { // with a caller that came at the same time
		_ = c.release() // others have it open
		return nil, 0, unix.ESTALE
	}
	h := n.newHandle(call, c, n.in, at, &n.Inode, flags)
	if err := o.denyIfLocked(); err != nil { // the round that locks the mount may not have seen the handle
		_ = h.Release(ctx) // the error that counts is the lock
		return nil, 0, o.errnoOf(err, "open", n.in)
	}
	return h, o.openFlags(), 0
}

// sharedUnwatched says whether the caller is about to share a file with another caller while the
// kernel may believe the file's attributes for long: it would not ask before it serves one of them
// what it has read for the other, once one loses access. The open is answered by ESTALE. The kernel
// then looks the file up again, and is told its attributes anew.
func (n *node) sharedUnwatched(call keys.Call) bool {
	v := n.v
	if !v.allowOther || v.shared() {
		return false
	}
	c := v.files.find(n.in.identity)
	if c == nil || c.watched.Load() {
		return false
	}
	opener := c.opener.Load()
	if opener == nil || sameCaller(opener, &call.Caller) {
		return false
	}
	lock.AssertNone("the kernel")
	const attributesAlone = -1
	_ = n.NotifyContent(attributesAlone, 0) // for those that come without a path, by /proc
	return true
}

// openFlags tell the kernel how to cache a file's content.
func (v *volume) openFlags() uint32 {
	if v.shared() {
		return fuse.FOPEN_DIRECT_IO
	}
	return fuse.FOPEN_KEEP_CACHE
}

// newHandle adds a handle of a file that was opened by that name, if it has one.
func (n *node) newHandle(call keys.Call, c *openFile, in *inode, at link, known *gofs.Inode, flags uint32) *handle {
	h := &handle{call: call, c: c, in: in, parent: n.in, link: at, inode: known, write: flags&unix.O_ACCMODE != unix.O_RDONLY}
	if at.parent != nil {
		h.parent = at.parent
	}
	c.holders.add(h)
	return h
}

// allowed denies a handle whose caller has lost access to the file.
func (h *handle) allowed() error {
	if h.revoked.Load() {
		return errWiped
	}
	return nil
}

func (h *handle) errno(err error, op string) syscall.Errno { return h.c.v.errno(err, op, h.c.path) }

// Read opens the sealed blocks straight into the kernel's buffer.
func (h *handle) Read(ctx context.Context, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	n, err := h.readAt(ctx, dest, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, h.errno(err, "read")
	}
	return fuse.ReadResultData(dest[:n]), 0
}

func (h *handle) readAt(ctx context.Context, p []byte, off int64) (n int, err error) {
	if err := h.allowed(); err != nil {
		return 0, err
	}
	err = h.c.do(ctx, false, func(f *envelope.File) error {
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
	err := h.c.do(ctx, true, func(f *envelope.File) error {
		at := off
		if at == atEnd {
			at = f.Size()
		}
		return timed(func() error {
			_, err := f.WriteAt(data, at)
			return err
		})
	})
	if err == nil && ok && caller.Pid != 0 && caller.Uid != 0 {
		err = target{fd: backing.Descriptor(h.c.storage.File)}.dropPrivileges() // the kernel has left it to the file system
	}
	if err != nil {
		if errors.Is(err, errWiped) { // only the kernel comes so far; it tells those who close the file or sync it
			h.c.v.log.Error("data that was not written back before access was revoked is lost", "path", h.c.path, "offset", off, "bytes", len(data))
		}
		return 0, h.errno(err, "write")
	}
	return uint32(len(data)), 0
}

// Flush has nothing to do, as writes are in the volume when they return. A caller that has lost
// access is told: what it wrote last may be lost.
func (h *handle) Flush(context.Context) syscall.Errno {
	if !h.write {
		return 0
	}
	return h.errno(h.allowed(), "close")
}

// Fsync makes the file durable, and the directories on the way to it openable.
func (h *handle) Fsync(ctx context.Context, _ uint32) syscall.Errno {
	if err := h.allowed(); err != nil {
		return h.errno(err, "sync")
	}
	sync := func(f *envelope.File) error {
		if f.Settled() {
			return f.Sync()
		}
		return h.c.keepTime(f.Sync)
	}
	if err := h.c.do(ctx, h.c.writable, sync); err != nil {
		return h.errno(err, "sync")
	}
	o := h.c.v.operation(ctx)
	defer o.end()
	err := o.run(resolving, func() error { return o.syncRecords(h.parent) })
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESTALE) { // removed meanwhile, and so need not be found
		err = nil
	}
	return h.errno(err, "sync")
}

// Release ends the use of the file.
func (h *handle) Release(context.Context) syscall.Errno {
	h.c.holders.remove(h)
	path := h.c.path // afterwards, it may be opened for another caller
	return h.c.v.errno(h.c.release(), "close", path)
}

// Allocate is fallocate(2).
func (h *handle) Allocate(ctx context.Context, off, size uint64, mode uint32) syscall.Errno {
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
	err := h.c.do(ctx, true, func(f *envelope.File) error {
		return h.c.stamp(func() error { return allocate(f) })
	})
	return h.errno(err, "allocate")
}

// Lseek finds data and holes. While a handle is open for writing, the kernel may hold data that
// isn't here yet, and asks without writing it back. It is told to write it back, by dropping what
// it caches.
func (h *handle) Lseek(ctx context.Context, off uint64, whence uint32) (uint64, syscall.Errno) {
	if err := h.allowed(); err != nil {
		return 0, h.errno(err, "seek")
	}
	if h.c.holders.written() && !h.c.v.shared() {
		lock.AssertNone("the kernel")
		if errno := h.inode.NotifyContent(0, 0); errno != 0 && errno != unix.ENOENT {
			return 0, errno
		}
	}
	var at int64
	err := h.c.do(ctx, false, func(f *envelope.File) (err error) {
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
func (n *node) CopyFileRange(ctx context.Context, in gofs.FileHandle, offIn uint64, _ *gofs.Inode, out gofs.FileHandle, offOut, size, _ uint64) (uint32, syscall.Errno) {
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
		got, err := from.readAt(ctx, p, int64(offIn+done))
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
		if err := to.c.do(ctx, true, write); err != nil {
			if done > 0 {
				break
			}
			return 0, to.errno(err, "copy")
		}
		done += uint64(got)
	}
	return uint32(done), 0
}
