package integration

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

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
		must(t, closeDescriptor(fd))
		fd = next
	}
	defer func() { _ = closeDescriptor(fd) }()
	made, err := unix.Openat(fd, "file", unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o644)
	if err != nil {
		t.Fatalf("create at depth 40: %v", err)
	}
	pwrite(t, made, noise(27, 5000), 0)
	must(t, closeDescriptor(made))
	must(t, unix.Linkat(fd, "file", fd, "link", 0))
	must(t, unix.Renameat(fd, "file", fd, "renamed"))
	for _, name := range []string{"renamed", "link"} {
		made, err = unix.Openat(fd, name, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatalf("open %s at depth 40: %v", name, err)
		}
		wantRead(t, made, 0, noise(27, 5000))
		must(t, closeDescriptor(made))
	}
	run(t, dir, "rm", "-r", far)
	wantGone(t, far)
}
