package fs

import (
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"kmsfs/fs/keys/keystest"
	disk "kmsfs/fs/volume"
)

// kernel sends requests to a volume as the kernel does, without a mount.
type kernel struct {
	t *testing.T
	v *volume
	fuse.RawFileSystem
	keys *hookedKeys
}

// volumeKey is the KMS key of the tests' volumes.
const volumeKey = "arn:aws-kmsfs:kms:local:000000000000:key/volume"

// newKernel makes a volume and opens it as a mount does, until the test ends.
func newKernel(t *testing.T) *kernel {
	t.Helper()
	k := newUnclosedKernel(t)
	t.Cleanup(func() {
		if err := k.v.end(true); err != nil {
			t.Error(err)
		}
	})
	return k
}

// newUnclosedKernel is newKernel for a test that ends the volume.
func newUnclosedKernel(t *testing.T) *kernel {
	t.Helper()
	dir, keys := filepath.Join(t.TempDir(), "volume"), &hookedKeys{Service: keystest.New(volumeKey)}
	if err := disk.Create(disk.CreateOptions{Volume: dir, Keys: keys, Key: volumeKey}); err != nil {
		t.Fatal(err)
	}
	o := MountOptions{Volume: dir, Mountpoint: "/mnt", Keys: keys, AllowOther: true, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	v, err := openVolume(o)
	if err != nil {
		t.Fatal(err)
	}
	requests, _ := v.requests(o)
	return &kernel{t, v, requests, keys}
}

// header is that of a request by root for the node.
func header(node uint64) fuse.InHeader {
	return fuse.InHeader{NodeId: node, Caller: fuse.Caller{Pid: uint32(unix.Getpid())}}
}

func (k *kernel) ok(what string, status fuse.Status) {
	k.t.Helper()
	if status != fuse.OK {
		k.t.Fatalf("%s: %v", what, status)
	}
}

// lookup returns the node of a name. The kernel knows it once more then.
func (k *kernel) lookup(parent uint64, name string) uint64 {
	k.t.Helper()
	var out fuse.EntryOut
	h := header(parent)
	k.ok("lookup "+name, k.Lookup(nil, &h, name, &out))
	return out.NodeId
}

func (k *kernel) mkdir(parent uint64, name string) uint64 {
	k.t.Helper()
	var out fuse.EntryOut
	k.ok("mkdir "+name, k.Mkdir(nil, &fuse.MkdirIn{InHeader: header(parent), Mode: 0o755}, name, &out))
	return out.NodeId
}

// create makes a file, and returns its node and its open handle.
func (k *kernel) create(parent uint64, name string) (node, handle uint64) {
	k.t.Helper()
	var out fuse.CreateOut
	in := &fuse.CreateIn{InHeader: header(parent), Mode: 0o644, Flags: unix.O_RDWR | unix.O_EXCL}
	k.ok("create "+name, k.Create(nil, in, name, &out))
	return out.NodeId, out.Fh
}

// file makes a file that isn't open.
func (k *kernel) file(parent uint64, name string) (node uint64) {
	k.t.Helper()
	node, handle := k.create(parent, name)
	k.release(node, handle)
	return node
}

func (k *kernel) tryOpen(cancel <-chan struct{}, node uint64) (handle uint64, status fuse.Status) {
	var out fuse.OpenOut
	status = k.Open(cancel, &fuse.OpenIn{InHeader: header(node), Flags: unix.O_RDWR}, &out)
	return out.Fh, status
}

func (k *kernel) open(node uint64) (handle uint64) {
	k.t.Helper()
	handle, status := k.tryOpen(nil, node)
	k.ok("open", status)
	return handle
}

func (k *kernel) release(node, handle uint64) {
	k.Release(nil, &fuse.ReleaseIn{InHeader: header(node), Fh: handle})
}

func (k *kernel) tryRename(cancel <-chan struct{}, parent uint64, name string, newParent uint64, newName string) fuse.Status {
	return k.Rename(cancel, &fuse.RenameIn{InHeader: header(parent), Newdir: newParent}, name, newName)
}

func (k *kernel) rename(parent uint64, name string, newParent uint64, newName string) {
	k.t.Helper()
	k.ok("rename "+name+" to "+newName, k.tryRename(nil, parent, name, newParent, newName))
}

func (k *kernel) chown(node uint64, uid uint32) {
	k.t.Helper()
	in := &fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: header(node), Valid: fuse.FATTR_UID, Owner: fuse.Owner{Uid: uid}}}
	k.ok("chown", k.SetAttr(nil, in, &fuse.AttrOut{}))
}

func (k *kernel) stat(node uint64) fuse.Attr {
	k.t.Helper()
	var out fuse.AttrOut
	k.ok("stat", k.GetAttr(nil, &fuse.GetAttrIn{InHeader: header(node)}, &out))
	return out.Attr
}

// root is the node of the volume's root directory.
const root = fuse.FUSE_ROOT_ID
