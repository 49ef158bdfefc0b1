package audit_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"kmsfs/keyservice/audit"
)

const someKey = "arn:kmsfs:kms:local:123456789012:key/3f2b8c1e-0000-4000-8000-000000000000"

// A search finds just the records that all of its conditions apply to, in all segments and in their
// order.
func TestQuery(t *testing.T) {
	k, dir := newKept(), t.TempDir()
	l := k.open(t, dir, audit.Settings{SegmentSize: 20_000, SegmentAge: time.Hour})
	start := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	for i := range 200 {
		r := &audit.Record{Time: start.Add(time.Duration(i) * time.Minute), Event: []string{"Decrypt", "GenerateDataKey"}[i%2]}
		r.Identity = audit.Identity{UID: uint32(i % 3), UserName: fmt.Sprint("user", i%3), ARN: fmt.Sprintf("arn:kmsfs:iam::1:user/user%d", i%3)}
		r.Request = []audit.Field{audit.Pairs("encryptionContext", map[string]string{"kmsfs:path": fmt.Sprintf("/d%d/\"f%d\"", i%5, i)})}
		if i%7 == 0 {
			r.ErrorCode = "AccessDeniedException"
		}
		if i%4 == 0 {
			r.Resources = []audit.Resource{{Type: "AWS::KMS::Key", ARN: someKey}}
		}
		must(t, l.Append(r, false))
	}
	await(t, "segments to be closed", func() bool { return len(files(t, dir, ".digest")) > 2 && len(files(t, dir, ".jsonl")) == 1 })
	for name, c := range map[string]struct {
		filter audit.Filter
		want   func(i int) bool
	}{
		"all":       {audit.Filter{}, func(int) bool { return true }},
		"event":     {audit.Filter{Event: "Decrypt"}, func(i int) bool { return i%2 == 0 }},
		"user":      {audit.Filter{Principal: "user1"}, func(i int) bool { return i%3 == 1 }},
		"uid":       {audit.Filter{Principal: "uid:2"}, func(i int) bool { return i%3 == 2 }},
		"ARN":       {audit.Filter{Principal: "arn:kmsfs:iam::1:user/user0"}, func(i int) bool { return i%3 == 0 }},
		"any error": {audit.Filter{Error: "*"}, func(i int) bool { return i%7 == 0 }},
		"error":     {audit.Filter{Error: "AccessDeniedException"}, func(i int) bool { return i%7 == 0 }},
		"no error":  {audit.Filter{Error: "AccessDenied"}, func(int) bool { return false }},
		"key":       {audit.Filter{Key: someKey}, func(i int) bool { return i%4 == 0 }},
		"key ID":    {audit.Filter{Key: "3f2b8c1e-0000-4000-8000-000000000000"}, func(i int) bool { return i%4 == 0 }},
		"time":      {audit.Filter{Since: start.Add(50 * time.Minute), Until: start.Add(60 * time.Minute)}, func(i int) bool { return i >= 50 && i <= 60 }},
		"path": {
			audit.Filter{Path: func(p string) bool { return strings.HasPrefix(p, "/d3/\"") }, Literal: "/d3/\""},
			func(i int) bool { return i%5 == 3 },
		},
		"several": {audit.Filter{Event: "Decrypt", Principal: "user0", Error: "*"}, func(i int) bool { return i%2 == 0 && i%3 == 0 && i%7 == 0 }},
	} {
		var got, want []uint64
		err := audit.Query(os.DirFS(dir), openName, c.filter, func(e *audit.Entry) error {
			got = append(got, e.Sequence)
			return nil
		})
		must(t, err)
		for i := range 200 {
			if c.want(i) {
				want = append(want, uint64(i+1))
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: records %v, want %v", name, got, want)
		}
	}
}

// A tail misses no record, and shows none twice, while segments are closed.
func TestTail(t *testing.T) {
	k, dir := newKept(), t.TempDir()
	l := k.open(t, dir, audit.Settings{SegmentSize: 20_000, SegmentAge: time.Hour})
	tail, stop := audit.NewTail(os.DirFS(dir), openName), make(chan struct{})
	const records = 500
	defer func() { must(t, tail.Close()) }()
	var group sync.WaitGroup
	group.Go(func() {
		var last uint64
		err := tail.Follow(time.Millisecond, stop, func(e *audit.Entry) error {
			if e.Sequence != last+1 {
				return fmt.Errorf("record %d behind %d", e.Sequence, last)
			}
			if last = e.Sequence; last == records {
				close(stop)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	for i := range records {
		appendTo(t, l, i, i)
		if i%50 == 0 {
			time.Sleep(3 * time.Millisecond) // so that the tail sees some of it on the way
		}
	}
	group.Wait()
}

func BenchmarkQuery(b *testing.B) {
	k, dir := newKept(), b.TempDir()
	l := k.open(b, dir, large)
	for range 200_000 {
		must(b, l.Append(benchmarkRecord(), false))
	}
	must(b, l.Close())
	info, err := os.Stat(filepath.Join(dir, openName))
	must(b, err)
	b.SetBytes(info.Size())
	spent := processor(b)
	for b.Loop() {
		must(b, audit.Query(os.DirFS(dir), openName, audit.Filter{Literal: "/finance/"}, func(*audit.Entry) error { return nil }))
	}
	reportProcessor(b, spent)
}

// largeVariable says how many records the log of BenchmarkQueryClosed has, if more than usual.
const largeVariable = "KMSFS_BENCH_RECORDS"

// BenchmarkQueryClosed looks for a path in closed segments of the usual size. One record in 100,000
// has it.
func BenchmarkQueryClosed(b *testing.B) {
	records := 300_000
	if text := os.Getenv(largeVariable); text != "" {
		var err error
		records, err = strconv.Atoi(text)
		must(b, err)
	}
	k, dir := newKept(), b.TempDir()
	l := k.open(b, dir, audit.Settings{SegmentSize: 64 << 20, SegmentAge: 24 * time.Hour})
	for i := range records {
		r, path := benchmarkRecord(), fmt.Sprintf("/home/user%d/reports/%x.ods", i%97, i*2654435761%1000003)
		if i%100_000 == 0 {
			path = "/finance/q3.ods"
		}
		r.RequestID, r.EventID, r.Identity.PID = uuid.New(), uuid.New(), int32(i%30011)
		r.Request = []audit.Field{audit.Text("keyId", someKey), audit.Pairs("encryptionContext", map[string]string{"kmsfs:path": path})}
		must(b, l.Append(r, false))
	}
	await(b, "the segments to be closed", func() bool { return len(files(b, dir, ".jsonl")) == 1 && k.known().Sequence == uint64(records) })
	must(b, l.Close())
	report, err := k.verify(dir)
	must(b, err)
	for b.Loop() {
		found := 0
		filter := audit.Filter{Literal: "/finance/", Path: func(p string) bool { return strings.HasPrefix(p, "/finance/") }}
		must(b, audit.Query(os.DirFS(dir), openName, filter, func(*audit.Entry) error {
			found++
			return nil
		}))
		if found != (records+99_999)/100_000 {
			b.Fatalf("%d records found", found)
		}
	}
	b.ReportMetric(float64(report.Records), "records")
	b.ReportMetric(float64(report.Segments), "segments")
}
