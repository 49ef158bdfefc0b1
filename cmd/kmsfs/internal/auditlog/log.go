// Package auditlog reads the audit log of a home: its files where their mode allows it, and else
// through the service that has it open.
package auditlog

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"kmsfs/cmd/kmsfs/internal/session"
	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/kms"
)

// Log is an audit log that can be read.
type Log struct {
	// About is what the service says of it.
	About *kms.ReadAuditOutput
	files fs.FS
}

// Read asks the service for its audit log. The service records that.
func Read(s *session.Session) (*Log, error) {
	about, err := kms.ReadAudit.Call(s.Ctx, s, s.Caller, &kms.ReadAuditInput{})
	if err != nil {
		return nil, err
	}
	log := &Log{About: about, files: &servedFiles{s: s, reading: about.Session}}
	dir := filepath.Join(s.Dir, audit.Directory)
	if f, err := os.Open(filepath.Join(dir, about.Open)); err == nil {
		f.Close()
		log.files = os.DirFS(dir)
		if about.StandIn != "" {
			log.files = audit.Continue(log.files, about.Open, audit.Continuation{Path: about.StandIn, Begin: about.StandInBegin})
		}
	}
	return log, nil
}

// Query calls found with the records that a filter applies to, in their order.
func (l *Log) Query(f audit.Filter, found func(*audit.Entry) error) error {
	return audit.Query(l.files, l.About.Open, f, found)
}

// Tail follows the records of the open segment.
func (l *Log) Tail() *audit.Tail { return audit.NewTail(l.files, l.About.Open) }

// Verify verifies the log against what the service knows of it. The key is the service's, unless
// the options name another.
func (l *Log) Verify(o audit.VerifyOptions) (audit.Report, error) {
	if o.Key == nil {
		var err error
		if o.Key, err = PublicKey(l.About.PublicKey); err != nil {
			return audit.Report{}, err
		}
	}
	o.Open = l.About.Open
	o.Head = &audit.Head{Position: audit.Position{Sequence: l.About.LastSequence}}
	copy(o.Head.Hash[:], l.About.LastHash)
	return audit.Verify(l.files, o)
}

// PublicKey reads an Ed25519 public key in PEM or DER.
func PublicKey(text []byte) (ed25519.PublicKey, error) {
	if block, _ := pem.Decode(text); block != nil {
		text = block.Bytes
	}
	parsed, err := x509.ParsePKIXPublicKey(text)
	if err != nil {
		return nil, fmt.Errorf("not a public key: %w", err)
	}
	key, ok := parsed.(ed25519.PublicKey)
	if !ok {
		return nil, errors.New("not an Ed25519 public key")
	}
	return key, nil
}
