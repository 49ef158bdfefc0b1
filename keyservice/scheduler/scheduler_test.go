package scheduler_test

import (
	"testing"
	"time"

	"kmsfs/keyservice/scheduler"
)

func TestScheduler(t *testing.T) {
	s, runs := scheduler.New(), make(chan struct{}, 10)
	waits := []time.Duration{time.Hour, time.Nanosecond, time.Hour}
	run := func() time.Duration {
		runs <- struct{}{}
		wait := waits[0]
		waits = append(waits[1:], time.Hour)
		return wait
	}
	s.Start(run)
	<-runs // at the start
	s.Wake()
	<-runs // when woken
	<-runs // when due
	s.Stop()
	s.Wake()
	if len(runs) > 0 {
		t.Error("it runs after its end")
	}
}
