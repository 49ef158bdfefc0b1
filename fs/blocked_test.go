package fs

import (
	"context"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// blockedKeys makes a key service wait at calls for one path, until the caller's context ends or
// the path is let go.
type blockedKeys struct {
	path    string
	arrived chan string   // gets the operation of each call that waits
	letGo   chan struct{} // closed
}

func block(k *kernel, path string) *blockedKeys {
	b := &blockedKeys{path: path, arrived: make(chan string, 100), letGo: make(chan struct{})}
	k.keys.setBefore(func(ctx context.Context, operation string, encryptionContext map[string]string) error {
		if encryptionContext["kmsfs:path"] != b.path {
			return nil
		}
		b.arrived <- operation
		select {
		case <-b.letGo:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	return b
}

// TestBlockedKeyService has the key service not answer for one file: the open and the rename that
// wait for it hold up nothing else, and end when their callers are interrupted.
func TestBlockedKeyService(t *testing.T) {
	k := newKernel(t)
	dir := k.mkdir(root, "dir")
	slow, other := k.file(dir, "slow"), k.file(dir, "other")
	b := block(k, "/dir/slow")
	cancelOpen, cancelRename := make(chan struct{}), make(chan struct{})
	opened, renamed := make(chan fuse.Status, 1), make(chan fuse.Status, 1)
	go func() {
		_, status := k.tryOpen(cancelOpen, slow)
		opened <- status
	}()
	<-b.arrived
	go func() { renamed <- k.tryRename(cancelRename, dir, "slow", root, "moved") }()
	<-b.arrived

	// All of these would wait for ever behind a lock.
	k.stat(slow)
	k.lookup(dir, "slow")
	k.release(other, k.open(other))
	k.rename(dir, "other", root, "other")
	k.mkdir(dir, "new")
	k.chown(other, 1000)
	k.file(dir, "file")

	close(cancelOpen)
	if status := <-opened; status != fuse.Status(unix.EINTR) {
		t.Errorf("the interrupted open: %v, want EINTR", status)
	}
	close(cancelRename)
	if status := <-renamed; status != fuse.Status(unix.EINTR) {
		t.Errorf("the interrupted rename: %v, want EINTR", status)
	}
	close(b.letGo)
	k.release(slow, k.open(slow))
	k.rename(dir, "slow", root, "moved")
}

// TestInterruptOfQuickCall has a signal interrupt a caller whose answer comes soon: the open
// succeeds.
func TestInterruptOfQuickCall(t *testing.T) {
	k := newKernel(t)
	file := k.file(root, "file")
	b := block(k, "/file")
	cancel, opened := make(chan struct{}), make(chan fuse.Status, 1)
	go func() {
		handle, status := k.tryOpen(cancel, file)
		if status == fuse.OK {
			k.release(file, handle)
		}
		opened <- status
	}()
	<-b.arrived
	close(cancel)
	close(b.letGo)
	if status := <-opened; status != fuse.OK {
		t.Errorf("open: %v", status)
	}
}

// TestMovedWhileOpened has the directory of a file be renamed while the key service decides on the
// file: the caller is judged by the new path.
func TestMovedWhileOpened(t *testing.T) {
	k := newKernel(t)
	dir := k.mkdir(root, "public")
	file := k.file(dir, "file")
	b := block(k, "/public/file")
	opened := make(chan fuse.Status, 1)
	go func() {
		_, status := k.tryOpen(nil, file)
		opened <- status
	}()
	<-b.arrived
	k.rename(root, "public", root, "secret")
	deniedHere := make(chan string, 100)
	k.keys.setBefore(func(_ context.Context, operation string, encryptionContext map[string]string) error {
		if encryptionContext["kmsfs:path"] == "/secret/file" && operation == "Decrypt" {
			deniedHere <- operation
			return errDeniedByTest
		}
		return nil
	})
	close(b.letGo)
	if status := <-opened; status != fuse.Status(unix.EACCES) {
		t.Errorf("open: %v, want EACCES", status)
	}
	if len(deniedHere) == 0 {
		t.Error("the key service was not asked about the new path")
	}
}

// TestLockDoesNotWait has the key service not answer whether open files may still be used: locking
// the mount by hand takes effect at once all the same.
func TestLockDoesNotWait(t *testing.T) {
	k := newKernel(t)
	node, handle := k.create(root, "file")
	arrived := make(chan struct{}, 100)
	never := make(chan struct{})
	k.keys.setBefore(func(_ context.Context, operation string, _ map[string]string) error {
		if operation == "Check" { // whatever the context says
			arrived <- struct{}{}
			<-never
		}
		return nil
	})
	defer close(never)
	k.v.revocation.start()
	defer k.v.revocation.stop()
	<-arrived
	if err := k.v.revocation.lockByHand(t.Context(), callOf(t.Context(), "lock"), true); err != nil {
		t.Fatal(err)
	}
	in := &fuse.ReadIn{InHeader: header(node), Fh: handle, Size: 10}
	if _, status := k.Read(nil, in, make([]byte, 10)); status != fuse.EACCES {
		t.Errorf("read after the mount was locked: %v, want EACCES", status)
	}
	k.release(node, handle)
}

// TestReleaseBeforeRevoke has a handle be released between the snapshot of the watch and the
// revocation of the handle: it is not counted as revoked for ever.
func TestReleaseBeforeRevoke(t *testing.T) {
	k := newKernel(t)
	node, first := k.create(root, "file")
	second := k.open(node)
	released := false
	k.keys.setCheck(func() error {
		if !released {
			released = true
			k.release(node, first)
		}
		return errDeniedByTest
	})
	k.v.revocation.round(t.Context())
	k.keys.setCheck(nil)
	c := k.v.files.acquireAll()[0]
	if handles, revoked := c.holders.count(); handles != 1 || revoked != 1 {
		t.Errorf("%d handles, %d of them revoked; want 1 and 1", handles, revoked)
	}
	if !c.wiped.Load() {
		t.Error("the keys of a file that nobody may use are not wiped")
	}
	if err := c.release(); err != nil {
		t.Error(err)
	}
	k.release(node, second)
}
