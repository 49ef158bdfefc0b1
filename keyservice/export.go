package keyservice

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"

	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/audit/send"
	"kmsfs/keyservice/kms"
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

// startExporting copies the digests of closed segments to another place, so that who rewrites the log has to do so there too.
func (s *Service) startExporting() {
	s.exporter.start(exportPatience, s.exportDigests, func(err error) {
		s.announce(eventNotExported, audit.Text("reason", err.Error()))
	})
}

// exportDigests exports those that have not been.
func (s *Service) exportDigests(ctx context.Context) error {
	settings, err := s.auditSettings()
	if err != nil || settings.ExportDirectory == "" {
		return err
	}
	var last uint64
	err = s.store.View(func(tx *store.Tx) (err error) {
		last, err = tx.AuditExported()
		return err
	})
	if err != nil {
		return err
	}
	digests, err := s.log.Digests(last)
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
		if err := s.exported(settings.ExportDirectory, d.Segment); err != nil {
			return err
		}
	}
	return nil
}

// exported remembers that a digest was exported to a directory, unless they go elsewhere by now.
func (s *Service) exported(to string, segment uint64) error {
	s.changes.Lock()
	defer s.changes.Unlock()
	now, err := s.auditSettings()
	if err != nil || now.ExportDirectory != to {
		return err
	}
	return s.store.Update(func(tx *store.Tx) error { return tx.PutAuditExported(segment) })
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

// checkPlaces refuses settings by which a caller would have the home's owner write to files and sockets.
func (s *Service) checkPlaces(r *request, in *kms.AuditSettings) error {
	now, err := s.auditSettings()
	if err != nil {
		return err
	}
	if in.ExportDirectory == now.ExportDirectory && in.StandInDirectory == now.StandInDirectory && in.SendTo == now.SendTo {
		return nil
	}
	if r.caller.UID != s.facts.Owner || r.caller.AccessKeyID != "" {
		return kms.Errorf(kms.CodeAccessDenied, "Only the home's owner, on its machine, sets where records and digests go to.")
	}
	if in.SendTo != "" {
		if err := send.Check(in.SendTo); err != nil {
			return kms.Invalid("sendTo", in.SendTo, "Member is malformed: %v", err)
		}
	}
	if err := cmp.Or(
		kms.CheckLength("standInDirectory", len(in.StandInDirectory), 0, maxExportSetting),
		kms.CheckLength("exportDirectory", len(in.ExportDirectory), 0, maxExportSetting)); err != nil {
		return err
	}
	for member, path := range map[string]string{"standInDirectory": in.StandInDirectory, "exportDirectory": in.ExportDirectory} {
		if path != "" && (!strings.HasPrefix(path, "/") || strings.ContainsRune(path, 0)) {
			return kms.Invalid(member, path, "Member must be an absolute path")
		}
	}
	if info, err := os.Stat(in.StandInDirectory); in.StandInDirectory != "" && (err != nil || !info.IsDir()) {
		return kms.Invalid("standInDirectory", in.StandInDirectory, "Member must be a directory that is there")
	}
	return nil
}
