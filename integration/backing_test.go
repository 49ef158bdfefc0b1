package integration

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// A volume may lie on a file system that has no ACLs, as network file systems may not.
func TestNoACLs(t *testing.T) {
	backing := withoutACLs(t)
	v := prepareVolume(t)
	v.dir = filepath.Join(backing, "volume")
	v.kmsfs(t, "init", v.dir)
	v.mount(t)
	path := v.path("file")
	write(t, path, []byte("text"))
	must(t, os.Chmod(path, 0o640))
	must(t, os.Chown(path, nobody, nobody)) // so that it isn't root's, and the kernel asks whether there is an ACL
	wantContent(t, path, []byte("text"))
	must(t, unix.Setxattr(path, "user.colour", []byte("blue"), 0))
	value := make([]byte, 10)
	if n, err := unix.Getxattr(path, "user.colour", value); err != nil || string(value[:n]) != "blue" {
		t.Errorf("attribute %q, %v", value[:max(n, 0)], err)
	}
	_, err := unix.Getxattr(path, "system.posix_acl_access", value)
	wantErrno(t, err, unix.ENODATA)
	v.umount(t)
}

// withoutACLs is a directory on a file system that has none.
func withoutACLs(t *testing.T) string {
	t.Helper()
	dir := tempDir(t)
	below, point := filepath.Join(dir, "below"), filepath.Join(dir, "point")
	must(t, os.Mkdir(below, 0o755))
	must(t, os.Mkdir(point, 0o755))
	root := &bare{gofs.LoopbackNode{RootData: &gofs.LoopbackRoot{Path: below}}}
	root.RootData.RootNode = root
	server, err := gofs.Mount(point, root, &gofs.Options{MountOptions: fuse.MountOptions{AllowOther: true, FsName: "loopback"}})
	must(t, err)
	t.Cleanup(func() { must(t, server.Unmount()) })
	return point
}

// bare is a file or directory without ACLs.
type bare struct{ gofs.LoopbackNode }

var _ gofs.NodeWrapChilder = (*bare)(nil)

// WrapChild makes those below it such ones too.
func (n *bare) WrapChild(_ context.Context, child gofs.InodeEmbedder) gofs.InodeEmbedder {
	return &bare{gofs.LoopbackNode{RootData: child.(*gofs.LoopbackNode).RootData}}
}

// Getxattr has all attributes but ACLs.
func (n *bare) Getxattr(ctx context.Context, name string, value []byte) (uint32, syscall.Errno) {
	if strings.HasPrefix(name, "system.") {
		return 0, unix.EOPNOTSUPP
	}
	return n.LoopbackNode.Getxattr(ctx, name, value)
}
