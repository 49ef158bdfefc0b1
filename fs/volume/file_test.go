package volume

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOpenOwned opens a file that its mode keeps its owner out of, for writing: the mode is the same
// afterwards, with the special bits.
func TestOpenOwned(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []uint32{0, 0o400, 0o444, 0o4555, 0o640} {
		if err := unix.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		fd, err := OpenOwned(unix.AT_FDCWD, path, unix.O_CLOEXEC)
		if err != nil {
			t.Fatalf("mode %o: %v", mode, err)
		}
		if _, err := unix.Write(fd, []byte("text")); err != nil {
			t.Errorf("mode %o: %v", mode, err)
		}
		unix.Close(fd)
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		if got := st.Mode & 0o7777; got&^0o6000 != mode&^0o6000 { // a write clears set-user-ID
			t.Errorf("the mode is %o afterwards, want %o", got, mode)
		}
	}
}
