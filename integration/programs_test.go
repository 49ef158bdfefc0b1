package integration

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPrograms has real programs work on a mount, and on it again after a remount.
func TestPrograms(t *testing.T) {
	v := mounted(t)
	for _, test := range []struct {
		name string
		run  func(t *testing.T, v *volume, dir string)
	}{
		{"SourceTree", testSourceTree},
		{"GoModule", testGoModule},
		{"Git", testGit},
		{"SQLite", testSQLite},
		{"Tar", testTar},
		{"Rsync", testRsync},
		{"SparseFile", testSparseFile},
		{"Editor", testEditor},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := v.path(test.name)
			must(t, os.Mkdir(dir, 0o755))
			test.run(t, v, dir)
			must(t, removeAll(dir))
		})
	}
}

// testSourceTree copies Go's own sources in and out: some 13,000 files. For a user who has seen root do it, part of them will do.
func testSourceTree(t *testing.T, v *volume, dir string) {
	source := filepath.Join(strings.TrimSpace(run(t, "/", "go", "env", "GOROOT")), "src")
	if !isRoot {
		source = filepath.Join(source, "cmd", "compile")
	}
	run(t, dir, "cp", "-a", source, "tree")
	v.remount(t)
	run(t, dir, "diff", "-r", "--no-dereference", source, "tree")
	outside := filepath.Join(tempDir(t), "tree")
	run(t, dir, "cp", "-a", "tree", outside)
	run(t, dir, "diff", "-r", "--no-dereference", source, outside)
	if a, b := run(t, source, "sh", "-c", "find . | wc -l"), run(t, dir, "sh", "-c", "cd tree && find . | wc -l"); a != b {
		t.Errorf("%s files and directories, want %s", b, a)
	}
	// As cp -a left it, links between directories aside: types, modes, sizes and times.
	listing := func(where string) string {
		return run(t, where, "sh", "-c", `find . -printf '%p %y %m %T@ %l\n' | sort`)
	}
	if listing(outside) != listing(source) || listing(filepath.Join(dir, "tree")) != listing(source) {
		t.Error("types, modes or times differ")
	}
}

func testGoModule(t *testing.T, v *volume, dir string) {
	for name, content := range map[string]string{
		"go.mod":            "module example.com/hello\n\ngo 1.24\n",
		"main.go":           "package main\n\nimport \"example.com/hello/greet\"\n\nfunc main() { println(greet.Hello(\"mount\")) }\n",
		"greet/greet.go":    "package greet\n\nfunc Hello(who string) string { return \"hello, \" + who }\n",
		"greet/all_test.go": "package greet\n\nimport \"testing\"\n\nfunc TestHello(t *testing.T) {\n\tif Hello(\"x\") != \"hello, x\" {\n\t\tt.Fatal()\n\t}\n}\n",
	} {
		path := filepath.Join(dir, "module", name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		write(t, path, []byte(content))
	}
	for _, name := range []string{"cache", "path", "tmp"} {
		must(t, os.Mkdir(filepath.Join(dir, name), 0o755))
	}
	environment := []string{
		"GOCACHE=" + filepath.Join(dir, "cache"), "GOPATH=" + filepath.Join(dir, "path"), "TMPDIR=" + filepath.Join(dir, "tmp"),
		"HOME=" + dir, "GOFLAGS=-buildvcs=false", "GOTOOLCHAIN=local", "GOPROXY=off", "CGO_ENABLED=0", "GOENV=off", "GOTELEMETRY=off",
	}
	module := filepath.Join(dir, "module")
	runWith(t, environment, module, "go", "build", "-o", "hello", ".")
	if out := run(t, module, "./hello"); out != "hello, mount\n" {
		t.Errorf("the program printed %q", out)
	}
	if out := runWith(t, environment, module, "go", "test", "./..."); !strings.Contains(out, "ok  \texample.com/hello/greet") {
		t.Errorf("go test printed %q", out)
	}
	v.remount(t)
	if out := run(t, module, "./hello"); out != "hello, mount\n" {
		t.Errorf("after a remount the program printed %q", out)
	}
	// The cache is still good: nothing is built again.
	if out := runWith(t, environment, module, "go", "test", "./..."); !strings.Contains(out, "(cached)") {
		t.Errorf("after a remount go test printed %q", out)
	}
}

func testGit(t *testing.T, v *volume, dir string) {
	repository := filepath.Join(dir, "repository")
	environment := []string{
		"HOME=" + dir, "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com",
	}
	git := func(where string, args ...string) string {
		t.Helper()
		return runWith(t, environment, where, "git", args...)
	}
	git(dir, "init", "-q", "-b", "main", "repository")
	for i := range 200 {
		path := filepath.Join(repository, fmt.Sprint("dir", i%10), fmt.Sprint("file", i))
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		write(t, path, bytes.Repeat(fmt.Appendf(nil, "line of %d\n", i), i))
	}
	must(t, os.Symlink("dir1/file1", filepath.Join(repository, "link")))
	git(repository, "add", ".")
	git(repository, "commit", "-q", "-m", "first")
	git(repository, "checkout", "-q", "-b", "branch")
	for i := range 20 {
		write(t, filepath.Join(repository, fmt.Sprint("dir", i%10), fmt.Sprint("file", i)), noise(uint64(i), 5000))
		git(repository, "commit", "-q", "-a", "-m", fmt.Sprint("change ", i))
	}
	git(repository, "mv", "dir9", "renamed")
	git(repository, "commit", "-q", "-m", "rename")
	git(repository, "checkout", "-q", "main")
	git(repository, "merge", "-q", "--no-ff", "-m", "merge", "branch")
	git(dir, "clone", "-q", "repository", "clone")
	git(dir, "clone", "-q", "--no-local", "repository", "packed")
	git(repository, "gc", "-q", "--prune=now")
	v.remount(t)
	for _, name := range []string{"repository", "clone", "packed"} {
		where := filepath.Join(dir, name)
		git(where, "fsck", "--full", "--strict", "--no-dangling")
		if out := git(where, "status", "--porcelain"); out != "" {
			t.Errorf("git status in %s: %s", name, out)
		}
		if out := git(where, "log", "--oneline"); strings.Count(out, "\n") != 23 {
			t.Errorf("git log in %s has %d lines, want 23", name, strings.Count(out, "\n"))
		}
	}
	run(t, dir, "diff", "-r", "-x", ".git", "--no-dereference", "repository", "packed")
}

func testSQLite(t *testing.T, v *volume, dir string) {
	const writers, rows = 4, 60
	sqlite := func(database, script string) (string, error) {
		cmd, cancel := command(dir, "sqlite3", "-bail", "-batch", database)
		defer cancel()
		cmd.Stdin = strings.NewReader(".timeout 120000\n" + script)
		out, err := finish(cmd)
		return strings.TrimSpace(out), err
	}
	want := func(database, script, want string) {
		t.Helper()
		if got, err := sqlite(database, script); err != nil || got != want {
			t.Errorf("%s: %s gives %q, %v, want %q", database, script, tail(got, 500), err, want)
		}
	}
	modes := []string{"wal", "delete", "truncate", "persist"}
	for _, mode := range modes {
		database := mode + ".db"
		want(database, "PRAGMA journal_mode="+mode+"; CREATE TABLE t(writer, row, filling); CREATE INDEX i ON t(writer, row);", mode)
		var wait sync.WaitGroup
		for writer := range writers {
			wait.Go(func() {
				var script strings.Builder
				for row := range rows {
					fmt.Fprintf(&script, "BEGIN IMMEDIATE; INSERT INTO t VALUES(%d, %d, hex(randomblob(500))); UPDATE t SET filling='%d' WHERE writer=%[1]d AND row=%[2]d-5; COMMIT;\n", writer, row, row)
				}
				if out, err := sqlite(database, script.String()); err != nil {
					t.Errorf("%s, writer %d: %v, %s", mode, writer, err, out)
				}
			})
		}
		wait.Go(func() {
			for range 5 {
				if out, err := sqlite(database, "PRAGMA integrity_check;"); err != nil || out != "ok" {
					t.Errorf("%s: check while writing: %q, %v", mode, tail(out, 500), err)
				}
			}
		})
		wait.Wait()
	}
	for round := range 2 {
		for _, mode := range modes {
			want(mode+".db", "SELECT count(*), count(DISTINCT writer*1000+row) FROM t; PRAGMA integrity_check;", fmt.Sprintf("%d|%[1]d\nok", writers*rows))
		}
		if round == 0 {
			v.remount(t)
		}
	}
	want("wal.db", "DELETE FROM t WHERE row < 30; VACUUM; SELECT count(*) FROM t; PRAGMA integrity_check;", fmt.Sprintf("%d\nok", writers*(rows-30)))
}

// plantTree makes a tree with everything that archives are to keep.
func plantTree(t *testing.T, dir string) {
	t.Helper()
	in := func(name string) string { return filepath.Join(dir, name) }
	must(t, os.MkdirAll(in("sub/"+strings.Repeat("long", 60)), 0o755))
	must(t, os.Mkdir(in("closed"), 0o750))
	for i, size := range []int{0, 1, 3044, 3045, 4096, 100000, 1 << 20} {
		write(t, in(fmt.Sprint("sub/file", i)), noise(uint64(i), size))
		must(t, os.Chmod(in(fmt.Sprint("sub/file", i)), []os.FileMode{0o644, 0o600, 0o755, 0o664, 0o640, 0o711, 0o666}[i]))
	}
	write(t, in("sub/"+strings.Repeat("long", 60)+"/"+strings.Repeat("é", 127)), []byte("long name"))
	for i := range 5 {
		must(t, os.Link(in("sub/file5"), in(fmt.Sprint("closed/link", i))))
	}
	must(t, os.Symlink("../sub/file1", in("closed/symlink")))
	must(t, os.Symlink("nowhere", in("dangling")))
	must(t, unix.Mkfifo(in("fifo"), 0o640))
	sparse := open(t, in("sparse"), unix.O_CREAT|unix.O_WRONLY)
	must(t, unix.Ftruncate(sparse, 50<<20))
	for _, at := range []int64{0, 20 << 20, 50<<20 - 1000} {
		pwrite(t, sparse, noise(30, 1000), at)
	}
	must(t, closeDescriptor(sparse))
	must(t, unix.Setxattr(in("sub/file2"), "user.text", []byte("value"), 0))
	must(t, unix.Setxattr(in("sub/file2"), "user.binary", noise(31, 300), 0))
	must(t, unix.Setxattr(in("sub"), "user.directory", []byte("value"), 0))
	run(t, dir, "setfacl", "-m", "u:1234:rw,g:77:r", "sub/file3")
	run(t, dir, "setfacl", "-d", "-m", "u:1234:rwx", "closed")
	if isRoot {
		must(t, os.Lchown(in("sub/file4"), 1234, 5678))
		must(t, os.Lchown(in("dangling"), 1234, 5678))
		must(t, os.Lchown(in("closed"), 1234, 0))
		must(t, unix.Mknod(in("device"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
	}
	// Times of their own for all, the directories last: rsync leaves those of the same second.
	var paths []string
	must(t, filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		paths = append(paths, path)
		return err
	}))
	slices.Reverse(paths)
	for i, path := range paths {
		times := []unix.Timespec{{Sec: 1e9, Nsec: 5}, {Sec: 1e9 + int64(i), Nsec: 123456789}}
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, times, unix.AT_SYMLINK_NOFOLLOW))
	}
}

func wantSparse(t *testing.T, path string) {
	t.Helper()
	if st := stat(t, path); st.Size != 50<<20 || st.Blocks*512 > 1<<20 {
		t.Errorf("%s: size %d, %d bytes used, want it sparse", path, st.Size, st.Blocks*512)
	}
}

func testTar(t *testing.T, v *volume, dir string) {
	outside := tempDir(t)
	original, inside := filepath.Join(outside, "original"), filepath.Join(dir, "inside")
	must(t, os.Mkdir(original, 0o755))
	must(t, os.Mkdir(inside, 0o755))
	plantTree(t, original)
	want := snapshot(t, original)
	pack := []string{"--sparse", "--acls", "--xattrs", "--numeric-owner", "--format=posix"}
	run(t, original, "tar", append(pack, "-cf", "../one.tar", ".")...)
	run(t, inside, "tar", append(pack, "-xpf", filepath.Join(outside, "one.tar"))...)
	compare(t, want, snapshot(t, inside))
	wantSparse(t, filepath.Join(inside, "sparse"))
	v.remount(t)
	compare(t, want, snapshot(t, inside))
	wantSparse(t, filepath.Join(inside, "sparse"))
	// Out again; the archive itself is made and read in the mount.
	run(t, inside, "tar", append(pack, "-cf", filepath.Join(dir, "two.tar"), ".")...)
	back := filepath.Join(outside, "back")
	must(t, os.Mkdir(back, 0o755))
	run(t, back, "tar", append(pack, "-xpf", filepath.Join(dir, "two.tar"))...)
	compare(t, want, snapshot(t, back))
	wantSparse(t, filepath.Join(back, "sparse"))
	run(t, inside, "tar", append(pack, "--compare", "-f", filepath.Join(outside, "one.tar"))...)
}

func testRsync(t *testing.T, v *volume, dir string) {
	outside := tempDir(t)
	original, inside, back := filepath.Join(outside, "original"), filepath.Join(dir, "inside"), filepath.Join(outside, "back")
	must(t, os.Mkdir(original, 0o755))
	plantTree(t, original)
	want := snapshot(t, original)
	options := "-aHAXS"
	if isRoot {
		options += "D"
	}
	run(t, dir, "rsync", options, "--numeric-ids", original+"/", inside)
	compare(t, want, snapshot(t, inside))
	v.remount(t)
	run(t, dir, "rsync", options, "--numeric-ids", inside+"/", back)
	compare(t, want, snapshot(t, back))
	for _, pair := range [][2]string{{original, inside}, {inside, original}, {back, inside}} {
		if out := run(t, dir, "rsync", options, "--numeric-ids", "--checksum", "--dry-run", "--itemize-changes", "--delete", pair[0]+"/", pair[1]); out != "" {
			t.Errorf("rsync would change %s", out)
		}
	}
	wantSparse(t, filepath.Join(inside, "sparse"))
	// A change goes over alone, in place and by a new file.
	for _, inplace := range []string{"--inplace", "--whole-file"} {
		pwrite(t, open(t, filepath.Join(original, "sub/file6"), unix.O_WRONLY), []byte("changed by "+inplace), 500000)
		run(t, dir, "rsync", options, inplace, "--no-whole-file", "--checksum", "--numeric-ids", original+"/", inside)
		compare(t, snapshot(t, original), snapshot(t, inside))
	}
}

// testSparseFile has a file of 4 GiB that is almost all hole.
func testSparseFile(t *testing.T, v *volume, dir string) {
	path := filepath.Join(dir, "sparse")
	const size = 4 << 30
	fd := open(t, path, unix.O_CREAT|unix.O_RDWR)
	parts := map[int64][]byte{0: noise(40, 10000), 2<<30 - 5000: noise(41, 10000), 3<<30 + 1: []byte("x"), size - 7777: noise(42, 7777)}
	for _, at := range []int64{0, size - 7777, 2<<30 - 5000, 3<<30 + 1} {
		pwrite(t, fd, parts[at], at)
	}
	must(t, unix.Fsync(fd))
	for round := range 2 {
		wantSize(t, path, size)
		var kilobytes int
		if _, err := fmt.Sscan(run(t, dir, "du", "-k", "sparse"), &kilobytes); err != nil || kilobytes > 200 {
			t.Errorf("du says %d KiB, %v", kilobytes, err)
		}
		for at, content := range parts {
			wantRead(t, fd, at, content)
			if at > 0 {
				wantRead(t, fd, at-5000, make([]byte, 5000))
			}
		}
		wantRead(t, fd, 1<<30, make([]byte, 1<<20))
		data, err := unix.Seek(fd, 20000, unix.SEEK_DATA)
		if err != nil || data < 2<<30-20000 || data > 2<<30-5000 {
			t.Errorf("the next data from 20,000 on are at %d, %v, want %d", data, err, 2<<30-5000)
		}
		if round == 0 {
			must(t, closeDescriptor(fd))
			v.remount(t)
			fd = open(t, path, unix.O_RDWR)
		}
	}
	// Copied, it stays sparse.
	run(t, dir, "cp", "--sparse=auto", "sparse", "copy")
	if st := stat(t, filepath.Join(dir, "copy")); st.Size != size || st.Blocks*512 > 1<<20 {
		t.Errorf("the copy has %d bytes and takes %d", st.Size, st.Blocks*512)
	}
	copied := open(t, filepath.Join(dir, "copy"), unix.O_RDONLY)
	for at, content := range parts {
		wantRead(t, copied, at, content)
	}
	must(t, unix.Ftruncate(fd, 2<<30))
	wantSize(t, path, 2<<30)
	wantRead(t, fd, 2<<30-5000, parts[2<<30-5000][:5000])
	must(t, closeDescriptor(copied))
	must(t, closeDescriptor(fd))
}

// testEditor saves as editors do, with readers who must always find one whole version.
func testEditor(t *testing.T, v *volume, dir string) {
	path := filepath.Join(dir, "document")
	version := func(i int) []byte { return bytes.Repeat(fmt.Appendf(nil, "version %04d\n", i), 1000+i) }
	write(t, path, version(0))
	var done atomic.Bool
	var wait sync.WaitGroup
	for range 2 {
		wait.Go(func() {
			for !done.Load() {
				got, err := os.ReadFile(path)
				var i int
				if _, scanErr := fmt.Sscanf(string(got[:min(len(got), 12)]), "version %d", &i); err != nil || scanErr != nil || !bytes.Equal(got, version(i)) {
					t.Errorf("read version %d with %d bytes: %v, %v", i, len(got), err, scanErr)
					return
				}
			}
		})
	}
	for i := 1; i <= 100; i++ {
		temporary := filepath.Join(dir, fmt.Sprintf(".document.%d.swp", i))
		fd, err := unix.Open(temporary, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
		must(t, err)
		pwrite(t, fd, version(i), 0)
		must(t, unix.Fchmod(fd, 0o644))
		must(t, unix.Fsync(fd))
		must(t, closeDescriptor(fd))
		_ = os.Remove(path + "~") // there is none at first
		must(t, os.Link(path, path+"~"))
		must(t, os.Rename(temporary, path))
	}
	done.Store(true)
	wait.Wait()
	wantContent(t, path, version(100))
	wantContent(t, path+"~", version(99))
	v.remount(t)
	wantContent(t, path, version(100))
	wantNames(t, dir, "document", "document~")
}
