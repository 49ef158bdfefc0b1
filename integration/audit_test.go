package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// auditPath is the open segment of the volume's audit log.
func (v *volume) auditPath() string { return filepath.Join(v.home, "audit", "current.jsonl") }

// Who opened what can be asked for while the volume is in use, and what was done to the log is named, offline too.
func TestAudit(t *testing.T) {
	v := mounted(t)
	must(t, os.MkdirAll(v.path("finance", "q3"), 0o755))
	write(t, v.path("finance", "q3", "report"), []byte("text"))
	write(t, v.path("other"), []byte("text"))
	v.remount(t)
	wantContent(t, v.path("finance", "q3", "report"), []byte("text"))

	found := v.kmsfs(t, "audit", "query", "--path", "/finance/*", "--event", "Decrypt", "--principal", "uid:0", "--json")
	var record struct {
		RequestParameters   struct{ EncryptionContext map[string]string }
		AdditionalEventData struct{ Executable, FileOperation, FilePath string }
	}
	if strings.Count(found, "\n") != 1 {
		t.Fatalf("the opening of the report is not one record: %s", found)
	}
	must(t, json.Unmarshal([]byte(found), &record))
	self, err := os.Executable()
	must(t, err)
	if more := record.AdditionalEventData; record.RequestParameters.EncryptionContext["kmsfs:path"] != "/finance/q3/report" || more.Executable != self || more.FileOperation != "open for read" || more.FilePath != v.path("finance", "q3", "report") {
		t.Errorf("the opening of the report is recorded as %s", found)
	}
	// What the file system does as itself names the process that it does it for.
	must(t, os.Rename(v.path("other"), v.path("\x1b[31mrenamed")))
	type operation struct {
		SharedEventID       string
		AdditionalEventData struct {
			FileOperation, Executable string
			Behind                    struct {
				PID        int
				Executable string
			}
		}
	}
	var renamed, reopened operation
	must(t, json.Unmarshal([]byte(v.kmsfs(t, "audit", "query", "--path", v.path("other"), "--event", "Decrypt", "--json")), &renamed))
	if more := renamed.AdditionalEventData; more.FileOperation != "rename" || more.Executable != self || renamed.SharedEventID == "" {
		t.Errorf("the renaming is recorded as %+v", renamed)
	}
	wantContent(t, v.path("\x1b[31mrenamed"), []byte("text"))
	must(t, json.Unmarshal([]byte(v.kmsfs(t, "audit", "query", "--path", "*renamed", "--event", "ReEncrypt", "--json")), &reopened))
	if more := reopened.AdditionalEventData; more.FileOperation != "open for read" || more.Behind.Executable != self || more.Behind.PID == 0 || reopened.SharedEventID == "" {
		t.Errorf("the wrapping anew for the new path is recorded as %+v", reopened)
	}
	if shown := v.kmsfs(t, "audit", "query", "--path", "*renamed"); strings.Contains(shown, "\x1b") || !strings.Contains(shown, `"/\x1b[31mrenamed"`) {
		t.Errorf("a terminal is shown %q", shown)
	}
	must(t, os.Rename(v.path("\x1b[31mrenamed"), v.path("other")))
	if again := v.kmsfs(t, "audit", "query", "--path", "/finance/*", "--event", "Decrypt", "--principal", "user:root", "--json"); again != found {
		t.Errorf("by the user's name, the records are %s", again)
	}
	if other := v.kmsfs(t, "audit", "query", "--path", "/nothing/*"); other != "" {
		t.Errorf("records of no file: %s", other)
	}

	if said := v.kmsfs(t, "audit", "report", "--since", "1h"); !strings.Contains(said, "The log is what was written") || !strings.Contains(said, v.path("finance", "q3", "report")) {
		t.Errorf("the report is %s", said)
	}
	page := filepath.Join(v.root, "report.html")
	v.kmsfs(t, "audit", "report", "--html", page)
	if text, err := os.ReadFile(page); err != nil || !strings.Contains(string(text), v.path("finance", "q3", "report")) || !strings.HasSuffix(string(text), "</html>\n") {
		t.Errorf("the page is %s, %v", text, err)
	}

	key := filepath.Join(v.root, "audit.pem")
	must(t, os.WriteFile(key, []byte(v.kmsfs(t, "audit", "key")), 0o600))
	offline := func() []string {
		return []string{"audit", "verify", "--directory", filepath.Dir(v.auditPath()), "--public-key", key}
	}
	v.kmsfs(t, "audit", "verify")
	v.kmsfs(t, offline()...)
	text, err := os.ReadFile(v.auditPath())
	must(t, err)
	lines := bytes.SplitAfter(bytes.TrimSuffix(text, []byte("\n")), []byte("\n"))
	// In place, as the log is open.
	change := func(at int, from, to string) {
		t.Helper()
		f, err := os.OpenFile(v.auditPath(), os.O_WRONLY, 0)
		must(t, err)
		defer f.Close()
		off := len(bytes.Join(lines[:at], nil)) + bytes.Index(lines[at], []byte(from))
		_, err = f.WriteAt([]byte(to), int64(off))
		must(t, err)
	}
	change(3, `"readOnly":`, `"readOnlx":`)
	for _, args := range [][]string{{"audit", "verify"}, offline()} {
		v.refused(t, args, "not what was written", "record 4", "edited")
	}
	change(3, `"readOnly":`, `"readOnly":`)
	v.kmsfs(t, "audit", "verify")

	// A log that is cut off is noticed at the next use of a key, which is refused, until it is whole again.
	text, err = os.ReadFile(v.auditPath())
	must(t, err)
	must(t, os.Truncate(v.auditPath(), int64(len(text)-10)))
	if _, err := os.ReadFile(v.path("other")); err == nil {
		t.Error("a file is opened without a record")
	}
	f, err := os.OpenFile(v.auditPath(), os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	_, err = f.Write(text[len(text)-10:])
	must(t, err)
	must(t, f.Close())
	wantContent(t, v.path("other"), []byte("text"))
	v.kmsfs(t, "audit", "verify")
}

// Nothing that was answered is missing from the log after a kill.
func TestAuditCrash(t *testing.T) {
	v := mounted(t)
	for i := range 50 {
		write(t, v.path(fmt.Sprint(i)), []byte("text"))
	}
	v.kill(t)
	v.mount(t)
	v.awaitRecovery(t)
	v.kmsfs(t, "audit", "verify")
	if n := strings.Count(v.kmsfs(t, "audit", "query", "--event", "GenerateDataKey", "--path", "/*"), "\n"); n < 50 {
		t.Errorf("%d files were made, as the log says, want 50", n)
	}
	if damaged := v.kmsfs(t, "audit", "query", "--event", "AuditLogDamaged"); damaged != "" {
		t.Errorf("the log is taken for damaged: %s", damaged)
	}
}

// Segments are closed while a mount works; the log verifies through it all, for the socket's callers too, and can be searched whole.
func TestAuditSegments(t *testing.T) {
	v := mounted(t)
	exported := filepath.Join(v.root, "exported")
	must(t, os.Mkdir(exported, 0o700))
	v.kmsfs(t, "audit", "settings", "--segment-kib", "64", "--sync", "always", "--export-directory", exported)
	const files = 300
	for i := range files {
		write(t, v.path(fmt.Sprint("f", i)), []byte("text"))
	}
	closed := func() int {
		digests, err := filepath.Glob(filepath.Join(v.home, "audit", "*.digest"))
		must(t, err)
		return len(digests)
	}
	await(t, "segments to be closed", func() bool {
		wantContent(t, v.path("f0"), []byte("text"))
		return closed() > 2
	})
	v.kmsfs(t, "audit", "verify")
	digests := func(dir string) map[string]string {
		found := map[string]string{}
		names, err := filepath.Glob(filepath.Join(dir, "*.digest"))
		must(t, err)
		for _, name := range names {
			text, err := os.ReadFile(name)
			must(t, err)
			found[filepath.Base(name)] = string(text)
		}
		return found
	}
	await(t, "digests to be exported", func() bool {
		return maps.Equal(digests(exported), digests(filepath.Join(v.home, "audit")))
	})
	v.kmsfs(t, "audit", "verify", "--digests", exported)
	first := filepath.Join(exported, "00000000000000000001.digest")
	text := digests(exported)["00000000000000000001.digest"]
	must(t, os.Rename(first, first+".away"))
	must(t, os.WriteFile(first, []byte(text+" "), 0o600))
	v.refused(t, []string{"audit", "verify", "--digests", exported}, "rewritten")
	must(t, os.Rename(first+".away", first))
	if n := strings.Count(v.kmsfs(t, "audit", "query", "--path", "/f*", "--event", "GenerateDataKey", "--csv"), "\n"); n != files+1 {
		t.Errorf("%d lines on %d files and a head", n, files)
	}
	v.remount(t)
	v.kmsfs(t, "audit", "verify")
	segments, err := filepath.Glob(filepath.Join(v.home, "audit", "*.jsonl.zst"))
	must(t, err)
	must(t, os.Rename(segments[1], segments[1]+".away"))
	v.refused(t, []string{"audit", "verify"}, "the segment is missing")
	must(t, os.Rename(segments[1]+".away", segments[1]))
	v.umount(t)
	v.kmsfs(t, "audit", "verify")
	copied := filepath.Join(v.root, "backup")
	v.kmsfs(t, "home", "backup", copied)
	v.home = filepath.Join(v.root, "restored")
	v.kmsfs(t, "home", "restore", copied)
	v.kmsfs(t, "audit", "verify")
	v.refused(t, []string{"audit", "settings", "--retention-days", "3"}, "retentionDays")
}

// The log says when the service started and stopped, and that it did not stop as it should; and status, whether it can be written.
func TestAuditLife(t *testing.T) {
	v := mounted(t)
	v.remount(t)
	count := func(event string) int {
		return strings.Count(v.kmsfs(t, "audit", "query", "--event", event, "--json"), "\n")
	}
	if started, stopped, unclean := count("ServiceStarted"), count("ServiceStopped"), count("ServiceUncleanShutdownFound"); started != 2 || stopped != 1 || unclean != 0 {
		t.Errorf("%d times started, %d stopped, %d unclean", started, stopped, unclean)
	}
	write(t, v.path("file"), []byte("text"))
	v.kill(t)
	v.mount(t)
	v.awaitRecovery(t)
	if unclean := count("ServiceUncleanShutdownFound"); unclean != 1 {
		t.Error("nothing is said of the kill")
	}
	if said := v.kmsfs(t, "status"); !strings.Contains(said, "healthy") || !strings.Contains(said, v.path()) {
		t.Errorf("the status is %s", said)
	}
	must(t, os.Rename(v.auditPath(), v.auditPath()+".away"))
	if _, err := os.ReadFile(v.path("file")); err == nil {
		t.Error("a file is opened without a record")
	}
	v.refused(t, []string{"status"}, "denies all calls", "removed")
	must(t, os.Rename(v.auditPath()+".away", v.auditPath()))
	wantContent(t, v.path("file"), []byte("text"))
	v.kmsfs(t, "status")
}

// Records go to a syslog socket, with their severity.
func TestAuditSendTo(t *testing.T) {
	v := mounted(t)
	path := filepath.Join(v.root, "log")
	syslog, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	must(t, err)
	t.Cleanup(func() { must(t, syslog.Close()) })
	must(t, syslog.SetReadDeadline(time.Now().Add(patience)))
	// receive returns the next message with a text.
	receive := func(text string) string {
		t.Helper()
		message := make([]byte, 64<<10)
		for {
			n, err := syslog.Read(message)
			must(t, err)
			if strings.Contains(string(message[:n]), text) {
				return string(message[:n])
			}
		}
	}
	v.kmsfs(t, "audit", "settings", "--send-to", path)
	v.kmsfs(t, "alias", "list")
	if message := receive("ListAliases"); !strings.HasPrefix(message, "<86>") || !strings.Contains(message, " kmsfs-audit[") || !strings.Contains(message, `"eventName":"ListAliases"`) {
		t.Errorf("syslog gets %q", message)
	}
	v.refused(t, []string{"key", "describe", "alias/none"}, "NotFound")
	if message := receive("DescribeKey"); !strings.HasPrefix(message, "<84>") || !strings.Contains(message, `"errorCode":"NotFoundException"`) {
		t.Errorf("syslog gets %q", message)
	}
}

// While the log's disk is full, another directory stands in for it: files can be opened, and the log is whole, all the time.
func TestAuditStandIn(t *testing.T) {
	v := mounted(t)
	v.umount(t)
	audit, standIn := filepath.Join(v.home, "audit"), filepath.Join(v.root, "stand-in")
	must(t, os.Mkdir(standIn, 0o700))
	text, err := os.ReadFile(v.auditPath())
	must(t, err)
	run(t, "/", "mount", "-t", "tmpfs", "-o", "size=512k,mode=700", "tmpfs", audit)
	t.Cleanup(func() { run(t, "/", "umount", "-l", audit) })
	must(t, os.WriteFile(v.auditPath(), text, 0o600))
	v.mount(t)
	write(t, v.path("file"), []byte("text"))
	filler := filepath.Join(audit, "filler")
	fill := func() {
		f, err := os.OpenFile(filler, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		must(t, err)
		for err == nil {
			_, err = f.Write(make([]byte, 64))
		}
		must(t, f.Close())
		wantErrno(t, err, unix.ENOSPC)
	}
	opened := 0
	open := func() error {
		_, err := os.ReadFile(v.path("file"))
		if err == nil {
			opened++
		}
		return err
	}
	for range 4 {
		must(t, open())
	}
	fill()
	for range 20 { // the last page has room for some records
		if err = open(); err != nil {
			break
		}
	}
	wantErrno(t, err, unix.EIO)
	must(t, os.Truncate(filler, 0))
	v.kmsfs(t, "audit", "settings", "--stand-in", standIn)
	fill()
	whole := func() {
		t.Helper()
		v.kmsfs(t, "audit", "verify")
		if found := strings.Count(v.kmsfs(t, "audit", "query", "--event", "Decrypt", "--path", "/file", "--json"), "\n"); found < opened {
			t.Errorf("%d records of %d uses", found, opened)
		}
	}
	standing := func() int64 {
		info, err := os.Stat(filepath.Join(standIn, "kmsfs-audit.jsonl"))
		must(t, err)
		return info.Size()
	}
	for range 50 {
		must(t, open())
	}
	if standing() == 0 {
		t.Fatal("nothing stands in")
	}
	v.kmsfs(t, "status")
	whole()
	v.kill(t)
	v.mount(t)
	v.awaitRecovery(t)
	for range 50 {
		must(t, open())
	}
	whole()
	if said := v.kmsfs(t, "audit", "query", "--event", "AuditLogDamaged"); said != "" {
		t.Errorf("the log is damaged: %s", said)
	}
	must(t, os.Truncate(filler, 0))
	await(t, "the log to have its records back", func() bool {
		must(t, open())
		time.Sleep(10 * time.Millisecond) // the disk is small for what a tight loop leaves in the log
		return standing() == 0
	})
	whole()
	fill()
	for range 50 {
		must(t, open())
	}
	v.umount(t)
	must(t, os.Remove(filler))
	whole()
	if standing() != 0 {
		t.Error("what stood in has records still")
	}
	for _, event := range []string{"AuditLogStandIn", "AuditLogReturned"} {
		if v.kmsfs(t, "audit", "query", "--event", event) == "" {
			t.Errorf("no record of %s", event)
		}
	}
}
