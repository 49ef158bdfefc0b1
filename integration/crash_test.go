package integration

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
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

// TestCrash ends the serving process without warning, again and again, in the middle of work.
func TestCrash(t *testing.T) {
	if plain {
		t.Log("there is no process to kill")
		return
	}
	t.Run("Work", testCrashWork)
	t.Run("SQLite", testCrashSQLite)
	t.Run("Directory", testCrashDirectory)
}

// errStopped says that the mount has gone in the middle of an operation, which may have had its effect or not.
var errStopped = errors.New("the mount is gone")

// worker does one kind of work in a directory of its own, and afterwards says whether it is all there.
type worker interface {
	// step does one operation. It returns errStopped, wrapped, if that didn't end.
	step(random *rand.Rand) error
	// check compares what there is with what has been done, and takes it as it is from then on.
	check(t *testing.T)
}

// stopped tells the mount's end from other errors.
func stopped(err error) error {
	if errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED) || errors.Is(err, unix.ESTALE) {
		return errStopped
	}
	return err
}

func testCrashWork(t *testing.T) {
	const rounds, operations = 8, 1500
	v := mounted(t)
	var workers []worker
	must(t, os.Mkdir(v.path("compressed"), 0o755))
	must(t, setAttribute(v.path("compressed"), compressionAttribute, "zstd"))
	for i := range 3 {
		workers = append(workers, newFileWorker(v.path([]string{".", "compressed"}[min(i, 1)], fmt.Sprint("file", i))))
	}
	for i, make := range []func(dir string) worker{newNameWorker, newNameWorker, newMakeWorker} {
		dir := v.path(fmt.Sprint("names", i))
		must(t, os.Mkdir(dir, 0o755))
		workers = append(workers, make(dir))
	}
	for round := range rounds {
		var count atomic.Int64
		var killing atomic.Bool
		reached := make(chan struct{})
		failed := make(chan struct{})
		var once sync.Once
		var wait sync.WaitGroup
		for i, w := range workers {
			wait.Go(func() {
				random := rand.New(rand.NewPCG(uint64(round), uint64(i)))
				for {
					err := w.step(random)
					// What the kernel could not hand over any more is EIO when a file is closed or synced.
					if errors.Is(err, errStopped) || errors.Is(err, unix.EIO) && killing.Load() {
						return
					}
					if err != nil {
						t.Errorf("round %d, worker %d: %v", round, i, err)
						once.Do(func() { close(failed) })
						return
					}
					// Not always at the same point of an operation: some other worker's count decides.
					if count.Add(1) == operations+int64(round) {
						close(reached)
					}
				}
			})
		}
		select {
		case <-reached:
		case <-failed:
		}
		killing.Store(true)
		v.killServer(t)
		wait.Wait()
		v.detach(t)
		v.mount(t)
		for _, w := range workers {
			w.check(t)
		}
		if t.Failed() {
			return
		}
	}
	// What was repaired stays so when nothing is tolerated any more.
	v.awaitRecovery(t)
	before := snapshot(t, v.point)
	v.remount(t)
	compare(t, before, snapshot(t, v.point))
	for _, w := range workers {
		w.check(t)
	}
}

// fileWorker writes to, shortens and syncs one file, and knows which bytes may be there.
type fileWorker struct {
	path    string
	durable []byte   // as of the last fsync
	now     []byte   // as of the last operation
	pending []change // since the last fsync
	seed    uint64
	file    *os.File
}

// change is a write, or, without bytes, a new size.
type change struct {
	at    int
	bytes []byte
}

func newFileWorker(path string) worker { return &fileWorker{path: path} }

func (w *fileWorker) step(random *rand.Rand) error {
	if w.file == nil {
		f, err := os.OpenFile(w.path, os.O_CREATE|os.O_RDWR, 0o644)
		if err != nil {
			return stopped(err)
		}
		w.file = f
	}
	const most = 200 << 10
	var err error
	switch random.IntN(10) {
	default:
		w.seed++
		n := 1 + random.IntN([]int{100, 5000, 60000}[random.IntN(3)])
		at := random.IntN(most - n)
		if random.IntN(3) == 0 {
			at = min(len(w.now), most-n) // appended
		}
		c := change{at, noise(w.seed, n)}
		if random.IntN(2) == 0 { // half of it can be compressed
			clear(c.bytes[n/2:])
		}
		w.apply(c)
		_, err = w.file.WriteAt(c.bytes, int64(at))
	case 0:
		c := change{at: random.IntN(most)}
		w.apply(c)
		err = w.file.Truncate(int64(c.at))
	case 1, 2, 3:
		if err = w.file.Sync(); err == nil {
			w.durable, w.pending = slices.Clone(w.now), nil
		}
	case 4:
		// Closing writes, but doesn't sync: a kill takes nothing away that is written.
		err = w.file.Close()
		w.file = nil
		if err == nil {
			w.durable, w.pending = slices.Clone(w.now), nil
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", w.path, stopped(err))
	}
	return nil
}

// apply adds a change to what may be there.
func (w *fileWorker) apply(c change) {
	w.pending = append(w.pending, c)
	size := c.at + len(c.bytes)
	if size > len(w.now) {
		w.now = append(w.now, make([]byte, size-len(w.now))...)
	}
	if c.bytes == nil {
		w.now = w.now[:size:size]
	}
	copy(w.now[c.at:], c.bytes)
}

func (w *fileWorker) check(t *testing.T) {
	t.Helper()
	if w.file != nil {
		_ = w.file.Close() // its mount is gone
		w.file = nil
	}
	got, err := os.ReadFile(w.path)
	if errors.Is(err, fs.ErrNotExist) && w.durable == nil {
		w.now, w.pending = nil, nil
		return
	}
	if err != nil {
		t.Errorf("after a crash: %v", err)
		return
	}
	// Where a size was between changes, any in between may have been left.
	least, most, size := len(w.durable), len(w.durable), len(w.durable)
	for _, c := range w.pending {
		if size = max(size, c.at+len(c.bytes)); c.bytes == nil {
			size = c.at
		}
		least, most = min(least, size), max(most, size)
	}
	if len(got) < least || len(got) > most {
		t.Errorf("%s: %d bytes, want %d to %d", w.path, len(got), least, most)
		return
	}
	for i, b := range got {
		if i < len(w.durable) && w.durable[i] == b {
			continue
		}
		possible := b == 0 && i >= len(w.durable)
		for _, c := range w.pending {
			possible = possible || c.bytes == nil && b == 0 && i >= c.at
			possible = possible || i >= c.at && i < c.at+len(c.bytes) && c.bytes[i-c.at] == b
		}
		if !possible {
			t.Errorf("%s: byte %d of %d is %x, which was never there (last synced: %d bytes, %d changes since)", w.path, i, len(got), b, len(w.durable), len(w.pending))
			return
		}
	}
	w.durable, w.now, w.pending = got, slices.Clone(got), nil
}

// nameWorker renames, links and unlinks files, whose content is their identity.
type nameWorker struct {
	dir string
	// is holds each name with its content; unsure are those that the last operation may have changed, with their contents then.
	is, unsure map[string]string
	seed       int
}

func newNameWorker(dir string) worker { return &nameWorker{dir: dir, is: make(map[string]string)} }

func (w *nameWorker) step(random *rand.Rand) error {
	w.unsure = make(map[string]string)
	names := slices.Sorted(maps.Keys(w.is))
	name := func() string {
		return fmt.Sprintf("%s%d", strings.Repeat("n", 1+random.IntN(2)*200), random.IntN(30))
	}
	path := func(name string) string { return filepath.Join(w.dir, name) }
	var err error
	if len(names) < 5 {
		w.seed++
		to, content := name(), fmt.Sprintf("content %d of %s\n", w.seed, w.dir)
		if _, ok := w.is[to]; ok {
			return nil
		}
		// Made whole beside it and renamed, as editors do it.
		if err := makeSynced(path("new"), content); err != nil {
			w.unsure["new"] = "?"
			return stopped(err)
		}
		w.unsure["new"], w.unsure[to] = content, content
		err = os.Rename(path("new"), path(to))
		if err == nil {
			w.is[to] = content
		}
	} else {
		from, to := names[random.IntN(len(names))], name()
		_, there := w.is[to]
		switch operation := random.IntN(4); {
		case operation == 0 && len(names) > 8:
			w.unsure[from] = ""
			if err = os.Remove(path(from)); err == nil {
				delete(w.is, from)
			}
		case operation == 1 && there && from != to:
			w.unsure[from], w.unsure[to] = w.is[to], w.is[from]
			if err = unix.Renameat2(unix.AT_FDCWD, path(from), unix.AT_FDCWD, path(to), unix.RENAME_EXCHANGE); err == nil {
				w.is[from], w.is[to] = w.is[to], w.is[from]
			}
		case operation == 2 && !there:
			w.unsure[to] = w.is[from]
			if err = os.Link(path(from), path(to)); err == nil {
				w.is[to] = w.is[from]
			}
		case w.is[from] != w.is[to]: // links of the same file stay both
			w.unsure[from], w.unsure[to] = "", w.is[from]
			if err = os.Rename(path(from), path(to)); err == nil {
				w.is[to] = w.is[from]
				delete(w.is, from)
			}
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", w.dir, stopped(err))
	}
	w.unsure = nil
	return nil
}

func makeSynced(path, content string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	return errors.Join(err, f.Sync(), f.Close())
}

func (w *nameWorker) check(t *testing.T) {
	t.Helper()
	found := make(map[string]string)
	entries, err := os.ReadDir(w.dir)
	if err != nil {
		t.Error(err)
		return
	}
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(w.dir, e.Name()))
		if err != nil {
			t.Errorf("after a crash: %v", err)
		}
		found[e.Name()] = string(content)
	}
	changed := make([]string, 0, 2)
	for name := range maps.Keys(mergeKeys(w.is, found)) {
		if found[name] == w.is[name] {
			continue
		}
		after, ok := w.unsure[name]
		if !ok || after != found[name] && after != "?" {
			t.Errorf("%s: %q is %q, want %q, or %q", w.dir, name, found[name], w.is[name], after)
		}
		changed = append(changed, name)
	}
	// The operation was done wholly, or not at all. (Of "new", that is made before, nothing is known.)
	for name, after := range w.unsure {
		if len(changed) > 0 && found[name] != after && name != "new" && !slices.Contains(changed, "new") {
			t.Errorf("%s: the last operation was done in part: %q, but %q is %q, not %q", w.dir, changed, name, found[name], after)
		}
	}
	if _, ok := found["new"]; ok {
		if err := os.Remove(filepath.Join(w.dir, "new")); err != nil {
			t.Error(err)
		}
		delete(found, "new")
	}
	w.is, w.unsure = found, nil
}

func mergeKeys(a, b map[string]string) map[string]string {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

// makeWorker makes directories with files, and removes them.
type makeWorker struct {
	dir  string
	made []string // directories that must be there; the first may be being removed
	next int
}

func newMakeWorker(dir string) worker { return &makeWorker{dir: dir} }

func (w *makeWorker) step(random *rand.Rand) error {
	if len(w.made) > 20 {
		gone := w.made[0]
		w.made = w.made[1:]
		return stopped(os.RemoveAll(filepath.Join(w.dir, gone)))
	}
	w.next++
	name := fmt.Sprintf("%s%d", strings.Repeat("d", 1+random.IntN(2)*220), w.next)
	dir := filepath.Join(w.dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return stopped(err)
	}
	w.made = append(w.made, name)
	if err := makeSynced(filepath.Join(dir, "file"), name); err != nil {
		return stopped(err)
	}
	return stopped(os.Symlink(name, filepath.Join(dir, "link")))
}

func (w *makeWorker) check(t *testing.T) {
	t.Helper()
	for i, name := range w.made {
		dir := filepath.Join(w.dir, name)
		content, err := os.ReadFile(filepath.Join(dir, "file"))
		// In the last one, making the file may have been cut short.
		last := i == len(w.made)-1
		if err != nil && (!last || !errors.Is(err, fs.ErrNotExist)) || err == nil && !last && string(content) != name {
			t.Errorf("after a crash: %s: %q, %v", dir, content, err)
		}
		if err := os.WriteFile(filepath.Join(dir, "more"), []byte("more"), 0o644); err != nil {
			t.Errorf("after a crash: %v", err)
		}
	}
	// All that is there, half made or half removed, can be removed.
	entries, err := os.ReadDir(w.dir)
	if err != nil {
		t.Error(err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(w.dir, e.Name())); err != nil {
			t.Errorf("after a crash: %v", err)
		}
	}
	w.made = nil
}

// testCrashSQLite kills the mount under a database: what was committed is there.
func testCrashSQLite(t *testing.T) {
	v := mounted(t)
	for round, mode := range []string{"wal", "delete", "wal", "delete"} {
		name := mode + ".db"
		cmd, cancel := command(v.root, "sqlite3", "-batch", v.path(name))
		var script strings.Builder
		fmt.Fprintf(&script, "PRAGMA journal_mode=%s; PRAGMA synchronous=FULL; CREATE TABLE IF NOT EXISTS t(n, filling);\n", mode)
		const rows = 2000
		for n := range rows {
			fmt.Fprintf(&script, "INSERT INTO t VALUES(%d, randomblob(3000)); SELECT 'committed', %[1]d;\n", round*rows+n)
		}
		cmd.Stdin = strings.NewReader(script.String())
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		committed, killed := -1, false
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if _, err := fmt.Sscanf(lines.Text(), "committed|%d", &committed); err == nil && committed%rows == 40+round && !killed {
				v.killServer(t)
				killed = true
			}
		}
		if err := cmd.Wait(); err == nil || !killed {
			t.Fatalf("sqlite3 got to %d before the mount was killed: %v", committed, err)
		}
		cancel()
		v.detach(t)
		v.mount(t)
		// The rows of the round before with the same mode are there, and all of this one that were committed.
		query := fmt.Sprintf("PRAGMA integrity_check; SELECT count(*) FROM t WHERE n BETWEEN %d AND %d;", round*rows, committed)
		want := fmt.Sprintf("ok\n%d\n", committed%rows+1)
		if got := run(t, v.point, "sqlite3", "-batch", name, query); got != want {
			t.Errorf("%s, %d was committed: %q, want %q", mode, committed, got, want)
		}
	}
	v.awaitRecovery(t)
}

// testCrashDirectory kills the mount right after a directory was made and its parent synced, and after other single steps.
func testCrashDirectory(t *testing.T) {
	v := mounted(t)
	steps := []struct {
		name  string
		do    func(t *testing.T, dir string)
		check func(t *testing.T, dir string)
	}{
		{"Mkdir", func(t *testing.T, dir string) {
			must(t, os.Mkdir(filepath.Join(dir, "made"), 0o755))
		}, func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "made", "file"), []byte("x"))
			wantContent(t, filepath.Join(dir, "made", "file"), []byte("x"))
		}},
		{"RenameDirectory", func(t *testing.T, dir string) {
			must(t, os.MkdirAll(filepath.Join(dir, "a", "b"), 0o755))
			must(t, os.Mkdir(filepath.Join(dir, "c"), 0o755))
			write(t, filepath.Join(dir, "a", "b", "file"), []byte("x"))
			must(t, os.Rename(filepath.Join(dir, "a", "b"), filepath.Join(dir, "c", "d")))
		}, func(t *testing.T, dir string) {
			wantContent(t, filepath.Join(dir, "c", "d", "file"), []byte("x"))
			wantNames(t, filepath.Join(dir, "a"))
		}},
		{"EmptyFile", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "empty"), nil)
		}, func(t *testing.T, dir string) {
			wantContent(t, filepath.Join(dir, "empty"), nil)
			write(t, filepath.Join(dir, "empty"), []byte("not any more"))
			wantContent(t, filepath.Join(dir, "empty"), []byte("not any more"))
		}},
		{"Truncated", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "file"), noise(50, 20000))
			must(t, os.Truncate(filepath.Join(dir, "file"), 0))
		}, func(t *testing.T, dir string) {
			wantContent(t, filepath.Join(dir, "file"), nil)
		}},
		{"ManyLinks", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "file"), []byte("linked"))
			for i := range 50 {
				must(t, os.Link(filepath.Join(dir, "file"), filepath.Join(dir, fmt.Sprint(strings.Repeat("l", 100), i))))
			}
			must(t, os.Remove(filepath.Join(dir, "file")))
		}, func(t *testing.T, dir string) {
			for i := range 50 {
				wantContent(t, filepath.Join(dir, fmt.Sprint(strings.Repeat("l", 100), i)), []byte("linked"))
			}
		}},
		{"Attributes", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "file"), nil)
			must(t, unix.Setxattr(filepath.Join(dir, "file"), "user.a", []byte("value"), 0))
			must(t, os.Symlink("target", filepath.Join(dir, "link")))
		}, func(t *testing.T, dir string) {
			b := make([]byte, 10)
			if n, err := unix.Getxattr(filepath.Join(dir, "file"), "user.a", b); err != nil || string(b[:n]) != "value" {
				t.Errorf("attribute: %q, %v", b[:max(0, n)], err)
			}
			if target, err := os.Readlink(filepath.Join(dir, "link")); err != nil || target != "target" {
				t.Errorf("symlink: %q, %v", target, err)
			}
		}},
	}
	for _, s := range steps {
		t.Run(s.name, func(t *testing.T) {
			dir := v.path(s.name)
			must(t, os.Mkdir(dir, 0o755))
			s.do(t, dir)
			d, err := os.Open(dir)
			must(t, err)
			must(t, d.Sync())
			must(t, d.Close())
			v.kill(t)
			if _, err := os.Lstat(filepath.Join(v.dir, "kmsfs.mark")); err != nil {
				t.Errorf("the volume is not marked: %v", err)
			}
			v.mount(t)
			s.check(t, dir)
		})
	}
	v.awaitRecovery(t)
	before := snapshot(t, v.point)
	v.remount(t)
	compare(t, before, snapshot(t, v.point))
}

// TestDiskFull fills the file system that the volume lies on.
func TestDiskFull(t *testing.T) {
	t.Run("tmpfs", func(t *testing.T) {
		v := prepareVolume(t)
		smallDisk(t, v, "size=24m")
		testDiskFull(t, v)
	})
	t.Run("ext4", func(t *testing.T) {
		v := prepareVolume(t)
		loopDisk(t, v, "24M")
		testDiskFull(t, v)
	})
}

// fillUp writes a file, block by block, until there is no other.
func fillUp(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_SYNC, 0o600)
	must(t, err)
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	wantErrno(t, err, unix.ENOSPC)
}

// loopDisk makes an ext4 file system in a file and mounts it where the volume is to be. It returns the file.
func loopDisk(t *testing.T, v *volume, size string) (image string) {
	t.Helper()
	image, disk := filepath.Join(v.root, "image"), filepath.Join(v.root, "disk")
	run(t, v.root, "truncate", "-s", size, image)
	run(t, v.root, "mkfs.ext4", "-q", "-b", "4096", "-m", "0", image)
	must(t, os.Mkdir(disk, 0o755))
	run(t, "/", "mount", "-o", "loop", image, disk)
	t.Cleanup(func() {
		v.end(t)
		if mountType(disk) != "" {
			run(t, "/", "umount", disk)
		}
	})
	v.dir = filepath.Join(disk, "volume")
	return image
}

func testDiskFull(t *testing.T, v *volume) {
	if plain {
		must(t, os.Mkdir(v.dir, 0o755))
		v.point = v.dir
	} else {
		v.kmsfs(t, "init", v.dir)
	}
	v.mount(t)
	content := func(i int) []byte { return noise(uint64(i), 100000+i*777) }
	name := func(i int) string { return v.path(fmt.Sprint("file", i)) }
	// put writes as careful programs do.
	put := func(i int) error {
		f, err := os.OpenFile(name(i), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
		if err != nil {
			return err
		}
		_, err = f.Write(content(i))
		if err == nil {
			err = f.Sync()
		}
		return errors.Join(err, f.Close())
	}
	fill := func(from int) int {
		t.Helper()
		for i := from; i < 1000; i++ {
			if err := put(i); err != nil {
				wantErrno(t, err, unix.ENOSPC)
				return i
			}
		}
		t.Fatal("the disk does not get full")
		return 0
	}
	check := func(from, to int) {
		t.Helper()
		for i := from; i < to; i++ {
			wantContent(t, name(i), content(i))
		}
	}
	full := fill(0)
	if full < 20 {
		t.Fatalf("full after %d files", full)
	}
	// What didn't fit may be cut short, and have zeros where nothing could be written, but it isn't broken.
	usable := func(i int) {
		t.Helper()
		got, err := os.ReadFile(name(i))
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
		if err != nil {
			t.Errorf("what did not fit: %v", err)
			return
		}
		want := content(i)
		for k, b := range got {
			if k >= len(want) || b != want[k] && b != 0 {
				t.Errorf("what did not fit has a wrong byte at %d of %d", k, len(got))
				return
			}
		}
	}
	usable(full)
	check(0, full)
	// All kinds of changes either work or say that the disk is full, and harm nothing.
	try := func(what string, err error) {
		t.Helper()
		if err != nil && !errors.Is(err, unix.ENOSPC) {
			t.Errorf("%s on a full disk: %v", what, err)
		}
	}
	for i := range 5 {
		_, err := exec2(t, "sh", "-c", fmt.Sprintf("head -c 3000000 /dev/zero | tr '\\0' x > %s", v.path("filling")))
		if err == nil || !strings.Contains(err.Error(), "No space left") {
			t.Errorf("filling: %v", err)
		}
		try("mkdir", os.Mkdir(v.path(fmt.Sprint("dir", i)), 0o755))
		try("symlink", os.Symlink(strings.Repeat("t", 2000), v.path(fmt.Sprint("symlink", i))))
		try("attribute", unix.Setxattr(name(i), "user.large", noise(60, 2500), 0))
		try("link", os.Link(name(0), v.path(fmt.Sprint(strings.Repeat("link", 60), i))))
		f, err := os.OpenFile(name(1), os.O_WRONLY|os.O_APPEND, 0)
		must(t, err)
		try("lengthening", unix.Fallocate(int(f.Fd()), 0, 0, 50<<20))
		must(t, f.Close())
	}
	to := v.path(strings.Repeat("r", 250))
	if err := os.Rename(name(2), to); err == nil {
		must(t, os.Rename(to, name(2)))
	} else {
		try("rename", err)
	}
	// The fallocate may have lengthened it by what there was room for.
	must(t, os.Truncate(name(1), int64(len(content(1)))))
	check(0, full)
	v.remount(t)
	check(0, full)
	usable(full)
	// With room again, everything works again.
	must(t, os.RemoveAll(v.path("filling")))
	for i := range full / 2 {
		must(t, os.Remove(name(i)))
	}
	check(full/2, full)
	for i := range full / 4 {
		must(t, put(i))
	}
	check(0, full/4)
	must(t, os.WriteFile(name(full), content(full), 0o644))
	wantContent(t, name(full), content(full))
	// Full again, and killed: what was synced is there.
	again := fill(full + 1)
	if !plain {
		v.kill(t)
		v.mount(t)
		v.awaitRecovery(t)
	}
	check(0, full/4)
	check(full/2, again)
	usable(again)
	v.remount(t)
	check(full/2, again)
	if !plain {
		// Without one free block it can be mounted, so that files can be removed.
		v.umount(t)
		fillUp(t, filepath.Join(filepath.Dir(v.dir), "filler"))
		v.mount(t)
		check(full/2, again)
		must(t, os.Remove(name(full/2)))
	}
	if !bytes.Equal(content(0), noise(0, 100000)) {
		t.Error("contents are not what they should be")
	}
}
