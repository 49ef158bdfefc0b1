package keyservice

import (
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/home"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/store"
)

const (
	// A segment of the audit log is closed at this size and age, unless the settings say otherwise: within these bounds.
	usualSegmentKiB   = 64 << 10
	leastSegmentKiB   = 64
	mostSegmentKiB    = 4 << 20
	usualSegmentHours = 24
	mostSegmentHours  = 31 * 24
	// leastRetentionDays is the least time for which records are kept.
	leastRetentionDays = 30
	mostRetentionDays  = 100 * 366
)

// logSettings are the settings as the log takes them.
func logSettings(a *kms.AuditSettings) audit.Settings {
	return audit.Settings{
		SegmentSize: int64(a.SegmentKiB) << 10, SegmentAge: time.Duration(a.SegmentHours) * time.Hour,
		Retention: time.Duration(a.RetentionDays) * 24 * time.Hour, SyncAlways: a.SyncAlways, StandIn: a.StandInDirectory,
	}
}

// auditSettings are those in force.
func (s *Service) auditSettings() (*kms.AuditSettings, error) {
	a := &kms.AuditSettings{SegmentKiB: usualSegmentKiB, SegmentHours: usualSegmentHours}
	var text []byte
	err := s.store.View(func(tx *store.Tx) (err error) {
		text, err = tx.AuditSettings()
		return err
	})
	if err == nil && text != nil {
		err = json.Unmarshal(text, a)
	}
	return a, home.AsError(err)
}

func (s *Service) getAuditSettings(r *request, _ *kms.GetAuditSettingsInput) (*kms.AuditSettings, error) {
	if err := s.authorizeAccount(r, "kmsfs:GetAuditSettings", "*"); err != nil {
		return nil, err
	}
	return s.auditSettings()
}

func (s *Service) putAuditSettings(r *request, in *kms.AuditSettings) (*kms.PutAuditSettingsOutput, error) {
	r.paramNumber("segmentKiB", int64(in.SegmentKiB))
	r.paramNumber("segmentHours", int64(in.SegmentHours))
	r.paramNumber("retentionDays", int64(in.RetentionDays))
	r.paramBool("syncAlways", in.SyncAlways)
	if err := cmp.Or(
		s.authorizeAccount(r, "kmsfs:PutAuditSettings", "*"),
		kms.CheckNumber("segmentKiB", &in.SegmentKiB, leastSegmentKiB, mostSegmentKiB),
		kms.CheckNumber("segmentHours", &in.SegmentHours, 1, mostSegmentHours)); err != nil {
		return nil, err
	}
	r.textParam("standInDirectory", in.StandInDirectory)
	r.textParam("exportDirectory", in.ExportDirectory)
	r.textParam("sendTo", in.SendTo)
	if in.RetentionDays != 0 {
		if err := kms.CheckNumber("retentionDays", &in.RetentionDays, leastRetentionDays, mostRetentionDays); err != nil {
			return nil, err
		}
	}
	text, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	s.changes.Lock()
	defer s.changes.Unlock()
	if err := s.checkPlaces(r, in); err != nil {
		return nil, err
	}
	was, err := s.auditSettings()
	if err != nil {
		return nil, err
	}
	err = s.change(r, func(tx *store.Tx) error {
		if in.ExportDirectory != was.ExportDirectory { // all of them are to be there
			if err := tx.PutAuditExported(0); err != nil {
				return err
			}
		}
		if in.SendTo != was.SendTo { // from here on
			if err := tx.PutAuditSent(s.log.Head().Sequence); err != nil {
				return err
			}
		}
		return tx.PutAuditSettings(text)
	})
	if err != nil {
		return nil, err
	}
	s.log.SetSettings(logSettings(in))
	s.exporter.remind()
	s.sender.remind()
	return &kms.PutAuditSettingsOutput{}, nil
}

// maxAuditChunk is how much of the log's files one call reads, in bytes.
const maxAuditChunk = 512 << 10

// readAudit returns what a log is verified against, and its files' names; or a part of one of them, of which the first makes a record: what has its session goes on with it.
func (s *Service) readAudit(r *request, in *kms.ReadAuditInput) (*kms.ReadAuditOutput, error) {
	r.textParam("file", in.File)
	if err := cmp.Or(
		s.authorizeAccount(r, "kmsfs:ReadAudit", "*"),
		kms.CheckLength("file", len(in.File), 0, kms.MaxIdentifier)); err != nil {
		return nil, err
	}
	if in.File == "" {
		out, err := s.auditFiles()
		if err == nil {
			if r.recorded = s.tokens.IsSession(in.Session, r.time, r.caller.UID, r.caller.AccessKeyID); !r.recorded {
				out.Session = s.tokens.Session(r.time.Add(readingLife), r.caller.UID, r.caller.AccessKeyID)
			}
		}
		return out, err
	}
	if in.File != audit.OpenName && !audit.IsFile(in.File) || in.Offset < 0 {
		return nil, kms.Invalid("file", in.File, "Member must be the name of a file of the audit log, and the offset not negative")
	}
	out, err := s.readAuditFile(in)
	if errors.Is(err, unix.ENOENT) {
		return nil, kms.Errorf(kms.CodeNotFound, "The audit log has no file %s", in.File)
	}
	if err != nil {
		return nil, err
	}
	if r.recorded = s.tokens.IsSession(in.Session, r.time, r.caller.UID, r.caller.AccessKeyID); !r.recorded {
		out.Session = s.tokens.Session(r.time.Add(readingLife), r.caller.UID, r.caller.AccessKeyID)
	}
	return out, nil
}

// readingLife is for how long who reads on makes no further records.
const readingLife = time.Hour

// readAuditFile reads a part of a file. Its errors have unix.ENOENT for one that isn't there.
func (s *Service) readAuditFile(in *kms.ReadAuditInput) (out *kms.ReadAuditOutput, err error) {
	f, err := s.home.OpenAudit(in.File)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out = &kms.ReadAuditOutput{}
	if in.File == audit.OpenName {
		if out.Segment, err = audit.FirstSequence(f); err != nil {
			return nil, err
		}
		if in.Segment != 0 && in.Segment != out.Segment {
			return nil, unix.ENOENT
		}
	}
	read := f.ReadAt
	if by := s.log.StandingIn(); in.File == audit.OpenName && by.Path != "" {
		whole, rest, err := by.Open(f)
		if err != nil {
			return nil, err
		}
		defer func() { _ = rest.Close() }()
		read = whole.ReadAt
	}
	content := make([]byte, maxAuditChunk)
	n, err := read(content, in.Offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	out.Content = content[:n]
	return out, nil
}

// auditFiles returns what there is to be read, and what it is to be verified against.
func (s *Service) auditFiles() (*kms.ReadAuditOutput, error) {
	k, err := s.auditKey()
	if err != nil {
		return nil, err
	}
	head := s.log.Head()
	out := &kms.ReadAuditOutput{
		Log: s.names.AuditLog(), PublicKey: k.PublicKey, Open: audit.OpenName,
		LastSequence: head.Sequence, LastHash: head.Hash[:],
	}
	by := s.log.StandingIn()
	out.StandIn, out.StandInBegin = by.Path, by.Begin
	out.Files, err = s.log.Names()
	return out, err
}
