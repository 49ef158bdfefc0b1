package fs

import (
	"context"
	"errors"
	"io"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
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
}

// Open opens a regular file.
func (n *node) Open(ctx context.Context, flags uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	v := n.v
	write := flags&unix.O_ACCMODE != unix.O_RDONLY
	v.tree.RLock()
	defer v.tree.RUnlock()
	c, err := v.openKnown(callOf(ctx, "open"), n.in, write)
	if err != nil {
		return nil, 0, v.errno(err, "open", n.in.path())
	}
	h := n.newHandle(c, n.in, &n.Inode, write)
	if l, ok := n.in.link(); ok {
		h.parent = l.parent
	}
	return h, fuse.FOPEN_KEEP_CACHE, 0
}

func (n *node) newHandle(c *content, in *inode, known *gofs.Inode, write bool) *handle {
	if write {
		c.writers.Add(1)
	}
	return &handle{c: c, in: in, parent: n.in, inode: known, write: write}
}

func (h *handle) errno(err error, op string) syscall.Errno { return h.c.v.errno(err, op, h.c.path) }

// Read opens the sealed blocks straight into the kernel's buffer.
func (h *handle) Read(_ context.Context, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	n, err := h.c.file.ReadAt(dest, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, h.errno(err, "read")
	}
	return fuse.ReadResultData(dest[:n]), 0
}

// Write seals data.
func (h *handle) Write(ctx context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	write := func() error {
		_, err := h.c.file.WriteAt(data, off)
		return err
	}
	timed := h.c.keepTime
	caller, ok := fuse.FromContext(ctx)
	if ok && caller.Pid != 0 { // not from the kernel's cache: the process writes itself
		timed = h.c.setTime
	}
	err := timed(write)
	if err == nil && ok && caller.Pid != 0 && caller.Uid != 0 {
		err = target{fd: h.c.storage.fd}.dropPrivileges() // the kernel has left it to the file system
	}
	if err != nil {
		return 0, h.errno(err, "write")
	}
	return uint32(len(data)), 0
}

// Flush has nothing to do: writes are in the volume when they return.
func (h *handle) Flush(context.Context) syscall.Errno { return 0 }

// Fsync makes the file durable, and the directories on the way to it openable.
func (h *handle) Fsync(context.Context, uint32) syscall.Errno {
	v := h.c.v
	if err := h.c.file.Sync(); err != nil {
		return h.errno(err, "sync")
	}
	v.tree.RLock()
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
	path := h.c.path // afterwards, it may be opened for somebody else
	return h.c.v.errno(h.c.release(), "close", path)
}

// Allocate is fallocate(2).
func (h *handle) Allocate(_ context.Context, off, size uint64, mode uint32) syscall.Errno {
	keep := mode&unix.FALLOC_FL_KEEP_SIZE != 0
	err := h.c.keepTime(func() error {
		switch mode &^ unix.FALLOC_FL_KEEP_SIZE {
		case 0:
			return h.c.file.Allocate(int64(off), int64(size), keep)
		case unix.FALLOC_FL_PUNCH_HOLE:
			return h.c.file.PunchHole(int64(off), int64(size))
		case unix.FALLOC_FL_ZERO_RANGE:
			return h.c.file.ZeroRange(int64(off), int64(size), keep)
		}
		return unix.EOPNOTSUPP
	})
	return h.errno(err, "allocate")
}

// Lseek finds data and holes. While somebody writes, the kernel may hold data that isn't here yet, and asks without
// writing it back: it is told to, by dropping what it caches.
func (h *handle) Lseek(_ context.Context, off uint64, whence uint32) (uint64, syscall.Errno) {
	if h.c.writers.Load() > 0 {
		if errno := h.inode.NotifyContent(0, 0); errno != 0 && errno != unix.ENOENT {
			return 0, errno
		}
	}
	var at int64
	var err error
	switch whence {
	case unix.SEEK_DATA:
		at, err = h.c.file.SeekData(int64(off))
	case unix.SEEK_HOLE:
		at, err = h.c.file.SeekHole(int64(off))
	default:
		err = unix.EINVAL
	}
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
	const most = 1 << 30 // fits the answer's 32 bits
	size = min(size, most)
	buffer := make([]byte, min(size, copyChunk))
	defer clear(buffer)
	var done uint64
	for done < size {
		p := buffer[:min(size-done, copyChunk)]
		got, err := from.c.file.ReadAt(p, int64(offIn+done))
		if err != nil && !errors.Is(err, io.EOF) {
			return uint32(done), from.errno(err, "copy")
		}
		if got == 0 {
			break
		}
		write := func() error {
			_, err := to.c.file.WriteAt(p[:got], int64(offOut+done))
			return err
		}
		if err := to.c.keepTime(write); err != nil {
			if done > 0 {
				break
			}
			return 0, to.errno(err, "copy")
		}
		done += uint64(got)
	}
	return uint32(done), 0
}
