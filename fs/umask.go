package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// masked brings the caller's umask to the nodes. The kernel leaves it to the file system to apply it (FUSE_DONT_MASK), since a
// directory's default ACL takes its place; go-fuse's node API has no argument for it. It rides in the upper half of
// the mode, where the kernel sends nothing.
type masked struct{ fuse.RawFileSystem }

const umaskShift = 16

func (m *masked) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	in.Mode |= in.Umask << umaskShift
	return m.RawFileSystem.Create(cancel, in, name, out)
}

func (m *masked) Tmpfile(cancel <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	in.Mode |= in.Umask << umaskShift
	return m.RawFileSystem.Tmpfile(cancel, in, out)
}

func (m *masked) Mkdir(cancel <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	in.Mode |= in.Umask << umaskShift
	return m.RawFileSystem.Mkdir(cancel, in, name, out)
}

func (m *masked) Mknod(cancel <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	in.Mode |= in.Umask << umaskShift
	return m.RawFileSystem.Mknod(cancel, in, name, out)
}

// modeIn returns the mode for what is made in the directory dir, from what masked put together.
func modeIn(dir int, combined uint32) uint32 {
	mode, umask := combined&(1<<umaskShift-1), combined>>umaskShift
	if hasDefaultACL(dir) {
		return mode // the backing file system takes off what the ACL doesn't give
	}
	return mode &^ umask
}

func hasDefaultACL(dir int) bool {
	_, err := unix.Getxattr(procPath(dir), defaultACL, nil)
	return err == nil
}
