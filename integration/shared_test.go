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
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// shareVolume mounts one volume twice: in two processes, as two hosts would, whose keys are at one key service. It lies on a local file system,
// unless KMSFS_SHARED names two mounts, with a colon between them, of one that hosts share.
func shareVolume(t *testing.T) [2]*volume {
	t.Helper()
	_, _, e := onSocket(t)
	var dirs [2]string
	if one, other, ok := strings.Cut(os.Getenv("KMSFS_SHARED"), ":"); ok {
		below, err := os.MkdirTemp(one, "kmsfs-")
		must(t, err)
		t.Cleanup(func() { must(t, os.RemoveAll(below)) })
		dirs = [2]string{filepath.Join(below, "volume"), filepath.Join(other, filepath.Base(below), "volume")}
	}
	first, second := prepareVolume(t), prepareVolume(t)
	first.also, second.also = e.environment, e.environment
	second.dir = first.dir
	if dirs[0] != "" {
		first.dir, second.dir = dirs[0], dirs[1]
	}
	first.kmsfs(t, "init", "--kms", e.url, "--key", e.key, first.dir)
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
		defer func() { _ = closeDescriptor(in) }()
		must(t, os.Rename(a.path("old"), a.path("elsewhere")))
		_, err = unix.Openat(in, "f", unix.O_RDONLY, 0)
		wantErrno(t, err, unix.ESTALE)
		wantContent(t, b.path("elsewhere", "in", "f"), []byte("text"))
	})
	// A file that is open goes on under the name that another mount gives it, and without one.
	t.Run("Open", func(t *testing.T) {
		write(t, a.path("open"), []byte("text"))
		f, err := os.OpenFile(b.path("open"), os.O_RDWR, 0)
		must(t, err)
		defer f.Close()
		must(t, os.Rename(a.path("open"), a.path("renamed")))
		write(t, a.path("open"), []byte("another"))
		must(t, f.Chown(1000, 1000))
		must(t, unix.Fsetxattr(int(f.Fd()), "user.colour", []byte("red"), 0))
		must(t, unix.Linkat(unix.AT_FDCWD, fmt.Sprint("/proc/self/fd/", f.Fd()), unix.AT_FDCWD, b.path("linked"), unix.AT_SYMLINK_FOLLOW))
		both("open", "another")
		both("renamed", "text")
		both("linked", "text")
		for _, name := range []string{"renamed", "linked"} {
			var st unix.Stat_t
			must(t, unix.Stat(a.path(name), &st))
			if st.Uid != 1000 || st.Nlink != 2 {
				t.Errorf("%s: owner %d, %d links", name, st.Uid, st.Nlink)
			}
		}
		must(t, os.Remove(a.path("renamed")))
		must(t, os.Remove(a.path("linked")))
		_, err = f.WriteAt([]byte("!"), 4)
		must(t, err)
		got := make([]byte, 10)
		if n, _ := f.ReadAt(got, 0); string(got[:n]) != "text!" {
			t.Errorf("a file without a name has %q", got[:n])
		}
		if info, err := f.Stat(); err != nil || info.Size() != 5 || info.Sys().(*syscall.Stat_t).Nlink != 0 {
			t.Errorf("a file without a name: %v, %v", info, err)
		}
		must(t, f.Truncate(0))
	})
	t.Run("Times", func(t *testing.T) {
		write(t, a.path("from"), noise(1, 10_000))
		write(t, a.path("to"), nil)
		from, err := os.Open(a.path("from"))
		must(t, err)
		defer from.Close()
		to, err := os.OpenFile(a.path("to"), os.O_RDWR, 0)
		must(t, err)
		defer to.Close()
		for name, change := range map[string]func() error{
			"copy_file_range": func() error {
				_, err := unix.CopyFileRange(int(from.Fd()), nil, int(to.Fd()), nil, 10_000, 0)
				return err
			},
			"fallocate": func() error { return unix.Fallocate(int(to.Fd()), 0, 0, 30_000) },
			"write":     func() error { _, err := to.WriteAt([]byte("x"), 0); return err },
			"truncate":  func() error { return to.Truncate(5000) },
		} {
			must(t, os.Chtimes(b.path("to"), time.Unix(1e9, 0), time.Unix(1e9, 0)))
			must(t, change())
			if info, err := os.Stat(b.path("to")); err != nil || time.Since(info.ModTime()) > time.Hour {
				t.Errorf("%s: changed at %v, %v", name, info.ModTime(), err)
			}
		}
	})
	// What appends is the flag that the file has when it is written to, and not what the kernel writes of a mapping.
	t.Run("Append", func(t *testing.T) {
		write(t, a.path("log"), bytes.Repeat([]byte("a"), 8192))
		f, err := os.OpenFile(b.path("log"), os.O_RDWR|os.O_APPEND, 0)
		must(t, err)
		defer f.Close()
		memory, err := unix.Mmap(int(f.Fd()), 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		must(t, err)
		memory[0] = 'b'
		must(t, unix.Msync(memory, unix.MS_SYNC))
		must(t, unix.Munmap(memory))
		both("log", "b"+strings.Repeat("a", 8191))
		later, err := os.OpenFile(b.path("log"), os.O_RDWR, 0)
		must(t, err)
		defer later.Close()
		_, err = unix.FcntlInt(later.Fd(), unix.F_SETFL, unix.O_APPEND)
		must(t, err)
		write(t, a.path("log"), []byte("1"))
		_, err = later.Write([]byte("2"))
		must(t, err)
		must(t, os.Truncate(a.path("log"), 1))
		_, err = later.Write([]byte("3"))
		must(t, err)
		both("log", "13")
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
	// A file that one mount fills and the other cuts, or fills up with zeros, is seen before or after each of these, never between.
	t.Run("Truncate", func(t *testing.T) {
		write(t, hosts[0].path("cut"), []byte("x"))
		var files [2]*os.File
		for host, v := range hosts {
			f, err := os.OpenFile(v.path("cut"), os.O_RDWR, 0)
			must(t, err)
			defer f.Close()
			files[host] = f
		}
		each(t, func(_ *volume, host, round int) error {
			random := rand.New(rand.NewPCG(uint64(host), uint64(round)))
			if host == 0 {
				if err := files[0].Truncate(0); err != nil { // which gives it another data key
					return err
				}
				if _, err := files[0].WriteAt(bytes.Repeat([]byte{byte(round + 1)}, random.IntN(100_000)+1), 0); err != nil {
					return err
				}
			} else if err := files[1].Truncate(random.Int64N(50_000)); err != nil {
				return err
			}
			got := make([]byte, 200_000)
			n, err := unix.Pread(int(files[host].Fd()), got, 0) // in one call
			if err != nil {
				return err
			}
			if text := bytes.TrimRight(got[:n], "\x00"); len(text) > 0 && bytes.Count(text, text[:1]) != len(text) {
				return errors.New("parts of two writes")
			}
			return nil
		})
	})
	// Who holds a file open finds it, or is told that its name is gone, whatever the other mount does to its name meanwhile.
	t.Run("Open", func(t *testing.T) {
		write(t, hosts[0].path("here"), []byte("text"))
		f, err := os.Open(hosts[1].path("here"))
		must(t, err)
		defer f.Close()
		each(t, func(v *volume, host, _ int) error {
			if host == 0 {
				return errors.Join(os.Rename(v.path("here"), v.path("there")), os.Rename(v.path("there"), v.path("here")))
			}
			for _, name := range []string{"here", "there"} {
				text, err := os.ReadFile(v.path(name))
				if err == nil && string(text) != "text" || err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ESTALE) {
					return fmt.Errorf("%s has %q: %w", name, text, err)
				}
			}
			return f.Chown(os.Getuid(), os.Getgid())
		})
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
	a.umount(t)
	a.mount(t, append(alone, "--read-only")...)
	for _, more := range [][]string{nil, {"--read-only"}} {
		b.refused(t, slices.Concat([]string{"mount"}, b.options, more, []string{b.dir, b.point}), "mounted already")
	}
}
