package integration

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCommand uses the program as its users do, on real mounts.
func TestCommand(t *testing.T) {
	if plain {
		t.Log("there is no program")
		return
	}
	t.Run("Unmount", testUnmount)
	t.Run("Refused", testRefused)
	t.Run("Inspect", testInspect)
	t.Run("OneHome", testOneHome)
	t.Run("ReadOnly", testReadOnly)
	t.Run("Elsewhere", testElsewhere)
	t.Run("Passphrase", testPassphrase)
}

// testUnmount ends mounts in every way that there is. What was written is there, and the volume is marked clean.
func testUnmount(t *testing.T) {
	v := mounted(t)
	for i, way := range []struct {
		name string
		end  func(pid int)
	}{
		{"kmsfs umount", func(int) { v.kmsfs(t, "umount", v.point) }},
		{"fusermount3 -u", func(int) { run(t, "/", "fusermount3", "-u", v.point) }},
		{"umount", func(int) {
			if isRoot {
				run(t, "/", "umount", v.point)
			} else {
				run(t, "/", "fusermount3", "-u", v.point)
			}
		}},
		{"SIGTERM", func(pid int) { must(t, syscall.Kill(pid, unix.SIGTERM)) }},
		{"SIGINT", func(pid int) { must(t, syscall.Kill(pid, unix.SIGINT)) }},
	} {
		content := noise(uint64(i), 300000)
		write(t, v.path(fmt.Sprint("file", i)), content)
		if _, err := os.Lstat(filepath.Join(v.dir, "kmsfs.mark")); err != nil {
			t.Errorf("a volume that is being written to is not marked: %v", err)
		}
		pid := v.pid()
		way.end(pid)
		v.checkUnmounted(t, pid)
		if t.Failed() {
			t.Fatalf("by %s", way.name)
		}
		wantNames(t, v.point)
		v.mount(t)
		wantContent(t, v.path(fmt.Sprint("file", i)), content)
	}

	// In use, it isn't unmounted by the program, and by a signal when it is in use no more.
	f, err := os.Create(v.path("used"))
	must(t, err)
	v.refused(t, []string{"umount", v.point}, v.point, "in use")
	pid := v.pid()
	must(t, syscall.Kill(pid, unix.SIGTERM))
	await(t, "the end of the mount", func() bool { return mountType(v.point) == "" })
	_, err = f.WriteString("written after the signal")
	must(t, err)
	must(t, f.Close())
	v.checkUnmounted(t, pid)
	v.mount(t)
	wantContent(t, v.path("used"), []byte("written after the signal"))

	// A mount in the foreground, by a signal.
	v.umount(t)
	cmd := exec.CommandContext(t.Context(), binary, "mount", "--foreground", v.dir, v.point)
	cmd.Env = v.environment()
	v.startForeground(t, cmd)
	wantContent(t, v.path("used"), []byte("written after the signal"))
	must(t, cmd.Process.Signal(unix.SIGINT))
	if err := cmd.Wait(); err != nil {
		t.Errorf("mount --foreground after SIGINT: %v", err)
	}
	v.checkUnmounted(t, 0)
}

// testRefused asks for what can't be done. It changes nothing.
func testRefused(t *testing.T) {
	v := mounted(t)
	write(t, v.path("file"), []byte("content"))
	other := mounted(t)
	second := filepath.Join(v.root, "second")
	must(t, os.Mkdir(second, 0o755))

	v.refused(t, []string{"mount", v.dir, second}, v.dir, "mounted already")
	v.refused(t, []string{"mount", "--home", other.home, "--key-file", other.key, v.dir, second}, v.dir) // nor has it the key
	wantContent(t, v.path("file"), []byte("content"))
	other.umount(t)
	v.refused(t, []string{"mount", "--home", other.home, "--key-file", other.key, other.dir, v.point}, v.point, "in use")
	v.umount(t)
	write(t, filepath.Join(second, "something"), nil)
	before := snapshot(t, v.dir)
	v.refused(t, []string{"mount", v.dir, second}, second, "not empty")
	v.refused(t, []string{"mount", "--home", filepath.Join(v.root, "nowhere"), v.dir, v.point}, "nowhere", "kmsfs init")
	v.refused(t, []string{"mount", "--key-file", other.key, v.dir, v.point}, "key file")
	v.refused(t, []string{"mount", "--home", other.home, "--key-file", other.key, v.dir, v.point}, "home")
	v.refused(t, []string{"mount", "--key-file", filepath.Join(v.root, "no key"), v.dir, v.point}, "no key")
	v.refused(t, []string{"mount", second, v.point}, second, "kmsfs init")
	v.refused(t, []string{"umount", v.point}, v.point, "not a mountpoint")
	v.refused(t, []string{"init", v.dir}, v.dir, "not empty")
	v.refused(t, []string{"mount", v.dir, filepath.Join(v.dir, "below")}, "below")
	compare(t, before, snapshot(t, v.dir))
	wantNames(t, v.point)
	v.mount(t)
	wantContent(t, v.path("file"), []byte("content"))
}

// inspected is what inspect says in JSON.
type inspected struct {
	Path, Type, FileID, DirectoryID, KeyARN string
	FormatVersion, PlaintextSize            int
	DigestedLocations                       int
	Authentic                               bool
	EncryptionContext                       map[string]string
	Locations                               []struct{ DirectoryID, Name string }
}

func (v *volume) inspect(t *testing.T, paths ...string) []inspected {
	t.Helper()
	var all []inspected
	for line := range strings.Lines(v.kmsfs(t, append([]string{"inspect", "--json"}, paths...)...)) {
		var one inspected
		must(t, json.Unmarshal([]byte(line), &one))
		all = append(all, one)
	}
	if len(all) != len(paths) {
		t.Fatalf("inspect tells of %d files, want %d", len(all), len(paths))
	}
	return all
}

// testInspect asks about files by their paths in the mount and in the volume, before and after they move.
func testInspect(t *testing.T) {
	for _, options := range [][]string{nil, {"--plaintext-names"}} {
		v := mounted(t, options...)
		must(t, os.MkdirAll(v.path("dir", "sub"), 0o755))
		write(t, v.path("dir", "file"), noise(1, 12345))
		must(t, os.Rename(v.path("dir"), v.path("moved")))
		clear := v.inspect(t, v.path("moved", "file"), v.path("moved"), v.path("moved", "sub"))
		file, dir := clear[0], clear[1]
		if !file.Authentic || file.PlaintextSize != 12345 || file.FormatVersion != 1 || len(file.Locations) != 1 ||
			file.Locations[0].Name != "file" || file.Locations[0].DirectoryID != dir.DirectoryID {
			t.Errorf("the file: %+v; its directory: %+v", file, dir)
		}
		if want := fmt.Sprint("uid:", os.Geteuid()); file.EncryptionContext["kmsfs:owner"] != want || len(file.EncryptionContext) != 3 {
			t.Errorf("encryption context %q, want the owner %s", file.EncryptionContext, want)
		}
		if !strings.HasSuffix(file.EncryptionContext["kmsfs:path"], "/file") {
			t.Errorf("encryption context %q", file.EncryptionContext)
		}
		if clear[2].Locations[0].Name != "sub" || clear[2].Locations[0].DirectoryID != dir.DirectoryID {
			t.Errorf("the inner directory: %+v", clear[2])
		}
		run(t, "/", "sync", "-f", v.point)
		sealed := v.locate(t)
		for round := range 2 { // while mounted, and when it isn't
			got := v.inspect(t, sealed["moved/file"], sealed["moved"])
			if got[0].FileID != file.FileID || got[0].PlaintextSize != 12345 || !got[0].Authentic || got[0].KeyARN != file.KeyARN || got[1].DirectoryID != dir.DirectoryID {
				t.Errorf("round %d: by paths in the volume: %+v, want %+v", round, got, clear[:2])
			}
			if round == 0 {
				v.umount(t)
			}
		}
		v.refused(t, []string{"inspect", filepath.Join(v.root, "none")}, "none")
	}
}

// testOneHome mounts two volumes on one key service home: the process that came first serves it for the other.
func testOneHome(t *testing.T) {
	for _, firstEndsFirst := range []bool{false, true} {
		first := mounted(t)
		second := newVolumeOf(t, first)
		second.key = filepath.Join(second.root, "there is none") // nor is it needed
		second.mount(t)
		write(t, first.path("file"), noise(1, 10000))
		write(t, second.path("file"), noise(2, 10000))
		firstPID, secondPID := first.pid(), second.pid()
		if firstPID == secondPID {
			t.Fatal("one process serves both")
		}
		if firstEndsFirst {
			first.kmsfs(t, "umount", first.point)
			if _, err := os.Lstat(filepath.Join(first.dir, "kmsfs.mark")); err == nil {
				t.Error("kmsfs.mark is there after umount")
			}
			// The other one still gets its keys.
			write(t, second.path("more"), noise(3, 10000))
			wantContent(t, second.path("file"), noise(2, 10000))
			second.umount(t)
			first.checkUnmounted(t, firstPID)
		} else {
			second.umount(t)
			wantContent(t, first.path("file"), noise(1, 10000))
			write(t, first.path("more"), noise(3, 10000))
			first.umount(t)
		}
		second.key = first.key
		second.mount(t)
		wantContent(t, second.path("file"), noise(2, 10000))
		second.umount(t)
		first.mount(t)
		wantContent(t, first.path("file"), noise(1, 10000))
		first.umount(t)
	}
}

// newVolumeOf makes another volume with the key service home of the first.
func newVolumeOf(t *testing.T, first *volume) *volume {
	t.Helper()
	v := prepareVolume(t)
	v.home, v.key = first.home, first.key
	v.kmsfs(t, "init", v.dir)
	return v
}

// testReadOnly mounts without changing anything, even where repair or a new context were due.
func testReadOnly(t *testing.T) {
	v := mounted(t)
	must(t, os.MkdirAll(v.path("dir", "sub"), 0o755))
	write(t, v.path("dir", "sub", "file"), noise(1, 10000))
	must(t, os.Rename(v.path("dir"), v.path("renamed"))) // so that the path in the file's context is an old one
	v.umount(t)
	before := snapshot(t, v.dir)
	v.mount(t, "--read-only")
	wantContent(t, v.path("renamed", "sub", "file"), noise(1, 10000))
	for what, err := range map[string]error{
		"create": os.WriteFile(v.path("new"), nil, 0o644), "mkdir": os.Mkdir(v.path("new"), 0o755), "remove": os.Remove(v.path("renamed", "sub", "file")),
		"rename": os.Rename(v.path("renamed"), v.path("new")), "chmod": os.Chmod(v.path("renamed"), 0o700), "truncate": os.Truncate(v.path("renamed", "sub", "file"), 0),
		"attribute": unix.Setxattr(v.path("renamed"), "user.x", []byte("x"), 0),
	} {
		if err == nil {
			t.Errorf("%s works", what)
			continue
		}
		wantErrno(t, err, unix.EROFS)
	}
	run(t, v.point, "ls", "-lR")
	v.umount(t)
	compare(t, before, snapshot(t, v.dir))

	// After an unclean end too.
	v.mount(t)
	write(t, v.path("last"), noise(2, 5000))
	v.kill(t)
	before = snapshot(t, v.dir)
	v.mount(t, "--read-only")
	wantContent(t, v.path("last"), noise(2, 5000))
	pid := v.pid()
	v.kmsfs(t, "umount", v.point)
	if !waitExit(pid, patience) {
		t.Errorf("process %d still runs", pid)
	}
	compare(t, before, snapshot(t, v.dir))
	v.mount(t)
	v.awaitRecovery(t)
	v.umount(t)
}

// testElsewhere copies a volume and its home somewhere else, as for a backup or another machine.
func testElsewhere(t *testing.T) {
	v := mounted(t)
	plantTree(t, v.point)
	want := snapshot(t, v.point)
	v.umount(t)
	other := prepareVolume(t)
	for _, pair := range [][2]string{{v.home, other.home}, {v.dir, other.dir}, {v.key, other.key}} {
		run(t, "/", "cp", "-a", pair[0], pair[1])
		must(t, removeAll(pair[0]))
	}
	other.mount(t)
	compare(t, want, snapshot(t, other.point))
}

// testPassphrase seals the home with a passphrase.
func testPassphrase(t *testing.T) {
	v := prepareVolume(t)
	v.key = ""
	phrase, wrong := filepath.Join(v.root, "phrase"), filepath.Join(v.root, "wrong")
	must(t, os.WriteFile(phrase, []byte("correct horse\n"), 0o600))
	must(t, os.WriteFile(wrong, []byte("correct house\n"), 0o600))
	v.kmsfs(t, "init", "--passphrase-file", phrase, v.dir)
	v.mount(t, "--passphrase-file", phrase)
	write(t, v.path("file"), []byte("content"))
	v.umount(t)
	v.refused(t, []string{"mount", "--passphrase-file", wrong, v.dir, v.point}, "passphrase")
	v.mount(t, "--passphrase-file", phrase)
	wantContent(t, v.path("file"), []byte("content"))
}

// TestMountHelper mounts with mount(8), as /etc/fstab does.
func TestMountHelper(t *testing.T) {
	if plain {
		t.Log("there is no program")
		return
	}
	const helper = "/sbin/mount.fuse.kmsfs"
	ownPrograms(t, filepath.Dir(helper))
	must(t, os.RemoveAll(helper)) // as README's readers have it
	must(t, os.Symlink(binary, helper))
	v := newVolume(t)
	options := "home=" + v.home + ",key_file=" + v.key
	run(t, "/", "mount", "-t", "fuse.kmsfs", v.dir, v.point, "-o", options+",noexec,noatime")
	if line := mountLine(t, v.point); !strings.Contains(line, "noexec") || !strings.Contains(line, "nosuid") || !strings.Contains(line, "noatime") {
		t.Errorf("mounted as %q", line)
	}
	write(t, v.path("file"), []byte("#!/bin/sh\n"))
	must(t, os.Chmod(v.path("file"), 0o755))
	wantErrno(t, exec.CommandContext(t.Context(), v.path("file")).Run(), unix.EACCES)
	pid := v.pid()
	run(t, "/", "umount", v.point)
	v.checkUnmounted(t, pid)

	table := filepath.Join(v.root, "fstab")
	write(t, table, fmt.Appendf(nil, "%s %s fuse.kmsfs %s,allow_other,ro,nofail 0 0\n", v.dir, v.point, options))
	run(t, "/", "mount", "-T", table, v.point)
	wantContent(t, v.path("file"), []byte("#!/bin/sh\n"))
	wantErrno(t, os.WriteFile(v.path("file"), nil, 0o644), unix.EROFS)
	if line := mountLine(t, v.point); !strings.Contains(line, "allow_other") {
		t.Errorf("mounted as %q", line)
	}
	if out, err := exec2(t, "mount", "-T", table, v.point); err == nil {
		t.Errorf("mounted twice: %s", out)
	}
	v.kmsfs(t, "umount", v.point)
	out, err := exec2(t, "mount", "-t", "fuse.kmsfs", v.dir, v.point, "-o", "home="+v.home+"-none,key_file="+v.key)
	if err == nil || !strings.Contains(out, "kmsfs init") {
		t.Errorf("without a home: %v, %s", err, out)
	}
}

// mountLine is the line on a mount in /proc/mounts.
func mountLine(t *testing.T, mountpoint string) string {
	t.Helper()
	text, err := os.ReadFile("/proc/mounts")
	must(t, err)
	for line := range strings.Lines(string(text)) {
		if strings.Fields(line)[1] == mountpoint {
			return line
		}
	}
	t.Fatalf("%s is not mounted", mountpoint)
	return ""
}

// TestOtherUsers has another user on root's mount: as far as modes go, and with the key service knowing who it is.
func TestOtherUsers(t *testing.T) {
	if plain {
		t.Log("there is no mount")
		return
	}
	v := newVolume(t, "--key", "alias/kmsfs/fs") // a key for everybody whom modes let in
	v.mount(t)
	write(t, v.path("file"), []byte("content"))
	must(t, os.Chmod(v.point, 0o755))
	if out, err := asNobody("/", "cat", v.path("file")); err == nil {
		t.Errorf("without --allow-other, another user reads %q", out)
	}
	v.umount(t)
	v.mount(t, "--allow-other")
	must(t, os.Mkdir(v.path("open"), 0o777))
	must(t, unix.Chmod(v.path("open"), 0o1777))
	write(t, v.path("closed"), []byte("closed"))
	must(t, os.Chmod(v.path("closed"), 0o600))
	write(t, v.path("group"), []byte("group"))
	must(t, os.Chown(v.path("group"), 0, nobody))
	must(t, os.Chmod(v.path("group"), 0o640))
	write(t, v.path("open", "roots"), []byte("root's"))
	can := func(script string) {
		t.Helper()
		if out, err := asNobody(v.point, "sh", "-c", script); err != nil {
			t.Errorf("another user can't %s: %s", script, out)
		}
	}
	cannot := func(script string) {
		t.Helper()
		if out, err := asNobody(v.point, "sh", "-c", script); err == nil {
			t.Errorf("another user can %s: %s", script, out)
		}
	}
	can("cat file group")
	cannot("cat closed")
	cannot("echo x > file")
	cannot("echo x > group")
	cannot("echo x > new")
	cannot("mkdir dir")
	cannot("rm -f file")
	cannot("truncate -s 0 file")
	cannot("chmod 777 file")
	cannot("setfattr -n user.x -v x file")
	can("umask 077; echo mine > open/mine; cat open/mine; mkdir open/dir; chmod 640 open/mine; mv open/mine open/dir/mine")
	cannot("rm -f open/roots") // sticky
	cannot("mv open/roots open/dir/roots")
	cannot("ln -s x open/dir/link && chown -h 0 open/dir/link")
	if st := stat(t, v.path("open", "dir", "mine")); st.Uid != nobody || st.Gid != nobody || st.Mode&0o777 != 0o640 {
		t.Errorf("made by another user: owner %d:%d, mode %o", st.Uid, st.Gid, st.Mode&0o777)
	}
	if got := v.inspect(t, v.path("open", "dir", "mine"))[0].EncryptionContext["kmsfs:owner"]; got != fmt.Sprint("uid:", nobody) {
		t.Errorf("owner in the encryption context: %q", got)
	}
	// A setuid bit goes with the first write of somebody else, and is nothing on this mount anyway.
	must(t, unix.Chmod(v.path("open", "roots"), 0o6777))
	can("echo x >> open/roots")
	if mode := stat(t, v.path("open", "roots")).Mode; mode&0o6000 != 0 {
		t.Errorf("mode %o after another user wrote to it", mode&0o7777)
	}
	// The key service was asked on the user's behalf.
	count := 0
	for _, record := range v.audit(t) {
		if record.EventName == "Decrypt" && strings.Contains(record.text, fmt.Sprintf(`%d`, nobody)) && strings.Contains(record.text, `"/file"`) {
			count++
		}
	}
	if count == 0 {
		t.Error("the audit log does not tell of the other user's reading")
	}
	v.remount(t)
	can("cat open/dir/mine")
}

// TestShape looks at what operations do rather than how long they take.
func TestShape(t *testing.T) {
	if plain {
		t.Log("there is no volume")
		return
	}
	v := mounted(t)
	// Renaming a directory changes nothing in what it holds, and needs no keys, however much that is.
	n := 20000
	must(t, os.MkdirAll(v.path("parent", "full", "sub"), 0o755))
	must(t, os.Mkdir(v.path("other"), 0o755))
	for i := range n {
		fd, err := unix.Open(v.path("parent", "full", fmt.Sprint(i)), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
		must(t, err)
		must(t, closeDescriptor(fd))
	}
	write(t, v.path("parent", "full", "sub", "deep"), []byte("deep"))
	v.remount(t)
	// backingTimes are those of all that lies two directories deep or deeper in the volume, by inode.
	backingTimes := func() map[uint64]string {
		t.Helper()
		times := make(map[uint64]string)
		must(t, filepath.WalkDir(v.dir, func(path string, entry fs.DirEntry, err error) error {
			name, relErr := filepath.Rel(v.dir, path)
			must(t, relErr)
			if strings.Count(name, "/") >= 2 {
				var st unix.Stat_t
				if err := unix.Lstat(path, &st); err != nil {
					return err
				}
				times[st.Ino] = fmt.Sprint(st.Mtim, st.Ctim, st.Size, st.Mode)
			}
			return err
		}))
		return times
	}
	before := backingTimes()
	if len(before) < n {
		t.Fatalf("%d things lie in the volume, want more than %d", len(before), n)
	}
	calls := func() int { return len(v.audit(t)) }
	from := calls()
	must(t, os.Rename(v.path("parent", "full"), v.path("other", "moved")))
	if got := calls() - from; got > 2 {
		t.Errorf("%d records in the audit log for the rename of a directory", got)
	}
	after := backingTimes()
	changed := 0
	for ino, times := range before {
		if after[ino] != times {
			changed++
		}
	}
	if changed > 1 { // the directory's own record
		t.Errorf("%d files have changed, want 1 at most: the directory's record", changed)
	}
	wantContent(t, v.path("other", "moved", "sub", "deep"), []byte("deep"))
	wantContent(t, v.path("other", "moved", "12345"), nil)

	// Names, sizes and times are had without the key service.
	from = calls()
	run(t, v.point, "ls", "-lR")
	run(t, v.point, "du", "-s", ".")
	run(t, v.point, "find", ".", "-size", "+1k")
	var st unix.Statfs_t
	must(t, unix.Statfs(v.point, &st))
	if got := calls() - from; got != 0 {
		t.Errorf("%d records in the audit log for ls, du, find and statfs", got)
	}
	// Each open is authorised: also the second one.
	for range 2 {
		from = calls()
		wantContent(t, v.path("other", "moved", "sub", "deep"), []byte("deep"))
		if calls() == from {
			t.Error("a file was read and the audit log knows nothing")
		}
	}
	// A small file takes one page, an empty one its header alone.
	write(t, v.path("small"), noise(1, 3044))
	write(t, v.path("empty"), nil)
	v.umount(t)
	sizes := make(map[int64]int)
	entries, err := os.ReadDir(v.dir)
	must(t, err)
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() && !strings.HasPrefix(e.Name(), "kmsfs.") {
			sizes[info.Size()]++
		}
	}
	if want := map[int64]int{4096: 1, 1024: 1}; !maps.Equal(sizes, want) {
		t.Errorf("sizes %v, want %v", slices.Collect(maps.Keys(sizes)), want)
	}
}
