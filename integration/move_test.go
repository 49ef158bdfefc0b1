package integration

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Files that move to a directory under another KMS key come under that key, if whoever moves them may make files there.
func TestMoveAcrossKeys(t *testing.T) {
	if plain {
		t.Log("there are no keys")
		return
	}
	v, a, b := withTwoKeys(t)
	for _, dir := range []string{"a/in", "b/in"} {
		must(t, os.MkdirAll(v.path(dir), 0o755))
	}
	setKey(t, v.path("a"), "alias/a")
	setKey(t, v.path("b"), "alias/b")
	t.Run("Rename", func(t *testing.T) {
		from, to := v.path("a", "in", "file"), v.path("b", "in", "moved")
		content := noise(1, 30_000)
		write(t, from, content)
		before := stat(t, from)
		must(t, os.Rename(from, to))
		v.wantKey(t, b, to)
		wantContent(t, to, content)
		if report := v.inspect(t, to)[0]; report.EncryptionContext["kmsfs:path"] != "/b/in/moved" || len(report.Locations) != 1 || report.Locations[0].Name != "moved" {
			t.Errorf("after the move: %+v", report)
		}
		if after := stat(t, to); after.Mtim != before.Mtim || after.Ino != before.Ino {
			t.Errorf("a move has changed the file: %+v, was %+v", after, before)
		}
		_, err := os.Lstat(from)
		wantErrno(t, err, unix.ENOENT)
	})
	t.Run("Open", func(t *testing.T) { // over a file that is open, and one that is open itself
		from, to := v.path("a", "from"), v.path("b", "to")
		write(t, from, []byte("from"))
		write(t, to, []byte("to"))
		var files []*os.File
		for _, path := range []string{from, to} {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			must(t, err)
			defer f.Close()
			files = append(files, f)
		}
		must(t, os.Rename(from, to))
		v.wantKey(t, b, to)
		for i, f := range files {
			_, err := f.WriteAt([]byte("more"), 4)
			must(t, err)
			must(t, f.Sync())
			got := make([]byte, 20)
			n, _ := f.ReadAt(got, 0) // io.EOF
			if want := []string{"frommore", "tomore"}[i]; strings.ReplaceAll(string(got[:n]), "\x00", "") != want {
				t.Errorf("an open file has %q, want %q", got[:n], want)
			}
		}
		wantContent(t, to, []byte("frommore"))
		must(t, os.Truncate(to, 0)) // the new data key is under the new key too
		write(t, to, []byte("new"))
		v.wantKey(t, b, to)
	})
	t.Run("Exchange", func(t *testing.T) {
		x, y := v.path("a", "x"), v.path("b", "y")
		write(t, x, []byte("x"))
		write(t, y, []byte("y"))
		must(t, unix.Renameat2(unix.AT_FDCWD, x, unix.AT_FDCWD, y, unix.RENAME_EXCHANGE))
		v.wantKey(t, a, x)
		v.wantKey(t, b, y)
		wantContent(t, x, []byte("y"))
		wantContent(t, y, []byte("x"))
		wantErrno(t, unix.Renameat2(unix.AT_FDCWD, x, unix.AT_FDCWD, v.path("b", "in"), unix.RENAME_EXCHANGE), unix.EXDEV)
		v.wantKey(t, a, x)
	})
	t.Run("Directory", func(t *testing.T) {
		must(t, os.MkdirAll(v.path("a", "tree", "deep"), 0o755))
		write(t, v.path("a", "tree", "deep", "file"), []byte("deep"))
		wantErrno(t, unix.Rename(v.path("a", "tree"), v.path("b", "tree")), unix.EXDEV)
		wantContent(t, v.path("a", "tree", "deep", "file"), []byte("deep"))
		run(t, "/", "mv", v.path("a", "tree"), v.path("b", "tree"))
		v.wantKey(t, b, v.path("b", "tree", "deep", "file"))
		_, err := os.Lstat(v.path("a", "tree"))
		wantErrno(t, err, unix.ENOENT)
		// One with a policy of its own keeps it.
		setKey(t, v.path("b", "tree"), "alias/a")
		write(t, v.path("b", "tree", "own"), nil)
		must(t, os.Rename(v.path("b", "tree"), v.path("tree")))
		v.madeUnder(t, a, v.path("tree", "deep", "new"))
		v.wantKey(t, a, v.path("tree", "own"))
		v.wantKey(t, b, v.path("tree", "deep", "file"))
		wantContent(t, v.path("tree", "deep", "file"), []byte("deep"))
	})
	t.Run("Links", func(t *testing.T) {
		path := v.path("a", "linked")
		write(t, path, []byte("linked"))
		wantErrno(t, os.Link(path, v.path("b", "linked")), unix.EXDEV)
		must(t, os.Link(path, v.path("a", "in", "second")))
		// Not even by the back door: the other link stays where it is.
		wantErrno(t, unix.Rename(path, v.path("b", "linked")), unix.EXDEV)
		wantErrno(t, unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, v.path("b", "y"), unix.RENAME_EXCHANGE), unix.EXDEV)
		v.wantKey(t, a, path, v.path("a", "in", "second"))
		v.wantKey(t, b, v.path("b", "y"))
		run(t, "/", "mv", path, v.path("b", "linked"))
		v.wantKey(t, b, v.path("b", "linked"))
		v.wantKey(t, a, v.path("a", "in", "second"))
		must(t, os.Rename(v.path("a", "in", "second"), v.path("b", "second"))) // the last one moves
		v.wantKey(t, b, v.path("b", "second"))
	})
	t.Run("Temporary", func(t *testing.T) {
		for i, dir := range []string{v.path("a"), v.path("b", "in"), v.point} {
			fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR, 0o644)
			must(t, err)
			pwrite(t, fd, []byte("temporary"), 0)
			name := v.path("b", "temporary"+strconv.Itoa(i))
			must(t, unix.Linkat(unix.AT_FDCWD, fmt.Sprint("/proc/self/fd/", fd), unix.AT_FDCWD, name, unix.AT_SYMLINK_FOLLOW))
			pwrite(t, fd, []byte("T"), 0)
			v.wantKey(t, b, name)
			must(t, closeDescriptor(fd))
			wantContent(t, name, []byte("Temporary"))
		}
	})
	t.Run("Leave", func(t *testing.T) { testMoveLeave(t, v, a, b) })
	v.remount(t)
	wantContent(t, v.path("b", "in", "moved"), noise(1, 30_000))
	wantContent(t, v.path("b", "second"), []byte("linked"))
}

// testMoveLeave moves files and directories as a user who may use some keys in some places.
func testMoveLeave(t *testing.T, v *volume, a, b string) {
	for _, dir := range []string{"a/hers", "b/hers", "a/other"} {
		must(t, os.Mkdir(v.path(dir), 0o755))
		must(t, os.Chown(v.path(dir), alice, alice))
	}
	for _, grant := range [][]string{{a, "/a/hers", "Decrypt,GenerateDataKey"}, {b, "/b/hers", "Decrypt"}} {
		v.kmsfs(t, "grant", "create", "--key", grant[0], "--grantee", fmt.Sprint("uid:", alice), "--path", grant[1], "--operations", grant[2])
	}
	from, to := v.path("a", "hers", "file"), v.path("b", "hers", "file")
	var errs []error
	asUID(t, alice, func() {
		errs = []error{os.WriteFile(from, []byte("hers"), 0o600), unix.Rename(from, to)}
	})
	must(t, errs[0])
	wantErrno(t, errs[1], unix.EACCES)
	v.wantKey(t, a, from)
	v.kmsfs(t, "grant", "create", "--key", b, "--grantee", fmt.Sprint("uid:", alice), "--path", "/b/hers", "--operations", "GenerateDataKey")
	asUID(t, alice, func() { errs[1] = unix.Rename(from, to) })
	must(t, errs[1])
	v.wantKey(t, b, to)
	// What she may not read she doesn't move to where she may.
	write(t, v.path("a", "other", "file"), []byte("secret"))
	must(t, os.Chown(v.path("a", "other", "file"), alice, alice))
	setKey(t, v.path("a", "other"), "alias/a")
	must(t, os.Mkdir(v.path("a", "hers", "sub"), 0o755))
	must(t, os.Chown(v.path("a", "hers", "sub"), alice, alice))
	must(t, os.Chmod(v.path("a"), 0o777))
	asUID(t, alice, func() {
		errs = []error{
			unix.Rename(v.path("a", "other", "file"), v.path("a", "hers", "stolen")),
			os.Link(v.path("a", "other", "file"), v.path("a", "hers", "stolen")),
			unix.Rename(v.path("a", "other"), v.path("a", "hers", "stolen")),
			unix.Renameat2(unix.AT_FDCWD, v.path("a", "hers", "sub"), unix.AT_FDCWD, v.path("a", "other"), unix.RENAME_EXCHANGE),
		}
	})
	for _, err := range errs {
		wantErrno(t, err, unix.EACCES)
	}
	// Nor what lies deeper under another key of the volume's: where she may read the outer directory, mv copies, and fails.
	must(t, os.MkdirAll(v.path("a", "hers", "outer", "inner"), 0o755))
	setKey(t, v.path("a", "hers", "outer", "inner"), "alias/b")
	write(t, v.path("a", "hers", "outer", "inner", "file"), []byte("secret"))
	run(t, "/", "chown", "-R", fmt.Sprintf("%d:%d", alice, alice), v.path("a", "hers", "outer"))
	setKey(t, v.path("b", "hers"), "alias/a")
	v.kmsfs(t, "grant", "create", "--key", a, "--grantee", fmt.Sprint("uid:", alice), "--path", "/b/hers", "--operations", "Decrypt,GenerateDataKey")
	asUID(t, alice, func() {
		_, err := os.ReadFile(v.path("a", "hers", "outer", "inner", "file"))
		errs = []error{err, unix.Rename(v.path("a", "hers", "outer"), v.path("b", "hers", "outer")), unix.Rename(v.path("a", "hers", "sub"), v.path("a", "hers", "sub2"))}
	})
	wantErrno(t, errs[0], unix.EACCES)
	wantErrno(t, errs[1], unix.EXDEV)
	must(t, errs[2])
}

// A file with hundreds of links opens by each, whichever of them go.
func TestManyLinks(t *testing.T) {
	t.Parallel()
	if plain {
		t.Log("there are no headers")
		return
	}
	v := mounted(t)
	a := v.kmsKey(t, "alias/a")
	must(t, os.MkdirAll(v.path("dir", "sub"), 0o755))
	setKey(t, v.path("dir"), "alias/a")
	const links = 300
	content := noise(7, 20_000)
	at := func(i int) string {
		dir := []string{"dir", "dir/sub"}[i%2]
		return v.path(dir, strings.Repeat("l", 1+i%3*60)+strconv.Itoa(i))
	}
	write(t, at(0), content)
	made := 1
	for ; made < links; made++ {
		if err := os.Link(at(0), at(made)); err != nil {
			t.Fatalf("link %d: %v", made, err)
		}
	}
	v.remount(t)
	for i := range made {
		wantContent(t, at(i), content)
	}
	random := rand.New(rand.NewPCG(3, 4))
	gone := map[int]bool{}
	for range 150 { // unlink some, and move some
		i := random.IntN(made)
		switch {
		case gone[i]:
		case random.IntN(2) == 0:
			must(t, os.Remove(at(i)))
			gone[i] = true
		default:
			must(t, os.Rename(at(i), at(i)+"x"))
			must(t, os.Rename(at(i)+"x", at(i)))
		}
	}
	var left string
	for i := range made {
		if !gone[i] {
			left = at(i)
		}
	}
	must(t, os.Chown(left, alice, alice))
	f, err := os.OpenFile(left, os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt([]byte("changed"), 5000)
	must(t, errors.Join(err, f.Close()))
	copy(content[5000:], "changed")
	v.remount(t)
	for i := range made {
		if !gone[i] {
			wantContent(t, at(i), content)
		}
	}
	v.wantKey(t, a, left)
	for i := range made {
		if !gone[i] && at(i) != left {
			must(t, os.Remove(at(i)))
		}
	}
	v.remount(t)
	wantContent(t, left, content)
	if report := v.inspect(t, left)[0]; len(report.Locations)+report.DigestedLocations != 1 || report.EncryptionContext["kmsfs:owner"] != fmt.Sprint("uid:", alice) {
		t.Errorf("the last link's file: %+v", report)
	}
}

// renamedFiles is how many files the directory has that is renamed; KMSFS_RENAMED_FILES says otherwise.
const renamedFiles = 5_000

// A directory's rename rewrites nothing of what is in it, and grants follow what is there.
func TestRenameDirectory(t *testing.T) {
	t.Parallel()
	if plain {
		t.Log("there are no headers")
		return
	}
	count := renamedFiles
	if text := os.Getenv("KMSFS_RENAMED_FILES"); text != "" {
		var err error
		count, err = strconv.Atoi(text)
		must(t, err)
	}
	v := newVolume(t)
	v.mount(t, "--allow-other")
	must(t, os.Chmod(v.point, 0o755))
	must(t, os.MkdirAll(v.path("finance", "q3", "sub"), 0o755))
	must(t, os.MkdirAll(v.path("finance", "q4", "sub"), 0o755))
	var wait sync.WaitGroup
	const workers = 4
	for worker := range workers {
		wait.Go(func() {
			for i := worker; i < count; i += workers {
				dir := []string{"finance/q3", "finance/q3/sub"}[i%2]
				if err := os.WriteFile(v.path(dir, fmt.Sprint("f", i)), fmt.Append(nil, i), 0o644); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
	if t.Failed() {
		return
	}
	write(t, v.path("finance", "q4", "file"), []byte("fourth"))
	write(t, v.path("finance", "q4", "sub", "file"), []byte("fourth"))
	v.kmsfs(t, "grant", "create", "--key", "alias/kmsfs-default", "--grantee", fmt.Sprint("uid:", alice), "--path", "/finance/q3", "--operations", "Decrypt")
	reads := func(path string, may bool) {
		t.Helper()
		var err error
		asUID(t, alice, func() { _, err = os.ReadFile(path) })
		if may && err != nil || !may && !errors.Is(err, unix.EACCES) {
			t.Errorf("a grant for /finance/q3: %s: %v", path, err)
		}
	}
	reads(v.path("finance", "q3", "sub", "f1"), true)
	reads(v.path("finance", "q4", "sub", "file"), false)
	run(t, "/", "sync", "-f", v.point)

	sealed := v.sealed(t, "finance/q3/f0")
	changed := stat(t, sealed)
	start := time.Now()
	must(t, os.Rename(v.path("finance", "q3"), v.path("finance", "old")))
	first := time.Since(start)
	start = time.Now()
	must(t, os.Rename(v.path("finance", "q4"), v.path("finance", "q3")))
	t.Logf("a directory of %d files was renamed in %v, one of 2 in %v", count, first, time.Since(start))
	if now := stat(t, v.sealed(t, "finance/old/f0")); now.Ctim != changed.Ctim {
		t.Error("the rename has touched a file")
	}
	reads(v.path("finance", "old", "sub", "f1"), false)
	reads(v.path("finance", "old", "f2"), false)
	reads(v.path("finance", "q3", "file"), true)
	reads(v.path("finance", "q3", "sub", "file"), true)
	all := func() {
		t.Helper()
		for worker := range workers {
			wait.Go(func() {
				for i := worker; i < count; i += workers {
					path := v.path([]string{"finance/old", "finance/old/sub"}[i%2], fmt.Sprint("f", i))
					if got, err := os.ReadFile(path); err != nil || string(got) != strconv.Itoa(i) {
						t.Errorf("%s: %q, %v", path, got, err)
						return
					}
				}
			})
		}
		wait.Wait()
	}
	all()
	if got := v.inspect(t, v.path("finance", "old", "sub", "f1"))[0]; got.EncryptionContext["kmsfs:path"] != "/finance/old/sub/f1" {
		t.Errorf("its context after it was opened: %q", got.EncryptionContext)
	}
}

// Wherever a rename is cut short, everything opens at the old place or the new one.
func TestRenameCrash(t *testing.T) {
	t.Parallel()
	if plain {
		t.Log("there is no process to kill")
		return
	}
	v := mounted(t)
	v.kmsKey(t, "alias/a")
	v.kmsKey(t, "alias/b")
	for name, key := range map[string]string{"a": "alias/a", "b": "alias/b"} {
		must(t, os.Mkdir(v.path(name), 0o755))
		setKey(t, v.path(name), key)
	}
	const files = 50
	must(t, os.MkdirAll(v.path("dir0", "sub"), 0o755))
	for i := range files {
		write(t, v.path("dir0", "sub", fmt.Sprint("f", i)), fmt.Append(nil, i))
	}
	write(t, v.path("a", "file"), []byte("file"))
	write(t, v.path("a", "x"), []byte("x"))
	write(t, v.path("b", "y"), []byte("y"))
	must(t, os.MkdirAll(v.path("two"), 0o755))
	random := rand.New(rand.NewPCG(5, 6))
	for round := range 15 {
		var wait sync.WaitGroup
		// A directory goes to and fro, a file between two keys, and two files change places across them.
		for _, work := range []func(i int) error{
			func(i int) error {
				names, err := filepath.Glob(v.path("two", "*"))
				if err != nil {
					return err
				}
				if len(names) == 1 {
					return os.Rename(names[0], v.path("dir0"))
				}
				return os.Rename(v.path("dir0"), v.path("two", strings.Repeat("long", 1+i%3*25)))
			},
			func(int) error {
				if err := unix.Rename(v.path("a", "file"), v.path("b", "file")); !errors.Is(err, unix.ENOENT) {
					return err
				}
				return unix.Rename(v.path("b", "file"), v.path("a", "file"))
			},
			func(int) error {
				return unix.Renameat2(unix.AT_FDCWD, v.path("a", "x"), unix.AT_FDCWD, v.path("b", "y"), unix.RENAME_EXCHANGE)
			},
		} {
			wait.Go(func() {
				for i := 0; work(i) == nil; i++ {
				}
			})
		}
		time.Sleep(time.Duration(5000+random.IntN(40000)) * time.Microsecond) // the moment is of no matter
		v.killServer(t)
		wait.Wait()
		v.detach(t)
		v.mount(t)
		dirs, err := filepath.Glob(v.path("dir0"))
		must(t, err)
		moved, err := filepath.Glob(v.path("two", "*"))
		must(t, err)
		if dirs = append(dirs, moved...); len(dirs) != 1 {
			t.Fatalf("round %d: the directory is at %q", round, dirs)
		}
		for i := range files {
			wantContent(t, filepath.Join(dirs[0], "sub", fmt.Sprint("f", i)), fmt.Append(nil, i))
		}
		found, err := filepath.Glob(v.path("[ab]", "file"))
		must(t, err)
		if len(found) != 1 {
			t.Fatalf("round %d: the file is at %q", round, found)
		}
		wantContent(t, found[0], []byte("file"))
		x, err := os.ReadFile(v.path("a", "x"))
		must(t, err)
		y, err := os.ReadFile(v.path("b", "y"))
		must(t, err)
		if got := string(bytes.Join([][]byte{x, y}, nil)); got != "xy" && got != "yx" {
			t.Errorf("round %d: the two files have %q and %q", round, x, y)
		}
		if t.Failed() {
			return
		}
	}
	v.awaitRecovery(t)
	v.remount(t)
	for _, path := range []string{"a/x", "b/y"} {
		if _, err := os.ReadFile(v.path(path)); err != nil {
			t.Error(err)
		}
	}
}
