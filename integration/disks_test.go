package integration

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSeveralDisks has two directories of a volume lie on file systems of their own, which give
// the same inode numbers: no file or directory is taken for another.
func TestSeveralDisks(t *testing.T) {
	v := newVolume(t, "--plaintext-names")
	v.mount(t)
	for _, name := range []string{"a", "b"} {
		must(t, os.Mkdir(v.path(name), 0o755))
	}
	v.umount(t)
	for _, name := range []string{"a", "b"} {
		diskAt(t, v, filepath.Join(v.dir, name))
	}
	v.mount(t)
	numbers := map[uint64]string{}
	for _, name := range []string{"a", "b"} {
		must(t, os.Mkdir(v.path(name, "sub"), 0o755))
		write(t, v.path(name, "sub", "file"), []byte(name))
	}
	var raw [2]unix.Stat_t
	for i, name := range []string{"a", "b"} {
		must(t, unix.Stat(filepath.Join(v.dir, name, "sub", "file"), &raw[i]))
	}
	if raw[0].Ino != raw[1].Ino {
		t.Fatalf("the files have the numbers %d and %d on their disks: this test wants the same", raw[0].Ino, raw[1].Ino)
	}
	a, err := os.OpenFile(v.path("a", "sub", "file"), os.O_RDWR, 0)
	must(t, err)
	defer a.Close()
	b, err := os.OpenFile(v.path("b", "sub", "file"), os.O_RDWR, 0)
	must(t, err)
	defer b.Close()
	_, err = a.WriteAt([]byte("A"), 0)
	must(t, err)
	_, err = b.WriteAt([]byte("B"), 0)
	must(t, err)
	wantContent(t, v.path("a", "sub", "file"), []byte("A"))
	wantContent(t, v.path("b", "sub", "file"), []byte("B"))
	must(t, filepath.WalkDir(v.point, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		must(t, unix.Lstat(path, &st))
		if other, known := numbers[st.Ino]; known {
			t.Errorf("%s and %s have the same inode number", path, other)
		}
		numbers[st.Ino] = path
		return nil
	}))
	must(t, a.Close())
	must(t, b.Close())
	v.remount(t)
	wantContent(t, v.path("a", "sub", "file"), []byte("A"))
	wantContent(t, v.path("b", "sub", "file"), []byte("B"))
}

// diskAt puts a new file system in memory in a directory's place, with what is in that.
func diskAt(t *testing.T, v *volume, dir string) {
	t.Helper()
	copied := tempDir(t)
	run(t, "/", "cp", "-a", dir+"/.", copied)
	run(t, "/", "mount", "-t", "tmpfs", "-o", "size=16m", "kmsfs-test", dir)
	t.Cleanup(func() {
		v.end(t)
		run(t, "/", "umount", dir)
	})
	run(t, "/", "cp", "-a", copied+"/.", dir)
}
