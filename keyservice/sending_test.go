package keyservice_test

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	"google.golang.org/protobuf/proto"

	"kmsfs/keyservice"
	"kmsfs/keyservice/kms"
)

// collected is a collector of OpenTelemetry logs, which can be down.
type collected struct {
	mu      sync.Mutex // guards what follows
	down    bool
	records []collectedRecord
}

type collectedRecord struct {
	sequence           uint64
	event, user, level string
}

func (c *collected) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down {
		http.Error(w, "down", http.StatusServiceUnavailable)
		return
	}
	if err := c.take(r); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

func (c *collected) take(r *http.Request) error {
	unpacked, err := gzip.NewReader(r.Body)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(unpacked)
	if err != nil {
		return err
	}
	var in collector.ExportLogsServiceRequest
	if err := proto.Unmarshal(body, &in); err != nil {
		return err
	}
	for _, resource := range in.ResourceLogs {
		for _, scope := range resource.ScopeLogs {
			for _, record := range scope.LogRecords {
				var line struct{ Sequence uint64 }
				if err := json.Unmarshal([]byte(record.Body.GetStringValue()), &line); err != nil {
					return err
				}
				found := collectedRecord{sequence: line.Sequence, event: record.EventName, level: record.SeverityText}
				for _, a := range record.Attributes {
					if a.Key == "user.name" {
						found.user = a.Value.GetStringValue()
					}
				}
				c.records = append(c.records, found)
			}
		}
	}
	return nil
}

func (c *collected) set(down bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down = down
}

func (c *collected) all() []collectedRecord {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]collectedRecord{}, c.records...)
}

// awaitThat waits until something has happened in the background.
func awaitThat(t *testing.T, what string, happened func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !happened(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 30 seconds", what)
		}
	}
}

// Records go to a collector as they are written, in their order; one that is down is caught up with, holds up nobody, and is told of.
func TestSending(t *testing.T) {
	c := &collected{}
	server := httptest.NewServer(c)
	defer server.Close()
	dir, secret := newHome(t)
	s := openHome(t, dir, secret)
	key := newKey(t, s)
	settings := &kms.AuditSettings{SegmentKiB: 64, SegmentHours: 1, SendTo: "otlp:" + server.URL}
	if _, err := kms.PutAuditSettings.Call(t.Context(), s, self(), settings); err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(); err != nil {
		t.Fatal(err)
	}
	use := func(n int) {
		for i := range n {
			generate(t, s, key, map[string]string{"n": fmt.Sprint(i)})
		}
	}
	last := func() uint64 {
		about, err := kms.ReadAudit.Call(context.Background(), s, self(), &kms.ReadAuditInput{})
		if err != nil {
			t.Fatal(err)
		}
		return about.LastSequence
	}
	whole := func() {
		t.Helper()
		wanted := last()
		awaitThat(t, "the records to arrive", func() bool {
			all := c.all()
			return len(all) > 0 && all[len(all)-1].sequence >= wanted
		})
		all := c.all()
		if all[0].event != "PutAuditSettings" {
			t.Errorf("the first record sent is %+v", all[0])
		}
		for i, r := range all {
			if r.sequence != all[0].sequence+uint64(i) {
				t.Fatalf("record %d behind %d", r.sequence, all[i-1].sequence)
			}
		}
	}
	use(100)
	whole()
	c.set(true)
	use(500) // several segments
	health := func() string {
		h, err := keyservice.Health(context.Background(), dir)
		if err != nil || h.Status != "healthy" {
			t.Fatalf("%+v, %v", h, err)
		}
		return strings.Join(h.Warnings, " ")
	}
	awaitThat(t, "health to tell", func() bool { return strings.Contains(health(), "audit records wait to be sent") })
	c.set(false)
	whole()
	awaitThat(t, "health to be well again", func() bool { return health() == "" })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openHome(t, dir, secret)
	use(10)
	whole()
	found := map[string]bool{}
	for _, r := range c.all() {
		found[r.event+" "+r.level] = true
	}
	for _, want := range []string{"GenerateDataKey INFO", "AuditRecordsNotSent INFO", "ServiceStopped INFO"} {
		if !found[want] {
			t.Errorf("no record of %s was sent", want)
		}
	}
}

// Only the home's owner sends records elsewhere, and only to places that there can be.
func TestSendTo(t *testing.T) {
	s := newService(t)
	for _, to := range []string{"mail", "otlp:", "otlp:ftp://x", "otlp:https://user:pass@x", "otlp:https://x?key=secret", "file:/etc/passwd"} {
		_, err := kms.PutAuditSettings.Call(t.Context(), s, self(), &kms.AuditSettings{SegmentKiB: 64, SegmentHours: 1, SendTo: to})
		if code(err) != kms.CodeValidation {
			t.Errorf("%s: %v", to, err)
		}
	}
	_, err := kms.PutAuditSettings.Call(t.Context(), s, stranger(), &kms.AuditSettings{SegmentKiB: 64, SegmentHours: 1, SendTo: "syslog"})
	if code(err) != kms.CodeAccessDenied {
		t.Errorf("a stranger: %v", err)
	}
}
