package forward

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync/atomic"
	"time"

	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/audit/send"
	"kmsfs/keyservice/store"
)

const (
	// sendInterval is how often the sender looks for new records, and sendPatience how long it waits where they couldn't be sent.
	sendInterval = 250 * time.Millisecond
	sendPatience = 5 * time.Second
	// sendTimeout is how long a batch of records may take, which has so many at most.
	sendTimeout = 15 * time.Second
	sendBatch   = 256
	// sentInterval is how often the store is told what was sent: what was since is sent again after a crash.
	sentInterval = 5 * time.Second
)

// sender sends records elsewhere: from the log's files, so that nothing waits for it, and it catches up.
type sender struct {
	job
	// sent is the number of the last record that was sent.
	sent atomic.Uint64
}

func (f *Forwarder) startSending() {
	f.sender.start(sendPatience, f.sendRecords, func(err error) {
		f.Announce(eventNotSent, audit.Text("reason", err.Error()))
	})
}

// sendRecords sends records until it is told to stop, they go elsewhere, or something fails.
func (f *Forwarder) sendRecords(ctx context.Context) (err error) {
	settings, err := f.Settings()
	if err != nil || settings.SendTo == "" {
		return err
	}
	var sent uint64
	if err := f.Store.View(func(tx *store.Tx) (err error) {
		sent, err = tx.AuditSent()
		return err
	}); err != nil {
		return err
	}
	sink, err := send.Open(ctx, settings.SendTo)
	if err != nil {
		return fmt.Errorf("send audit records to %s: %w", settings.SendTo, err)
	}
	sent = min(max(sent, 1), f.log.Head().Sequence) // an older home may have been put back
	o := &outbox{f: f, sink: sink, to: settings.SendTo, sent: sent, read: sent}
	f.sender.sent.Store(o.sent)
	err = o.run(ctx)
	return errors.Join(err, o.remember(), sink.Close())
}

// outbox is where records wait for a sink.
type outbox struct {
	f    *Forwarder
	sink *send.Sink
	to   string
	// read and sent are the numbers of the last records that were read and sent, and stored what the store knows of that, since then.
	read, sent, stored uint64

	since time.Time
	batch []*audit.Entry
}

func (o *outbox) run(ctx context.Context) error {
	dir := os.DirFS(fmt.Sprintf("/proc/self/fd/%d", o.f.Dir.Fd()))
	tail := audit.NewTailBehind(dir, audit.OpenName, o.sent)
	defer func() { _ = tail.Close() }()
	ticker := time.NewTicker(sendInterval)
	defer ticker.Stop()
	for {
		// What lies behind the head may be a record that couldn't be written whole.
		err := tail.NextUpTo(o.f.log.Head().Sequence, func(e *audit.Entry) error {
			if missing := e.Sequence - o.read - 1; missing > 0 {
				o.f.Announce(eventNotSent, audit.Text("reason", "removed for their age before they could be sent"), audit.Number("records", int64(missing)))
			}
			o.read = e.Sequence
			if o.batch = append(o.batch, e); len(o.batch) < sendBatch {
				return nil
			}
			return o.flush(ctx)
		})
		if errors.Is(err, fs.ErrNotExist) { // the segment is just being closed
			err = nil
		}
		if unreadable, ok := errors.AsType[*audit.UnreadableError](err); ok {
			o.f.Announce(eventNotSent, audit.Text("reason", unreadable.First.Error()), audit.Number("records", int64(unreadable.Records)))
			err = nil
		}
		if err == nil {
			err = o.flush(ctx)
		}
		if err != nil {
			return err
		}
		_ = o.f.sender.note(nil)
		select {
		case <-ctx.Done():
			return nil
		case <-o.f.sender.wake:
			if settings, err := o.f.Settings(); err != nil || settings.SendTo != o.to {
				o.f.sender.remind()
				return err
			}
		case <-ticker.C:
		}
	}
}

// flush sends what waits.
func (o *outbox) flush(ctx context.Context) error {
	if len(o.batch) == 0 {
		return nil
	}
	timed, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	if err := o.sink.Send(timed, o.batch); err != nil {
		return fmt.Errorf("send audit records to %s: %w", o.to, err)
	}
	o.sent = o.batch[len(o.batch)-1].Sequence
	o.f.sender.sent.Store(o.sent)
	clear(o.batch)
	o.batch = o.batch[:0]
	if time.Since(o.since) < sentInterval {
		return nil
	}
	return o.remember()
}

// remember has the store know what was sent.
func (o *outbox) remember() error {
	if o.sent == o.stored {
		return nil
	}
	o.f.Changes.Lock()
	defer o.f.Changes.Unlock()
	settings, err := o.f.Settings()
	if err != nil || settings.SendTo != o.to { // another sink begins elsewhere
		return err
	}
	err = o.f.Store.Update(func(tx *store.Tx) error { return tx.PutAuditSent(o.sent) })
	if err == nil {
		o.stored, o.since = o.sent, time.Now()
	}
	return err
}
