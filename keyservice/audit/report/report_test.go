package report_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/audit/report"
)

const (
	finance = "arn:kmsfs:kms:local:123456789012:key/0f0e0d0c-0000-4000-8000-00000000000f"
	other   = "arn:kmsfs:kms:local:123456789012:key/1f1e1d1c-0000-4000-8000-000000000001"
	// hostile is a path that somebody chose to be shown.
	hostile = `/home/eve/"><script>alert(1)</script><img src=x onerror=alert(2)>'{{.}}` + "\x1b[2J\u202e"
)

var start = time.Date(2026, 11, 16, 0, 0, 0, 0, time.Local)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// use is a record of a key's use for a file.
func use(at time.Time, user, program, key, path string) *audit.Record {
	return &audit.Record{
		Time: at, Event: "Decrypt", ReadOnly: true, Account: "123456789012", Region: "local",
		Identity:  audit.Identity{UID: 1000, UserName: user, Executable: program, PID: 7, Operation: "open for read", Path: path},
		Request:   []audit.Field{audit.Text("keyId", "alias/finance"), audit.Pairs("encryptionContext", map[string]string{"kmsfs:path": path})},
		Resources: []audit.Resource{{Type: "AWS::KMS::Key", ARN: key}},
	}
}

// week is what happens in a week: people work, a backup runs at night, and on the Thursday somebody
// tries what she may not.
func week() (records []*audit.Record) {
	add := func(r *audit.Record) { records = append(records, r) }
	for day := range 7 {
		midnight := start.AddDate(0, 0, day)
		for i := range 400 {
			add(use(midnight.Add(2*time.Hour+time.Duration(i)*80*time.Millisecond), "root", "/usr/bin/restic", finance, fmt.Sprintf("/srv/clear/finance/%03d.ods", i)))
		}
		for i := range 160 {
			at := midnight.Add(8*time.Hour + time.Duration(i*i%577)*time.Minute)
			if day < 5 {
				add(use(at, []string{"alice", "bob"}[i%2], "/usr/bin/soffice", finance, fmt.Sprintf("/srv/clear/finance/%03d.ods", i%23)))
			}
		}
		if day == 3 {
			for i := range 64 {
				r := use(midnight.Add(13*time.Hour+time.Duration(i)*time.Second), "eve", "/usr/bin/find", finance, hostile)
				r.ErrorCode, r.ErrorMessage = "AccessDenied", "no"
				add(r)
			}
			add(use(midnight.Add(14*time.Hour), "eve", "/home/eve/<b>tool", other, hostile))
			add(&audit.Record{
				Time: midnight.Add(15 * time.Hour), Event: "ContextMismatch", ServiceEvent: true, ErrorCode: "ContextMismatch", ErrorMessage: "moved",
				Identity: audit.Identity{UserName: "root"}, Details: []audit.Field{audit.Text("found", hostile)},
			})
			add(&audit.Record{Time: midnight.Add(16 * time.Hour), Event: "PutKeyPolicy", Identity: audit.Identity{UserName: "alice"}, Resources: []audit.Resource{{Type: "AWS::KMS::Key", ARN: other}}})
			r := use(midnight.Add(17*time.Hour), "bob", "/usr/bin/soffice", other, "/srv/clear/x")
			r.ErrorCode = "KMSInternalException"
			add(r)
		}
	}
	return records
}

// collect writes records to a log and sums that up.
func collect(t testing.TB, records []*audit.Record, since time.Time) *report.Report {
	t.Helper()
	path := t.TempDir()
	dir, err := os.Open(path)
	must(t, err)
	defer dir.Close()
	f, err := os.OpenFile(filepath.Join(path, "current.jsonl"), os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	must(t, err)
	l, err := audit.Open(audit.Options{Dir: dir, Name: "current.jsonl", File: f})
	must(t, err)
	for _, r := range records {
		must(t, l.Append(r, false))
	}
	must(t, l.Close())
	c := report.New(since, start.AddDate(0, 0, 7))
	must(t, audit.Query(os.DirFS(path), "current.jsonl", audit.Filter{}, func(e *audit.Entry) error {
		c.Add(e)
		return nil
	}))
	r := c.Report()
	r.Log, r.Whole, r.Made = "arn:kmsfs:kms:local:123456789012:audit-log", "The log is what was written: 4000 records are whole", start
	return r
}

func TestReport(t *testing.T) {
	r := collect(t, week(), start.AddDate(0, 0, 1))
	if r.Totals.Uses != 6*400+4*160+1 || r.Totals.Refused != 65 || r.Totals.Failed != 1 || r.Totals.Changes != 1 {
		t.Errorf("totals %+v", r.Totals)
	}
	if len(r.Refusals) != 1 || r.Refusals[0].By != "eve" || r.Refusals[0].Count != 64 || r.Refusals[0].Errors != "AccessDenied" || r.Refusals[0].Path != strings.ToValidUTF8(hostile, "") {
		t.Errorf("bursts of refusals: %+v", r.Refusals)
	}
	if len(r.Floods) != 6 || r.Floods[0].By != "root" || r.Floods[0].Count != 400 {
		t.Errorf("floods: %+v", r.Floods)
	}
	// What alice, bob and root did on the first day is not new any more.
	if len(r.FirstUses) != 1 || r.FirstUses[0].By != "eve" || r.FirstUses[0].Key != other || !r.HasHistory {
		t.Errorf("first uses: %+v, with history: %t", r.FirstUses, r.HasHistory)
	}
	if all := collect(t, week(), start); len(all.FirstUses) != 4 || all.HasHistory {
		t.Errorf("first uses of the whole log: %+v", all.FirstUses)
	}
	if len(r.Incidents) != 1 || r.Incidents[0].Event != "ContextMismatch" || len(r.Changes) != 1 || r.Changes[0].Event != "PutKeyPolicy" {
		t.Errorf("incidents %+v, changes %+v", r.Incidents, r.Changes)
	}
	if r.Principals[0].Name != "root" || r.Keys[0].Name != finance || r.Keys[0].With != "alias/finance" || len(r.Files) != 10 || r.FileCount < 400 {
		t.Errorf("principals %+v, keys %+v, %d of %d files", r.Principals, r.Keys, len(r.Files), r.FileCount)
	}
	sum := 0
	for _, p := range r.Periods {
		sum += p.Uses
	}
	if sum != r.Totals.Uses || len(r.Periods) > 96 {
		t.Errorf("%d uses in %d periods, want %d", sum, len(r.Periods), r.Totals.Uses)
	}
}

// What stands in records stays text, on a page and on a terminal; the page needs nothing from
// elsewhere.
func TestHostileRecords(t *testing.T) {
	r := collect(t, week(), start)
	var page, text bytes.Buffer
	must(t, r.WriteHTML(&page))
	must(t, r.WriteText(&text))
	for _, part := range []string{"<script", "<img", "<b>tool", "<link", "<iframe", "url(", "@import", "http:", "https:", `"/home/eve/">`} {
		if strings.Contains(page.String(), part) {
			t.Errorf("the page has %s", part)
		}
	}
	if !strings.Contains(page.String(), "&lt;script&gt;alert(1)") || !strings.Contains(page.String(), "default-src &#39;none&#39;") && !strings.Contains(page.String(), "default-src 'none'") {
		t.Error("the path is not shown, or the page may load something")
	}
	for name, out := range map[string]string{"page": page.String(), "text": text.String()} {
		if strings.ContainsAny(out, "\x1b\u202e") {
			t.Errorf("the %s could mislead", name)
		}
		if !strings.Contains(out, "PutKeyPolicy") || !strings.Contains(out, "eve") || strings.Contains(out, "ZgotmplZ") {
			t.Errorf("the %s lacks something", name)
		}
	}
}

// A log without a record has a report too, and one of a single moment.
func TestLittle(t *testing.T) {
	for _, records := range [][]*audit.Record{nil, week()[:1]} {
		r := collect(t, records, time.Time{})
		must(t, r.WriteHTML(new(bytes.Buffer)))
		must(t, r.WriteText(new(bytes.Buffer)))
	}
}
