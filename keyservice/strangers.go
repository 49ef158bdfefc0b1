package keyservice

import (
	"sync"
	"time"

	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/wire"
)

// mostStrangers is how many calls a second are recorded that nobody knows whose they are. The others are counted: strangers must not
// be able to fill the disk, without which nobody is answered.
const mostStrangers = 10

// strangers counts calls that nobody knows whose they are.
type strangers struct {
	mu sync.Mutex // guards what follows; no other lock is taken under it
	// second is when the recorded ones were counted, and missed are those since the last record.
	second           int64
	recorded, missed int64
}

// admit says whether one more is recorded, and how many before it were not.
func (f *strangers) admit(now time.Time) (missed int64, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if second := now.Unix(); second != f.second {
		f.second, f.recorded = second, 0
	}
	if f.recorded >= mostStrangers {
		f.missed++
		return 0, false
	}
	f.recorded++
	missed, f.missed = f.missed, 0
	return missed, true
}

// unknownOperation is the name of calls for an operation that there is not.
const unknownOperation = "UnknownOperation"

// recordRefusal records a call that has reached no operation.
func (s *Service) recordRefusal(w wire.Refusal) error {
	s.life.RLock()
	defer s.life.RUnlock()
	if s.closed {
		return kms.Errorf(kms.CodeInternal, "the key service is closed")
	}
	r := &request{
		id: w.RequestID, name: w.Operation, time: time.Now(), readOnly: true,
		caller: kms.Caller{Caller: w.Caller, AccessKeyID: w.AccessKeyID, Address: w.Address}, stranger: !w.Known,
	}
	if !w.Known {
		missed, ok := s.strangers.admit(r.time)
		if !ok {
			return nil
		}
		if missed > 0 {
			r.additional = append(r.additional, audit.Number("unrecordedBefore", missed))
		}
	}
	if r.name == "" {
		r.name = unknownOperation
		r.textParam("target", w.Target)
	}
	return s.record(r, w.Error)
}
