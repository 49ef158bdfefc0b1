package keyservice

import (
	"errors"
	"fmt"

	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/catalog"
	"kmsfs/keyservice/forward"
	"kmsfs/keyservice/home"
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
	s.forwarder = forward.New(forward.Options{
		Dir: s.home.AuditDir(), Store: s.store, Changes: &s.changes, Settings: s.auditSettings, Announce: s.announce,
	})
	file, err := s.home.OpenSegment()
	if err != nil {
		return err
	}
	opened := make(chan struct{})
	defer close(opened)
	o := audit.Options{
		Dir: s.home.AuditDir(), Name: audit.OpenName, File: file, Anchor: s.home.Anchor, Signer: auditSigner{internalKeys{s.core}}, Closed: s.forwarder.SegmentClosed,
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
	if o.Head, err = s.home.AnchoredHead(); err != nil {
		return errors.Join(err, file.Close())
	}
	if s.log, err = audit.Open(o); err != nil {
		return errors.Join(fmt.Errorf("%w: %w", home.ErrDamaged, err), file.Close())
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
)

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
type auditSigner struct{ keys internalKeys }

// Log names the log.
func (a auditSigner) Log() string { return a.keys.names.AuditLog() }

// Sign makes an Ed25519 signature.
func (a auditSigner) Sign(message []byte) (signature []byte, err error) {
	k, err := a.keys.audit()
	if err != nil {
		return nil, err
	}
	err = a.keys.ring.Use(k.CurrentMaterial(), func(secret []byte) (err error) {
		signature, err = k.KeySpec.Sign(signingAlgorithm, keyspec.Raw, secret, message)
		return err
	})
	return signature, err
}

// audit is the owned key that signs for the audit log.
func (o internalKeys) audit() (*catalog.Key, error) {
	return o.owned(auditKey, store.Key{Spec: "ECC_NIST_EDWARDS25519", Usage: kms.UsageSigning})
}
