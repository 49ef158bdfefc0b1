package integration

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestPOSIX(t *testing.T) {
	t.Run("Encrypted", func(t *testing.T) { runScenarios(t, posixScenarios, true) })
	t.Run("PlaintextNames", func(t *testing.T) { runScenarios(t, posixScenarios, false, "--plaintext-names") })
}

var posixScenarios = []scenario{
	{name: "Create", run: testCreate},
	{name: "Append", run: testAppend},
	{name: "Direct", run: testDirect},
	{name: "Tmpfile", run: testTmpfile},
	{name: "Model", run: testModel},
	{name: "Mmap", run: testMmap},
	{name: "Truncate", run: testTruncate},
	{name: "Fallocate", run: testFallocate},
	{name: "SeekHole", run: testSeekHole},
	{name: "CopyFileRange", run: testCopyFileRange},
	{name: "Sync", run: testSync},
	{name: "Rename", run: testRename},
	{name: "RenameFlags", run: testRenameFlags},
	{name: "Link", run: testLink},
	{name: "UnlinkOpen", run: testUnlinkOpen},
	{name: "Symlink", run: testSymlink},
	{name: "FIFOAndSocket", run: testFIFOAndSocket},
	{name: "Device", run: testDevice, root: true},
	{name: "Directory", run: testDirectory},
	{name: "Chmod", run: testChmod},
	{name: "Chown", run: testChown, root: true},
	{name: "Times", run: testTimes},
	{name: "Attributes", run: testAttributes},
	{name: "RootAttributes", run: testRootAttributes, root: true},
	{name: "ACL", run: testACL},
	{name: "Statfs", run: testStatfs},
	{name: "Locks", run: testLocks},
	{name: "Names", run: testNames},
	{name: "DeepPath", run: testDeepPath},
	{name: "Parallel", run: testParallel},
	{name: "TenThousandFiles", run: testTenThousandFiles, once: true},
	{name: "RemoveTree", run: testRemoveTree},
}

// open opens a file for the test's duration.
func open(t *testing.T, path string, flags int) int {
	t.Helper()
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o644)
	if err != nil {
		t.Fatalf("open %s: %v", path, err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

func pwrite(t *testing.T, fd int, b []byte, offset int64) {
	t.Helper()
	n, err := unix.Pwrite(fd, b, offset)
	if err != nil || n != len(b) {
		t.Fatalf("pwrite of %d at %d: %d, %v", len(b), offset, n, err)
	}
}

// pread reads up to n bytes.
func pread(t *testing.T, fd, n int, offset int64) []byte {
	t.Helper()
	b := make([]byte, n)
	got := 0
	for got < n {
		k, err := unix.Pread(fd, b[got:], offset+int64(got))
		if err != nil {
			t.Fatalf("pread of %d at %d: %v", n, offset, err)
		}
		if k == 0 {
			break
		}
		got += k
	}
	return b[:got]
}

func wantRead(t *testing.T, fd int, offset int64, want []byte) {
	t.Helper()
	if got := pread(t, fd, len(want), offset); !bytes.Equal(got, want) {
		t.Fatalf("read at %d: %s", offset, difference(got, want))
	}
}

func stat(t *testing.T, path string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatalf("lstat %s: %v", path, err)
	}
	return st
}

func wantSize(t *testing.T, path string, want int64) {
	t.Helper()
	if got := stat(t, path).Size; got != want {
		t.Errorf("%s: size %d, want %d", path, got, want)
	}
}

// names lists a directory, sorted.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var all []string
	for _, entry := range entries {
		all = append(all, entry.Name())
	}
	return all
}

func wantNames(t *testing.T, dir string, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := names(t, dir); !slices.Equal(got, want) {
		t.Errorf("%s holds %q, want %q", dir, got, want)
	}
}

func wantGone(t *testing.T, path string) {
	t.Helper()
	_, err := os.Lstat(path)
	wantErrno(t, err, unix.ENOENT)
}

func testCreate(t *testing.T, dir string) {
	path := filepath.Join(dir, "file")
	fd := open(t, path, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY)
	wantSize(t, path, 0)
	pwrite(t, fd, []byte("first"), 0)
	_, err := unix.Pread(fd, make([]byte, 1), 0)
	wantErrno(t, err, unix.EBADF)

	_, err = unix.Open(path, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o644)
	wantErrno(t, err, unix.EEXIST)
	_, err = unix.Open(filepath.Join(dir, "none"), unix.O_RDWR, 0)
	wantErrno(t, err, unix.ENOENT)
	_, err = unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	wantErrno(t, err, unix.ENOTDIR)
	_, err = unix.Open(filepath.Join(path, "below"), unix.O_RDONLY, 0)
	wantErrno(t, err, unix.ENOTDIR)
	_, err = unix.Open(dir, unix.O_RDWR, 0)
	wantErrno(t, err, unix.EISDIR)

	// Without O_EXCL, an existing file is kept.
	open(t, path, unix.O_CREAT|unix.O_RDWR)
	wantContent(t, path, []byte("first"))
	_, err = unix.Pwrite(open(t, path, unix.O_RDONLY), []byte("x"), 0)
	wantErrno(t, err, unix.EBADF)

	truncated := open(t, path, unix.O_RDWR|unix.O_TRUNC)
	wantSize(t, path, 0)
	pwrite(t, truncated, []byte("second, longer"), 0)
	wantContent(t, path, []byte("second, longer"))
	// The descriptor from before goes on with the new content.
	pwrite(t, fd, []byte("SE"), 0)
	wantContent(t, path, []byte("SEcond, longer"))

	// A mode without any permission still lets the creator write.
	sealed := filepath.Join(dir, "sealed")
	fd, err = unix.Open(sealed, unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0)
	must(t, err)
	pwrite(t, fd, []byte("content"), 0)
	wantRead(t, fd, 0, []byte("content"))
	must(t, unix.Close(fd))
	must(t, os.Chmod(sealed, 0o600))
	wantContent(t, sealed, []byte("content"))

	// A file that can't be read by its owner can be written.
	must(t, os.Chmod(sealed, 0o200))
	pwrite(t, open(t, sealed, unix.O_WRONLY), []byte("X"), 2)
	must(t, os.Chmod(sealed, 0o600))
	wantContent(t, sealed, []byte("coXtent"))
	wantNames(t, dir, "file", "sealed")
}

func testAppend(t *testing.T, dir string) {
	path := filepath.Join(dir, "log")
	a, b := open(t, path, unix.O_CREAT|unix.O_WRONLY|unix.O_APPEND), open(t, path, unix.O_WRONLY|unix.O_APPEND)
	var want []byte
	for i := range 200 {
		line := fmt.Appendf(nil, "line %d %s\n", i, strings.Repeat("x", i))
		want = append(want, line...)
		fd := a
		if i%2 == 1 {
			fd = b
		}
		if n, err := unix.Write(fd, line); err != nil || n != len(line) {
			t.Fatalf("write: %d, %v", n, err)
		}
	}
	wantContent(t, path, want)

	// Two that append at once each get their lines whole.
	var wait sync.WaitGroup
	for writer := range 2 {
		wait.Go(func() {
			fd := []int{a, b}[writer]
			for i := range 300 {
				if _, err := unix.Write(fd, fmt.Appendf(nil, "writer %d %03d %s\n", writer, i, strings.Repeat("y", 50))); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
	content, err := os.ReadFile(path)
	must(t, err)
	if !bytes.HasPrefix(content, want) {
		t.Fatal("appending changed what was there")
	}
	next := [2]int{}
	for line := range strings.Lines(string(content[len(want):])) {
		var writer, i int
		if _, err := fmt.Sscanf(line, "writer %d %d ", &writer, &i); err != nil || len(line) != 13+51 || next[writer] != i {
			t.Fatalf("line %q, %v; next were %v", line, err, next)
		}
		next[writer]++
	}
	if next != [2]int{300, 300} {
		t.Errorf("lines %v, want 300 of each", next)
	}
}

// aligned returns memory that O_DIRECT takes.
func aligned(t *testing.T, n int) []byte {
	t.Helper()
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	must(t, err)
	t.Cleanup(func() { _ = unix.Munmap(b) })
	return b
}

func testDirect(t *testing.T, dir string) {
	path := filepath.Join(dir, "direct")
	fd := open(t, path, unix.O_CREAT|unix.O_RDWR|unix.O_DIRECT)
	content := noise(1, 64<<10)
	buffer := aligned(t, len(content))
	copy(buffer, content)
	pwrite(t, fd, buffer, 0)
	clear(buffer)
	if n, err := unix.Pread(fd, buffer, 0); err != nil || n != len(buffer) || !bytes.Equal(buffer, content) {
		t.Fatalf("direct read: %d, %v", n, err)
	}
	// What is written past the cache shows in it, and the other way round.
	cached := open(t, path, unix.O_RDWR)
	wantRead(t, cached, 0, content)
	page := aligned(t, 4096)
	copy(page, noise(2, 4096))
	pwrite(t, fd, page, 8192)
	copy(content[8192:], page)
	wantRead(t, cached, 0, content)
	pwrite(t, cached, noise(3, 4096), 16384)
	copy(content[16384:], noise(3, 4096))
	if n, err := unix.Pread(fd, page, 16384); err != nil || n != 4096 || !bytes.Equal(page, content[16384:][:4096]) {
		t.Fatalf("direct read of what was written through the cache: %d, %v", n, err)
	}
	must(t, unix.Ftruncate(fd, 10000))
	if n, err := unix.Pread(fd, page, 8192); err != nil || n != 10000-8192 || !bytes.Equal(page[:n], content[8192:10000]) {
		t.Fatalf("direct read at the end: %d, %v", n, err)
	}
	wantContent(t, path, content[:10000])
}

func testTmpfile(t *testing.T, dir string) {
	fd := open(t, dir, unix.O_TMPFILE|unix.O_RDWR)
	content := noise(4, 10000)
	pwrite(t, fd, content, 0)
	wantRead(t, fd, 0, content)
	wantNames(t, dir)
	var st unix.Stat_t
	must(t, unix.Fstat(fd, &st))
	if st.Nlink != 0 || st.Size != 10000 {
		t.Errorf("links %d, size %d, want 0 and 10000", st.Nlink, st.Size)
	}
	must(t, os.Mkdir(filepath.Join(dir, "sub"), 0o755))
	linked := filepath.Join(dir, "sub", "linked")
	must(t, unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, linked, unix.AT_SYMLINK_FOLLOW))
	pwrite(t, fd, []byte("more"), 10000)
	wantContent(t, linked, append(slices.Clone(content), "more"...))
	if n := stat(t, linked).Nlink; n != 1 {
		t.Errorf("links %d, want 1", n)
	}
	if err := unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, linked, unix.AT_SYMLINK_FOLLOW); err != unix.EEXIST {
		t.Errorf("link onto an existing file: %v", err)
	}

	// One that is never linked vanishes; with O_EXCL it can't be linked.
	gone := open(t, dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_EXCL)
	pwrite(t, gone, content, 0)
	err := unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", gone), unix.AT_FDCWD, filepath.Join(dir, "no"), unix.AT_SYMLINK_FOLLOW)
	wantErrno(t, err, unix.ENOENT)
	wantNames(t, dir, "sub")

	// Written first and linked later, and the other way round, both without anything in it.
	empty := open(t, dir, unix.O_TMPFILE|unix.O_RDWR)
	path := filepath.Join(dir, "empty")
	must(t, unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", empty), unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW))
	wantContent(t, path, nil)
	pwrite(t, empty, []byte("later"), 0)
	wantContent(t, path, []byte("later"))
}

// testModel compares a file with an array of bytes over random operations around the places where blocks meet.
func testModel(t *testing.T, dir string) {
	path := filepath.Join(dir, "file")
	random := rand.New(rand.NewPCG(1, 2))
	fd := open(t, path, unix.O_CREAT|unix.O_RDWR)
	var model []byte
	const most = 160 << 10
	place := func() int {
		switch random.IntN(4) {
		case 0:
			return random.IntN(most)
		case 1: // where blocks meet
			return max(0, 3044+4068*random.IntN(30)+random.IntN(5)-2)
		case 2: // where pages meet
			return max(0, 4096*random.IntN(30)+random.IntN(5)-2)
		}
		return random.IntN(len(model) + 1)
	}
	grow := func(size int) {
		if size > len(model) {
			model = append(model, make([]byte, size-len(model))...)
		}
	}
	for i := range 600 {
		at, n := place(), 1+random.IntN([]int{10, 5000, 40000}[random.IntN(3)])
		what := ""
		switch random.IntN(12) {
		case 0, 1, 2, 3:
			what = "write"
			b := noise(uint64(i), n)
			pwrite(t, fd, b, int64(at))
			grow(at + n)
			copy(model[at:], b)
		case 4, 5, 6:
			what = "read"
			want := model[min(at, len(model)):min(at+n, len(model))]
			if got := pread(t, fd, n, int64(at)); !bytes.Equal(got, want) {
				t.Fatalf("step %d: read of %d at %d: %s", i, n, at, difference(got, want))
			}
		case 7:
			what = "truncate"
			must(t, unix.Ftruncate(fd, int64(at)))
			grow(at)
			model = model[:at:at]
		case 8:
			what = "punch"
			must(t, unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(at), int64(n)))
			clear(model[min(at, len(model)):min(at+n, len(model))])
		case 9:
			what = "zero"
			must(t, unix.Fallocate(fd, unix.FALLOC_FL_ZERO_RANGE, int64(at), int64(n)))
			grow(at + n)
			clear(model[at : at+n])
		case 10:
			what = "sync"
			must(t, unix.Fsync(fd))
		case 11:
			what = "reopen"
			must(t, unix.Close(fd))
			var err error
			fd, err = unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
			must(t, err)
		}
		if i%20 == 0 || i > 590 {
			if got := pread(t, fd, most*2, 0); !bytes.Equal(got, model) {
				t.Fatalf("after step %d, %s of %d at %d: %s", i, what, n, at, difference(got, model))
			}
		}
	}
	wantSize(t, path, int64(len(model)))
	must(t, unix.Close(fd))
	wantContent(t, path, model)
}

func testMmap(t *testing.T, dir string) {
	path := filepath.Join(dir, "mapped")
	content := noise(5, 20000)
	write(t, path, content)
	fd := open(t, path, unix.O_RDWR)
	m, err := unix.Mmap(fd, 0, len(content), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	if !bytes.Equal(m, content) {
		t.Fatalf("mapping: %s", difference(m, content))
	}
	// What is written through the mapping shows in reads and the other way round, before anything is synced.
	copy(m[4000:], "through the mapping")
	copy(content[4000:], "through the mapping")
	wantRead(t, fd, 0, content)
	pwrite(t, fd, []byte("through the descriptor"), 8180)
	copy(content[8180:], "through the descriptor")
	if !bytes.Equal(m, content) {
		t.Fatalf("mapping after a write: %s", difference(m, content))
	}
	must(t, unix.Msync(m, unix.MS_SYNC))
	copy(m[19990:], "the end...")
	copy(content[19990:], "the end...")
	must(t, unix.Munmap(m))
	must(t, unix.Close(fd))
	wantContent(t, path, content)

	// A mapping outlives its descriptor and the file's name.
	unlinked := filepath.Join(dir, "unlinked")
	write(t, unlinked, content)
	fd = open(t, unlinked, unix.O_RDWR)
	m, err = unix.Mmap(fd, 0, len(content), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	must(t, unix.Close(fd))
	must(t, os.Remove(unlinked))
	m[12345]++
	must(t, unix.Msync(m, unix.MS_SYNC))
	if m[12345] != content[12345]+1 || !bytes.Equal(m[:12345], content[:12345]) {
		t.Error("mapping of an unlinked file has changed")
	}
	must(t, unix.Munmap(m))

	// A private mapping changes nothing.
	fd = open(t, path, unix.O_RDONLY)
	m, err = unix.Mmap(fd, 0, len(content), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	must(t, err)
	clear(m)
	must(t, unix.Munmap(m))
	wantContent(t, path, content)

	// A file that was extended, and is filled by a mapping alone.
	filled := filepath.Join(dir, "filled")
	fd = open(t, filled, unix.O_CREAT|unix.O_RDWR)
	must(t, unix.Ftruncate(fd, 50000))
	m, err = unix.Mmap(fd, 0, 50000, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	want := make([]byte, 50000)
	copy(m[30000:], content)
	copy(want[30000:], content)
	must(t, unix.Munmap(m))
	wantRead(t, fd, 0, want)
	must(t, unix.Fsync(fd))
	wantContent(t, filled, want)
}

func testTruncate(t *testing.T, dir string) {
	path := filepath.Join(dir, "file")
	content := noise(6, 30000)
	for _, from := range []int{0, 1, 3044, 3045, 7112, 7113, 30000} {
		for _, to := range []int{0, 1, 3043, 3044, 3045, 7111, 7112, 7113, 12000, 29999, 30000, 40000} {
			write(t, path, content[:from])
			must(t, unix.Truncate(path, int64(to)))
			want := make([]byte, to)
			copy(want, content[:from])
			wantSize(t, path, int64(to))
			wantContent(t, path, want)
			if t.Failed() {
				t.Fatalf("truncate from %d to %d", from, to)
			}
		}
	}
	// Down and up again gives zeros, with the file open and with data not written back yet.
	fd := open(t, path, unix.O_RDWR|unix.O_TRUNC)
	pwrite(t, fd, content, 0)
	must(t, unix.Ftruncate(fd, 5000))
	must(t, unix.Ftruncate(fd, 20000))
	want := make([]byte, 20000)
	copy(want, content[:5000])
	wantRead(t, fd, 0, want)
	pwrite(t, fd, []byte("end"), 60000)
	must(t, unix.Fsync(fd))
	want = append(want, make([]byte, 40003)...)
	copy(want[60000:], "end")
	wantContent(t, path, want)

	wantErrno(t, unix.Truncate(path, -1), unix.EINVAL)
	wantErrno(t, unix.Truncate(dir, 0), unix.EISDIR)
	wantErrno(t, unix.Ftruncate(open(t, path, unix.O_RDONLY), 0), unix.EINVAL)
}

func testFallocate(t *testing.T, dir string) {
	const (
		keep  = unix.FALLOC_FL_KEEP_SIZE
		punch = unix.FALLOC_FL_PUNCH_HOLE
		zero  = unix.FALLOC_FL_ZERO_RANGE
	)
	content := noise(7, 100000)
	for _, test := range []struct {
		name       string
		mode       uint32
		offset, n  int64
		size       int64
		zeroed     bool
		descriptor int
	}{
		{"allocate within", 0, 1000, 5000, 100000, false, unix.O_RDWR},
		{"allocate beyond", 0, 90000, 50001, 140001, false, unix.O_RDWR},
		{"allocate far beyond", 0, 300000, 10, 300010, false, unix.O_RDWR},
		{"keep size", keep, 90000, 50000, 100000, false, unix.O_RDWR},
		{"punch within a block", punch | keep, 5000, 100, 100000, true, unix.O_RDWR},
		{"punch blocks", punch | keep, 3000, 50000, 100000, true, unix.O_WRONLY},
		{"punch to the end", punch | keep, 60001, 100000, 100000, true, unix.O_RDWR},
		{"punch everything", punch | keep, 0, 100000, 100000, true, unix.O_RDWR},
		{"punch beyond", punch | keep, 200000, 5000, 100000, true, unix.O_RDWR},
		{"zero", zero, 3000, 50000, 100000, true, unix.O_RDWR},
		{"zero beyond", zero, 95000, 50000, 145000, true, unix.O_RDWR},
		{"zero and keep size", zero | keep, 95000, 50000, 100000, true, unix.O_RDWR},
	} {
		path := filepath.Join(dir, strings.ReplaceAll(test.name, " ", "-"))
		write(t, path, content)
		fd := open(t, path, test.descriptor)
		if err := unix.Fallocate(fd, test.mode, test.offset, test.n); err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		want := make([]byte, test.size)
		copy(want, content)
		if test.zeroed {
			clear(want[min(test.offset, test.size):min(test.offset+test.n, test.size)])
		}
		wantSize(t, path, test.size)
		wantContent(t, path, want)
		must(t, unix.Close(fd))
		wantContent(t, path, want)
	}
	fd := open(t, filepath.Join(dir, "zero"), unix.O_RDWR)
	wantErrno(t, unix.Fallocate(fd, 0, -1, 10), unix.EINVAL)
	wantErrno(t, unix.Fallocate(fd, 0, 0, 0), unix.EINVAL)
	wantErrno(t, unix.Fallocate(fd, punch, 0, 10), unix.EOPNOTSUPP, unix.EINVAL)
	wantErrno(t, unix.Fallocate(open(t, filepath.Join(dir, "zero"), unix.O_RDONLY), 0, 0, 10), unix.EBADF)

	// Punching gives space back.
	path := filepath.Join(dir, "large")
	write(t, path, noise(8, 1<<20))
	fd = open(t, path, unix.O_RDWR)
	must(t, unix.Fsync(fd))
	before := stat(t, path).Blocks
	must(t, unix.Fallocate(fd, punch|keep, 100000, 800000))
	must(t, unix.Fsync(fd))
	if after := stat(t, path).Blocks; after > before-700000/512 {
		t.Errorf("punching 800,000 bytes left %d of %d blocks", after, before)
	}
	want := noise(8, 1<<20)
	clear(want[100000:900000])
	wantContent(t, path, want)

	// Writing into the hole works, block by block and across its ends.
	for _, at := range []int{99990, 200000, 400001, 899990} {
		pwrite(t, fd, []byte("in the hole, or partly so"), int64(at))
		copy(want[at:], "in the hole, or partly so")
	}
	wantContent(t, path, want)
}

func testSeekHole(t *testing.T, dir string) {
	path := filepath.Join(dir, "sparse")
	fd := open(t, path, unix.O_CREAT|unix.O_RDWR)
	const size = 4 << 20
	must(t, unix.Ftruncate(fd, size))
	content := make([]byte, size)
	for _, at := range []int{0, 1 << 20, 3<<20 + 12345} {
		pwrite(t, fd, noise(9, 20000), int64(at))
		copy(content[at:], noise(9, 20000))
	}
	// Before and after the data has reached the disk.
	for round := range 2 {
		if round == 1 {
			must(t, unix.Fsync(fd))
		}
		holes := int64(0)
		for offset := int64(0); offset < size; {
			hole, err := unix.Seek(fd, offset, unix.SEEK_HOLE)
			must(t, err)
			if hole < offset || hole > size {
				t.Fatalf("SEEK_HOLE from %d is %d", offset, hole)
			}
			data, err := unix.Seek(fd, hole, unix.SEEK_DATA)
			if err == unix.ENXIO {
				data = size
			} else if err != nil {
				t.Fatal(err)
			}
			if data < hole || data > size {
				t.Fatalf("SEEK_DATA from %d is %d", hole, data)
			}
			if i := bytes.IndexFunc(content[hole:data], func(r rune) bool { return r != 0 }); i >= 0 {
				t.Fatalf("there is data at %d, in what should be a hole from %d to %d", hole+int64(i), hole, data)
			}
			holes += data - hole
			if hole == data && data != size {
				t.Fatalf("no hole at %d, where there should be one", hole)
			}
			offset = data
		}
		if holes < size-3*20000-7*4096*2 {
			t.Errorf("round %d: holes of %d bytes in all, want almost %d", round, holes, size)
		}
	}
	_, err := unix.Seek(fd, size, unix.SEEK_DATA)
	wantErrno(t, err, unix.ENXIO)
	_, err = unix.Seek(fd, size+1, unix.SEEK_HOLE)
	wantErrno(t, err, unix.ENXIO)
	if at, err := unix.Seek(fd, 100, unix.SEEK_DATA); at != 100 || err != nil {
		t.Errorf("SEEK_DATA from within data: %d, %v", at, err)
	}
	if used := stat(t, path).Blocks * 512; used > 3*20000+20*4096 {
		t.Errorf("a sparse file takes %d bytes", used)
	}
	wantContent(t, path, content)

	dense := filepath.Join(dir, "dense")
	write(t, dense, noise(10, 30000))
	fd = open(t, dense, unix.O_RDONLY)
	if at, err := unix.Seek(fd, 0, unix.SEEK_HOLE); at != 30000 || err != nil {
		t.Errorf("SEEK_HOLE in a file without: %d, %v", at, err)
	}
	if at, err := unix.Seek(fd, 29999, unix.SEEK_DATA); at != 29999 || err != nil {
		t.Errorf("SEEK_DATA in the last byte: %d, %v", at, err)
	}
}

func testCopyFileRange(t *testing.T, dir string) {
	source, target := filepath.Join(dir, "source"), filepath.Join(dir, "target")
	content := noise(11, 300000)
	write(t, source, content)
	write(t, target, nil)
	in, out := open(t, source, unix.O_RDWR), open(t, target, unix.O_RDWR)
	copyAll := func(in int, from int64, out int, to int64, n int) int {
		t.Helper()
		done := 0
		for done < n {
			k, err := unix.CopyFileRange(in, &from, out, &to, n-done, 0)
			if err != nil {
				t.Fatalf("copy_file_range: %v", err)
			}
			if k == 0 {
				break
			}
			done += k
		}
		return done
	}
	if n := copyAll(in, 0, out, 0, len(content)); n != len(content) {
		t.Errorf("copied %d bytes", n)
	}
	wantContent(t, target, content)
	// At odd places, beyond the end of the target, and short at the end of the source.
	want := slices.Clone(content)
	copyAll(in, 777, out, 5001, 12345)
	copy(want[5001:], content[777:][:12345])
	copyAll(in, 100, out, 400001, 50000)
	want = append(want, make([]byte, 450001-len(want))...)
	copy(want[400001:], content[100:][:50000])
	wantContent(t, target, want)
	if n := copyAll(in, 299000, out, 0, 5000); n != 1000 {
		t.Errorf("copied %d bytes, want the last 1000", n)
	}
	copy(want, content[299000:])
	if n, err := unix.CopyFileRange(in, new(int64(300000)), out, new(int64(0)), 10, 0); n != 0 || err != nil {
		t.Errorf("copy from the end: %d, %v", n, err)
	}
	wantContent(t, target, want)
	// Within one file, what was written a moment ago.
	pwrite(t, in, []byte("just written"), 10)
	copy(content[10:], "just written")
	copyAll(in, 0, in, 200000, 60000)
	copy(content[200000:], content[:60000])
	wantContent(t, source, content)
	_, err := unix.CopyFileRange(in, new(int64(0)), in, new(int64(100)), 1000, 0)
	wantErrno(t, err, unix.EINVAL)
	_, err = unix.CopyFileRange(in, new(int64(0)), open(t, target, unix.O_RDONLY), new(int64(0)), 1000, 0)
	wantErrno(t, err, unix.EBADF)
	// Through the descriptors' own offsets.
	_, err = unix.Seek(in, 50, io.SeekStart)
	must(t, err)
	_, err = unix.Seek(out, 0, io.SeekStart)
	must(t, err)
	n, err := unix.CopyFileRange(in, nil, out, nil, 100, 0)
	must(t, err)
	copy(want, content[50:50+n])
	wantContent(t, target, want)
}

func testSync(t *testing.T, dir string) {
	path := filepath.Join(dir, "file")
	fd := open(t, path, unix.O_CREAT|unix.O_RDWR)
	must(t, unix.Fsync(fd))
	pwrite(t, fd, noise(12, 9000), 0)
	must(t, unix.Fdatasync(fd))
	pwrite(t, fd, noise(13, 9000), 9000)
	must(t, unix.Fsync(fd))
	must(t, unix.Syncfs(fd))
	d := open(t, dir, unix.O_RDONLY|unix.O_DIRECTORY)
	must(t, unix.Fsync(d))
	must(t, unix.Fdatasync(d))
	must(t, unix.Fsync(open(t, path, unix.O_RDONLY)))
	synchronous := open(t, path, unix.O_RDWR|unix.O_SYNC)
	pwrite(t, synchronous, []byte("synchronous"), 100)
	wantContent(t, path, slices.Concat(noise(12, 9000)[:100], []byte("synchronous"), noise(12, 9000)[111:], noise(13, 9000)))
}

func testRename(t *testing.T, dir string) {
	in := func(elements ...string) string { return filepath.Join(append([]string{dir}, elements...)...) }
	for _, sub := range []string{"d1", "d2", "d1/inner", "d1/inner/deep", "full", "empty"} {
		must(t, os.Mkdir(in(sub), 0o755))
	}
	a, b := noise(14, 5000), noise(15, 6000)
	write(t, in("a"), a)
	write(t, in("b"), b)
	write(t, in("d1/inner/deep/file"), a)
	write(t, in("full/file"), b)
	inode := stat(t, in("a")).Ino

	// Plain, in a directory and across, with the file open.
	fd := open(t, in("a"), unix.O_RDWR)
	must(t, unix.Rename(in("a"), in("a2")))
	wantGone(t, in("a"))
	wantContent(t, in("a2"), a)
	must(t, unix.Rename(in("a2"), in("d2/a3")))
	wantContent(t, in("d2/a3"), a)
	pwrite(t, fd, []byte("still open"), 0)
	copy(a, "still open")
	wantContent(t, in("d2/a3"), a)
	if got := stat(t, in("d2/a3")).Ino; got != inode {
		t.Errorf("inode %d, want %d", got, inode)
	}

	// Onto an existing file, which stays readable for who has it open.
	old := open(t, in("b"), unix.O_RDONLY)
	must(t, unix.Rename(in("d2/a3"), in("b")))
	wantContent(t, in("b"), a)
	wantRead(t, old, 0, b)
	wantGone(t, in("d2/a3"))

	// A directory, and everything beneath it.
	must(t, unix.Rename(in("d1"), in("d2/d1")))
	wantContent(t, in("d2/d1/inner/deep/file"), noise(14, 5000))
	must(t, unix.Rename(in("d2/d1/inner/deep"), in("deep")))
	wantContent(t, in("deep/file"), noise(14, 5000))
	pwrite(t, open(t, in("deep/file"), unix.O_WRONLY), []byte("xyz"), 4999)
	wantContent(t, in("deep/file"), append(noise(14, 4999), "xyz"...))
	wantGone(t, in("d1"))

	// A directory onto an empty one; refusals.
	must(t, unix.Rename(in("deep"), in("empty")))
	wantContent(t, in("empty/file"), append(noise(14, 4999), "xyz"...))
	wantErrno(t, unix.Rename(in("empty"), in("full")), unix.ENOTEMPTY, unix.EEXIST)
	wantErrno(t, unix.Rename(in("b"), in("full")), unix.EISDIR)
	wantErrno(t, unix.Rename(in("full"), in("b")), unix.ENOTDIR)
	wantErrno(t, unix.Rename(in("d2"), in("d2/d1/inner/d2")), unix.EINVAL)
	wantErrno(t, unix.Rename(in("none"), in("any")), unix.ENOENT)
	wantErrno(t, unix.Rename(in("b"), in("none/b")), unix.ENOENT)
	must(t, unix.Rename(in("b"), in("b")))
	must(t, unix.Rename(in("full"), in("full")))

	// Of two links to one file, nothing happens.
	must(t, os.Link(in("b"), in("c")))
	must(t, unix.Rename(in("b"), in("c")))
	wantNames(t, dir, "b", "c", "d2", "empty", "full")
	wantContent(t, in("b"), a)

	// Symlinks and FIFOs.
	must(t, os.Symlink("target", in("link")))
	must(t, unix.Mkfifo(in("fifo"), 0o600))
	must(t, unix.Rename(in("link"), in("d2/link")))
	must(t, unix.Rename(in("fifo"), in("d2/fifo")))
	if target, err := os.Readlink(in("d2/link")); target != "target" || err != nil {
		t.Errorf("link %q, %v", target, err)
	}
	// Onto one another.
	must(t, unix.Rename(in("d2/link"), in("c")))
	if target, err := os.Readlink(in("c")); target != "target" || err != nil {
		t.Errorf("link %q, %v", target, err)
	}

	// An empty file, one to a name of 255 bytes and back.
	write(t, in("nothing"), nil)
	long := in(strings.Repeat("n", 255))
	must(t, unix.Rename(in("nothing"), long))
	wantContent(t, long, nil)
	must(t, unix.Rename(in("b"), long))
	wantContent(t, long, a)
	must(t, unix.Rename(long, in("b")))
	wantContent(t, in("b"), a)
	must(t, unix.Rename(in("d2"), long))
	wantContent(t, in("empty/file"), append(noise(14, 4999), "xyz"...))
	must(t, unix.Rename(long, in("d2")))
	wantNames(t, dir, "b", "c", "d2", "empty", "full")
}

func testRenameFlags(t *testing.T, dir string) {
	in := func(elements ...string) string { return filepath.Join(append([]string{dir}, elements...)...) }
	renameat2 := func(a, b string, flags uint) error {
		return unix.Renameat2(unix.AT_FDCWD, in(a), unix.AT_FDCWD, in(b), flags)
	}
	for _, sub := range []string{"d1", "d2", "d1/sub"} {
		must(t, os.Mkdir(in(sub), 0o755))
	}
	a, b := noise(16, 5000), noise(17, 6000)
	write(t, in("a"), a)
	write(t, in("b"), b)
	write(t, in("d1/x"), a)
	write(t, in("d1/sub/y"), a)
	write(t, in("d2/x"), b)

	wantErrno(t, renameat2("a", "b", unix.RENAME_NOREPLACE), unix.EEXIST)
	wantErrno(t, renameat2("d1", "d2", unix.RENAME_NOREPLACE), unix.EEXIST)
	wantContent(t, in("a"), a)
	wantContent(t, in("b"), b)
	must(t, renameat2("a", "d2/new", unix.RENAME_NOREPLACE))
	wantContent(t, in("d2/new"), a)
	must(t, renameat2("d2/new", "a", unix.RENAME_NOREPLACE))
	wantErrno(t, renameat2("a", "none", unix.RENAME_EXCHANGE), unix.ENOENT)
	wantErrno(t, renameat2("a", "b", unix.RENAME_EXCHANGE|unix.RENAME_NOREPLACE), unix.EINVAL)

	// Files in one directory and in two, directories, a directory and a file.
	must(t, renameat2("a", "b", unix.RENAME_EXCHANGE))
	wantContent(t, in("a"), b)
	wantContent(t, in("b"), a)
	must(t, renameat2("a", "d1/x", unix.RENAME_EXCHANGE))
	wantContent(t, in("a"), a)
	wantContent(t, in("d1/x"), b)
	must(t, renameat2("d1", "d2", unix.RENAME_EXCHANGE))
	wantNames(t, in("d1"), "x")
	wantNames(t, in("d2"), "sub", "x")
	wantContent(t, in("d1/x"), b)
	wantContent(t, in("d2/sub/y"), a)
	must(t, renameat2("d2/sub", "a", unix.RENAME_EXCHANGE))
	wantContent(t, in("a/y"), a)
	wantContent(t, in("d2/sub"), a)
	must(t, renameat2("a", "d1", unix.RENAME_EXCHANGE))
	wantContent(t, in("d1/y"), a)
	wantContent(t, in("a/x"), b)
	pwrite(t, open(t, in("a/x"), unix.O_RDWR), []byte("written"), 3)
	copy(b[3:], "written")
	wantContent(t, in("a/x"), b)
	wantErrno(t, renameat2("d2", "d2/sub", unix.RENAME_EXCHANGE), unix.EINVAL)

	must(t, os.Symlink("over there", in("link")))
	must(t, renameat2("link", "b", unix.RENAME_EXCHANGE))
	if target, err := os.Readlink(in("b")); target != "over there" || err != nil {
		t.Errorf("link %q, %v", target, err)
	}
	wantContent(t, in("link"), a)
	long := strings.Repeat("é", 127)
	write(t, in(long), []byte("long"))
	must(t, renameat2(long, "link", unix.RENAME_EXCHANGE))
	wantContent(t, in(long), a)
	wantContent(t, in("link"), []byte("long"))
	wantNames(t, dir, "a", "b", "d1", "d2", "link", long)
}

func testLink(t *testing.T, dir string) {
	content := noise(18, 9000)
	path := filepath.Join(dir, "file")
	write(t, path, content)
	for i := range 3 {
		must(t, os.Mkdir(filepath.Join(dir, fmt.Sprint("dir", i)), 0o755))
	}
	name := func(i int) string { return filepath.Join(dir, fmt.Sprint("dir", i%3), fmt.Sprint("link", i)) }
	for i := range 300 {
		if err := os.Link(path, name(i)); err != nil {
			t.Fatalf("link %d: %v", i, err)
		}
	}
	wantLinks := func(n uint64) {
		t.Helper()
		st, other := stat(t, path), stat(t, name(200))
		if st.Nlink != n || other.Nlink != n || st.Ino != other.Ino {
			t.Errorf("links %d and %d, want %d; inodes %d and %d", st.Nlink, other.Nlink, n, st.Ino, other.Ino)
		}
	}
	wantLinks(301)
	for i := range 300 {
		wantContent(t, name(i), content)
	}
	pwrite(t, open(t, name(7), unix.O_WRONLY), []byte("by link 7"), 5000)
	copy(content[5000:], "by link 7")
	wantContent(t, path, content)
	wantContent(t, name(299), content)

	for i := range 100 {
		must(t, os.Remove(name(i)))
	}
	wantLinks(201)
	// Of those that are left, one is renamed, one exchanged, one replaced, one moved to another directory with its directory's rename.
	must(t, os.Rename(name(100), name(0)))
	must(t, os.Rename(name(101), name(2)))
	wantContent(t, name(0), content)
	wantContent(t, name(2), content)
	write(t, filepath.Join(dir, "other"), []byte("other"))
	must(t, unix.Renameat2(unix.AT_FDCWD, filepath.Join(dir, "other"), unix.AT_FDCWD, name(102), unix.RENAME_EXCHANGE))
	wantContent(t, name(102), []byte("other"))
	wantContent(t, filepath.Join(dir, "other"), content)
	must(t, os.Rename(filepath.Join(dir, "other"), name(102)))
	wantLinks(201)
	must(t, os.Rename(filepath.Join(dir, "dir0"), filepath.Join(dir, "renamed")))
	wantContent(t, filepath.Join(dir, "renamed", "link0"), content)
	must(t, os.Remove(path))
	wantContent(t, name(200), content)
	if n := stat(t, name(200)).Nlink; n != 200 {
		t.Errorf("links %d, want 200", n)
	}

	// Down to one link, and up again.
	one, two := filepath.Join(dir, "one"), filepath.Join(dir, "two")
	write(t, one, []byte("content"))
	must(t, os.Link(one, two))
	must(t, os.Remove(one))
	wantContent(t, two, []byte("content"))
	must(t, os.Link(two, one))
	must(t, os.Remove(two))
	wantContent(t, one, []byte("content"))

	// Other kinds, and refusals.
	must(t, os.Symlink("target", filepath.Join(dir, "symlink")))
	must(t, os.Link(filepath.Join(dir, "symlink"), filepath.Join(dir, "symlink2")))
	if target, err := os.Readlink(filepath.Join(dir, "symlink2")); target != "target" || err != nil {
		t.Errorf("symlink %q, %v", target, err)
	}
	must(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	must(t, os.Link(filepath.Join(dir, "fifo"), filepath.Join(dir, "fifo2")))
	wantErrno(t, os.Link(one, name(200)), unix.EEXIST)
	wantErrno(t, os.Link(filepath.Join(dir, "dir1"), filepath.Join(dir, "dir4")), unix.EPERM)
	wantErrno(t, os.Link(filepath.Join(dir, "none"), filepath.Join(dir, "none2")), unix.ENOENT)
}

func testUnlinkOpen(t *testing.T, dir string) {
	path := filepath.Join(dir, "file")
	content := noise(19, 12000)
	write(t, path, content)
	fd := open(t, path, unix.O_RDWR)
	must(t, os.Remove(path))
	wantNames(t, dir)
	_, err := os.Stat(path)
	wantErrno(t, err, unix.ENOENT)
	wantRead(t, fd, 0, content)
	pwrite(t, fd, []byte("after"), 11998)
	wantRead(t, fd, 11990, append(content[11990:11998:11998], "after"...))
	must(t, unix.Ftruncate(fd, 100))
	must(t, unix.Ftruncate(fd, 5000))
	wantRead(t, fd, 0, append(content[:100:100], make([]byte, 4900)...))
	must(t, unix.Fsync(fd))
	must(t, unix.Fchmod(fd, 0o640))
	must(t, unix.Fallocate(fd, 0, 0, 8000))
	var st unix.Stat_t
	must(t, unix.Fstat(fd, &st))
	if st.Nlink != 0 || st.Size != 8000 || st.Mode&0o777 != 0o640 {
		t.Errorf("links %d, size %d, mode %o", st.Nlink, st.Size, st.Mode)
	}
	// The name is free for another.
	write(t, path, []byte("new"))
	wantContent(t, path, []byte("new"))
	wantRead(t, fd, 0, content[:100])
	// One that other names lead to loses only the name.
	other := filepath.Join(dir, "other")
	must(t, os.Link(path, other))
	linked := open(t, path, unix.O_RDWR)
	must(t, os.Remove(path))
	pwrite(t, linked, []byte("newer"), 0)
	wantContent(t, other, []byte("newer"))
	// An open directory.
	sub := filepath.Join(dir, "sub")
	must(t, os.Mkdir(sub, 0o755))
	d := open(t, sub, unix.O_RDONLY|unix.O_DIRECTORY)
	must(t, os.Remove(sub))
	_, err = unix.Openat(d, "new", unix.O_CREAT|unix.O_RDWR, 0o644)
	wantErrno(t, err, unix.ENOENT)
	wantNames(t, dir, "other")
}

func testSymlink(t *testing.T, dir string) {
	in := func(name string) string { return filepath.Join(dir, name) }
	for name, target := range map[string]string{
		"short": "x", "dangling": "none/such", "absolute": "/etc/hostname", "parent": "../..", "utf8": "zweite Datei – ünï",
		"long": strings.Repeat("long/", 600), "bytes": "\x01\xff\n\\", "255": strings.Repeat("t", 255), "longest": strings.Repeat("m", 3039),
	} {
		if err := os.Symlink(target, in(name)); err != nil {
			t.Errorf("symlink of %d bytes: %v", len(target), err)
			continue
		}
		if got, err := os.Readlink(in(name)); got != target || err != nil {
			t.Errorf("target %q, %v, want %q", got, err, target)
		}
		if st := stat(t, in(name)); st.Size != int64(len(target)) || st.Mode&unix.S_IFMT != unix.S_IFLNK {
			t.Errorf("%s: size %d, want %d; mode %o", name, st.Size, len(target), st.Mode)
		}
	}
	_, err := os.Stat(in("dangling"))
	wantErrno(t, err, unix.ENOENT)
	wantErrno(t, os.Symlink("y", in("short")), unix.EEXIST)
	wantErrno(t, unix.Symlink("", in("nothing")), unix.ENOENT)
	wantErrno(t, unix.Symlink(strings.Repeat("x", 5000), in("toolong")), unix.ENAMETOOLONG)

	// Through links: files are read and made, directories walked.
	must(t, os.Symlink("sub/file", in("tofile")))
	must(t, os.Symlink("sub", in("todir")))
	must(t, os.Mkdir(in("sub"), 0o755))
	write(t, in("tofile"), []byte("made through a link"))
	wantContent(t, in("sub/file"), []byte("made through a link"))
	wantContent(t, in("todir/file"), []byte("made through a link"))
	_, err = unix.Open(in("tofile"), unix.O_RDONLY|unix.O_NOFOLLOW, 0)
	wantErrno(t, err, unix.ELOOP)
	must(t, os.Symlink("loop", in("loop")))
	_, err = os.Stat(in("loop"))
	wantErrno(t, err, unix.ELOOP)
	must(t, os.Remove(in("tofile")))
	wantContent(t, in("sub/file"), []byte("made through a link"))
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, in("short"), []unix.Timespec{{Sec: 1}, {Sec: 1234567890, Nsec: 987654321}}, unix.AT_SYMLINK_NOFOLLOW))
	if got := stat(t, in("short")).Mtim; got != (unix.Timespec{Sec: 1234567890, Nsec: 987654321}) {
		t.Errorf("the link's time is %v", got)
	}
}

func testFIFOAndSocket(t *testing.T, dir string) {
	fifo := filepath.Join(dir, "fifo")
	must(t, unix.Mkfifo(fifo, 0o640))
	if st := stat(t, fifo); st.Mode != unix.S_IFIFO|0o640 {
		t.Errorf("mode %o", st.Mode)
	}
	fd := open(t, fifo, unix.O_RDWR|unix.O_NONBLOCK)
	if _, err := unix.Write(fd, []byte("through the FIFO")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	if n, err := unix.Read(open(t, fifo, unix.O_RDONLY|unix.O_NONBLOCK), b); err != nil || string(b[:n]) != "through the FIFO" {
		t.Errorf("read %q, %v", b[:max(n, 0)], err)
	}

	// Sockets' paths have at most 107 bytes.
	d := open(t, dir, unix.O_RDONLY|unix.O_DIRECTORY)
	address := fmt.Sprintf("/proc/self/fd/%d/socket", d)
	listener, err := net.Listen("unix", address)
	must(t, err)
	go func() {
		if c, err := listener.Accept(); err == nil {
			_, _ = c.Write([]byte("through the socket")) // the reader sees
			_ = c.Close()
		}
	}()
	c, err := net.DialTimeout("unix", address, patience)
	must(t, err)
	text, err := io.ReadAll(c)
	if string(text) != "through the socket" || err != nil {
		t.Errorf("read %q, %v", text, err)
	}
	_ = c.Close()
	if st := stat(t, filepath.Join(dir, "socket")); st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		t.Errorf("mode %o", st.Mode)
	}
	_ = listener.Close() // removes it
	wantNames(t, dir, "fifo")
	must(t, unix.Mknod(filepath.Join(dir, "node"), unix.S_IFSOCK|0o600, 0))
	if st := stat(t, filepath.Join(dir, "node")); st.Mode != unix.S_IFSOCK|0o600 {
		t.Errorf("mode %o", st.Mode)
	}
	// mknod makes regular files too.
	regular := filepath.Join(dir, "regular")
	must(t, unix.Mknod(regular, unix.S_IFREG|0o600, 0))
	wantContent(t, regular, nil)
	write(t, regular, noise(20, 5000))
	wantContent(t, regular, noise(20, 5000))
	if !isRoot {
		wantErrno(t, unix.Mknod(filepath.Join(dir, "device"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))), unix.EPERM)
	}
}

func testDevice(t *testing.T, dir string) {
	for name, mode := range map[string]uint32{"char": unix.S_IFCHR | 0o640, "block": unix.S_IFBLK | 0o600} {
		path := filepath.Join(dir, name)
		must(t, unix.Mknod(path, mode, int(unix.Mkdev(259, 70000))))
		if st := stat(t, path); st.Mode != mode || st.Rdev != unix.Mkdev(259, 70000) {
			t.Errorf("%s: mode %o, device %x", name, st.Mode, st.Rdev)
		}
	}
}

func testDirectory(t *testing.T, dir string) {
	sub := filepath.Join(dir, "sub")
	must(t, unix.Mkdir(sub, 0o777))
	if st := stat(t, sub); st.Mode != unix.S_IFDIR|0o755 || st.Nlink != 2 {
		t.Errorf("mode %o, links %d, want 40755 and 2", st.Mode, st.Nlink)
	}
	wantErrno(t, unix.Mkdir(sub, 0o777), unix.EEXIST)
	wantErrno(t, unix.Mkdir(filepath.Join(dir, "none", "sub"), 0o777), unix.ENOENT)
	for i := range 3 {
		must(t, os.Mkdir(filepath.Join(sub, fmt.Sprint(i)), 0o700))
	}
	if n := stat(t, sub).Nlink; n != 5 {
		t.Errorf("links %d, want 5", n)
	}
	wantNames(t, sub, "0", "1", "2")
	wantErrno(t, unix.Rmdir(sub), unix.ENOTEMPTY)
	wantErrno(t, unix.Rmdir(sub+"/."), unix.EINVAL)
	wantErrno(t, unix.Rmdir(filepath.Join(dir, "none")), unix.ENOENT)
	wantErrno(t, unix.Unlink(sub), unix.EISDIR)
	for i := range 3 {
		must(t, os.Remove(filepath.Join(sub, fmt.Sprint(i))))
	}
	if n := stat(t, sub).Nlink; n != 2 {
		t.Errorf("links %d, want 2", n)
	}
	write(t, filepath.Join(sub, "file"), []byte("x"))
	wantErrno(t, unix.Rmdir(sub), unix.ENOTEMPTY)
	wantErrno(t, unix.Rmdir(filepath.Join(sub, "file")), unix.ENOTDIR)
	must(t, os.Remove(filepath.Join(sub, "file")))
	must(t, unix.Rmdir(sub))
	wantGone(t, sub)
	// The same name again, and a directory whose mode lets nobody in.
	must(t, os.Mkdir(sub, 0o755))
	wantNames(t, sub)
	closed := filepath.Join(dir, "closed")
	must(t, unix.Mkdir(closed, 0))
	if st := stat(t, closed); st.Mode != unix.S_IFDIR {
		t.Errorf("mode %o", st.Mode)
	}
	must(t, os.Remove(closed))
	// A directory's set-group-ID bit is inherited by directories.
	must(t, unix.Chmod(sub, 0o2755))
	inner := filepath.Join(sub, "inner")
	must(t, os.Mkdir(inner, 0o755))
	if st := stat(t, inner); st.Mode&0o7777 != 0o2755 {
		t.Errorf("mode %o, want 2755", st.Mode&0o7777)
	}
	// A directory is not renamed, removed or listed as a file.
	_, err := os.ReadFile(sub)
	wantErrno(t, err, unix.EISDIR)
}

func testChmod(t *testing.T, dir string) {
	path := filepath.Join(dir, "file")
	write(t, path, noise(21, 4000))
	for _, mode := range []uint32{0o600, 0o7777, 0, 0o4755, 0o2711, 0o1644, 0o444} {
		must(t, unix.Chmod(path, mode))
		if got := stat(t, path).Mode & 0o7777; got != mode {
			t.Errorf("mode %o, want %o", got, mode)
		}
	}
	if !isRoot {
		_, err := unix.Open(path, unix.O_RDWR, 0)
		wantErrno(t, err, unix.EACCES)
		must(t, unix.Chmod(path, 0))
		_, err = unix.Open(path, unix.O_RDONLY, 0)
		wantErrno(t, err, unix.EACCES)
		wantErrno(t, unix.Access(path, unix.R_OK), unix.EACCES)
		wantErrno(t, unix.Chown(path, 0, 0), unix.EPERM)
		closed := filepath.Join(dir, "closed")
		must(t, os.Mkdir(closed, 0o700))
		write(t, filepath.Join(closed, "file"), []byte("x"))
		must(t, os.Chmod(closed, 0o400))
		_, err = os.Stat(filepath.Join(closed, "file"))
		wantErrno(t, err, unix.EACCES)
		must(t, os.Chmod(closed, 0o700))
	}
	must(t, unix.Chmod(path, 0o644))
	fd := open(t, path, unix.O_RDONLY)
	must(t, unix.Fchmod(fd, 0o640))
	if got := stat(t, path).Mode & 0o7777; got != 0o640 {
		t.Errorf("mode %o, want 640", got)
	}
	wantContent(t, path, noise(21, 4000))
	// Who has the file open keeps it.
	rw := open(t, path, unix.O_RDWR)
	must(t, unix.Chmod(path, 0))
	pwrite(t, rw, []byte("kept"), 0)
	wantRead(t, rw, 0, append([]byte("kept"), noise(21, 4000)[4:]...))
	must(t, unix.Chmod(path, 0o600))
	// Writing takes the set-user-ID bit, unless root writes.
	program := filepath.Join(dir, "program")
	write(t, program, []byte("x"))
	must(t, unix.Chmod(program, 0o4755))
	if !isRoot {
		write(t, program, []byte("y"))
		if got := stat(t, program).Mode & 0o7777; got != 0o755 {
			t.Errorf("mode %o after a write, want 755", got)
		}
	}
	// Executables run.
	script := filepath.Join(dir, "script")
	write(t, script, []byte("#!/bin/sh\necho it runs\n"))
	must(t, os.Chmod(script, 0o755))
	if out := run(t, dir, script); out != "it runs\n" {
		t.Errorf("script printed %q", out)
	}
}

func testChown(t *testing.T, dir string) {
	path, sub, link := filepath.Join(dir, "file"), filepath.Join(dir, "sub"), filepath.Join(dir, "link")
	content := noise(22, 9000)
	write(t, path, content)
	must(t, os.Mkdir(sub, 0o755))
	must(t, os.Symlink("file", link))
	wantOwner := func(path string, uid, gid uint32) {
		t.Helper()
		if st := stat(t, path); st.Uid != uid || st.Gid != gid {
			t.Errorf("%s: owner %d:%d, want %d:%d", path, st.Uid, st.Gid, uid, gid)
		}
	}
	fd := open(t, path, unix.O_RDWR)
	must(t, unix.Chown(path, 1234, 5678))
	wantOwner(path, 1234, 5678)
	wantContent(t, path, content)
	pwrite(t, fd, []byte("still open"), 0)
	copy(content, "still open")
	must(t, unix.Fchown(fd, -1, 99))
	wantOwner(path, 1234, 99)
	wantContent(t, path, content)
	must(t, unix.Chown(path, 4321, -1))
	must(t, unix.Chown(sub, 1234, 1234))
	must(t, unix.Lchown(link, 77, 78))
	wantOwner(path, 4321, 99)
	wantOwner(sub, 1234, 1234)
	wantOwner(link, 77, 78)
	write(t, filepath.Join(sub, "file"), content)
	wantOwner(filepath.Join(sub, "file"), 0, 0)

	// With many links, and of an empty file that is written after.
	for i := range 20 {
		must(t, os.Link(path, filepath.Join(sub, fmt.Sprint(i))))
	}
	must(t, unix.Chown(filepath.Join(sub, "7"), 55, 66))
	wantOwner(path, 55, 66)
	wantContent(t, filepath.Join(sub, "19"), content)
	empty := filepath.Join(dir, "empty")
	write(t, empty, nil)
	must(t, unix.Chown(empty, 1234, 1234))
	write(t, empty, content)
	wantContent(t, empty, content)
	wantOwner(empty, 1234, 1234)

	// It takes the set-user-ID bit.
	must(t, unix.Chmod(path, 0o6755))
	must(t, unix.Chown(path, 56, 66))
	if got := stat(t, path).Mode & 0o7777; got&unix.S_ISUID != 0 {
		t.Errorf("mode %o after chown", got)
	}
	// An unlinked, open file.
	gone := open(t, empty, unix.O_RDWR)
	must(t, os.Remove(empty))
	must(t, unix.Fchown(gone, 8, 9))
	wantRead(t, gone, 0, content)
}

func testTimes(t *testing.T, dir string) {
	path := filepath.Join(dir, "file")
	write(t, path, []byte("x"))
	times := func(atime, mtime unix.Timespec) {
		t.Helper()
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{atime, mtime}, 0))
	}
	wantTimes := func(path string, atime, mtime unix.Timespec) {
		t.Helper()
		if st := stat(t, path); st.Atim != atime || st.Mtim != mtime {
			t.Errorf("times %v and %v, want %v and %v", st.Atim, st.Mtim, atime, mtime)
		}
	}
	a, m := unix.Timespec{Sec: 1111111111, Nsec: 123456789}, unix.Timespec{Sec: 2000000000, Nsec: 999999999}
	times(a, m)
	wantTimes(path, a, m)
	times(unix.Timespec{Nsec: unix.UTIME_OMIT}, unix.Timespec{Sec: 5})
	wantTimes(path, a, unix.Timespec{Sec: 5})
	before := time.Now().Add(-time.Second)
	times(unix.Timespec{Nsec: unix.UTIME_NOW}, unix.Timespec{Nsec: unix.UTIME_NOW})
	if st := stat(t, path); time.Unix(st.Mtim.Unix()).Before(before) || time.Unix(st.Atim.Unix()).Before(before) {
		t.Errorf("times %v and %v, want now", st.Atim, st.Mtim)
	}
	// Writing sets the time; what is set after writing stays, though the data is still on its way.
	times(a, unix.Timespec{Sec: 5})
	fd := open(t, path, unix.O_RDWR)
	pwrite(t, fd, noise(23, 10000), 0)
	if st := stat(t, path); st.Mtim.Sec == 5 {
		t.Error("writing did not change the time")
	}
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), []unix.Timespec{a, m}, 0))
	wantTimes(path, a, m)
	must(t, unix.Fsync(fd))
	must(t, unix.Close(fd))
	if st := stat(t, path); st.Mtim != m {
		t.Errorf("time %v after close, want %v", st.Mtim, m)
	}
	// Renaming, linking and changing the mode don't touch it, and do change the time of the change.
	st := stat(t, path)
	renamed := filepath.Join(dir, "renamed")
	must(t, os.Rename(path, renamed))
	must(t, os.Link(renamed, path))
	must(t, os.Chmod(path, 0o600))
	after := stat(t, path)
	if after.Mtim != m {
		t.Errorf("time %v, want %v", after.Mtim, m)
	}
	if after.Ctim == st.Ctim {
		t.Error("the time of the change stayed the same")
	}
	// Reading the file leaves its modification time.
	wantContent(t, path, noise(23, 10000))
	if got := stat(t, path).Mtim; got != m {
		t.Errorf("time %v after reading, want %v", got, m)
	}
	// Truncating changes it, even by nothing.
	must(t, unix.Truncate(path, 5000))
	if got := stat(t, path).Mtim; got == m {
		t.Error("truncating did not change the time")
	}
	// A directory's changes with its entries.
	sub := filepath.Join(dir, "sub")
	must(t, os.Mkdir(sub, 0o755))
	old := unix.Timespec{Sec: 1000000000}
	reset := func() {
		t.Helper()
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, sub, []unix.Timespec{old, old}, 0))
		wantTimes(sub, old, old)
	}
	for _, change := range []func() error{
		func() error { return os.WriteFile(filepath.Join(sub, "f"), nil, 0o600) },
		func() error { return os.Rename(filepath.Join(sub, "f"), filepath.Join(sub, "g")) },
		func() error { return os.Remove(filepath.Join(sub, "g")) },
		func() error { return os.Mkdir(filepath.Join(sub, "d"), 0o700) },
		func() error { return os.Remove(filepath.Join(sub, "d")) },
	} {
		reset()
		must(t, change())
		if stat(t, sub).Mtim == old {
			t.Error("a change did not change the directory's time")
		}
	}
	reset()
	// Writing a file in it doesn't.
	write(t, filepath.Join(dir, "outside"), []byte("x"))
	if stat(t, sub).Mtim != old {
		t.Error("the directory's time changed")
	}
}

func testAttributes(t *testing.T, dir string) {
	path, sub := filepath.Join(dir, "file"), filepath.Join(dir, "sub")
	write(t, path, noise(24, 5000))
	must(t, os.Mkdir(sub, 0o755))
	for _, path := range []string{path, sub} {
		get := func(name string) (string, error) {
			b := make([]byte, 64<<10)
			n, err := unix.Getxattr(path, name, b)
			return string(b[:max(n, 0)]), err
		}
		want := map[string]string{
			"user.text": "value", "user.empty": "", "user.binary": "\x00\xff\n", "user." + strings.Repeat("n", 100): "long name",
			"user.ünï": "UTF-8", "user.value": string(noise(25, 1500)),
		}
		for name, value := range want {
			if err := unix.Setxattr(path, name, []byte(value), 0); err != nil {
				t.Errorf("set %s: %v", name, err)
			}
		}
		if got, err := attributes(path); err != nil || !mapsEqual(got, want) {
			t.Errorf("attributes %q, %v", got, err)
		}
		wantErrno(t, unix.Setxattr(path, "user.text", []byte("x"), unix.XATTR_CREATE), unix.EEXIST)
		wantErrno(t, unix.Setxattr(path, "user.none", []byte("x"), unix.XATTR_REPLACE), unix.ENODATA)
		must(t, unix.Setxattr(path, "user.text", []byte("replaced"), unix.XATTR_REPLACE))
		must(t, unix.Setxattr(path, "user.new", []byte("new"), unix.XATTR_CREATE))
		if value, err := get("user.text"); value != "replaced" || err != nil {
			t.Errorf("%q, %v", value, err)
		}
		_, err := get("user.none")
		wantErrno(t, err, unix.ENODATA)
		// Sizes are told, and buffers too small refused.
		if n, err := unix.Getxattr(path, "user.text", nil); n != 8 || err != nil {
			t.Errorf("size %d, %v, want 8", n, err)
		}
		_, err = unix.Getxattr(path, "user.text", make([]byte, 7))
		wantErrno(t, err, unix.ERANGE)
		n, err := unix.Listxattr(path, nil)
		must(t, err)
		_, err = unix.Listxattr(path, make([]byte, n-1))
		wantErrno(t, err, unix.ERANGE)
		if got, err := unix.Listxattr(path, make([]byte, n)); got != n || err != nil {
			t.Errorf("list: %d, %v, want %d", got, err, n)
		}
		must(t, unix.Removexattr(path, "user.new"))
		wantErrno(t, unix.Removexattr(path, "user.new"), unix.ENODATA)
		wantErrno(t, unix.Setxattr(path, "user."+strings.Repeat("n", 251), []byte("x"), 0), unix.ERANGE)
		if err := unix.Setxattr(path, "nonsense", []byte("x"), 0); err == nil {
			t.Error("an attribute without a namespace was set")
		}
		must(t, unix.Setxattr(path, "user.text", []byte("value"), 0))
	}
	// They move with the file and stay with what is written.
	renamed := filepath.Join(dir, "renamed")
	must(t, os.Rename(path, renamed))
	write(t, renamed, []byte("other content"))
	if got, err := attributes(renamed); err != nil || got["user.text"] != "value" {
		t.Errorf("attributes %q, %v", got, err)
	}
	// By descriptor; setfattr and getfattr.
	fd := open(t, renamed, unix.O_RDWR)
	must(t, unix.Fsetxattr(fd, "user.fd", []byte("by descriptor"), 0))
	run(t, dir, "setfattr", "-n", "user.command", "-v", "by command", "renamed")
	if out := run(t, dir, "getfattr", "--only-values", "-n", "user.fd", "renamed"); out != "by descriptor" {
		t.Errorf("getfattr printed %q", out)
	}
	if out := run(t, dir, "getfattr", "-d", "renamed"); !strings.Contains(out, `user.command="by command"`) {
		t.Errorf("getfattr printed %q", out)
	}
	must(t, os.Symlink("renamed", filepath.Join(dir, "link")))
	wantErrno(t, unix.Lsetxattr(filepath.Join(dir, "link"), "user.x", []byte("x"), 0), unix.EPERM)
	// What the format uses is not an attribute of the user's.
	if out := run(t, dir, "getfattr", "-d", "-m", "-", "renamed"); !plain && strings.Contains(out, "kmsfs") {
		t.Errorf("getfattr shows %q", out)
	}
}

func mapsEqual(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || w != v {
			return false
		}
	}
	return true
}

func testRootAttributes(t *testing.T, dir string) {
	path := filepath.Join(dir, "file")
	write(t, path, []byte("x"))
	must(t, unix.Setxattr(path, "trusted.text", []byte("trusted"), 0))
	must(t, unix.Setxattr(path, "user.text", []byte("user"), 0))
	if got, err := attributes(path); err != nil || !mapsEqual(got, map[string]string{"trusted.text": "trusted", "user.text": "user"}) {
		t.Errorf("attributes %q, %v", got, err)
	}
	// File capabilities: CAP_NET_RAW, permitted, revision 2.
	capability := []byte{0, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	must(t, unix.Setxattr(path, "security.capability", capability, 0))
	b := make([]byte, 100)
	if n, err := unix.Getxattr(path, "security.capability", b); err != nil || !bytes.Equal(b[:n], capability) {
		t.Errorf("capability %x, %v", b[:max(n, 0)], err)
	}
	// Writing takes them away.
	write(t, path, []byte("y"))
	if _, err := unix.Getxattr(path, "security.capability", b); err != unix.ENODATA {
		t.Errorf("capability after a write: %v", err)
	}
}

func testACL(t *testing.T, dir string) {
	path, sub := filepath.Join(dir, "file"), filepath.Join(dir, "sub")
	write(t, path, []byte("x"))
	must(t, os.Mkdir(sub, 0o750))
	acl := func(path string) string {
		t.Helper()
		return strings.TrimSpace(run(t, dir, "getfacl", "--omit-header", "--numeric", "--absolute-names", path))
	}
	wantACL := func(path string, want ...string) {
		t.Helper()
		if got := strings.Fields(acl(path)); !slices.Equal(got, want) {
			t.Errorf("%s: ACL %q, want %q", path, got, want)
		}
	}
	run(t, dir, "setfacl", "-m", "u:1234:rw,g:77:r", path)
	wantACL(path, "user::rw-", "user:1234:rw-", "group::r--", "group:77:r--", "mask::rw-", "other::r--")
	if got := stat(t, path).Mode & 0o777; got != 0o664 {
		t.Errorf("mode %o, want 664: the mask shows as the group's", got)
	}
	must(t, os.Chmod(path, 0o640))
	if got := acl(path); !strings.Contains(got, "mask::r--") {
		t.Errorf("chmod did not change the mask: %s", got)
	}
	run(t, dir, "setfacl", "-b", path)
	wantACL(path, "user::rw-", "group::r--", "other::---")

	// A directory's default is inherited.
	run(t, dir, "setfacl", "-d", "-m", "u::rwx,g::rx,o::-,u:1234:rwx", sub)
	made, inner := filepath.Join(sub, "made"), filepath.Join(sub, "inner")
	must(t, os.Mkdir(inner, 0o777))
	fd, err := unix.Open(made, unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o666)
	must(t, err)
	must(t, unix.Close(fd))
	wantACL(made, "user::rw-", "user:1234:rwx", "#effective:rw-", "group::r-x", "#effective:r--", "mask::rw-", "other::---")
	wantACL(inner, "user::rwx", "user:1234:rwx", "group::r-x", "mask::rwx", "other::---",
		"default:user::rwx", "default:user:1234:rwx", "default:group::r-x", "default:mask::rwx", "default:other::---")
	must(t, unix.Mkfifo(filepath.Join(sub, "fifo"), 0o666))
	if got := acl(filepath.Join(sub, "fifo")); !strings.Contains(got, "user:1234:rwx") {
		t.Errorf("the FIFO's ACL is %s", got)
	}
	if got, err := attributes(made); err != nil || got["system.posix_acl_access"] == "" {
		t.Errorf("attributes %q, %v", got, err)
	}
	run(t, dir, "setfacl", "-k", inner)
	if got := acl(inner); strings.Contains(got, "default") {
		t.Errorf("the default is still there: %s", got)
	}
}

func testStatfs(t *testing.T, dir string) {
	var st unix.Statfs_t
	must(t, unix.Statfs(dir, &st))
	if st.Namelen != 255 || st.Bsize <= 0 || st.Blocks == 0 || st.Bfree > st.Blocks || st.Bavail > st.Bfree || st.Files == 0 || st.Ffree > st.Files {
		t.Errorf("%+v", st)
	}
	if !plain && st.Type != unix.FUSE_SUPER_MAGIC {
		t.Errorf("type %x", st.Type)
	}
	var backing unix.Statfs_t
	must(t, unix.Statfs(suite, &backing))
	if size := uint64(backing.Bsize) * backing.Blocks; uint64(st.Bsize)*st.Blocks != size {
		t.Errorf("%d bytes in all, want those of the file system below: %d", uint64(st.Bsize)*st.Blocks, size)
	}
}

func testNames(t *testing.T, dir string) {
	all := []string{
		strings.Repeat("a", 255), strings.Repeat("ü", 127), strings.Repeat("b", 175), strings.Repeat("c", 176), strings.Repeat("d", 177),
		"ünï cödé 文件 🗝", "\xff\xfe not UTF-8", "new\nline", `back\slash`, " ", "-rf", "...", ".hidden", "name.", "CASE", "case", "e\u0301", "\u00e9",
		"kmsfs.volume", "kmsfs.mark", "kmsfs.dir", "kmsfs.temp", "kmsfs.", "kmsfs.=", "kmsfs.=kmsfs.dir", "kmsfs.long.x", "kmsfs.long.x.name",
		"kmsfs." + strings.Repeat("k", 249), "KMSFS.dir", "kmsfs",
	}
	// The last ones in the root of the mount too, where the volume's own lie.
	root := filepath.Dir(dir)
	rooted := []string{"kmsfs.volume", "kmsfs.mark", "kmsfs.dir", "kmsfs.temp", "kmsfs.long.y"}
	if plain {
		rooted = nil
	}
	for _, name := range rooted {
		path := filepath.Join(root, name)
		wantGone(t, path)
		write(t, path, []byte(name))
		wantContent(t, path, []byte(name))
		must(t, os.Rename(path, path+"2"))
		wantGone(t, path)
		must(t, os.Remove(path+"2"))
		must(t, os.Mkdir(path, 0o755))
		write(t, filepath.Join(path, name), []byte(name))
		wantNames(t, path, name)
	}
	for _, name := range rooted {
		must(t, os.Rename(filepath.Join(root, name), filepath.Join(dir, name+" from the root")))
	}
	sub := filepath.Join(dir, "sub")
	must(t, os.Mkdir(sub, 0o755))
	kinds := map[string]func(path string) error{
		"files":    func(path string) error { return os.WriteFile(path, []byte(filepath.Base(path)), 0o644) },
		"dirs":     func(path string) error { return os.Mkdir(path, 0o755) },
		"symlinks": func(path string) error { return os.Symlink(filepath.Base(path), path) },
		"fifos":    func(path string) error { return unix.Mkfifo(path, 0o644) },
	}
	for kind, make := range kinds {
		where := filepath.Join(sub, kind)
		must(t, os.Mkdir(where, 0o755))
		for _, name := range all {
			path := filepath.Join(where, name)
			wantGone(t, path)
			if err := make(path); err != nil {
				t.Errorf("%q: %v", name, err)
			}
		}
		wantNames(t, where, all...)
		if kind == "files" {
			for _, name := range all {
				wantContent(t, filepath.Join(where, name), []byte(name))
			}
		}
		// Each moves away and back, is linked and unlinked.
		for _, name := range all {
			path := filepath.Join(where, name)
			must(t, os.Rename(path, filepath.Join(dir, "away")))
			wantGone(t, path)
			must(t, os.Rename(filepath.Join(dir, "away"), path))
			if kind != "dirs" {
				must(t, os.Link(path, filepath.Join(dir, name)))
				must(t, os.Remove(path))
				must(t, os.Rename(filepath.Join(dir, name), path))
			}
		}
		wantNames(t, where, all...)
	}
	for _, name := range all {
		must(t, os.Remove(filepath.Join(sub, "fifos", name)))
	}
	must(t, os.Remove(filepath.Join(sub, "fifos")))
	for _, name := range []string{strings.Repeat("a", 256), strings.Repeat("ü", 128), strings.Repeat("x", 1000)} {
		for kind, make := range kinds {
			if err := make(filepath.Join(dir, name)); !errors.Is(err, unix.ENAMETOOLONG) {
				t.Errorf("%s with a name of %d bytes: %v", kind, len(name), err)
			}
		}
		_, err := os.Lstat(filepath.Join(dir, name))
		wantErrno(t, err, unix.ENAMETOOLONG)
	}
}

func testDeepPath(t *testing.T, dir string) {
	// A path of some 3,000 bytes, by ordinary calls.
	path := dir
	for len(path)-len(dir) < 3000 {
		path = filepath.Join(path, strings.Repeat("d", 60))
		must(t, os.Mkdir(path, 0o755))
	}
	file := filepath.Join(path, "file")
	write(t, file, noise(26, 9000))
	wantContent(t, file, noise(26, 9000))
	must(t, os.Link(file, filepath.Join(path, "link")))
	must(t, os.Link(file, filepath.Join(dir, "link")))
	must(t, os.Rename(file, filepath.Join(dir, "file")))
	wantContent(t, filepath.Join(dir, "file"), noise(26, 9000))
	must(t, os.Rename(filepath.Join(dir, "file"), file))
	pwrite(t, open(t, file, unix.O_RDWR), []byte("deep"), 9000)
	wantContent(t, filepath.Join(dir, "link"), append(noise(26, 9000), "deep"...))

	// One of 10,000 bytes, longer than any single call takes, step by step.
	far := filepath.Join(dir, "far")
	must(t, os.Mkdir(far, 0o755))
	fd := open(t, far, unix.O_RDONLY|unix.O_DIRECTORY)
	for i := range 40 {
		name := strings.Repeat(string(rune('a'+i%26)), 250)
		if err := unix.Mkdirat(fd, name, 0o755); err != nil {
			t.Fatalf("mkdir at depth %d: %v", i, err)
		}
		next, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatalf("open at depth %d: %v", i, err)
		}
		must(t, unix.Close(fd))
		fd = next
	}
	defer unix.Close(fd)
	made, err := unix.Openat(fd, "file", unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o644)
	if err != nil {
		t.Fatalf("create at depth 40: %v", err)
	}
	pwrite(t, made, noise(27, 5000), 0)
	must(t, unix.Close(made))
	must(t, unix.Linkat(fd, "file", fd, "link", 0))
	must(t, unix.Renameat(fd, "file", fd, "renamed"))
	for _, name := range []string{"renamed", "link"} {
		made, err = unix.Openat(fd, name, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatalf("open %s at depth 40: %v", name, err)
		}
		wantRead(t, made, 0, noise(27, 5000))
		must(t, unix.Close(made))
	}
	run(t, dir, "rm", "-r", far)
	wantGone(t, far)
}

// testParallel has many make, write, rename and remove files in the same directories at once.
func testParallel(t *testing.T, dir string) {
	for i := range 3 {
		must(t, os.Mkdir(filepath.Join(dir, fmt.Sprint(i)), 0o755))
	}
	var wait sync.WaitGroup
	for worker := range 8 {
		wait.Go(func() {
			random := rand.New(rand.NewPCG(uint64(worker), 0))
			held := map[string][]byte{}
			for i := range 120 {
				path := filepath.Join(dir, fmt.Sprint(random.IntN(3)), fmt.Sprintf("%d-%d", worker, random.IntN(10)))
				content, ok := held[path]
				switch {
				case !ok:
					content = noise(uint64(worker*1000+i), random.IntN(20000))
					if err := os.WriteFile(path, content, 0o644); err != nil {
						t.Error(err)
						return
					}
					held[path] = content
				case random.IntN(3) == 0:
					to := filepath.Join(dir, fmt.Sprint(random.IntN(3)), filepath.Base(path))
					if err := os.Rename(path, to); err != nil {
						t.Error(err)
						return
					}
					delete(held, path)
					held[to] = content
				case random.IntN(3) == 0:
					if err := os.Remove(path); err != nil {
						t.Error(err)
						return
					}
					delete(held, path)
				default:
					got, err := os.ReadFile(path)
					if err != nil || !bytes.Equal(got, content) {
						t.Errorf("%s: %v, %s", path, err, difference(got, content))
						return
					}
				}
			}
			for path, content := range held {
				wantContent(t, path, content)
			}
		})
	}
	wait.Wait()
	// One file that many write to in turn, each its own part, and two that write and truncate at once.
	shared := filepath.Join(dir, "shared")
	write(t, shared, make([]byte, 8*10000))
	for worker := range 8 {
		wait.Go(func() {
			f, err := os.OpenFile(shared, os.O_RDWR, 0)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			for i := range 10 {
				if _, err := f.WriteAt(noise(uint64(worker), 10000)[i*1000:][:1000], int64(worker*10000+i*1000)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	var want []byte
	for worker := range 8 {
		want = append(want, noise(uint64(worker), 10000)...)
	}
	wantContent(t, shared, want)
}

func testTenThousandFiles(t *testing.T, dir string) {
	const n = 10000
	name := func(i int) string { return fmt.Sprintf("file-%05d", i) }
	for i := range n {
		fd, err := unix.Open(filepath.Join(dir, name(i)), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
		must(t, err)
		must(t, unix.Close(fd))
	}
	list := func() map[string]int {
		t.Helper()
		d, err := os.Open(dir)
		must(t, err)
		defer d.Close()
		seen := make(map[string]int)
		for {
			some, err := d.Readdirnames(100)
			for _, name := range some {
				seen[name]++
			}
			if err == io.EOF {
				return seen
			}
			must(t, err)
		}
	}
	seen := list()
	for i := range n {
		if seen[name(i)] != 1 {
			t.Fatalf("%s listed %d times", name(i), seen[name(i)])
		}
	}
	if len(seen) != n {
		t.Errorf("%d names, want %d", len(seen), n)
	}

	// What isn't touched is listed once, whatever else comes and goes meanwhile.
	d, err := os.Open(dir)
	must(t, err)
	defer d.Close()
	seen = make(map[string]int)
	for i := 0; ; i++ {
		some, err := d.Readdirnames(200)
		for _, name := range some {
			seen[name]++
		}
		if err == io.EOF {
			break
		}
		must(t, err)
		for k := range 20 {
			if j := i*20 + k; j < n/2 {
				must(t, os.Remove(filepath.Join(dir, name(j*2)))) // the even ones
			}
		}
		must(t, os.Mkdir(filepath.Join(dir, fmt.Sprint("new", i)), 0o755))
	}
	for i := 1; i < n; i += 2 {
		if seen[name(i)] != 1 {
			t.Fatalf("%s listed %d times", name(i), seen[name(i)])
		}
	}
	// A rewind shows the state of then; rm -r works on it all, but for a few.
	_, err = d.Seek(0, io.SeekStart)
	must(t, err)
	if _, err := d.Readdirnames(-1); err != nil {
		t.Error(err)
	}
	for i := range 100 {
		must(t, os.Rename(filepath.Join(dir, name(i*2+1)), filepath.Join(dir, fmt.Sprint("kept", i))))
	}
	run(t, dir, "sh", "-c", "find . -name 'file-*' -delete && find . -name 'new*' -delete")
	if left := names(t, dir); len(left) != 100 {
		t.Errorf("%d names are left, want 100", len(left))
	}
}

func testRemoveTree(t *testing.T, dir string) {
	tree := filepath.Join(dir, "tree")
	for i := range 5 {
		for j := range 5 {
			sub := filepath.Join(tree, fmt.Sprint(i), strings.Repeat("s", 200), fmt.Sprint(j))
			must(t, os.MkdirAll(sub, 0o755))
			for k := range 5 {
				write(t, filepath.Join(sub, fmt.Sprint(k)), noise(uint64(k), k*3000))
			}
			must(t, os.Symlink("nowhere", filepath.Join(sub, "link")))
			must(t, unix.Mkfifo(filepath.Join(sub, strings.Repeat("f", 255)), 0o600))
		}
	}
	run(t, dir, "cp", "-a", "tree", "copy")
	run(t, dir, "diff", "-r", "--no-dereference", "-x", "f*", "tree", "copy")
	run(t, dir, "rm", "-rf", "tree")
	must(t, os.RemoveAll(filepath.Join(dir, "copy")))
	wantNames(t, dir)
}
