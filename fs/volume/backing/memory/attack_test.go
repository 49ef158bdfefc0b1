package memory_test

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/fs/volume/backing/memory"
)

// attacked returns a disk, and an earlier state of it.
func attacked(t *testing.T) (now, before *memory.FS) {
	t.Helper()
	now = memory.New(memory.Options{})
	root := now.Root()
	must(t, root.Mkdir("d", 0o700))
	d, err := root.OpenDir("d")
	must(t, err)
	file := create(t, d, "f")
	write(t, file, 0, "abc")
	must(t, file.Setxattr("user.x", []byte("old"), 0))
	must(t, d.Symlink("target", "link"))
	before = now.Clone()
	write(t, file, 0, "zyxw")
	must(t, file.Setxattr("user.x", []byte("new"), 0))
	must(t, file.Setxattr("user.y", nil, 0))
	must(t, d.Rename("f", root, "g", 0))
	must(t, d.Unlink("link"))
	must(t, file.Close())
	return now, before
}

func wantPaths(t *testing.T, f *memory.FS, want ...string) {
	t.Helper()
	if got := f.Paths(); !slices.Equal(got, want) {
		t.Errorf("paths %q, want %q", got, want)
	}
}

func wantLook(t *testing.T, f *memory.FS, path, want string) {
	t.Helper()
	if got := look(t, f, path); got != want {
		t.Errorf("%s has %q, want %q", path, got, want)
	}
}

func TestPutContentAndPages(t *testing.T) {
	now, before := attacked(t)
	must(t, now.PutPage("g", 1, before, "d/f", 2))
	wantLook(t, now, "g", "zcxw")
	if err := now.PutPage("g", 4, before, "d/f", 0); err != unix.EINVAL {
		t.Errorf("a page behind the end: %v", err)
	}
	must(t, now.PutContent("g", before, "d/f"))
	wantLook(t, now, "g", "abc")
	wantLook(t, now.Crash(0, 1), "g", "abc")
}

func TestPutAttribute(t *testing.T) {
	now, before := attacked(t)
	must(t, now.PutAttribute("g", "user.x", before, "d/f"))
	must(t, now.PutAttribute("g", "user.y", before, "d/f"))
	names, err := now.Attributes("g")
	must(t, err)
	if !slices.Equal(names, []string{"user.x"}) {
		t.Errorf("attributes %q", names)
	}
	n, err := now.Root().Lookup("g")
	must(t, err)
	value := make([]byte, 3)
	_, err = n.Getxattr("user.x", value)
	must(t, err)
	if string(value) != "old" {
		t.Errorf("value %q", value)
	}
}

// TestPutName gives a file its old name beside the new one: it is the same inode, as it is now.
func TestPutName(t *testing.T) {
	now, before := attacked(t)
	must(t, now.PutName("d/f", before, "d/f"))
	wantPaths(t, now, "d", "d/f", "g")
	st, err := now.Root().StatAt("g")
	must(t, err)
	if st.Nlink != 2 {
		t.Errorf("%d links", st.Nlink)
	}
	if err := now.PutName("d/link", before, "d/link"); err != unix.ENOENT {
		t.Errorf("the name of what has gone: %v", err)
	}
}

// TestPutEntry puts entries back in place of what is there now.
func TestPutEntry(t *testing.T) {
	now, before := attacked(t)
	must(t, now.PutEntry("g", before, "d/link"))
	if target, err := now.Root().Readlink("g"); target != "target" {
		t.Errorf("a symlink in a file's place: %q, %v", target, err)
	}
	must(t, now.PutEntry("d", before, "d"))
	must(t, now.PutEntry("d", before, "d")) // over a directory that isn't empty
	wantPaths(t, now, "g", "d", "d/f", "d/link")
	d, err := now.Root().OpenDir("d")
	must(t, err)
	file, err := d.OpenFile("f", unix.O_RDWR, 0)
	must(t, err)
	write(t, file, 0, "!")
	must(t, now.PutContent("d/f", before, "d/f"))
	wantPaths(t, before, "d", "d/f", "d/link")
}
