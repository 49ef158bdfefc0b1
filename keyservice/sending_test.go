package keyservice_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"kmsfs/keyservice"
	"kmsfs/keyservice/kms"
)

// collected is a syslog daemon, which can be down.
type collected struct {
	t    *testing.T
	path string

	mu      sync.Mutex // guards what follows
	socket  *net.UnixConn
	records []collectedRecord
}

type collectedRecord struct {
	sequence        uint64
	priority, event string
}

// up has the daemon listen.
func (c *collected) up() {
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: c.path, Net: "unixgram"})
	if err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.socket = socket
	go c.receive(socket)
}

// down has it listen no more.
func (c *collected) down() {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.socket.Close()
	if err := os.Remove(c.path); err != nil {
		c.t.Fatal(err)
	}
}

func (c *collected) receive(socket *net.UnixConn) {
	for message := make([]byte, 512<<10); ; {
		n, err := socket.Read(message)
		if err != nil {
			return
		}
		head, text, _ := bytes.Cut(message[:n], []byte("]: "))
		var line struct {
			Sequence  uint64
			EventName string
		}
		if err := json.Unmarshal(text, &line); err != nil {
			c.t.Errorf("%q: %v", message[:n], err)
		}
		priority, _, _ := strings.Cut(string(head), ">")
		c.mu.Lock()
		c.records = append(c.records, collectedRecord{line.Sequence, priority, line.EventName})
		c.mu.Unlock()
	}
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

// Records go to a syslog socket as they are written, in their order; one that is down is caught up with, holds up nobody, and is told of.
func TestSending(t *testing.T) {
	c := &collected{t: t, path: filepath.Join(t.TempDir(), "log")}
	c.up()
	dir, secret := newHome(t)
	s := openHome(t, dir, secret)
	key := newKey(t, s)
	settings := &kms.AuditSettings{SegmentKiB: 64, SegmentHours: 1, SendTo: c.path}
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
	c.down()
	use(500) // several segments
	health := func() string {
		h, err := keyservice.Health(context.Background(), dir)
		if err != nil || h.Status != "healthy" {
			t.Fatalf("%+v, %v", h, err)
		}
		return strings.Join(h.Warnings, " ")
	}
	awaitThat(t, "health to tell", func() bool { return strings.Contains(health(), "audit records wait to be sent") })
	c.up()
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
		found[r.event+" "+r.priority] = true
	}
	for _, want := range []string{"GenerateDataKey <86", "AuditRecordsNotSent <86", "ServiceStopped <86"} {
		if !found[want] {
			t.Errorf("no record of %s was sent", want)
		}
	}
}

// Only the home's owner sends records elsewhere, and only to places that there can be.
func TestSendTo(t *testing.T) {
	s := newService(t)
	for _, to := range []string{"syslog", "dev/log", "/dev/\x00log", "/" + strings.Repeat("x", 107)} {
		_, err := kms.PutAuditSettings.Call(t.Context(), s, self(), &kms.AuditSettings{SegmentKiB: 64, SegmentHours: 1, SendTo: to})
		if code(err) != kms.CodeValidation {
			t.Errorf("%s: %v", to, err)
		}
	}
	_, err := kms.PutAuditSettings.Call(t.Context(), s, stranger(), &kms.AuditSettings{SegmentKiB: 64, SegmentHours: 1, SendTo: "/dev/log"})
	if code(err) != kms.CodeAccessDenied {
		t.Errorf("a stranger: %v", err)
	}
}
