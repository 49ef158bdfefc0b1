package audit_test

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/keyservice/audit"
)

const openName = "current.jsonl"

// kept is what a store knows of a log, and who signs for it.
type kept struct {
	mu      sync.Mutex // guards what follows
	head    audit.Head
	notices []audit.Notice

	private ed25519.PrivateKey
}

func (*kept) Log() string { return "test" }

func (k *kept) Sign(message []byte) ([]byte, error) { return ed25519.Sign(k.private, message), nil }

func (k *kept) key() ed25519.PublicKey { return k.private.Public().(ed25519.PublicKey) }

func (k *kept) known() audit.Head {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.head
}

func (k *kept) noticed(event string) (found []audit.Notice) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, n := range k.notices {
		if n.Event == event {
			found = append(found, n)
		}
	}
	return found
}

func newKept() *kept {
	return &kept{private: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))}
}

// open opens the log in a directory, as far as it is known.
func (k *kept) open(t testing.TB, path string, settings audit.Settings) *audit.Log {
	t.Helper()
	dir, err := os.Open(path)
	must(t, err)
	t.Cleanup(func() { dir.Close() })
	f, err := os.OpenFile(filepath.Join(path, openName), os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	must(t, err)
	l, err := audit.Open(audit.Options{
		Dir: dir, Name: openName, File: f, Head: k.known(), Signer: k, Settings: settings,
		Anchor: func(h audit.Head) error {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.head = h
			return nil
		},
		Notice: func(n audit.Notice) {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.notices = append(k.notices, n)
		},
	})
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	return l
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// large settings close no segment.
var large = audit.Settings{SegmentSize: 1 << 40, SegmentAge: time.Hour}

func openLog(t testing.TB) (l *audit.Log, path string) {
	t.Helper()
	dir := t.TempDir()
	return newKept().open(t, dir, large), filepath.Join(dir, openName)
}

// Whatever text a record holds, a line is one JSON object, and the text comes back.
func FuzzRecord(f *testing.F) {
	f.Add("plain", "\"\\\n\r\x00\x1b\x7f\u0085\u2028\U0001f600", true)
	f.Add("", "\xff\xc3", false)
	f.Fuzz(func(t *testing.T, name, value string, event bool) {
		l, path := openLog(t)
		fields := []audit.Field{
			audit.Text("f"+name, value), audit.Pairs("m", map[string]string{name: value, "x": "y"}), audit.Number("n", -1), audit.Bool("b", true),
		}
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

// A log that can't be written is not healthy.
func TestHealthy(t *testing.T) {
	l, path := openLog(t)
	r := &audit.Record{Time: time.Now(), Event: "Decrypt"}
	if err := l.Append(r, false); err != nil || l.Failing() != nil {
		t.Errorf("an intact log: %v, failing: %v", err, l.Failing())
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(r, false); !errors.Is(err, audit.ErrGone) || l.Failing() == nil {
		t.Errorf("a removed log: %v, failing: %v", err, l.Failing())
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

// Records of many callers are whole, each in the file when Append returns, and each caller's in the
// order of its calls.
func TestTogether(t *testing.T) {
	l, path := openLog(t)
	reader, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	const callers, records = 32, 50
	var group sync.WaitGroup
	for c := range callers {
		group.Go(func() {
			for n := range records {
				if err := l.Append(&audit.Record{Time: time.Now(), Event: fmt.Sprintf("%d/%d", c, n)}, n%25 == 0); err != nil {
					t.Error(err)
				}
				if n%10 > 0 {
					continue
				}
				text, err := os.ReadFile(path)
				if err != nil || !strings.Contains(string(text), fmt.Sprintf(`"eventName":"%d/%d"`, c, n)) {
					t.Errorf("record %d/%d is not in the file yet: %v", c, n, err)
				}
			}
		})
	}
	group.Wait()
	seen := map[int]int{}
	for d := json.NewDecoder(reader); ; {
		var r struct{ EventName string }
		if err := d.Decode(&r); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		var c, n int
		if _, err := fmt.Sscanf(r.EventName, "%d/%d", &c, &n); err != nil || seen[c] != n {
			t.Fatalf("%s behind %d: %v", r.EventName, seen[c], err)
		}
		seen[c]++
	}
	for c := range callers {
		if seen[c] != records {
			t.Errorf("%d records of caller %d", seen[c], c)
		}
	}
}

// benchmarkRecord is that of a file's opening.
func benchmarkRecord() *audit.Record {
	return &audit.Record{
		Time: time.Now(), Event: "Decrypt", ReadOnly: true, Account: "123456789012", Region: "local",
		Identity: audit.Identity{UserName: "alice", ARN: "arn:kmsfs:iam::123456789012:user/alice", PID: 4711, Executable: "/usr/bin/libreoffice", Operation: "open", InvokedBy: "fs.kmsfs"},
		Request: []audit.Field{
			audit.Text("keyId", "arn:kmsfs:kms:local:123456789012:key/3f2b8c1e-0000-4000-8000-000000000000"),
			audit.Pairs("encryptionContext", map[string]string{"kmsfs:volume": "3f2b8c1e-0000-4000-8000-000000000000", "kmsfs:path": "/home/alice/reports/q1.ods", "kmsfs:owner": "uid:1000"}),
		},
		Resources: []audit.Resource{{Type: "AWS::KMS::Key", ARN: "arn:kmsfs:kms:local:123456789012:key/3f2b8c1e-0000-4000-8000-000000000000"}},
	}
}

func BenchmarkAppend(b *testing.B) {
	record := benchmarkRecord()
	for _, callers := range []int{1, 8} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			l, _ := openLog(b)
			b.ReportAllocs()
			spent := processor(b)
			var group sync.WaitGroup
			for i := range callers {
				group.Go(func() {
					for range (b.N + i) / callers {
						if err := l.Append(record, false); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			group.Wait()
			reportProcessor(b, spent)
		})
	}
}

// BenchmarkAdded is what a record adds to a call, in the median of 100,000.
func BenchmarkAdded(b *testing.B) {
	l, _ := openLog(b)
	record := benchmarkRecord()
	var took []time.Duration
	for b.Loop() {
		begin := time.Now()
		must(b, l.Append(record, false))
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "median-ns")
	b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds()), "p99-ns")
}

// processor is the processor time that this process has taken.
func processor(b *testing.B) time.Duration {
	var u unix.Rusage
	must(b, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// reportProcessor reports the processor time of each operation: what is measured on a machine that
// does other things too.
func reportProcessor(b *testing.B, before time.Duration) {
	b.ReportMetric(float64(processor(b)-before)/float64(b.N), "cpu-ns/op")
}
