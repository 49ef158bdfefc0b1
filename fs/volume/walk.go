package volume

import (
	"context"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// Branch is a directory of the volume that a walk goes through. Its methods are called by several goroutines at once.
type Branch interface {
	// descriptor is the directory's.
	Descriptor() int
	// enter returns the branch of the directory e in this one, which is open as fd as long as the walk goes through it; nil to leave it out.
	Enter(fd int, e Entry) Branch
	// see looks at an entry that is no directory.
	See(e Entry)
	// failed is told of what can't be read: e, or with an empty one the directory itself.
	Failed(e Entry, err error)
}

// Walk goes through a directory and all beneath it, in parallel, and with memory that doesn't grow with the number of entries.
type Walk struct {
	ctx context.Context
	// more has room for each further goroutine that may work; who finds none works himself.
	more chan struct{}
}

// NewWalk returns a walk that ends early when ctx does.
func NewWalk(ctx context.Context) *Walk {
	return &Walk{ctx, make(chan struct{}, 2*runtime.GOMAXPROCS(0)-1)} // the disk is waited for too
}

// Through goes through b. It returns when everything has been seen.
func (w *Walk) Through(b Branch) {
	dir, err := unix.Openat(b.Descriptor(), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		b.Failed(Entry{}, err)
		return
	}
	defer unix.Close(dir)
	var parts sync.WaitGroup
	defer parts.Wait()
	err = EachBatch(dir, func(entries []Entry) error {
		w.share(&parts, func() { w.entries(b, entries) })
		return w.ctx.Err()
	})
	if err != nil && w.ctx.Err() == nil {
		b.Failed(Entry{}, err)
	}
}

// share has another goroutine do the work, if there is room for one.
func (w *Walk) share(parts *sync.WaitGroup, work func()) {
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

func (w *Walk) entries(b Branch, entries []Entry) {
	for _, e := range entries {
		if w.ctx.Err() != nil {
			return
		}
		if e.Kind == unix.DT_UNKNOWN {
			var st unix.Stat_t
			if err := unix.Fstatat(b.Descriptor(), e.Name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				b.Failed(e, err)
				continue
			}
			e.Kind = uint8(st.Mode & unix.S_IFMT >> 12) // a DT_ constant
		}
		if e.Kind == unix.DT_DIR {
			w.directory(b, e)
		} else {
			b.See(e)
		}
	}
}

func (w *Walk) directory(b Branch, e Entry) {
	fd, err := unix.Openat(b.Descriptor(), e.Name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		b.Failed(e, err)
		return
	}
	defer unix.Close(fd)
	if inner := b.Enter(fd, e); inner != nil {
		w.Through(inner)
	}
}
