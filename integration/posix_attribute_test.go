package integration

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

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
	must(t, closeDescriptor(fd))
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
	must(t, closeDescriptor(fd))
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
