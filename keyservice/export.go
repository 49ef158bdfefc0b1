package keyservice

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/store"
)

const (
	// exportTimeout is how long a command may take with one digest.
	exportTimeout = time.Minute
	// exportPatience is how long digests wait that could not be exported.
	exportPatience = time.Minute
	// maxExportSetting bounds the directory's path and the command, in bytes.
	maxExportSetting = 4096
	digestVariable   = "KMSFS_DIGEST"
)

// exporter copies the digests of closed segments to another place, so that who rewrites the log has to do so there too. It works behind the log, which
// it never delays.
type exporter struct {
	wake   chan struct{}
	cancel context.CancelFunc
	done   chan struct{}
}

func (s *Service) startExporting() {
	ctx, cancel := context.WithCancel(context.Background())
	s.exporter.cancel, s.exporter.done = cancel, make(chan struct{})
	go func() {
		defer close(s.exporter.done)
		failing := false
		for {
			err := s.exportDigests(ctx)
			if err != nil && !failing && ctx.Err() == nil {
				s.announce(eventNotExported, audit.Text("reason", err.Error()))
			}
			failing = err != nil
			select {
			case <-ctx.Done():
				return
			case <-s.exporter.wake:
			case <-time.After(exportPatience):
			}
		}
	}()
}

func (s *Service) stopExporting() {
	s.exporter.cancel()
	<-s.exporter.done
}

// remindExporter has it look for new digests.
func (s *Service) remindExporter() {
	select {
	case s.exporter.wake <- struct{}{}:
	default:
	}
}

// exportDigests exports those that have not been.
func (s *Service) exportDigests(ctx context.Context) error {
	settings, err := s.auditSettings()
	if err != nil || settings.ExportDirectory == "" && settings.ExportCommand == "" {
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
		if err := settings.export(ctx, d); err != nil {
			return fmt.Errorf("export %s: %w", d.Name, err)
		}
		if err := s.exported(settings, d.Segment); err != nil {
			return err
		}
	}
	return nil
}

// exported remembers that a digest was exported, unless they go elsewhere by now.
func (s *Service) exported(settings *AuditSettings, segment uint64) error {
	s.changes.Lock()
	defer s.changes.Unlock()
	now, err := s.auditSettings()
	if err != nil || !now.exportsAs(settings) {
		return err
	}
	return s.store.Update(func(tx *store.Tx) error { return tx.PutAuditExported(segment) })
}

func (a *AuditSettings) exportsAs(b *AuditSettings) bool {
	return a.ExportDirectory == b.ExportDirectory && a.ExportCommand == b.ExportCommand
}

func (a *AuditSettings) export(ctx context.Context, d audit.SignedDigest) error {
	if a.ExportDirectory != "" {
		if err := exportTo(a.ExportDirectory, d); err != nil {
			return err
		}
	}
	if a.ExportCommand != "" {
		return exportBy(ctx, a.ExportCommand, d)
	}
	return nil
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

// exportBy has a command take a digest. It gets none of this process's environment but what a shell needs, as that may have a secret in it.
func exportBy(ctx context.Context, command string, d audit.SignedDigest) error {
	ctx, cancel := context.WithTimeout(ctx, exportTimeout)
	defer cancel()
	run := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	run.Stdin = bytes.NewReader(d.Content)
	run.Env = []string{digestVariable + "=" + d.Name}
	for _, name := range []string{"PATH", "HOME", "LANG"} {
		if value, ok := os.LookupEnv(name); ok {
			run.Env = append(run.Env, name+"="+value)
		}
	}
	run.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	run.Cancel = func() error { return syscall.Kill(-run.Process.Pid, syscall.SIGKILL) } // with what it has started
	return run.Run()
}

// checkPlaces refuses settings by which a caller would have the home's owner write files or run commands.
func (s *Service) checkPlaces(r *request, in *AuditSettings) error {
	now, err := s.auditSettings()
	if err != nil {
		return err
	}
	if in.exportsAs(now) && in.StandInDirectory == now.StandInDirectory {
		return nil
	}
	if r.caller.UID != s.facts.Owner || r.caller.AccessKeyID != "" {
		return refuse(CodeAccessDenied, "Only the home's owner, on its machine, sets where records and digests go to.")
	}
	if err := firstError(
		checkLength("standInDirectory", len(in.StandInDirectory), 0, maxExportSetting),
		checkLength("exportDirectory", len(in.ExportDirectory), 0, maxExportSetting),
		checkLength("exportCommand", len(in.ExportCommand), 0, maxExportSetting)); err != nil {
		return err
	}
	for member, path := range map[string]string{"standInDirectory": in.StandInDirectory, "exportDirectory": in.ExportDirectory} {
		if path != "" && (!strings.HasPrefix(path, "/") || strings.ContainsRune(path, 0)) {
			return invalid(member, path, "Member must be an absolute path")
		}
	}
	if info, err := os.Stat(in.StandInDirectory); in.StandInDirectory != "" && (err != nil || !info.IsDir()) {
		return invalid("standInDirectory", in.StandInDirectory, "Member must be a directory that is there")
	}
	if strings.ContainsRune(in.ExportCommand, 0) {
		return invalid("exportCommand", in.ExportCommand, "Member must be a command")
	}
	return nil
}
