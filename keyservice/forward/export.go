package forward

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/store"
)

// exportPatience is how long digests wait that could not be exported.
const exportPatience = time.Minute

// startExporting copies the digests of closed segments to another place, so that who rewrites the log has to do so there too.
func (f *Forwarder) startExporting() {
	f.exporter.start(exportPatience, f.exportDigests, func(err error) {
		f.Announce(eventNotExported, audit.Text("reason", err.Error()))
	})
}

// exportDigests exports those that have not been.
func (f *Forwarder) exportDigests(ctx context.Context) error {
	settings, err := f.Settings()
	if err != nil || settings.ExportDirectory == "" {
		return err
	}
	var last uint64
	err = f.Store.View(func(tx *store.Tx) (err error) {
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
func (f *Forwarder) exported(to string, segment uint64) error {
	f.Changes.Lock()
	defer f.Changes.Unlock()
	now, err := f.Settings()
	if err != nil || now.ExportDirectory != to {
		return err
	}
	return f.Store.Update(func(tx *store.Tx) error { return tx.PutAuditExported(segment) })
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
