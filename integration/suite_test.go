package integration

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
	"golang.org/x/sys/unix"
)

// TestSuite runs go-fuse's own tests of file systems, each in a directory of its own.
func TestSuite(t *testing.T) {
	v := mounted(t)
	for _, name := range slices.Sorted(maps.Keys(posixtest.All)) {
		switch name {
		case "FcntlFlockLocksFile":
			continue // wants a process's own lock to stand in its way, as no POSIX system has it; testLocks has two processes
		case "XAttrLarge":
			continue // an attribute of 8 KiB, which the file system below has to take: TestLargeAttribute
		}
		t.Run(name, func(t *testing.T) {
			dir := v.path(name)
			must(t, os.Mkdir(dir, 0o755))
			posixtest.All[name](t, dir)
		})
	}
}

// TestLargeAttribute runs the one that wants more of the file system below than ext4 gives.
func TestLargeAttribute(t *testing.T) {
	v := prepareVolume(t)
	smallDisk(t, v, "size=16m")
	v.kmsfs(t, "init", v.dir)
	v.mount(t)
	posixtest.All["XAttrLarge"](t, v.point)
	// It lasts.
	path := v.path("large")
	write(t, path, nil)
	must(t, unix.Setxattr(path, "user.large", noise(50, 10000), 0))
	v.remount(t)
	if got, err := attributes(path); err != nil || got["user.large"] != string(noise(50, 10000)) {
		t.Errorf("an attribute of %d bytes, %v", len(got["user.large"]), err)
	}
}

// smallDisk mounts a file system in memory where the volume is to be.
func smallDisk(t *testing.T, v *volume, options string) {
	t.Helper()
	disk := filepath.Join(v.root, "disk")
	must(t, os.Mkdir(disk, 0o755))
	run(t, "/", "mount", "-t", "tmpfs", "-o", options, "kmsfs-test", disk)
	t.Cleanup(func() {
		v.end(t)
		run(t, "/", "umount", disk)
	})
	v.dir = filepath.Join(disk, "volume")
}
