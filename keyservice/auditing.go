package keyservice

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/keyspec"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/store"
)

// auditKey is the name of the owned key that signs for the audit log.
const auditKey = "audit-log"

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
		Dir: s.auditDir.File, Name: auditFile, File: file, Anchor: s.anchorLog, Signer: auditSigner{s}, Closed: s.exporter.remind,
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
	o.Settings = logSettings(settings)
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
	eventNotSent         = "AuditRecordsNotSent"
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

// noticeLog records what the log finds out behind the back of its callers.
func (s *Service) noticeLog(n audit.Notice) {
	if s.log == nil {
		return
	}
	r := s.internalRequest()
	r.name = n.Event
	r.details = append(r.details, audit.Number("segment", int64(n.Segment)))
	var refusal *kms.Error
	if n.Err != nil {
		refusal = &kms.Error{Code: kms.CodeInternal, Message: n.Err.Error()}
	}
	_ = s.record(r, refusal)
}

// auditSigner signs for the audit log with a key of the service's own.
type auditSigner struct{ s *Service }

// Log names the log.
func (a auditSigner) Log() string { return a.s.names.AuditLog() }

// Sign makes an Ed25519 signature.
func (a auditSigner) Sign(message []byte) (signature []byte, err error) {
	k, err := a.s.auditKey()
	if err != nil {
		return nil, err
	}
	err = a.s.ring.Use(k.current(), func(secret []byte) (err error) {
		signature, err = k.spec.Sign(signingAlgorithm, keyspec.Raw, secret, message)
		return err
	})
	return signature, err
}

func (s *Service) auditKey() (*key, error) {
	return s.ownedKey(auditKey, store.Key{Spec: "ECC_NIST_EDWARDS25519", Usage: kms.UsageSigning})
}
