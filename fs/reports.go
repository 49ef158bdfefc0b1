package fs

import (
	"context"
	"sync"

	"kmsfs/fs/keys"
	"kmsfs/fs/lock"
)

// reports writes events into the audit log that come up where locks are held, and that nothing
// depends on.
type reports struct {
	v       *volume
	mu      lock.Mutex[lock.Reports] // guards what follows
	waiting []report
	writing bool // a goroutine writes what waits
	idle    sync.WaitGroup
}

type report struct {
	call  keys.Call
	event keys.Event
}

func (r *reports) add(call keys.Call, event keys.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting = append(r.waiting, report{call, event})
	if !r.writing {
		r.writing = true
		r.idle.Go(r.write)
	}
}

func (r *reports) write() {
	for {
		r.mu.Lock()
		waiting := r.waiting
		r.waiting = nil
		r.writing = len(waiting) > 0
		r.mu.Unlock()
		if len(waiting) == 0 {
			return
		}
		for _, w := range waiting {
			if err := r.v.keys.Record(context.Background(), w.call, w.event); err != nil {
				r.v.log.Error("can't record an event", "event", w.event.Name, "error", err)
			}
		}
	}
}

// wait returns when all events are written.
func (r *reports) wait() { r.idle.Wait() }
