package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	disk "kmsfs/fs/volume"
)

// raw passes on what go-fuse's node API has no argument for.
type raw struct{ fuse.RawFileSystem }

// umaskShift is where the caller's umask rides to the nodes: in the upper half of the mode, where
// the kernel sends nothing. The kernel leaves it to the file system to apply it (FUSE_DONT_MASK),
// since a directory's default ACL takes its place.
const umaskShift = 16

func (r *raw) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	in.Mode |= in.Umask << umaskShift
	return r.RawFileSystem.Create(cancel, in, name, out)
}

func (r *raw) Tmpfile(cancel <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	in.Mode |= in.Umask << umaskShift
	return r.RawFileSystem.Tmpfile(cancel, in, out)
}

func (r *raw) Mkdir(cancel <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	in.Mode |= in.Umask << umaskShift
	return r.RawFileSystem.Mkdir(cancel, in, name, out)
}

func (r *raw) Mknod(cancel <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	in.Mode |= in.Umask << umaskShift
	return r.RawFileSystem.Mknod(cancel, in, name, out)
}

// modeIn returns the mode for what is made in the directory dir, from what raw put together.
func modeIn(dir int, combined uint32) uint32 {
	mode, umask := combined&(1<<umaskShift-1), combined>>umaskShift
	if hasDefaultACL(dir) {
		return mode // the backing file system takes off what the ACL doesn't give
	}
	return mode &^ umask
}

func hasDefaultACL(dir int) bool {
	_, err := unix.Getxattr(procPath(dir), disk.DefaultACL, nil)
	return err == nil
}

// foreign is the PID of a process that has none in this process's PID namespace.
const foreign = 1<<32 - 1

// noLife stands for 0 nanoseconds, which go-fuse takes for its default. raw makes 0 of it.
const noLife = 1

func endLife(valid uint64, nanos *uint32) {
	if valid == 0 && *nanos == noLife {
		*nanos = 0
	}
}

// GetAttr has the PID say whether the kernel names a handle: it is 0 if it doesn't.
func (r *raw) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	switch {
	case in.Flags()&fuse.FUSE_GETATTR_FH == 0:
		in.Pid = 0
	case in.Pid == 0:
		in.Pid = foreign
	}
	status := r.RawFileSystem.GetAttr(cancel, in, out)
	endLife(out.AttrValid, &out.AttrValidNsec)
	return status
}

func (r *raw) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	status := r.RawFileSystem.SetAttr(cancel, in, out)
	endLife(out.AttrValid, &out.AttrValidNsec)
	return status
}

func (r *raw) Lookup(cancel <-chan struct{}, header *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	status := r.RawFileSystem.Lookup(cancel, header, name, out)
	endLife(out.AttrValid, &out.AttrValidNsec)
	return status
}

func (r *raw) Link(cancel <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	status := r.RawFileSystem.Link(cancel, in, name, out)
	endLife(out.AttrValid, &out.AttrValidNsec)
	return status
}

// Writev has the PID say whether the kernel writes back from its cache, which is 0, or a process
// writes itself.
func (r *raw) Writev(cancel <-chan struct{}, in *fuse.WriteIn, data [][]byte) (uint32, fuse.Status) {
	switch {
	case in.WriteFlags&fuse.WRITE_CACHE != 0:
		in.Pid = 0
	case in.Pid == 0:
		in.Pid = foreign
	}
	return r.RawFileSystem.Writev(cancel, in, data)
}

// atEnd is the offset of a write that goes to the file's end, wherever that is when its turn comes.
const atEnd = -1

// appending marks the writes to a shared volume that are those of O_APPEND, by their offset:
// go-fuse's node API has no argument for the flags that the file has when it is written to. What
// the kernel writes back of a mapping is no such write, whatever the handle that it comes by.
type appending struct{ fuse.RawFileSystem }

func (a *appending) Writev(cancel <-chan struct{}, in *fuse.WriteIn, data [][]byte) (uint32, fuse.Status) {
	if in.Flags&unix.O_APPEND != 0 && in.WriteFlags&fuse.WRITE_CACHE == 0 {
		end := int64(atEnd)
		in.Offset = uint64(end)
	}
	return a.RawFileSystem.Writev(cancel, in, data)
}
