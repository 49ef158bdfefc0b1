package home

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/store"
)

// AuditDir is the directory of the audit log. It is open as long as the home is.
func (h *Home) AuditDir() *os.File { return h.audit.File }

// OpenAudit opens a file of the audit log to be read.
func (h *Home) OpenAudit(name string) (*os.File, error) {
	return h.audit.open(name, os.O_RDONLY, maxAuditFile)
}

// OpenSegment opens the audit log's open segment. One that isn't there is made: whether it should have
// been there, the log finds out.
func (h *Home) OpenSegment() (*os.File, error) {
	d := h.audit
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

// Anchor has the store keep the audit log's head, so that a log that was cut off or put back is found.
func (h *Home) Anchor(head audit.Head) error {
	text, err := json.Marshal(anchor{head.Sequence, hex.EncodeToString(head.Hash[:]), head.Segment, head.Size, head.Closed})
	if err != nil {
		return err
	}
	return h.Store.Update(func(tx *store.Tx) error { return tx.PutAuditHead(text) })
}

// AnchoredHead is the audit log's head as the store has it.
func (h *Home) AnchoredHead() (head audit.Head, err error) {
	var text []byte
	err = h.Store.View(func(tx *store.Tx) (err error) {
		text, err = tx.AuditHead()
		return err
	})
	if err != nil || text == nil {
		return head, AsError(err)
	}
	var a anchor
	if err := json.Unmarshal(text, &a); err != nil {
		return head, fmt.Errorf("%w: the audit log's head: %w", ErrDamaged, err)
	}
	head = audit.Head{Position: audit.Position{Sequence: a.Sequence}, Segment: a.Segment, Size: a.Size, Closed: a.Closed}
	if n, err := hex.Decode(head.Hash[:], []byte(a.Hash)); err != nil || n != len(head.Hash) {
		return head, fmt.Errorf("%w: the audit log's head", ErrDamaged)
	}
	return head, nil
}
