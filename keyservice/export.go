package keyservice

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/store"
)

const (
	// exportPatience is how long digests wait that could not be exported.
	exportPatience = time.Minute
	// maxExportSetting bounds the directory's path and the command, in bytes.
	maxExportSetting = 4096
)

// errand is what a service does behind the log, which it never delays, again and again.
type errand struct {
	wake   chan struct{}
	cancel context.CancelFunc
	done   chan struct{}

	mu      sync.Mutex // guards failing
	failing error
}

func newErrand() errand { return errand{wake: make(chan struct{}, 1)} }

// start has it done at once, when it is reminded, and after a while if it couldn't be done.
func (e *errand) start(patience time.Duration, do func(context.Context) error, failed func(error)) {
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
func (e *errand) note(err error) (before error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	before, e.failing = e.failing, err
	return before
}

// trouble is why it couldn't be done the last time; nil if it could.
func (e *errand) trouble() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.failing
}

func (e *errand) stop() {
	e.cancel()
	<-e.done
}

// remind has it done now.
func (e *errand) remind() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// forwarding sends records and exports digests of the audit log, behind the backs of callers.
type forwarding struct{ *core }

// startExporting copies the digests of closed segments to another place, so that who rewrites the log has to do so there too.
func (f forwarding) startExporting() {
	f.exporter.start(exportPatience, f.exportDigests, func(err error) {
		f.announce(eventNotExported, audit.Text("reason", err.Error()))
	})
}

// exportDigests exports those that have not been.
func (f forwarding) exportDigests(ctx context.Context) error {
	settings, err := f.auditSettings()
	if err != nil || settings.ExportDirectory == "" {
		return err
	}
	var last uint64
	err = f.store.View(func(tx *store.Tx) (err error) {
		last, err = tx.AuditExported()
		return err
	})
	if err != nil {
		return err
	}
	digests, err := f.log.Digests(last)
	if err != nil {
		return err
	}
	for _, d := range digests {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := exportTo(settings.ExportDirectory, d); err != nil {
			return fmt.Errorf("export %s: %w", d.Name, err)
		}
		if err := f.exported(settings.ExportDirectory, d.Segment); err != nil {
			return err
		}
	}
	return nil
}

// exported remembers that a digest was exported to a directory, unless they go elsewhere by now.
func (f forwarding) exported(to string, segment uint64) error {
	f.changes.Lock()
	defer f.changes.Unlock()
	now, err := f.auditSettings()
	if err != nil || now.ExportDirectory != to {
		return err
	}
	return f.store.Update(func(tx *store.Tx) error { return tx.PutAuditExported(segment) })
}

// exportTo copies a digest into a directory, where it may be already, but not another of its name.
func exportTo(path string, d audit.SignedDigest) error {
	dir, err := os.OpenRoot(path)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	there, err := dir.ReadFile(d.Name)
	switch {
	case err == nil && !bytes.Equal(there, d.Content):
		return errors.New("another digest has its name there")
	case err == nil:
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	fresh := d.Name + ".new"
	f, err := dir.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(d.Content)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return dir.Rename(fresh, d.Name)
}
