package volume_test

import (
	"os"
	"path/filepath"
	"testing"

	"kmsfs/fs/volume"
	"kmsfs/fs/volume/backing"

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
	root, err := backing.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for _, mode := range []uint32{0, 0o400, 0o444, 0o4555, 0o640} {
		if err := unix.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		f, err := volume.OpenOwned(root, "file")
		if err != nil {
			t.Fatalf("mode %o: %v", mode, err)
		}
		if _, err := f.WriteAt([]byte("text"), 0); err != nil {
			t.Errorf("mode %o: %v", mode, err)
		}
		f.Close()
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		if got := st.Mode & 0o7777; got&^0o6000 != mode&^0o6000 { // a write clears set-user-ID
			t.Errorf("the mode is %o afterwards, want %o", got, mode)
		}
	}
}
