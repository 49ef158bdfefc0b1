package integration

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

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
		must(t, closeDescriptor(fd))
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
