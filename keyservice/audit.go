package keyservice

import (
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/audit/send"
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

// auditOperations read, set up and write to the audit log.
type auditOperations struct{ *core }

func (o auditOperations) getAuditSettings(r *request, _ *kms.GetAuditSettingsInput) (*kms.AuditSettings, error) {
	if err := o.authorizeAccount(r, "kmsfs:GetAuditSettings", "*"); err != nil {
		return nil, err
	}
	return o.auditSettings()
}

func (o auditOperations) putAuditSettings(r *request, in *kms.AuditSettings) (*kms.PutAuditSettingsOutput, error) {
	r.paramNumber("segmentKiB", int64(in.SegmentKiB))
	r.paramNumber("segmentHours", int64(in.SegmentHours))
	r.paramNumber("retentionDays", int64(in.RetentionDays))
	r.paramBool("syncAlways", in.SyncAlways)
	if err := cmp.Or(
		o.authorizeAccount(r, "kmsfs:PutAuditSettings", "*"),
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
	o.changes.Lock()
	defer o.changes.Unlock()
	if err := o.checkPlaces(r, in); err != nil {
		return nil, err
	}
	was, err := o.auditSettings()
	if err != nil {
		return nil, err
	}
	err = o.change(r, func(tx *store.Tx) error {
		if in.ExportDirectory != was.ExportDirectory { // all of them are to be there
			if err := tx.PutAuditExported(0); err != nil {
				return err
			}
		}
		if in.SendTo != was.SendTo { // from here on
			if err := tx.PutAuditSent(o.log.Head().Sequence); err != nil {
				return err
			}
		}
		return tx.PutAuditSettings(text)
	})
	if err != nil {
		return nil, err
	}
	o.log.SetSettings(logSettings(in))
	o.forwarder.Wake()
	return &kms.PutAuditSettingsOutput{}, nil
}

// maxPlace bounds the paths of directories in the settings, in bytes.
const maxPlace = 4096

// maxAuditChunk is how much of the log's files one call reads, in bytes.
const maxAuditChunk = 512 << 10

// readAudit returns what a log is verified against, and its files' names; or a part of one of them, of which the first makes a record: what has its session goes on with it.
func (o auditOperations) readAudit(r *request, in *kms.ReadAuditInput) (*kms.ReadAuditOutput, error) {
	r.textParam("file", in.File)
	if err := cmp.Or(
		o.authorizeAccount(r, "kmsfs:ReadAudit", "*"),
		kms.CheckLength("file", len(in.File), 0, kms.MaxIdentifier)); err != nil {
		return nil, err
	}
	if in.File == "" {
		out, err := o.auditFiles()
		if err == nil {
			if r.recorded = o.tokens.IsSession(in.Session, r.time, r.caller.UID, r.caller.AccessKeyID); !r.recorded {
				out.Session = o.tokens.Session(r.time.Add(readingLife), r.caller.UID, r.caller.AccessKeyID)
			}
		}
		return out, err
	}
	if in.File != audit.OpenName && !audit.IsFile(in.File) || in.Offset < 0 {
		return nil, kms.Invalid("file", in.File, "Member must be the name of a file of the audit log, and the offset not negative")
	}
	out, err := o.readAuditFile(in)
	if errors.Is(err, unix.ENOENT) {
		return nil, kms.Errorf(kms.CodeNotFound, "The audit log has no file %s", in.File)
	}
	if err != nil {
		return nil, err
	}
	if r.recorded = o.tokens.IsSession(in.Session, r.time, r.caller.UID, r.caller.AccessKeyID); !r.recorded {
		out.Session = o.tokens.Session(r.time.Add(readingLife), r.caller.UID, r.caller.AccessKeyID)
	}
	return out, nil
}

// readingLife is for how long who reads on makes no further records.
const readingLife = time.Hour

// readAuditFile reads a part of a file. Its errors have unix.ENOENT for one that isn't there.
func (o auditOperations) readAuditFile(in *kms.ReadAuditInput) (out *kms.ReadAuditOutput, err error) {
	f, err := o.home.OpenAudit(in.File)
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
	if by := o.log.StandingIn(); in.File == audit.OpenName && by.Path != "" {
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
func (o auditOperations) auditFiles() (*kms.ReadAuditOutput, error) {
	k, err := internalKeys(o).audit()
	if err != nil {
		return nil, err
	}
	head := o.log.Head()
	out := &kms.ReadAuditOutput{
		Log: o.names.AuditLog(), PublicKey: k.PublicKey, Open: audit.OpenName,
		LastSequence: head.Sequence, LastHash: head.Hash[:],
	}
	by := o.log.StandingIn()
	out.StandIn, out.StandInBegin = by.Path, by.Begin
	out.Files, err = o.log.Names()
	return out, err
}

// checkPlaces returns an error for settings by which a caller would have the home's owner write to files and sockets.
func (o auditOperations) checkPlaces(r *request, in *kms.AuditSettings) error {
	now, err := o.auditSettings()
	if err != nil {
		return err
	}
	if in.ExportDirectory == now.ExportDirectory && in.StandInDirectory == now.StandInDirectory && in.SendTo == now.SendTo {
		return nil
	}
	if r.caller.UID != o.facts.Owner || r.caller.AccessKeyID != "" {
		return kms.Errorf(kms.CodeAccessDenied, "Only the home's owner, on its machine, sets where records and digests go to.")
	}
	if in.SendTo != "" {
		if err := send.Check(in.SendTo); err != nil {
			return kms.Invalid("sendTo", in.SendTo, "Member is malformed: %v", err)
		}
	}
	if err := cmp.Or(
		kms.CheckLength("standInDirectory", len(in.StandInDirectory), 0, maxPlace),
		kms.CheckLength("exportDirectory", len(in.ExportDirectory), 0, maxPlace)); err != nil {
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

const (
	// maxEventName bounds an event's name, in letters.
	maxEventName = 64
	// maxDetails bounds an event's details, as contextSize counts them, and its error's code and message, in bytes.
	maxDetails = 32 << 10
	// audit.ContextDetail is where the details have the encryption context.
)

// recordEvent makes the call's record the event's. A refused call is recorded as a call.
func (o auditOperations) recordEvent(r *request, e *kms.Event) (*kms.RecordEventOutput, error) {
	if err := cmp.Or(o.authorizeAccount(r, "kmsfs:RecordEvent", "*"), checkEvent(e)); err != nil {
		return nil, err
	}
	if e.KeyARN != "" {
		r.concerns(resourceKey, e.KeyARN)
	}
	r.details = audit.EventDetails(e.EncryptionContext, e.Details)
	r.name, r.serviceEvent = e.Name, true
	if e.ErrorCode == "" && e.ErrorMessage == "" {
		return &kms.RecordEventOutput{}, nil
	}
	refusal := &kms.Error{Code: e.ErrorCode, Message: e.ErrorMessage}
	if err := o.record(r, refusal); err != nil {
		return nil, err
	}
	r.recorded = true
	return &kms.RecordEventOutput{}, nil
}

func checkEvent(e *kms.Event) error {
	if err := cmp.Or(
		kms.CheckLength("name", len(e.Name), 1, maxEventName),
		kms.CheckLength("keyARN", len(e.KeyARN), 0, kms.MaxIdentifier),
		kms.CheckContext("encryptionContext", e.EncryptionContext),
		kms.CheckLength("details", kms.ContextSize(e.Details), 0, maxDetails),
		kms.CheckLength("errorCode", len(e.ErrorCode), 0, kms.MaxIdentifier),
		kms.CheckLength("errorMessage", len(e.ErrorMessage), 0, maxDetails)); err != nil {
		return err
	}
	if !kms.ConsistsOf(e.Name, "") {
		return kms.Invalid("name", "", "Member must consist of letters and digits")
	}
	if _, ok := e.Details[audit.ContextDetail]; ok {
		return kms.Invalid("details", "", "Member must not have the name %s", audit.ContextDetail)
	}
	return nil
}
