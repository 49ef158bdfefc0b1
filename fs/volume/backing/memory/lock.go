package memory

import (
	"sync"

	"golang.org/x/sys/unix"
)

// locks are the locks on open files, flock(2)'s and fcntl(2)'s, each by the handle that has it.
type locks struct {
	// changed is signalled, with FS.mu held, when a lock ends.
	changed *sync.Cond
	whole   map[lockKey]int16 // of flock(2)
	bytes   map[lockKey]int16
}

type lockKey struct {
	use
	at    int64 // 0 for flock(2)
	owner *handle
}

func newLocks(mu *sync.Mutex) locks {
	return locks{changed: sync.NewCond(mu), whole: map[lockKey]int16{}, bytes: map[lockKey]int16{}}
}

func (l *locks) wake() { l.changed.Broadcast() }

// conflicts says whether another handle has a lock that keeps key's owner from kind.
func conflicts(held map[lockKey]int16, key lockKey, kind int16) bool {
	for k, other := range held {
		if k.use == key.use && k.at == key.at && k.owner != key.owner && (kind == unix.F_WRLCK || other == unix.F_WRLCK) {
			return true
		}
	}
	return false
}

// lock takes, changes or ends a lock. FS.mu is held, and let go while it waits.
func (l *locks) lock(held map[lockKey]int16, key lockKey, kind int16, wait bool, alive func() bool) error {
	if kind == unix.F_UNLCK {
		delete(held, key)
		l.wake()
		return nil
	}
	for conflicts(held, key, kind) {
		if !wait {
			return unix.EWOULDBLOCK
		}
		l.changed.Wait()
		if !alive() {
			return unix.EIO
		}
	}
	held[key] = kind
	l.wake() // a lock may have become weaker
	return nil
}

// drop ends all locks of a handle.
func (l *locks) drop(h *handle) {
	for _, held := range []map[lockKey]int16{l.whole, l.bytes} {
		for k := range held {
			if k.owner == h {
				delete(held, k)
			}
		}
	}
	l.wake()
}
