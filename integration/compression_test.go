package integration

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// compress has what is made in a directory compressed.
func compress(t testing.TB, dir string) {
	t.Helper()
	must(t, setAttribute(dir, compressionAttribute, "zstd"))
}

// A mount of which all files are compressed is a POSIX file system like any other, shared or not.
func TestCompressedPOSIX(t *testing.T) {
	t.Parallel()
	t.Run("Alone", func(t *testing.T) {
		v := mounted(t)
		compress(t, v.point)
		runScenariosOn(t, v, posixScenarios, false)
	})
	t.Run("Shared", func(t *testing.T) {
		_, _, e := onSocket(t)
		v := volumeAt(t, e, "--shared")
		compress(t, v.point)
		runScenariosOn(t, v, posixScenarios, false)
	})
}

// diskUse is what du says of a directory of a volume, or of a mountpoint.
func diskUse(t testing.TB, dir string) (bytes int64) {
	t.Helper()
	unix.Sync()
	must(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		bytes += st.Blocks * 512
		return nil
	}))
	return bytes
}

// lines returns n bytes of text.
func lines(seed, n int) []byte {
	var b bytes.Buffer
	for i := seed; b.Len() < n; i++ {
		fmt.Fprintf(&b, "%08d request of user %d for /some/path/%x took %d us\n", i, i%17, i*7919, i*i%1000)
	}
	return b.Bytes()[:n]
}

// What is written in usual ways takes less room if it can be compressed, and hardly more if it can't.
func TestCompressionSaves(t *testing.T) {
	const size = 5 << 20
	for _, c := range []struct {
		name    string
		content []byte
		make    func(t *testing.T, path string, content []byte)
		most    int64 // bytes that it may take
	}{
		{"Whole", lines(1, size), func(t *testing.T, path string, content []byte) { write(t, path, content) }, size / 2},
		{"Random", noise(1, size), func(t *testing.T, path string, content []byte) { write(t, path, content) }, size + size/50},
		{"Appended", lines(2, size), func(t *testing.T, path string, content []byte) {
			f, err := os.Create(path)
			must(t, err)
			for len(content) > 0 {
				n := min(len(content), 777)
				_, err := f.Write(content[:n])
				must(t, err)
				content = content[n:]
			}
			must(t, f.Close())
		}, size / 2},
		{"Overwritten", lines(3, size), func(t *testing.T, path string, content []byte) {
			write(t, path, lines(4, size))
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			must(t, err)
			must(t, f.Sync())
			_, err = io.Copy(f, bytes.NewReader(content))
			must(t, err)
			must(t, f.Close())
		}, size / 2},
		{"Mapped", lines(5, size), func(t *testing.T, path string, content []byte) {
			f, err := os.Create(path)
			must(t, err)
			must(t, f.Truncate(size))
			memory, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			must(t, err)
			for at := size - 1<<16; at >= 0; at -= 1 << 16 { // from its end
				copy(memory[at:], content[at:at+1<<16])
			}
			must(t, unix.Msync(memory, unix.MS_SYNC))
			must(t, unix.Munmap(memory))
			must(t, f.Close())
		}, size / 2},
		{"Copied", lines(6, size), func(t *testing.T, path string, content []byte) {
			write(t, path+".from", content)
			run(t, filepath.Dir(path), "cp", path+".from", path)
			must(t, os.Remove(path+".from"))
		}, size / 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := mounted(t)
			compress(t, v.point)
			path := v.path("file")
			c.make(t, path, c.content)
			wantContent(t, path, c.content)
			v.remount(t)
			wantContent(t, path, c.content)
			if got := diskUse(t, v.dir); got > c.most+64<<10 {
				t.Errorf("%d bytes take %d in the volume", len(c.content), got)
			}
			if got := diskUse(t, v.point); got > c.most+64<<10 {
				t.Errorf("%d bytes take %d in the mount", len(c.content), got)
			}
			if info, err := os.Stat(path); err != nil || info.Size() != size {
				t.Errorf("%v, %v", info, err)
			}
		})
	}
}
