package integration

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// forgetWorkers work at the same time; each does forgetSteps operations.
const (
	forgetWorkers = 4
	forgetSteps   = 500
)

// TestForget makes, moves and gives away directories while the kernel forgets, again and again,
// all names and inodes of the mount that are not in use. No operation may fail, and everything
// must be where it was put last, and belong to the user it was given to last, after a remount too.
func TestForget(t *testing.T) {
	t.Parallel()
	v := mounted(t)
	workers := make([]*forgetWorker, forgetWorkers)
	for i := range workers {
		workers[i] = newForgetWorker(t, v.path(fmt.Sprint("worker", i)), uint64(i))
	}
	var done atomic.Bool
	var forgetting, working sync.WaitGroup
	forgetting.Go(func() {
		for !done.Load() {
			forgetUnused(t, v.point)
		}
	})
	for _, w := range workers {
		working.Go(w.work)
	}
	working.Wait()
	done.Store(true)
	forgetting.Wait()
	for _, w := range workers {
		w.check()
	}
	v.umount(t)
	out, err := v.try("fsck", "--json", v.dir)
	for line := range strings.Lines(out) {
		var fault struct{ Class, Path, Detail string }
		if json.Unmarshal([]byte(line), &fault) == nil && fault.Class != "" {
			t.Errorf("fsck: %s", line)
		}
	}
	if err != nil {
		t.Errorf("fsck after a clean unmount: %v", err)
	}
	v.mount(t)
	for _, w := range workers {
		w.check()
	}
}

// forgetUnused has the kernel drop the names and inodes of one mount that nobody uses: a remount
// without changes does so (shrink_dcache_sb).
func forgetUnused(t *testing.T, point string) {
	t.Helper()
	err := unix.Mount("", point, "", unix.MS_REMOUNT|unix.MS_NOSUID|unix.MS_NODEV, "")
	if err != nil {
		t.Errorf("remount: %v", err)
	}
}

// forgetWorker changes the directories in a directory of its own, and knows how they must be.
type forgetWorker struct {
	t      *testing.T
	top    string
	random *rand.Rand
	owners map[string]int // by path below top
	made   int
}

func newForgetWorker(t *testing.T, top string, seed uint64) *forgetWorker {
	must(t, os.Mkdir(top, 0o755))
	w := &forgetWorker{t: t, top: top, random: rand.New(rand.NewPCG(seed, 12)), owners: map[string]int{}}
	for range 4 {
		w.mkdir("")
	}
	return w
}

func (w *forgetWorker) work() {
	for range forgetSteps {
		if w.t.Failed() {
			return
		}
		switch path := w.pick(); w.random.IntN(8) {
		case 0, 1:
			if len(w.owners) < 40 && strings.Count(path, "/") < 6 {
				w.mkdir(path)
			}
		case 2, 3:
			w.move(path)
		case 4, 5:
			w.give(path)
		case 6:
			w.file(path)
		default:
			w.look(path)
		}
	}
}

func (w *forgetWorker) pick() string {
	at := w.random.IntN(len(w.owners))
	for path := range w.owners {
		if at--; at < 0 {
			return path
		}
	}
	panic("there are no directories")
}

func (w *forgetWorker) name() string {
	w.made++
	return fmt.Sprint("/d", w.made)
}

func (w *forgetWorker) mkdir(parent string) {
	path := parent + w.name()
	if err := os.Mkdir(w.top+path, 0o755); err != nil {
		w.t.Error(err)
		return
	}
	w.owners[path] = 0
}

// move takes a directory, and what is in it, into another one that is not beneath it.
func (w *forgetWorker) move(from string) {
	parent := w.pick()
	if strings.HasPrefix(parent+"/", from+"/") {
		parent = ""
	}
	to := parent + w.name()
	if err := os.Rename(w.top+from, w.top+to); err != nil {
		w.t.Error(err)
		return
	}
	moved := map[string]int{}
	for path, owner := range w.owners {
		if rest, beneath := strings.CutPrefix(path+"/", from+"/"); beneath {
			path = strings.TrimSuffix(to+"/"+rest, "/")
		}
		moved[path] = owner
	}
	w.owners = moved
}

func (w *forgetWorker) give(path string) {
	owner := 1000 + w.random.IntN(4)
	if err := os.Chown(w.top+path, owner, -1); err != nil {
		w.t.Error(err)
		return
	}
	w.owners[path] = owner
}

func (w *forgetWorker) file(path string) {
	name := w.top + path + "/file"
	if err := os.WriteFile(name, []byte(path), 0o644); err != nil {
		w.t.Error(err)
		return
	}
	if err := os.Remove(name); err != nil {
		w.t.Error(err)
	}
}

func (w *forgetWorker) look(path string) {
	var st unix.Stat_t
	if err := unix.Stat(w.top+path, &st); err != nil {
		w.t.Errorf("stat %s: %v", path, err)
	} else if int(st.Uid) != w.owners[path] {
		w.t.Errorf("%s belongs to %d, want %d", path, st.Uid, w.owners[path])
	}
}

func (w *forgetWorker) check() {
	for path := range w.owners {
		w.look(path)
	}
}
