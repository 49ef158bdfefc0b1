package fs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"kmsfs/fs/keys"
	"kmsfs/fs/volume/backing"
)

// failingServer is a FUSE server whose mount doesn't come about.
type failingServer struct{ unmounted chan struct{} }

var errNoMount = errors.New("no mount")

func (s *failingServer) Serve()           { <-s.unmounted }
func (s *failingServer) WaitMount() error { return errNoMount }
func (s *failingServer) Unmount() error {
	close(s.unmounted)
	return nil
}

// TestFailedMountEndsOnce has a mount fail after serving has begun: the volume is ended once.
func TestFailedMountEndsOnce(t *testing.T) {
	k := newUnclosedKernel(t)
	m := k.v.serve(&failingServer{make(chan struct{})})
	if err := m.wait(); !errors.Is(err, errNoMount) {
		t.Errorf("got error %v, want %v", err, errNoMount)
	}
	m.Wait()
	ends := 0
	for _, name := range k.keys.Events() {
		if name == keys.EventUnmounted {
			ends++
		}
	}
	if ends != 1 {
		t.Errorf("the volume was ended %d times", ends)
	}
}

// TestCallerHasGroups has a caller's groups be known with the request, whatever the mount: later,
// the process may be gone.
func TestCallerHasGroups(t *testing.T) {
	ctx := &fuse.Context{Caller: fuse.Caller{Pid: uint32(unix.Getpid())}}
	own, err := unix.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	got := callOf(ctx, "open").Caller.Groups
	if got == nil || len(got) != len(own) {
		t.Errorf("groups %v, want %v", got, own)
	}
	gone := &fuse.Context{Caller: fuse.Caller{Pid: 1<<22 + 1}} // beyond PID_MAX_LIMIT
	if got := callOf(gone, "open").Caller.Groups; got == nil {
		t.Error("the groups of a process that is gone would be looked up later")
	}
}

// TestTimesUnderWrites sets a file's modification time while it is written to by the kernel's
// writeback, again and again: the time that was set stays.
func TestTimesUnderWrites(t *testing.T) {
	k := newKernel(t)
	node, handle := k.create(root, "file")
	defer k.release(node, handle)
	stop := make(chan struct{})
	var writing sync.WaitGroup
	writing.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			in := &fuse.WriteIn{InHeader: header(node), Fh: handle, Size: 4, WriteFlags: fuse.WRITE_CACHE}
			if _, status := k.Writev(nil, in, [][]byte{[]byte("data")}); status != fuse.OK {
				t.Errorf("write: %v", status)
				return
			}
		}
	})
	for i := range 500 {
		want := uint64(1000 + i)
		in := &fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: header(node), Valid: fuse.FATTR_MTIME, Mtime: want}}
		k.ok("utimens", k.SetAttr(nil, in, &fuse.AttrOut{}))
		if got := k.stat(node).Mtime; got != want {
			t.Errorf("the modification time is %d, want %d", got, want)
			break
		}
	}
	close(stop)
	writing.Wait()
}

// TestListingIsBounded has an open directory hold a part of its entries only, show all of them, and
// show what was made before it is first read.
func TestListingIsBounded(t *testing.T) {
	k := newKernel(t)
	const files = 3000
	var out fuse.OpenOut
	k.ok("opendir", k.OpenDir(nil, &fuse.OpenIn{InHeader: header(root)}, &out))
	defer k.ReleaseDir(&fuse.ReleaseIn{InHeader: header(root), Fh: out.Fh})
	var want []string
	for i := range files {
		name := fmt.Sprint("link", i)
		var entry fuse.EntryOut
		h := header(root)
		k.ok("symlink", k.Symlink(nil, &h, "target", name, &entry))
		want = append(want, name)
	}
	l := &listing{n: &k.v.root.node}
	var names []string
	l.dir = openRoot(t, k)
	defer unix.Close(l.dir)
	for {
		e, errno := l.Readdirent(context.Background())
		if errno != 0 {
			t.Fatal(errno)
		}
		if e == nil {
			break
		}
		if len(l.entries) > 1500 {
			t.Fatalf("%d entries are in memory", len(l.entries))
		}
		if e.Name != "." && e.Name != ".." {
			names = append(names, e.Name)
		}
	}
	slices.Sort(names)
	slices.Sort(want)
	if !slices.Equal(names, want) {
		t.Errorf("%d names are listed, want %d", len(names), len(want))
	}
}

func openRoot(t *testing.T, k *kernel) int {
	t.Helper()
	fd, err := unix.Openat(backing.Descriptor(k.v.disk.Root), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// TestRenameOverLink has a file be replaced by a rename at one of its links: its header doesn't
// name that location any more.
func TestRenameOverLink(t *testing.T) {
	k := newKernel(t)
	file := k.file(root, "a")
	var out fuse.EntryOut
	k.ok("link", k.Link(nil, &fuse.LinkIn{InHeader: header(root), Oldnodeid: file}, "b", &out))
	k.file(root, "other")
	k.rename(root, "other", root, "b")
	handle := k.open(file)
	defer k.release(file, handle)
	c := k.v.files.acquireAll()[0]
	defer func() { _ = c.release() }()
	if h := c.unsealed().Header(); len(h.Locations) != 1 || h.Locations[0].Name != "a" {
		t.Errorf("the header names the locations %v, want a", h.Locations)
	}
}

// TestEmptyFileTakesFreshKey has a file be made empty and be written to again: the new content is
// under a new data key.
func TestEmptyFileTakesFreshKey(t *testing.T) {
	k := newKernel(t)
	node, handle := k.create(root, "file")
	defer k.release(node, handle)
	wrapped := func() string {
		c := k.v.files.acquireAll()[0]
		defer func() { _ = c.release() }()
		return string(c.unsealed().Header().WrappedKey)
	}
	seen := map[string]bool{wrapped(): true}
	for range 3 {
		write := &fuse.WriteIn{InHeader: header(node), Fh: handle, Size: 4}
		if _, status := k.Writev(nil, write, [][]byte{[]byte("data")}); status != fuse.OK {
			t.Fatalf("write: %v", status)
		}
		in := &fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: header(node), Valid: fuse.FATTR_SIZE}}
		k.ok("truncate", k.SetAttr(nil, in, &fuse.AttrOut{}))
		if now := wrapped(); seen[now] {
			t.Error("the emptied file has a former data key")
		} else {
			seen[now] = true
		}
	}
}

// TestInterruptOfQuickTruncation has a signal interrupt a caller who makes a file empty, for which the
// operation starts again once it has a new data key: the truncation succeeds.
func TestInterruptOfQuickTruncation(t *testing.T) {
	k := newKernel(t)
	node, handle := k.create(root, "file")
	defer k.release(node, handle)
	write := &fuse.WriteIn{InHeader: header(node), Fh: handle, Size: 4}
	if _, status := k.Writev(nil, write, [][]byte{[]byte("data")}); status != fuse.OK {
		t.Fatalf("write: %v", status)
	}
	interrupted := make(chan struct{})
	close(interrupted)
	in := &fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: header(node), Valid: fuse.FATTR_SIZE}}
	k.ok("truncate", k.SetAttr(interrupted, in, &fuse.AttrOut{}))
}

// TestTimesOfRemovedFile has the kernel write back the times of a file that has been removed, while
// the file is closed: the kernel would report any error as one of the file's content.
func TestTimesOfRemovedFile(t *testing.T) {
	k := newKernel(t)
	for i := range 300 {
		name := fmt.Sprint("file", i)
		node, handle := k.create(root, name)
		h := header(root)
		k.ok("unlink", k.Unlink(nil, &h, name))
		var closing sync.WaitGroup
		closing.Go(func() { k.release(node, handle) })
		in := &fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: header(node), Valid: fuse.FATTR_MTIME | fuse.FATTR_CTIME, Mtime: 1}}
		k.ok("set times", k.SetAttr(nil, in, &fuse.AttrOut{}))
		closing.Wait()
	}
}
