package integration

import (
	"bytes"
	"os"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func TestPOSIX(t *testing.T) {
	t.Parallel()
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
	descriptors.mu.Lock()
	defer descriptors.mu.Unlock()
	mine := new(byte)
	descriptors.open[fd] = mine
	t.Cleanup(func() { descriptors.close(fd, mine) })
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

// descriptors are those that open has opened and nobody has closed, each with what tells it from an
// earlier one of the same number. Tests run side by side: a descriptor that is closed twice may be another test's by then.
var descriptors = descriptorTable{open: map[int]*byte{}}

type descriptorTable struct {
	mu   sync.Mutex // guards open, and is held while a descriptor is closed
	open map[int]*byte
}

// close closes a descriptor if it is still that one.
func (d *descriptorTable) close(fd int, one *byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open[fd] == one {
		delete(d.open, fd)
		_ = unix.Close(fd) // the test has ended
	}
}

// closeDescriptor closes a descriptor, which open may have opened.
func closeDescriptor(fd int) error {
	descriptors.mu.Lock()
	defer descriptors.mu.Unlock()
	delete(descriptors.open, fd)
	return unix.Close(fd)
}
