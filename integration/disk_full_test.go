package integration

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDiskFull fills the file system that the volume lies on.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	t.Run("tmpfs", func(t *testing.T) {
		v := prepareVolume(t)
		smallDisk(t, v, "size=24m")
		testDiskFull(t, v)
	})
	t.Run("ext4", func(t *testing.T) {
		v := prepareVolume(t)
		loopDisk(t, v, "24M")
		testDiskFull(t, v)
	})
}

// fillUp writes a file, block by block, until there is no other.
func fillUp(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_SYNC, 0o600)
	must(t, err)
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	wantErrno(t, err, unix.ENOSPC)
}

// loopDisk makes an ext4 file system in a file and mounts it where the volume is to be. It returns the file.
func loopDisk(t *testing.T, v *volume, size string) (image string) {
	t.Helper()
	image, disk := filepath.Join(v.root, "image"), filepath.Join(v.root, "disk")
	run(t, v.root, "truncate", "-s", size, image)
	run(t, v.root, "mkfs.ext4", "-q", "-b", "4096", "-m", "0", image)
	must(t, os.Mkdir(disk, 0o755))
	run(t, "/", "mount", "-o", "loop", image, disk)
	t.Cleanup(func() {
		v.end(t)
		if mountType(disk) != "" {
			run(t, "/", "umount", disk)
		}
	})
	v.dir = filepath.Join(disk, "volume")
	return image
}

func testDiskFull(t *testing.T, v *volume) {
	if plain {
		must(t, os.Mkdir(v.dir, 0o755))
		v.point = v.dir
	} else {
		v.kmsfs(t, "init", v.dir)
	}
	v.mount(t)
	content := func(i int) []byte { return noise(uint64(i), 100000+i*777) }
	name := func(i int) string { return v.path(fmt.Sprint("file", i)) }
	// put writes as careful programs do.
	put := func(i int) error {
		f, err := os.OpenFile(name(i), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
		if err != nil {
			return err
		}
		_, err = f.Write(content(i))
		if err == nil {
			err = f.Sync()
		}
		return errors.Join(err, f.Close())
	}
	fill := func(from int) int {
		t.Helper()
		for i := from; i < 1000; i++ {
			if err := put(i); err != nil {
				wantErrno(t, err, unix.ENOSPC)
				return i
			}
		}
		t.Fatal("the disk does not get full")
		return 0
	}
	check := func(from, to int) {
		t.Helper()
		for i := from; i < to; i++ {
			wantContent(t, name(i), content(i))
		}
	}
	full := fill(0)
	if full < 20 {
		t.Fatalf("full after %d files", full)
	}
	// What didn't fit may be cut short, and have zeros where nothing could be written, but it isn't broken.
	usable := func(i int) {
		t.Helper()
		got, err := os.ReadFile(name(i))
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
		if err != nil {
			t.Errorf("what did not fit: %v", err)
			return
		}
		want := content(i)
		for k, b := range got {
			if k >= len(want) || b != want[k] && b != 0 {
				t.Errorf("what did not fit has a wrong byte at %d of %d", k, len(got))
				return
			}
		}
	}
	usable(full)
	check(0, full)
	// All kinds of changes either work or say that the disk is full, and harm nothing.
	try := func(what string, err error) {
		t.Helper()
		if err != nil && !errors.Is(err, unix.ENOSPC) {
			t.Errorf("%s on a full disk: %v", what, err)
		}
	}
	for i := range 5 {
		_, err := exec2(t, "sh", "-c", fmt.Sprintf("head -c 3000000 /dev/zero | tr '\\0' x > %s", v.path("filling")))
		if err == nil || !strings.Contains(err.Error(), "No space left") {
			t.Errorf("filling: %v", err)
		}
		try("mkdir", os.Mkdir(v.path(fmt.Sprint("dir", i)), 0o755))
		try("symlink", os.Symlink(strings.Repeat("t", 2000), v.path(fmt.Sprint("symlink", i))))
		try("attribute", unix.Setxattr(name(i), "user.large", noise(60, 2500), 0))
		try("link", os.Link(name(0), v.path(fmt.Sprint(strings.Repeat("link", 60), i))))
		f, err := os.OpenFile(name(1), os.O_WRONLY|os.O_APPEND, 0)
		must(t, err)
		try("lengthening", unix.Fallocate(int(f.Fd()), 0, 0, 50<<20))
		must(t, f.Close())
	}
	to := v.path(strings.Repeat("r", 250))
	if err := os.Rename(name(2), to); err == nil {
		must(t, os.Rename(to, name(2)))
	} else {
		try("rename", err)
	}
	// The fallocate may have lengthened it by what there was room for.
	must(t, os.Truncate(name(1), int64(len(content(1)))))
	check(0, full)
	v.remount(t)
	check(0, full)
	usable(full)
	// With room again, everything works again.
	must(t, os.RemoveAll(v.path("filling")))
	for i := range full / 2 {
		must(t, os.Remove(name(i)))
	}
	check(full/2, full)
	for i := range full / 4 {
		must(t, put(i))
	}
	check(0, full/4)
	must(t, os.WriteFile(name(full), content(full), 0o644))
	wantContent(t, name(full), content(full))
	// Full again, and killed: what was synced is there.
	again := fill(full + 1)
	if !plain {
		v.kill(t)
		v.mount(t)
		v.awaitRecovery(t)
	}
	check(0, full/4)
	check(full/2, again)
	usable(again)
	v.remount(t)
	check(full/2, again)
	if !plain {
		// Without one free block it can be mounted, so that files can be removed.
		v.umount(t)
		fillUp(t, filepath.Join(filepath.Dir(v.dir), "filler"))
		v.mount(t)
		check(full/2, again)
		must(t, os.Remove(name(full/2)))
	}
	if !bytes.Equal(content(0), noise(0, 100000)) {
		t.Error("contents are not what they should be")
	}
}
