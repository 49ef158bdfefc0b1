package audit_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"kmsfs/keyservice/audit"
)

func openLog(t *testing.T) (l *audit.Log, path string) {
	t.Helper()
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	path = filepath.Join(dir.Name(), "log")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if l, err = audit.Open(int(dir.Fd()), "log", f); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l, path
}

// Whatever text a record holds, a line is one JSON object, and the text comes back.
func FuzzRecord(f *testing.F) {
	f.Add("plain", "\"\\\n\r\x00\x1b\x7f\u0085\u2028\U0001f600", true)
	f.Add("", "\xff\xc3", false)
	f.Fuzz(func(t *testing.T, name, value string, event bool) {
		l, path := openLog(t)
		fields := []audit.Field{{Name: "f" + name, Value: value}, {Name: "m", Value: map[string]string{name: value, "x": "y"}}, {Name: "n", Value: int64(-1)}, {Name: "b", Value: true}}
		r := &audit.Record{
			Time: time.Now(), Event: name, ServiceEvent: event, ErrorMessage: value, Request: fields, Details: fields,
			Identity: audit.Identity{UserName: value, Executable: value}, Resources: []audit.Resource{{Type: name, ARN: value}, {}},
		}
		if err := l.Append(r, true); err != nil && !errors.Is(err, audit.ErrTooLong) {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(text) == 0 {
			return
		}
		var got struct {
			ErrorMessage      string
			RequestParameters map[string]any
		}
		if err := json.Unmarshal(text, &got); err != nil || strings.Count(string(text), "\n") != 1 {
			t.Fatalf("%q: %v", text, err)
		}
		if want := strings.ToValidUTF8(value, "\ufffd"); !strings.Contains(want, "\ufffd") && got.ErrorMessage != want {
			t.Errorf("got %q, want %q", got.ErrorMessage, want)
		}
	})
}

func TestConcurrentRecords(t *testing.T) {
	l, path := openLog(t)
	var work sync.WaitGroup
	for worker := range 8 {
		work.Go(func() {
			for i := range 50 {
				if err := l.Append(&audit.Record{Event: fmt.Sprintf("e%d-%d", worker, i)}, i%10 == 0); err != nil {
					t.Error(err)
				}
			}
		})
	}
	work.Wait()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		var r struct{ EventName string }
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		seen[r.EventName] = true
	}
	if len(seen) != 400 {
		t.Errorf("got %d records, want 400", len(seen))
	}
}

func TestTooLongRecord(t *testing.T) {
	l, path := openLog(t)
	if err := l.Append(&audit.Record{Event: strings.Repeat("e", 300<<10)}, false); !errors.Is(err, audit.ErrTooLong) {
		t.Errorf("got %v, want %v", err, audit.ErrTooLong)
	}
	if info, err := os.Stat(path); err != nil || info.Size() != 0 {
		t.Errorf("%d bytes are written, %v", info.Size(), err)
	}
}

func TestClosedLog(t *testing.T) {
	l, _ := openLog(t)
	if err := errors.Join(l.Append(&audit.Record{}, false), l.Close(), l.Close()); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(&audit.Record{}, false); err == nil {
		t.Error("a record is written")
	}
}
