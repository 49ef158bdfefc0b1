// Package forward sends the records of the audit log and exports the digests of its segments to places
// outside of the key service home, behind the backs of callers.
package forward

import (
	"fmt"
	"os"
	"sync"

	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/store"
)

// The events that the key service announces when forwarding fails.
const (
	eventNotExported = "AuditDigestNotExported"
	eventNotSent     = "AuditRecordsNotSent"
)

// Options are what a forwarder needs of the key service.
type Options struct {
	// Dir is the directory of the audit log.
	Dir   *os.File
	Store *store.Store
	// Changes is held by changes of what the store knows to be forwarded.
	Changes sync.Locker
	// Settings returns the settings in force, and Announce records an event.
	Settings func() (*kms.AuditSettings, error)
	Announce func(event string, details ...audit.Field)
}

// Forwarder forwards an audit log. It is safe for concurrent use.
type Forwarder struct {
	Options
	log      *audit.Log
	exporter job
	sender   sender
}

// New returns a forwarder that is not started.
func New(o Options) *Forwarder {
	return &Forwarder{Options: o, exporter: newJob(), sender: sender{job: newJob()}}
}

// Start begins to forward the log.
func (f *Forwarder) Start(log *audit.Log) {
	f.log = log
	f.startExporting()
	f.startSending()
}

// Stop ends what is under way.
func (f *Forwarder) Stop() {
	f.exporter.stop()
	f.sender.stop()
}

// Wake has the settings read anew.
func (f *Forwarder) Wake() {
	f.exporter.remind()
	f.sender.remind()
}

// SegmentClosed says that there is a digest to export.
func (f *Forwarder) SegmentClosed() { f.exporter.remind() }

// Warnings say what is not exported or sent.
func (f *Forwarder) Warnings() (all []string) {
	if err := f.exporter.trouble(); err != nil {
		all = append(all, fmt.Sprintf("digests of the audit log are not exported: %v", err))
	}
	if err := f.sender.trouble(); err != nil {
		waiting := f.log.Head().Sequence - min(f.log.Head().Sequence, f.sender.sent.Load())
		all = append(all, fmt.Sprintf("%d audit records wait to be sent: %v", waiting, err))
	}
	return all
}
