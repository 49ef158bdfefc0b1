package send

import (
	"context"
	"errors"
	"log/syslog"
	"strconv"

	"github.com/coreos/go-systemd/v22/journal"

	"kmsfs/keyservice/audit"
)

// journalSink is systemd's journal. MESSAGE is for people; KMSFS_RECORD has the whole record.
type journalSink struct{ attempt attempt }

func (j *journalSink) Send(ctx context.Context, records []*audit.Entry) error {
	return j.attempt.run(ctx, func() error {
		if !journal.Enabled() {
			return errors.New("systemd's journal isn't reached")
		}
		for _, e := range records {
			priority := []journal.Priority{notice: journal.PriInfo, refused: journal.PriWarning, failed: journal.PriErr}[severityOf(e)]
			if err := journal.Send(summary(e), priority, journalFields(e)); err != nil {
				return err
			}
		}
		return nil
	})
}

func journalFields(e *audit.Entry) map[string]string {
	by, program := e.Principal()
	fields := map[string]string{
		"SYSLOG_IDENTIFIER": "kmsfs-audit", "KMSFS_RECORD": string(e.Line), "KMSFS_EVENT": e.EventName, "KMSFS_PRINCIPAL": by,
		"KMSFS_SEQUENCE": strconv.FormatUint(e.Sequence, 10),
	}
	for name, value := range map[string]string{"KMSFS_ERROR": e.ErrorCode, "KMSFS_PROGRAM": program, "KMSFS_PATH": e.AdditionalEventData.FilePath} {
		if value != "" {
			fields[name] = value
		}
	}
	return fields
}

func (*journalSink) Close() error { return nil }

// syslogSink is the system's syslog, facility authpriv. A message is the whole record.
type syslogSink struct {
	writer  *syslog.Writer
	attempt attempt
}

func openSyslog() (Sink, error) {
	w, err := syslog.New(syslog.LOG_AUTHPRIV|syslog.LOG_INFO, "kmsfs-audit")
	if err != nil {
		return nil, err
	}
	return &syslogSink{writer: w}, nil
}

func (s *syslogSink) Send(ctx context.Context, records []*audit.Entry) error {
	return s.attempt.run(ctx, func() error {
		for _, e := range records {
			write := []func(string) error{notice: s.writer.Info, refused: s.writer.Warning, failed: s.writer.Err}[severityOf(e)]
			if err := write(string(e.Line)); err != nil {
				return err
			}
		}
		return nil
	})
}

// Close closes the connection, unless somebody is stuck in it.
func (s *syslogSink) Close() error {
	if s.attempt.running != nil {
		return nil
	}
	return s.writer.Close()
}
