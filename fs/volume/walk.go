package volume

import (
	"context"
	"errors"
	"runtime"
	"sync"

	"kmsfs/fs/volume/backing"

	"golang.org/x/sys/unix"
)

// Branch is a directory of the volume that a walk goes through. Its methods are called by several
// goroutines at once.
type Branch interface {
	// Enter returns the branch of the directory e in this one; nil leaves it out. It is open as dir
	// until all its entries have been seen, which may be before those of the directories beneath
	// it.
	Enter(dir backing.Dir, e backing.Entry) Branch
	// See looks at an entry that is not a directory.
	See(e backing.Entry)
	// Failed is told what can't be read: e, or with an empty one the directory itself.
	Failed(e backing.Entry, err error)
}

// Walk goes through the directory that is open as root, whose branch is b, and through all beneath
// it. It works in parallel, and returns when everything has been seen or ctx has ended.
//
// Its memory doesn't grow with the number of entries: of each directory on the way down it keeps at
// most two batches. A directory whose entries have all been seen is closed, so that even a very
// long chain of directories takes few descriptors.
func Walk(ctx context.Context, root backing.Dir, b Branch) {
	dir, err := root.OpenDir(".")
	if err != nil {
		b.Failed(backing.Entry{}, err)
		return
	}
	w := &walk{ctx: ctx}
	w.changed = sync.NewCond(&w.mu)
	w.push(task{in: &level{branch: b, dir: dir}})
	var workers sync.WaitGroup
	for range 2 * runtime.GOMAXPROCS(0) { // the disk is waited for too
		workers.Go(w.work)
	}
	workers.Wait()
}

// walk is a walk under way.
type walk struct {
	ctx context.Context

	mu      sync.Mutex // guards what follows, and level.tasks
	changed *sync.Cond // there is a task, or none are left
	// tasks are to be done, the last one first: what is deepest, so that few directories are open.
	tasks []task
	// unfinished are the tasks to be done and those under way.
	unfinished int
}

// task is a part of the work on a directory: to look at entries, or, without any, to read more of
// them.
type task struct {
	in      *level
	entries []backing.Entry
}

// level is a directory on the way down.
type level struct {
	branch Branch
	dir    backing.Dir
	tasks  int // unfinished ones; the directory is closed after the last
}

func (w *walk) push(t task) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tasks = append(w.tasks, t)
	w.unfinished++
	t.in.tasks++
	w.changed.Signal()
}

// next waits for a task. It returns false when there will be no more.
func (w *walk) next() (task, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.tasks) == 0 {
		if w.unfinished == 0 {
			return task{}, false
		}
		w.changed.Wait()
	}
	last := len(w.tasks) - 1
	t := w.tasks[last]
	w.tasks[last] = task{}
	w.tasks = w.tasks[:last]
	return t, true
}

// done ends a task, after those that it leads to have been pushed.
func (w *walk) done(t task) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unfinished--
	if w.unfinished == 0 {
		w.changed.Broadcast()
	}
	t.in.tasks--
	if t.in.tasks == 0 {
		t.in.dir.Close()
	}
}

func (w *walk) work() {
	for {
		t, ok := w.next()
		if !ok {
			return
		}
		switch {
		case w.ctx.Err() != nil:
		case len(t.entries) == 0:
			w.read(t.in)
		default:
			w.look(t.in, t.entries)
		}
		w.done(t)
	}
}

// read reads two batches of entries: the second one tells most directories' end, after which they
// can be closed while what lies beneath is walked through.
func (w *walk) read(in *level) {
	var batches [][]backing.Entry
	err := in.dir.EachBatch(func(entries []backing.Entry) error {
		batches = append(batches, entries)
		if len(batches) == 2 {
			return errEnough
		}
		return nil
	})
	switch {
	case errors.Is(err, errEnough):
		w.push(task{in: in})
	case err != nil:
		in.branch.Failed(backing.Entry{}, err)
	}
	for _, entries := range batches {
		if len(entries) > 0 {
			w.push(task{in, entries})
		}
	}
}

var errEnough = errors.New("enough entries")

// look looks at entries, up to the first directory: that is read next, and the rest comes after it.
func (w *walk) look(in *level, entries []backing.Entry) {
	for i, e := range entries {
		if w.ctx.Err() != nil {
			return
		}
		if e.Kind == unix.DT_UNKNOWN {
			st, err := in.dir.StatAt(e.Name)
			if err != nil {
				in.branch.Failed(e, err)
				continue
			}
			e.Kind = uint8(st.Mode & unix.S_IFMT >> 12) // a DT_ constant
		}
		if e.Kind != unix.DT_DIR {
			in.branch.See(e)
			continue
		}
		if rest := entries[i+1:]; len(rest) > 0 {
			w.push(task{in, rest})
		}
		w.enter(in, e)
		return
	}
}

func (w *walk) enter(in *level, e backing.Entry) {
	dir, err := in.dir.OpenDir(e.Name)
	if err != nil {
		in.branch.Failed(e, err)
		return
	}
	if inner := in.branch.Enter(dir, e); inner != nil {
		w.push(task{in: &level{branch: inner, dir: dir}})
	} else {
		dir.Close()
	}
}
