package integration

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
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
