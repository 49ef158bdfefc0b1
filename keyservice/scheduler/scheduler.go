// Package scheduler runs what falls due at a time.
package scheduler

import "time"

// Scheduler runs a function again and again: when something falls due, and when it is woken.
type Scheduler struct {
	// wake says that something may fall due earlier than was thought. stop ends the runs, and done says
	// that they have ended.
	wake, stop, done chan struct{}
}

// New returns a scheduler that is not started.
func New() *Scheduler {
	return &Scheduler{wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
}

// Start runs the function now, and then after each time that it returns.
func (s *Scheduler) Start(run func() time.Duration) {
	next := run()
	go func() {
		defer close(s.done)
		for {
			timer := time.NewTimer(next)
			select {
			case <-s.stop:
				timer.Stop()
				return
			case <-s.wake:
				timer.Stop()
			case <-timer.C:
			}
			next = run()
		}
	}()
}

// Wake has the function run soon.
func (s *Scheduler) Wake() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Stop ends the runs, and waits for the one under way. It is for once, after Start.
func (s *Scheduler) Stop() {
	close(s.stop)
	<-s.done
}
