package integration

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

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
	must(t, closeDescriptor(fd))
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
			must(t, closeDescriptor(fd))
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
	must(t, closeDescriptor(fd))
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
	must(t, closeDescriptor(fd))
	wantContent(t, path, content)

	// A mapping outlives its descriptor and the file's name.
	unlinked := filepath.Join(dir, "unlinked")
	write(t, unlinked, content)
	fd = open(t, unlinked, unix.O_RDWR)
	m, err = unix.Mmap(fd, 0, len(content), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	must(t, closeDescriptor(fd))
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
		must(t, closeDescriptor(fd))
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
		if holes < size-4*(20000+64<<10) { // in compressed files they begin and end at chunks of 64 KiB
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
