package fs

import (
	"context"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// branch is a directory of the volume that a walk goes through. Its methods are called by several goroutines at once.
type branch interface {
	// descriptor is the directory's.
	descriptor() int
	// enter returns the branch of the directory e in this one, which is open as fd as long as the walk goes through it; nil to leave it out.
	enter(fd int, e entry) branch
	// see looks at an entry that is no directory.
	see(e entry)
	// failed is told of what can't be read: e, or with an empty one the directory itself.
	failed(e entry, err error)
}

// walk goes through a directory and all beneath it, in parallel, and with memory that doesn't grow with the number of entries.
type walk struct {
	ctx context.Context
	// more has room for each further goroutine that may work; who finds none works himself.
	more chan struct{}
}

// newWalk returns a walk that ends early when ctx does.
func newWalk(ctx context.Context) *walk {
	return &walk{ctx, make(chan struct{}, 2*runtime.GOMAXPROCS(0)-1)} // the disk is waited for too
}

// through goes through b. It returns when everything has been seen.
func (w *walk) through(b branch) {
	dir, err := unix.Openat(b.descriptor(), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		b.failed(entry{}, err)
		return
	}
	defer unix.Close(dir)
	var parts sync.WaitGroup
	defer parts.Wait()
	err = eachBatch(dir, func(entries []entry) error {
		w.share(&parts, func() { w.entries(b, entries) })
		return w.ctx.Err()
	})
	if err != nil && w.ctx.Err() == nil {
		b.failed(entry{}, err)
	}
}

// share has another goroutine do the work, if there is room for one.
func (w *walk) share(parts *sync.WaitGroup, work func()) {
	select {
	case w.more <- struct{}{}:
		parts.Go(func() {
			defer func() { <-w.more }()
			work()
		})
	default:
		work()
	}
}

func (w *walk) entries(b branch, entries []entry) {
	for _, e := range entries {
		if w.ctx.Err() != nil {
			return
		}
		if e.kind == unix.DT_UNKNOWN {
			var st unix.Stat_t
			if err := unix.Fstatat(b.descriptor(), e.name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				b.failed(e, err)
				continue
			}
			e.kind = uint8(st.Mode & unix.S_IFMT >> 12) // a DT_ constant
		}
		if e.kind == unix.DT_DIR {
			w.directory(b, e)
		} else {
			b.see(e)
		}
	}
}

func (w *walk) directory(b branch, e entry) {
	fd, err := unix.Openat(b.descriptor(), e.name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		b.failed(e, err)
		return
	}
	defer unix.Close(fd)
	if inner := b.enter(fd, e); inner != nil {
		w.through(inner)
	}
}
