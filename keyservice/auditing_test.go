package keyservice_test

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kmsfs/keyservice"
	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/kms"
)

// verifyLog verifies a home's log against what the service says of it.
func verifyLog(t *testing.T, s *keyservice.Service, dir string) (audit.Report, error) {
	t.Helper()
	about, err := kms.ReadAudit.Call(context.Background(), s, self(), &kms.ReadAuditInput{})
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.ParsePKIXPublicKey(about.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	head := &audit.Head{Position: audit.Position{Sequence: about.LastSequence}}
	copy(head.Hash[:], about.LastHash)
	return audit.Verify(os.DirFS(filepath.Join(dir, "audit")), audit.VerifyOptions{Open: about.Open, Key: key.(ed25519.PublicKey), Head: head})
}

// A home's log verifies; what was taken from it while the home was closed is found when it is opened, recorded, and named.
func TestAuditLog(t *testing.T) {
	dir, secret := newHome(t)
	path := filepath.Join(dir, "audit/current.jsonl")
	s := openHome(t, dir, secret)
	key := newKey(t, s)
	generate(t, s, key, nil)
	if report, err := verifyLog(t, s, dir); err != nil || report.Records < 3 {
		t.Errorf("%+v, %v", report, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(lines []string) string{
		"cut off": func(lines []string) string { return strings.Join(lines[:len(lines)-1], "") },
		"edited":  func(lines []string) string { return strings.Replace(string(text), "ReadAudit", "ReadAlias", 1) },
		"garbage": func([]string) string { return strings.Repeat("x", 300<<10) },
		"removed": nil,
	} {
		t.Run(name, func(t *testing.T) {
			copied := filepath.Join(t.TempDir(), "home")
			if err := errors.Join(os.CopyFS(copied, os.DirFS(dir)), os.Chmod(copied, 0o700)); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(copied, "audit/current.jsonl")
			if change == nil {
				err = os.Remove(path)
			} else {
				err = os.WriteFile(path, []byte(change(strings.SplitAfter(strings.TrimSuffix(string(text), "\n"), "\n"))), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			s := openHome(t, copied, secret)
			if name != "edited" { // what lies before the end is for verification to find
				for end := time.Now().Add(10 * time.Second); !strings.Contains(readLog(t, copied), audit.NoticeDamaged); time.Sleep(time.Millisecond) {
					if time.Now().After(end) {
						t.Fatal("the damage is not recorded")
					}
				}
			}
			_, err := verifyLog(t, s, copied)
			if fault, ok := errors.AsType[*audit.Fault](err); !ok || fault.Sequence == 0 {
				t.Errorf("verification: %v", err)
			}
			generate(t, s, key, nil)
		})
	}
}

// Who may read the log is the service policy's to say, and reading it is recorded.
func TestReadAudit(t *testing.T) {
	dir, secret := newHome(t)
	s := openHome(t, dir, secret)
	newKey(t, s)
	_, err := kms.ReadAudit.Call(context.Background(), s, stranger(), &kms.ReadAuditInput{})
	if code(err) != kms.CodeAccessDenied {
		t.Errorf("a stranger reads the log: %v", err)
	}
	_, err = kms.ReadAudit.Call(context.Background(), s, stranger(), &kms.ReadAuditInput{File: "current.jsonl", Offset: 1})
	if code(err) != kms.CodeAccessDenied {
		t.Errorf("a stranger reads the log's content: %v", err)
	}
	before := readLog(t, dir)
	out, err := kms.ReadAudit.Call(context.Background(), s, self(), &kms.ReadAuditInput{File: "current.jsonl"})
	if err != nil || string(out.Content) != before {
		t.Errorf("%d bytes, %v, want %d", len(out.Content), err, len(before))
	}
	if r := lastRecord(t, dir); r.EventName != "ReadAudit" || r.RequestParameters["file"] != "current.jsonl" {
		t.Errorf("the last record is %+v", r)
	}
	for _, c := range []struct {
		offset   int64
		session  []byte
		recorded bool
	}{{1, nil, true}, {1, []byte("made up"), true}, {1, out.Session, false}, {0, out.Session, false}} {
		before := len(readRecords(t, dir))
		if _, err := kms.ReadAudit.Call(context.Background(), s, self(), &kms.ReadAuditInput{File: "current.jsonl", Offset: c.offset, Session: c.session}); err != nil {
			t.Error(err)
		}
		if recorded := len(readRecords(t, dir)) > before; recorded != c.recorded {
			t.Errorf("offset %d, session %q: recorded is %t", c.offset, c.session, recorded)
		}
	}
	for _, name := range []string{"../keys.db", "rootkey", "/etc/passwd", "current.jsonl.new", ".", "00000000000000000000.jsonl"} {
		if _, err := kms.ReadAudit.Call(context.Background(), s, self(), &kms.ReadAuditInput{File: name}); code(err) != kms.CodeValidation {
			t.Errorf("%s: %v", name, err)
		}
	}
}
