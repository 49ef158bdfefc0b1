package memory_test

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/fs/volume/backing"
	"kmsfs/fs/volume/backing/memory"
)

const pageSize = 4096

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func create(t *testing.T, d backing.Dir, name string) backing.File {
	t.Helper()
	f, err := d.OpenFile(name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600)
	must(t, err)
	return f
}

// write writes pages of one byte each.
func write(t *testing.T, f backing.File, from int64, pages string) {
	t.Helper()
	for i := range len(pages) {
		_, err := f.WriteAt(slices.Repeat([]byte{pages[i]}, pageSize), (from+int64(i))*pageSize)
		must(t, err)
	}
}

// look describes a file: a letter for each page, "." for zeros; "none" if it isn't there.
func look(t *testing.T, f *memory.FS, name string) string {
	t.Helper()
	file, err := f.Root().OpenFile(name, unix.O_RDONLY, 0)
	if errors.Is(err, unix.ENOENT) {
		return "none"
	}
	must(t, err)
	defer file.Close()
	st, err := file.Stat()
	must(t, err)
	p := make([]byte, st.Size)
	if _, err := file.ReadAt(p, 0); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	s := ""
	for ; len(p) > 0; p = p[min(pageSize, len(p)):] {
		c := p[0]
		for _, other := range p[:min(pageSize, len(p))] {
			if other != c {
				t.Fatalf("%s has a page that was written in part", name)
			}
		}
		if c == 0 {
			c = '.'
		}
		s += string(c)
	}
	return s
}

// outcomes returns what describe says of all that crashes leave now.
func outcomes(f *memory.FS, describe func(*memory.FS) string) []string {
	var all []string
	for point := range f.Points() + 1 {
		for seed := range uint64(200) {
			if s := describe(f.Crash(point, seed)); !slices.Contains(all, s) {
				all = append(all, s)
			}
		}
	}
	slices.Sort(all)
	return all
}

// wantOutcomes fails unless exactly these are possible.
func wantOutcomes(t *testing.T, got []string, want ...string) {
	t.Helper()
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("crashes leave %q, want %q", got, want)
	}
}

func TestPagesInAnySubset(t *testing.T) {
	f := memory.New(memory.Options{})
	file := create(t, f.Root(), "f")
	write(t, file, 0, "aa")
	must(t, file.Sync())
	write(t, file, 0, "bb")
	wantOutcomes(t, outcomes(f, func(c *memory.FS) string { return look(t, c, "f") }), "aa", "ab", "ba", "bb")
	must(t, file.Datasync())
	wantOutcomes(t, outcomes(f, func(c *memory.FS) string { return look(t, c, "f") }), "bb")
}

func TestGrowth(t *testing.T) {
	for _, first := range []bool{false, true} {
		f := memory.New(memory.Options{SizeFirst: first})
		file := create(t, f.Root(), "f")
		write(t, file, 0, "a")
		must(t, file.Sync())
		write(t, file, 1, "b")
		want := []string{"a", "ab"}
		if first {
			want = append(want, "a.")
		}
		wantOutcomes(t, outcomes(f, func(c *memory.FS) string { return look(t, c, "f") }), want...)
	}
}

func TestNewPagesWaitForTheTruncation(t *testing.T) {
	f := memory.New(memory.Options{})
	file := create(t, f.Root(), "f")
	write(t, file, 0, "ab")
	must(t, file.Sync())
	must(t, file.Truncate(0))
	write(t, file, 0, "c")
	wantOutcomes(t, outcomes(f, func(c *memory.FS) string { return look(t, c, "f") }), "ab", "", "c")
}

// TestPageOfTheCut cuts a file within a page and overwrites that page, which can be on the disk
// before the cut.
func TestPageOfTheCut(t *testing.T) {
	f := memory.New(memory.Options{})
	file := create(t, f.Root(), "f")
	write(t, file, 0, "abc")
	must(t, file.Sync())
	must(t, file.Truncate(pageSize+1))
	write(t, file, 1, "d")
	wantOutcomes(t, outcomes(f, func(c *memory.FS) string { return sizeAndPages(t, c, "f") }),
		"abc", "adc", "ab 1", "ad")
}

// sizeAndPages describes a file by the first byte of each page, with the bytes of the last page if
// it isn't whole.
func sizeAndPages(t *testing.T, f *memory.FS, name string) string {
	t.Helper()
	file, err := f.Root().OpenFile(name, unix.O_RDONLY, 0)
	must(t, err)
	st, err := file.Stat()
	must(t, err)
	s, first := "", make([]byte, 1)
	for off := int64(0); off < st.Size; off += pageSize {
		_, err := file.ReadAt(first, off)
		must(t, err)
		s += string(first)
	}
	if rest := st.Size % pageSize; rest != 0 {
		s += fmt.Sprint(" ", rest)
	}
	return s
}

// TestChoicesStay has a history with a step more on another file: the choices for the first file
// are the same.
func TestChoicesStay(t *testing.T) {
	left := func(more bool, seed uint64) string {
		f := memory.New(memory.Options{})
		file, other := create(t, f.Root(), "f"), create(t, f.Root(), "other")
		f.Sync()
		if more {
			write(t, other, 0, "xyz")
		}
		write(t, file, 0, "abcdefgh")
		return look(t, f.Crash(0, seed), "f")
	}
	kinds := map[string]bool{}
	for seed := range uint64(100) {
		short, long := left(false, seed), left(true, seed)
		if short != long {
			t.Fatalf("seed %d leaves %q, and with another step %q", seed, short, long)
		}
		kinds[short] = true
	}
	if len(kinds) < 30 {
		t.Errorf("100 seeds leave %d different files only", len(kinds))
	}
}

func TestMetadataInOrder(t *testing.T) {
	f := memory.New(memory.Options{})
	root := f.Root()
	create(t, root, "a")
	f.Sync()
	n, err := root.Lookup("a")
	must(t, err)
	must(t, n.Setxattr("user.x", []byte("old new"), 0))
	must(t, root.Rename("a", root, "b", 0))
	must(t, n.Setxattr("user.x", []byte("new"), 0))
	describe := func(c *memory.FS) string {
		for _, name := range []string{"a", "b"} {
			n, err := c.Root().Lookup(name)
			if err != nil {
				continue
			}
			value := make([]byte, 20)
			size, err := n.Getxattr("user.x", value)
			if err != nil {
				size = 0
			}
			return fmt.Sprintf("%s: %s", name, value[:size])
		}
		return "none"
	}
	wantOutcomes(t, outcomes(f, describe), "a: ", "a: old new", "b: old new", "b: new")
}

// TestSync has one file synced after another was renamed: one journal makes both durable, single
// syncs do not.
func TestSync(t *testing.T) {
	for _, single := range []bool{false, true} {
		f := memory.New(memory.Options{SingleSync: single})
		root := f.Root()
		create(t, root, "a")
		file := create(t, root, "f")
		f.Sync()
		must(t, root.Rename("a", root, "b", 0))
		must(t, file.Setxattr("user.x", []byte("x"), 0))
		must(t, file.Sync())
		want := []string{"none"}
		if single {
			want = append(want, "")
		}
		wantOutcomes(t, outcomes(f, func(c *memory.FS) string { return look(t, c, "a") }), want...)
		describe := func(c *memory.FS) string {
			n, err := c.Root().Lookup("f")
			must(t, err)
			_, err = n.Getxattr("user.x", nil)
			return fmt.Sprint(err)
		}
		wantOutcomes(t, outcomes(f, describe), "<nil>")
	}
}

func TestDatasyncLeavesAttributesOut(t *testing.T) {
	f := memory.New(memory.Options{})
	file := create(t, f.Root(), "f")
	must(t, file.Sync())
	must(t, file.Setxattr("user.x", []byte("x"), 0))
	write(t, file, 0, "a")
	must(t, file.Datasync())
	describe := func(c *memory.FS) string {
		n, err := c.Root().Lookup("f")
		must(t, err)
		_, err = n.Getxattr("user.x", nil)
		return fmt.Sprint(look(t, c, "f"), err)
	}
	wantOutcomes(t, outcomes(f, describe), "a<nil>", "a"+unix.ENODATA.Error())
}

// TestDurable has nothing be lost by a crash.
func TestDurable(t *testing.T) {
	f := memory.New(memory.Options{Durable: true})
	write(t, create(t, f.Root(), "f"), 0, "abc")
	must(t, f.Root().Rename("f", f.Root(), "g", 0))
	if n := f.Points(); n != 0 {
		t.Errorf("%d changes can be lost", n)
	}
	wantLook(t, f.Crash(0, 1), "g", "abc")
}

func TestKillLeavesAll(t *testing.T) {
	f := memory.New(memory.Options{})
	file := create(t, f.Root(), "f")
	write(t, file, 0, "abc")
	open := create(t, f.Root(), "gone")
	must(t, f.Root().Unlink("gone"))
	c := f.Clone()
	if got := look(t, c, "f"); got != "abc" {
		t.Errorf("a clone has %q", got)
	}
	if _, err := open.Stat(); err != nil {
		t.Errorf("what is open has gone: %v", err)
	}
}

func TestFaults(t *testing.T) {
	f := memory.New(memory.Options{Capacity: 4})
	root := f.Root()
	file := create(t, root, "f")
	f.Inject(memory.Fault{On: []memory.Op{memory.OpWrite}, After: 1, Times: 1, Err: unix.EIO})
	write(t, file, 0, "a")
	if _, err := file.WriteAt([]byte("b"), 0); err != unix.EIO {
		t.Errorf("the second write: %v", err)
	}
	write(t, file, 1, "b")
	f.Heal()
	if n, err := file.WriteAt(make([]byte, 4*pageSize), pageSize); n != 3*pageSize || err != unix.ENOSPC {
		t.Errorf("a write beyond the disk's end: %d, %v", n, err)
	}
	f.Inject(memory.Fault{On: []memory.Op{memory.OpRename}, Err: unix.EIO, Done: true})
	if err := root.Rename("f", root, "g", 0); err != unix.EIO {
		t.Errorf("a rename that was done: %v", err)
	}
	f.Heal()
	if _, err := root.StatAt("g"); err != nil {
		t.Errorf("the rename was not done: %v", err)
	}
	f.Inject(memory.Fault{On: []memory.Op{memory.OpWrite}, Err: unix.EINTR, Short: true, Times: 1})
	if n, err := file.WriteAt(make([]byte, 4*pageSize), 0); n != 2*pageSize || err != unix.EINTR {
		t.Errorf("a short write: %d, %v", n, err)
	}
}

func TestUnplug(t *testing.T) {
	f := memory.New(memory.Options{})
	file := create(t, f.Root(), "f")
	write(t, file, 0, "a")
	must(t, file.Sync())
	write(t, file, 0, "b")
	must(t, f.Root().Rename("f", f.Root(), "g", 0))
	f.Unplug(0, 1)
	if _, err := file.Stat(); err != unix.EIO {
		t.Errorf("without a disk: %v", err)
	}
	f.Replug()
	if _, err := file.Stat(); err != unix.EIO {
		t.Errorf("what was open before the disk went: %v", err)
	}
	if got := look(t, f, "f"); got != "a" && got != "b" {
		t.Errorf("after the disk came back: %q", got)
	}
}

func TestInodeNumbersAreUsedAgain(t *testing.T) {
	f := memory.New(memory.Options{})
	root := f.Root()
	must(t, root.Mkdir("a", 0o700))
	first, err := root.StatAt("a")
	must(t, err)
	must(t, root.Rmdir("a"))
	must(t, root.Mkdir("b", 0o700))
	second, err := root.StatAt("b")
	must(t, err)
	if first.Ino != second.Ino {
		t.Errorf("numbers %d and %d: file systems use them again", first.Ino, second.Ino)
	}
}

func TestLocks(t *testing.T) {
	f := memory.New(memory.Options{})
	a := create(t, f.Root(), "f")
	b, err := f.Root().OpenFile("f", unix.O_RDWR, 0)
	must(t, err)
	must(t, a.Flock(unix.LOCK_SH))
	if err := b.Flock(unix.LOCK_EX | unix.LOCK_NB); err != unix.EWOULDBLOCK {
		t.Errorf("a second lock: %v", err)
	}
	must(t, a.LockByte(7, unix.F_WRLCK))
	if locked, err := b.ByteLocked(7); !locked || err != nil {
		t.Errorf("a byte that is locked: %v, %v", locked, err)
	}
	got := make(chan error, 1)
	go func() { got <- b.LockByte(7, unix.F_RDLCK) }()
	must(t, a.Close())
	must(t, <-got)
}
