package keyservice

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/keyspec"
	"kmsfs/keyservice/store"
)

// auditKey is the name of the owned key that signs for the audit log.
const auditKey = "audit-log"

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

// signingAlgorithm is the audit key's.
const signingAlgorithm = "ED25519_SHA_512"

// openLog opens the audit log where the store knows it to be.
func (s *Service) openLog() (err error) {
	if s.auditDir, err = s.dir.sub(auditDir); err != nil {
		return err
	}
	file, err := s.auditDir.openSegment()
	if err != nil {
		return err
	}
	opened := make(chan struct{})
	defer close(opened)
	o := audit.Options{
		Dir: s.auditDir.File, Name: auditFile, File: file, Anchor: s.anchorLog, Signer: auditSigner{s}, Closed: s.remindExporter,
		Notice: func(n audit.Notice) {
			go func() { // one may come before there is a log to record it in
				<-opened
				s.noticeLog(n)
			}()
		},
	}
	settings, err := s.auditSettings()
	if err != nil {
		return errors.Join(err, file.Close())
	}
	o.Settings = settings.log()
	if o.Head, err = s.anchoredHead(); err != nil {
		return errors.Join(err, file.Close())
	}
	if s.log, err = audit.Open(o); err != nil {
		return errors.Join(fmt.Errorf("%w: %w", ErrDamagedHome, err), file.Close())
	}
	if s.log.Unclean() {
		s.announce(eventUncleanShutdown)
	}
	return nil
}

// The service's own events, besides those of audit.Notice and of what falls due.
const (
	eventStarted         = "ServiceStarted"
	eventStopped         = "ServiceStopped"
	eventUncleanShutdown = "ServiceUncleanShutdownFound"
	eventNotExported     = "AuditDigestNotExported"
)

// announce records an event of the service's own. A log that can't be written doesn't keep it from starting or ending: it refuses calls, which is how that
// is known.
func (s *Service) announce(event string, details ...audit.Field) {
	r := s.internalRequest()
	r.name, r.details = event, details
	_ = s.record(r, nil)
}

// openSegment opens the open segment of the audit log. One that isn't there is made: whether it should have been, the log finds out.
func (d *homeDir) openSegment() (*os.File, error) {
	file, err := d.open(auditFile, os.O_RDWR|os.O_APPEND, maxAuditFile)
	if !errors.Is(err, unix.ENOENT) {
		return file, err
	}
	fd, err := openat(int(d.Fd()), auditFile, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make %s: %w", auditFile, err)
	}
	if err := unix.Close(fd); err != nil {
		return nil, err
	}
	return d.open(auditFile, os.O_RDWR|os.O_APPEND, maxAuditFile)
}

// anchor is an audit.Head as the store keeps it.
type anchor struct {
	Sequence uint64
	Hash     string
	Segment  uint64
	Size     int64
	Closed   bool
}

func (s *Service) anchorLog(h audit.Head) error {
	text, err := json.Marshal(anchor{h.Sequence, hex.EncodeToString(h.Hash[:]), h.Segment, h.Size, h.Closed})
	if err != nil {
		return err
	}
	return s.store.Update(func(tx *store.Tx) error { return tx.PutAuditHead(text) })
}

func (s *Service) anchoredHead() (h audit.Head, err error) {
	var text []byte
	err = s.store.View(func(tx *store.Tx) (err error) {
		text, err = tx.AuditHead()
		return err
	})
	if err != nil || text == nil {
		return h, homeError(err)
	}
	var a anchor
	if err := json.Unmarshal(text, &a); err != nil {
		return h, fmt.Errorf("%w: the audit log's head: %w", ErrDamagedHome, err)
	}
	h = audit.Head{Position: audit.Position{Sequence: a.Sequence}, Segment: a.Segment, Size: a.Size, Closed: a.Closed}
	if n, err := hex.Decode(h.Hash[:], []byte(a.Hash)); err != nil || n != len(h.Hash) {
		return h, fmt.Errorf("%w: the audit log's head", ErrDamagedHome)
	}
	return h, nil
}

// log are the settings as the log takes them.
func (a *AuditSettings) log() audit.Settings {
	return audit.Settings{
		SegmentSize: int64(a.SegmentKiB) << 10, SegmentAge: time.Duration(a.SegmentHours) * time.Hour,
		Retention: time.Duration(a.RetentionDays) * 24 * time.Hour, SyncAlways: a.SyncAlways, StandIn: a.StandInDirectory,
	}
}

// auditSettings are those in force.
func (s *Service) auditSettings() (*AuditSettings, error) {
	a := &AuditSettings{SegmentKiB: usualSegmentKiB, SegmentHours: usualSegmentHours}
	var text []byte
	err := s.store.View(func(tx *store.Tx) (err error) {
		text, err = tx.AuditSettings()
		return err
	})
	if err == nil && text != nil {
		err = json.Unmarshal(text, a)
	}
	return a, homeError(err)
}

// PutAuditSettings changes the settings of the audit log.
func (s *Service) PutAuditSettings(ctx context.Context, c Caller, in *AuditSettings) (*PutAuditSettingsOutput, error) {
	return run(ctx, s, c, "PutAuditSettings", in, (*Service).putAuditSettings)
}

// GetAuditSettings returns the settings of the audit log.
func (s *Service) GetAuditSettings(ctx context.Context, c Caller, in *GetAuditSettingsInput) (*AuditSettings, error) {
	return run(ctx, s, c, "GetAuditSettings", in, func(s *Service, r *request, _ *GetAuditSettingsInput) (*AuditSettings, error) {
		if err := s.admitAccount(r, "kmsfs:GetAuditSettings", "*"); err != nil {
			return nil, err
		}
		return s.auditSettings()
	})
}

func (s *Service) putAuditSettings(r *request, in *AuditSettings) (*PutAuditSettingsOutput, error) {
	r.paramNumber("segmentKiB", int64(in.SegmentKiB))
	r.paramNumber("segmentHours", int64(in.SegmentHours))
	r.paramNumber("retentionDays", int64(in.RetentionDays))
	r.paramBool("syncAlways", in.SyncAlways)
	if err := firstError(
		s.admitAccount(r, "kmsfs:PutAuditSettings", "*"),
		checkNumber("segmentKiB", &in.SegmentKiB, leastSegmentKiB, mostSegmentKiB),
		checkNumber("segmentHours", &in.SegmentHours, 1, mostSegmentHours)); err != nil {
		return nil, err
	}
	r.textParam("standInDirectory", in.StandInDirectory)
	r.textParam("exportDirectory", in.ExportDirectory)
	r.textParam("exportCommand", in.ExportCommand)
	if in.RetentionDays != 0 {
		if err := checkNumber("retentionDays", &in.RetentionDays, leastRetentionDays, mostRetentionDays); err != nil {
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
		if !in.exportsAs(was) { // all of them are to be there
			if err := tx.PutAuditExported(0); err != nil {
				return err
			}
		}
		return tx.PutAuditSettings(text)
	})
	if err != nil {
		return nil, err
	}
	s.log.SetSettings(in.log())
	s.remindExporter()
	return &PutAuditSettingsOutput{}, nil
}

// noticeLog records what the log finds out behind the back of its callers.
func (s *Service) noticeLog(n audit.Notice) {
	if s.log == nil {
		return
	}
	r := s.internalRequest()
	r.name = n.Event
	r.details = append(r.details, audit.Number("segment", int64(n.Segment)))
	var refusal *Error
	if n.Err != nil {
		refusal = &Error{Code: CodeInternal, Message: n.Err.Error()}
	}
	_ = s.record(r, refusal)
}

// auditSigner signs for the audit log with a key of the service's own.
type auditSigner struct{ s *Service }

// Log names the log.
func (a auditSigner) Log() string { return a.s.names.auditLog() }

// Sign makes an Ed25519 signature.
func (a auditSigner) Sign(message []byte) (signature []byte, err error) {
	k, err := a.s.auditKey()
	if err != nil {
		return nil, err
	}
	err = a.s.ring.use(k.current(), func(secret []byte) (err error) {
		signature, err = k.spec.Sign(signingAlgorithm, keyspec.Raw, secret, message)
		return err
	})
	return signature, err
}

func (s *Service) auditKey() (*key, error) {
	return s.ownedKey(auditKey, store.Key{Spec: "ECC_NIST_EDWARDS25519", Usage: usageSigning})
}

// maxAuditChunk is how much of the log's files one call reads, in bytes.
const maxAuditChunk = 512 << 10

// ReadAudit reads the audit log.
func (s *Service) ReadAudit(ctx context.Context, c Caller, in *ReadAuditInput) (*ReadAuditOutput, error) {
	return run(ctx, s, c, "ReadAudit", in, (*Service).readAudit)
}

// readAudit returns what a log is verified against, and its files' names; or a part of one of them, of which the first makes a record.
func (s *Service) readAudit(r *request, in *ReadAuditInput) (*ReadAuditOutput, error) {
	r.textParam("file", in.File)
	if err := firstError(
		s.admitAccount(r, "kmsfs:ReadAudit", "*"),
		checkLength("file", len(in.File), 0, maxIdentifier)); err != nil {
		return nil, err
	}
	if in.File == "" {
		return s.auditFiles()
	}
	if in.File != auditFile && !audit.IsFile(in.File) || in.Offset < 0 {
		return nil, invalid("file", in.File, "Member must be the name of a file of the audit log, and the offset not negative")
	}
	out, err := s.readAuditFile(in)
	if errors.Is(err, unix.ENOENT) {
		return nil, refuse(CodeNotFound, "The audit log has no file %s", in.File)
	}
	r.recorded = in.Offset > 0 && err == nil
	return out, err
}

// readAuditFile reads a part of a file. Its errors have unix.ENOENT for one that isn't there.
func (s *Service) readAuditFile(in *ReadAuditInput) (out *ReadAuditOutput, err error) {
	f, err := s.auditDir.open(in.File, os.O_RDONLY, maxAuditFile)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out = &ReadAuditOutput{}
	if in.File == auditFile {
		if out.Segment, err = audit.FirstSequence(f); err != nil {
			return nil, err
		}
		if in.Segment != 0 && in.Segment != out.Segment {
			return nil, unix.ENOENT
		}
	}
	read := f.ReadAt
	if by := s.log.StandingIn(); in.File == auditFile && by.Path != "" {
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
func (s *Service) auditFiles() (*ReadAuditOutput, error) {
	k, err := s.auditKey()
	if err != nil {
		return nil, err
	}
	head := s.log.Head()
	out := &ReadAuditOutput{
		Log: s.names.auditLog(), PublicKey: k.PublicKey, Open: auditFile,
		LastSequence: head.Sequence, LastHash: head.Hash[:],
	}
	by := s.log.StandingIn()
	out.StandIn, out.StandInBegin = by.Path, by.Begin
	out.Files, err = s.log.Names()
	return out, err
}
