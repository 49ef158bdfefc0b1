package auditlog

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"slices"
	"testing"

	"kmsfs/cmd/kmsfs/internal/session"
	"kmsfs/keyservice/kms"
)

// partSize is how much of a file the service returns in a call, in bytes.
const partSize = 4

// service has an audit log, and counts the readings that it would record.
type service struct {
	files    map[string]string
	readings int
}

func (s *service) Close() error { return nil }

func (s *service) Invoke(_ context.Context, _ kms.Caller, _ *kms.Description, in, out any) error {
	asked, answer := in.(*kms.ReadAuditInput), out.(*kms.ReadAuditOutput)
	if len(asked.Session) == 0 {
		s.readings++
	}
	answer.Session = []byte("session")
	if asked.File == "" {
		answer.Open = "open"
		for name := range s.files {
			answer.Files = append(answer.Files, name)
		}
		slices.Sort(answer.Files)
		return nil
	}
	content, ok := s.files[asked.File]
	if !ok {
		return &kms.Error{Code: kms.CodeNotFound}
	}
	rest := content[min(int(asked.Offset), len(content)):]
	answer.Content = []byte(rest[:min(len(rest), partSize)])
	return nil
}

// A log whose files can't be read directly is read through the service, which records one reading.
func TestServedFiles(t *testing.T) {
	s := &service{files: map[string]string{"open": "0123456789", "closed": "", "other": "abcd"}}
	log, err := Read(&session.Session{Home: &session.Home{Service: s, Dir: t.TempDir()}, Ctx: t.Context()})
	if err != nil {
		t.Fatal(err)
	}
	entries, err := fs.ReadDir(log.files, ".")
	if err != nil || len(entries) != len(s.files) || entries[0].Name() != "closed" {
		t.Errorf("the directory has %v, %v", entries, err)
	}
	for name, want := range s.files {
		if got, err := fs.ReadFile(log.files, name); string(got) != want || err != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if _, err := log.files.Open("none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that does not exist: %v", err)
	}
	f, err := log.files.Open("open")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.(io.Seeker).Seek(7, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(f); string(rest) != "789" || err != nil {
		t.Errorf("from an offset: %q, %v", rest, err)
	}
	if s.readings != 1 {
		t.Errorf("%d readings are recorded, want 1", s.readings)
	}
}

func TestPublicKey(t *testing.T) {
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	for form, text := range map[string][]byte{
		"DER": der, "PEM": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}),
	} {
		if got, err := PublicKey(text); !public.Equal(got) || err != nil {
			t.Errorf("%s: %x, %v", form, got, err)
		}
	}
	if _, err := PublicKey([]byte("nonsense")); err == nil {
		t.Error("nonsense is a key")
	}
}
