package integration

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// shareVolume mounts one volume twice: in two processes, as two hosts would, whose keys are at one key service.
func shareVolume(t *testing.T) [2]*volume {
	t.Helper()
	_, _, e := onSocket(t)
	first := prepareVolume(t)
	first.also = e.environment
	first.kmsfs(t, "init", "--kms", e.url, "--key", e.key, first.dir)
	second := prepareVolume(t)
	second.also, second.dir = e.environment, first.dir
	for _, v := range []*volume{first, second} {
		v.mount(t, "--shared", "--kms", e.url)
	}
	return [2]*volume{first, second}
}

// marks are the marks of mounts that live, or ended uncleanly.
func (v *volume) marks(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(v.dir, "kmsfs.mark*"))
	must(t, err)
	return found
}

// A volume that is mounted to be shared is a POSIX file system like any other.
func TestSharedPOSIX(t *testing.T) {
	_, _, e := onSocket(t)
	runScenariosOn(t, volumeAt(t, e, "--shared"), posixScenarios, false)
}

// Each of two mounts sees at once what the other has done.
func TestShared(t *testing.T) {
	hosts := shareVolume(t)
	a, b := hosts[0], hosts[1]
	both := func(path string, want string) {
		t.Helper()
		for _, v := range hosts {
			wantContent(t, v.path(path), []byte(want))
			if info, err := os.Stat(v.path(path)); err != nil || info.Size() != int64(len(want)) {
				t.Errorf("%s: %v, %v, want size %d", v.path(path), info, err, len(want))
			}
		}
	}
	t.Run("Content", func(t *testing.T) {
		write(t, a.path("file"), []byte("one"))
		both("file", "one")
		f, err := os.OpenFile(b.path("file"), os.O_RDWR, 0)
		must(t, err)
		defer f.Close()
		read := func(want string) {
			t.Helper()
			got := make([]byte, len(want)+1)
			n, _ := f.ReadAt(got, 0) // io.EOF
			if string(got[:n]) != want {
				t.Errorf("an open file has %q, want %q", got[:n], want)
			}
		}
		read("one")
		write(t, a.path("file"), []byte("two, longer")) // under another data key
		read("two, longer")
		must(t, os.Truncate(a.path("file"), 3))
		read("two")
		_, err = f.WriteAt([]byte(" and more"), 3)
		must(t, err)
		both("file", "two and more")
		big := noise(1, 3<<20)
		write(t, a.path("file"), big)
		_, err = f.WriteAt([]byte("middle"), 1<<20)
		must(t, err)
		copy(big[1<<20:], "middle")
		both("file", string(big))
	})
	t.Run("Names", func(t *testing.T) {
		must(t, os.MkdirAll(a.path("d", "below"), 0o755))
		write(t, b.path("d", "below", "f"), []byte("text"))
		must(t, os.Rename(a.path("d"), a.path("e")))
		both("e/below/f", "text")
		_, err := os.Stat(b.path("d"))
		wantErrno(t, err, unix.ENOENT)
		must(t, os.Rename(b.path("e", "below", "f"), b.path("e", "g")))
		both("e/g", "text")
		must(t, os.Link(a.path("e", "g"), a.path("h")))
		must(t, os.Remove(b.path("e", "g")))
		both("h", "text")
		must(t, os.Symlink("h", b.path("link")))
		both("link", "text")
		must(t, os.Remove(b.path("link")))
		must(t, os.Symlink("file", b.path("link")))
		if to, err := os.Readlink(a.path("link")); err != nil || to != "file" {
			t.Errorf("link leads to %q, %v", to, err)
		}
		must(t, os.Remove(a.path("e", "below")))
		must(t, os.Remove(b.path("e")))
		_, err = os.Stat(a.path("e"))
		wantErrno(t, err, unix.ENOENT)
		must(t, os.Mkdir(b.path("e"), 0o755)) // which may have the number of the old one
		write(t, a.path("e", "new"), []byte("new"))
		both("e/new", "new")
		must(t, unix.Setxattr(a.path("h"), "user.colour", []byte("blue"), 0))
		value := make([]byte, 10)
		if n, err := unix.Getxattr(b.path("h"), "user.colour", value); err != nil || string(value[:n]) != "blue" {
			t.Errorf("attribute %q, %v", value[:max(n, 0)], err)
		}
		must(t, os.Chmod(b.path("h"), 0o400))
		if info, err := os.Stat(a.path("h")); err != nil || info.Mode() != 0o400 {
			t.Errorf("mode %v, %v", info, err)
		}
		if entries, err := os.ReadDir(b.point); err != nil || len(entries) != 4 {
			t.Errorf("%v, %v, want 4 entries", entries, err)
		}
	})
	// A directory that is moved under those who stand in it is stale, and not judged by its old path.
	t.Run("Moved", func(t *testing.T) {
		must(t, os.MkdirAll(a.path("old", "in"), 0o755))
		write(t, a.path("old", "in", "f"), []byte("text"))
		in, err := unix.Open(b.path("old", "in"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
		must(t, err)
		defer unix.Close(in)
		must(t, os.Rename(a.path("old"), a.path("elsewhere")))
		_, err = unix.Openat(in, "f", unix.O_RDONLY, 0)
		wantErrno(t, err, unix.ESTALE)
		wantContent(t, b.path("elsewhere", "in", "f"), []byte("text"))
	})
	t.Run("Mapping", func(t *testing.T) {
		write(t, a.path("mapped"), bytes.Repeat([]byte("a"), 8192))
		f, err := os.OpenFile(b.path("mapped"), os.O_RDWR, 0)
		must(t, err)
		defer f.Close()
		memory, err := unix.Mmap(int(f.Fd()), 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		must(t, err)
		memory[5000] = 'b'
		must(t, unix.Msync(memory, unix.MS_SYNC))
		must(t, unix.Munmap(memory))
		want := bytes.Repeat([]byte("a"), 8192)
		want[5000] = 'b'
		both("mapped", string(want))
	})
}

// Two mounts that work at the same time lose nothing of each other's work, and never get in each other's way.
func TestSharedAtOnce(t *testing.T) {
	hosts := shareVolume(t)
	must(t, os.Mkdir(hosts[0].path("d"), 0o755))
	const rounds = 150
	each := func(t *testing.T, work func(v *volume, host, round int) error) {
		t.Helper()
		var group sync.WaitGroup
		for host, v := range hosts {
			group.Go(func() {
				for round := range rounds {
					if err := work(v, host, round); err != nil {
						t.Errorf("host %d, round %d: %v", host, round, err)
						return
					}
				}
			})
		}
		group.Wait()
	}
	t.Run("Append", func(t *testing.T) {
		each(t, func(v *volume, host, round int) error {
			f, err := os.OpenFile(v.path("log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = fmt.Fprintf(f, "%d %d %s\n", host, round, strings.Repeat("x", round))
			return err
		})
		log, err := os.ReadFile(hosts[0].path("log"))
		must(t, err)
		if n := bytes.Count(log, []byte("\n")); n != 2*rounds {
			t.Errorf("%d lines, want %d", n, 2*rounds)
		}
	})
	t.Run("Write", func(t *testing.T) {
		const size = 1 << 20
		write(t, hosts[0].path("halves"), make([]byte, size))
		want := make([]byte, size)
		var files [2]*os.File
		for host, v := range hosts {
			f, err := os.OpenFile(v.path("halves"), os.O_RDWR, 0)
			must(t, err)
			defer f.Close()
			files[host] = f
		}
		each(t, func(_ *volume, host, round int) error {
			random := rand.New(rand.NewPCG(uint64(host), uint64(round)))
			half := size / 2
			from := host*half + random.IntN(half)
			p := noise(random.Uint64(), random.IntN((host+1)*half-from)+1)
			if _, err := files[host].WriteAt(p, int64(from)); err != nil {
				return err
			}
			copy(want[from:], p)
			got := make([]byte, half)
			if _, err := files[host].ReadAt(got, int64(host*half)); err != nil {
				return err
			}
			if !bytes.Equal(got, want[host*half:][:half]) {
				return errors.New("not what was written")
			}
			return nil
		})
		wantContent(t, hosts[1].path("halves"), want)
	})
	// Whoever makes a name first has it; the other one's file is never seen unfinished.
	t.Run("Create", func(t *testing.T) {
		var made [rounds]atomic.Int32
		each(t, func(v *volume, _, round int) error {
			f, err := os.OpenFile(v.path("d", fmt.Sprint("f", round)), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644)
			if err == nil {
				made[round].Add(1)
				return f.Close()
			}
			if !errors.Is(err, fs.ErrExist) {
				return err
			}
			_, err = os.ReadFile(v.path("d", fmt.Sprint("f", round)))
			return err
		})
		for i := range made {
			if n := made[i].Load(); n != 1 {
				t.Fatalf("file %d was made %d times", i, n)
			}
		}
		each(t, func(v *volume, host, round int) error {
			err := os.Mkdir(v.path("d", fmt.Sprint("d", round)), 0o755)
			if errors.Is(err, fs.ErrExist) {
				err = nil
			}
			return errors.Join(err, os.WriteFile(v.path("d", fmt.Sprint("d", round), fmt.Sprint(host)), []byte("text"), 0o644))
		})
		for round := range rounds {
			for host := range hosts {
				wantContent(t, hosts[1-host].path("d", fmt.Sprint("d", round), fmt.Sprint(host)), []byte("text"))
			}
		}
	})
	// Names come and go under those who look for them: what is found can be opened.
	t.Run("Rename", func(t *testing.T) {
		names := []string{"x", "y", "z"}
		must(t, os.MkdirAll(hosts[0].path("x", "sub"), 0o755))
		write(t, hosts[0].path("x", "sub", "f"), []byte("text"))
		write(t, hosts[0].path("file"), []byte("text"))
		each(t, func(v *volume, host, round int) error {
			from, to := names[(round+host)%3], names[(round+host+1)%3]
			for _, pair := range [][2]string{{from, to}, {"file" + from, "file" + to}, {"file", "file" + to}, {"file" + from, "file"}} {
				err := os.Rename(v.path(pair[0]), v.path(pair[1]))
				if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, fs.ErrExist) {
					return err
				}
			}
			for _, name := range []string{from, to} {
				for _, path := range []string{v.path(name, "sub", "f"), v.path("file" + name)} {
					text, err := os.ReadFile(path)
					if err == nil && string(text) != "text" {
						return fmt.Errorf("%s has %q", path, text)
					}
					if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ESTALE) {
						return err
					}
				}
			}
			return nil
		})
		for _, v := range hosts {
			found, err := filepath.Glob(v.path("[xyz]", "sub", "f"))
			must(t, err)
			files, err := filepath.Glob(v.path("file*"))
			must(t, err)
			if len(found) != 1 || len(files) != 1 {
				t.Fatalf("%v and %v are left", found, files)
			}
			wantContent(t, found[0], []byte("text"))
			wantContent(t, files[0], []byte("text"))
		}
	})
	hosts[0].umount(t)
	hosts[1].umount(t)
	if left := hosts[0].marks(t); len(left) != 0 {
		t.Errorf("marks are left: %v", left)
	}
}

// Where one of two hosts dies, the other works on; the volume stays marked until what the dead one left has been looked at.
func TestSharedCrash(t *testing.T) {
	hosts := shareVolume(t)
	a, b := hosts[0], hosts[1]
	written := make(chan int, 1)
	go func() {
		n := 0
		defer func() { written <- n }()
		for ; ; n++ {
			if os.WriteFile(a.path(fmt.Sprint("f", n)), noise(uint64(n), 10_000), 0o644) != nil {
				return
			}
		}
	}()
	await(t, "twenty files", func() bool {
		_, err := os.Stat(b.path("f20"))
		return err == nil
	})
	a.killServer(t)
	n := <-written
	a.detach(t)
	write(t, b.path("after"), []byte("text"))
	for i := range n {
		wantContent(t, b.path(fmt.Sprint("f", i)), noise(uint64(i), 10_000))
	}
	if left := b.marks(t); len(left) != 2 {
		t.Errorf("%d marks, want the dead mount's and the other's", len(left))
	}
	a.mount(t, a.options...)
	a.awaitRecovery(t)
	for _, v := range hosts {
		for i := range n {
			wantContent(t, v.path(fmt.Sprint("f", i)), noise(uint64(i), 10_000))
		}
		if text, err := os.ReadFile(v.path(fmt.Sprint("f", n))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the file that was being written: %d bytes, %v", len(text), err)
		}
	}
	a.umount(t)
	if left := b.marks(t); len(left) != 1 {
		t.Errorf("marks %v, want the one of the mount that lives", left)
	}
	b.umount(t)
	if left := b.marks(t); len(left) != 0 {
		t.Errorf("marks are left: %v", left)
	}
}

// Who doesn't share a volume has it alone.
func TestSharedOrAlone(t *testing.T) {
	hosts := shareVolume(t)
	a, b := hosts[0], hosts[1]
	a.umount(t)
	alone := slices.DeleteFunc(slices.Clone(a.options), func(o string) bool { return o == "--shared" })
	mount := func(options []string) []string { return append(append([]string{"mount"}, options...), a.dir, a.point) }
	a.refused(t, mount(alone), "mounted already", "--shared")
	a.refused(t, mount(append(alone, "--read-only")), "mounted already")
	a.mount(t, append(b.options, "--read-only")...)
	write(t, b.path("file"), []byte("text"))
	wantContent(t, a.path("file"), []byte("text"))
	_, err := os.Create(a.path("other"))
	wantErrno(t, err, unix.EROFS)
	a.umount(t)
	b.umount(t)
	a.mount(t, alone...)
	b.refused(t, append(append([]string{"mount"}, b.options...), b.dir, b.point), "mounted already")
	wantContent(t, a.path("file"), []byte("text"))
}
