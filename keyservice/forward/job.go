package forward

import (
	"context"
	"sync"
	"time"
)

// job is done behind the log, which it never delays: again and again, and once more after it failed.
type job struct {
	wake   chan struct{}
	cancel context.CancelFunc
	done   chan struct{}

	mu      sync.Mutex // guards failing
	failing error
}

func newJob() job { return job{wake: make(chan struct{}, 1)} }

// start has it done at once, when it is reminded, and after a while if it couldn't be done.
func (e *job) start(patience time.Duration, do func(context.Context) error, failed func(error)) {
	ctx, cancel := context.WithCancel(context.Background())
	e.cancel, e.done = cancel, make(chan struct{})
	go func() {
		defer close(e.done)
		for {
			err := do(ctx)
			if ctx.Err() != nil {
				return
			}
			if was := e.note(err); err != nil && was == nil { // once: each report is a record, which may have it done again
				failed(err)
			}
			var again <-chan time.Time
			if err != nil {
				again = time.After(patience)
			}
			select {
			case <-ctx.Done():
				return
			case <-e.wake:
			case <-again:
			}
		}
	}()
}

// note remembers how it went, and returns how it had gone before.
func (e *job) note(err error) (before error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	before, e.failing = e.failing, err
	return before
}

// trouble is why it couldn't be done the last time; nil if it could.
func (e *job) trouble() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.failing
}

func (e *job) stop() {
	e.cancel()
	<-e.done
}

// remind has it done now.
func (e *job) remind() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}
