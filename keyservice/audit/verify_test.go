package audit_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"kmsfs/keyservice/audit"
)

// appendTo appends records, whose names are numbers from 1 on.
func appendTo(t testing.TB, l *audit.Log, from, to int) {
	t.Helper()
	for i := from; i <= to; i++ {
		must(t, l.Append(&audit.Record{Time: time.Now(), Event: fmt.Sprint("e", i)}, false))
	}
}

// await waits until something has happened in the background.
func await(t testing.TB, what string, happened func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !happened(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 30 seconds", what)
		}
	}
}

func files(t testing.TB, dir, suffix string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), suffix) {
			names = append(names, e.Name())
		}
	}
	return names
}

// makeLog makes a log of 60 records in a new directory: closed segments, and an open one.
func makeLog(t testing.TB) (*kept, string) {
	t.Helper()
	k, dir := newKept(), t.TempDir()
	l := k.open(t, dir, audit.Settings{SegmentSize: 10_000, SegmentAge: time.Hour})
	appendTo(t, l, 1, 60)
	await(t, "the segments to be closed", func() bool {
		return k.known().Sequence == 60 && len(files(t, dir, ".digest")) > 1 && len(files(t, dir, ".jsonl")) == 1
	})
	must(t, l.Close())
	return k, dir
}

func (k *kept) verify(dir string) (audit.Report, error) {
	head := k.known()
	return audit.Verify(os.DirFS(dir), audit.VerifyOptions{Open: openName, Key: k.key(), Head: &head})
}

// A log that nobody touched verifies, while it is written, after it, and with the public key alone.
func TestVerify(t *testing.T) {
	k, dir := makeLog(t)
	report, err := k.verify(dir)
	if err != nil || report.Records != 60 || report.Segments < 2 || report.Signed == 60 || report.Signed == 0 {
		t.Errorf("%+v, %v", report, err)
	}
	if report, err := audit.Verify(os.DirFS(dir), audit.VerifyOptions{Open: openName, Key: k.key()}); err != nil || report.Records != 60 {
		t.Errorf("without the store: %+v, %v", report, err)
	}
	other := newKept()
	other.private[3] ^= 1
	var fault *audit.Fault
	if _, err := audit.Verify(os.DirFS(dir), audit.VerifyOptions{Open: openName, Key: slices.Repeat([]byte{7}, 32)}); !errors.As(err, &fault) || fault.Sequence != 1 {
		t.Errorf("another's key: %v", err)
	}
	l := k.open(t, dir, large)
	appendTo(t, l, 61, 70)
	if report, err := k.verify(dir); err != nil || report.Records != 70 {
		t.Errorf("a log in use: %+v, %v", report, err)
	}
	if found := k.noticed(audit.NoticeDamaged); len(found) > 0 {
		t.Errorf("notices %v", found)
	}
}

// tampering is something done to lines, of which the last few are given their number, and what
// verification names.
type tampering struct {
	name string
	do   func(lines [][]byte, at int) [][]byte
	// off is how far from the record at which it was done that one lies that is named.
	off  int
	text string
}

func edit(line []byte) []byte {
	return bytes.Replace(line, []byte(`"eventName":"e`), []byte(`"eventName":"x`), 1)
}

var tamperings = []tampering{
	{"edit", func(lines [][]byte, at int) [][]byte { lines[at] = edit(lines[at]); return lines }, 0, "edited"},
	{"drop", func(lines [][]byte, at int) [][]byte { return slices.Delete(lines, at, at+1) }, 0, "dropped"},
	{"drop three", func(lines [][]byte, at int) [][]byte { return slices.Delete(lines, at, at+3) }, 0, "dropped"},
	{"insert a copy", func(lines [][]byte, at int) [][]byte { return slices.Insert(lines, at, lines[at-1]) }, 0, "inserted"},
	{"insert", func(lines [][]byte, at int) [][]byte {
		return slices.Insert(lines, at, []byte("{\"eventName\":\"made up\"}\n"))
	}, 0, "edited"},
	{"reorder", func(lines [][]byte, at int) [][]byte { lines[at], lines[at+1] = lines[at+1], lines[at]; return lines }, 0, "moved"},
	{"replace by another", func(lines [][]byte, at int) [][]byte { lines[at] = lines[at+2]; return lines }, 0, ""},
	{"cut off", func(lines [][]byte, at int) [][]byte { return lines[:at] }, 0, "cut off"},
	{"cut a line", func(lines [][]byte, at int) [][]byte {
		lines[at] = append(lines[at][:40:40], '\n')
		return lines
	}, 0, "edited"},
}

// Whatever is done to the records of a closed segment, or of the open one, the first that is
// concerned is named, offline too.
func TestTampering(t *testing.T) {
	k, whole := makeLog(t)
	segments := files(t, whole, ".jsonl.zst")
	for _, name := range []string{segments[0], segments[1], openName} {
		text, err := os.ReadFile(filepath.Join(whole, name))
		must(t, err)
		if name != openName {
			decoder, err := zstd.NewReader(nil)
			must(t, err)
			text, err = decoder.DecodeAll(text, nil)
			must(t, err)
			decoder.Close()
		}
		for _, tampering := range tamperings {
			for _, at := range []int{2, 3} {
				t.Run(fmt.Sprint(name, "/", tampering.name, "/", at), func(t *testing.T) {
					dir := t.TempDir()
					must(t, os.CopyFS(dir, os.DirFS(whole)))
					lines := slices.Collect(bytes.Lines(bytes.Clone(text)))
					if len(lines) < at+4 {
						t.Fatalf("%d lines are too few", len(lines))
					}
					first := sequenceOf(t, lines[0])
					changed := bytes.Join(tampering.do(lines, at), nil)
					if name != openName {
						encoder, err := zstd.NewWriter(nil)
						must(t, err)
						changed = encoder.EncodeAll(changed, nil)
					}
					must(t, os.WriteFile(filepath.Join(dir, name), changed, 0o600))
					_, err = k.verify(dir)
					fault, ok := errors.AsType[*audit.Fault](err)
					if want := uint64(first + at + tampering.off); !ok || fault.Sequence != want || !strings.Contains(fault.Reason, tampering.text) || fault.File != name {
						t.Errorf("%v, want record %d of %s to be %q", err, want, name, tampering.text)
					}
				})
			}
		}
	}
}

func sequenceOf(t testing.TB, line []byte) (n int) {
	t.Helper()
	_, rest, ok := bytes.Cut(line, []byte(`"sequence":`))
	if _, err := fmt.Sscan(string(rest[:15]), &n); !ok || err != nil {
		t.Fatalf("no sequence in %s", line)
	}
	return n
}

// Who makes all that follows fit what he has changed is found out by the digest, or by the store.
func TestRechained(t *testing.T) {
	k, whole := makeLog(t)
	segments := files(t, whole, ".jsonl.zst")
	for _, name := range []string{segments[1], openName} {
		dir := t.TempDir()
		must(t, os.CopyFS(dir, os.DirFS(whole)))
		text, err := os.ReadFile(filepath.Join(dir, name))
		must(t, err)
		decoder, err := zstd.NewReader(nil)
		must(t, err)
		if name != openName {
			text, err = decoder.DecodeAll(text, nil)
			must(t, err)
		}
		lines := slices.Collect(bytes.Lines(text))
		first := sequenceOf(t, lines[0])
		lines[2] = edit(lines[2])
		audit.Rechain(lines[2:])
		changed := bytes.Join(lines, nil)
		if name != openName {
			encoder, err := zstd.NewWriter(nil)
			must(t, err)
			changed = encoder.EncodeAll(changed, nil)
		}
		must(t, os.WriteFile(filepath.Join(dir, name), changed, 0o600))
		_, err = k.verify(dir)
		fault, ok := errors.AsType[*audit.Fault](err)
		if want := uint64(first + 2); !ok || name != openName && fault.Sequence != want || name == openName && fault.Sequence != 60 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A segment or a digest that is missing, or was put there from elsewhere, is found out.
func TestFiles(t *testing.T) {
	k, whole := makeLog(t)
	digests, segments := files(t, whole, ".digest"), files(t, whole, ".jsonl.zst")
	firstOf := func(name string) (n uint64) {
		_, err := fmt.Sscan(strings.TrimLeft(name[:20], "0"), &n)
		must(t, err)
		return n
	}
	for name, c := range map[string]struct {
		do   func(dir string) error
		want uint64
	}{
		"first segment removed":  {func(dir string) error { return os.Remove(filepath.Join(dir, segments[0])) }, 1},
		"second segment removed": {func(dir string) error { return os.Remove(filepath.Join(dir, segments[1])) }, firstOf(segments[1])},
		"digest removed":         {func(dir string) error { return os.Remove(filepath.Join(dir, digests[1])) }, firstOf(segments[1])},
		"both removed": {func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, digests[1])), os.Remove(filepath.Join(dir, segments[1])))
		}, firstOf(segments[1])},
		"open segment removed": {func(dir string) error { return os.Remove(filepath.Join(dir, openName)) }, k.known().Segment},
		"open segment emptied": {func(dir string) error { return os.Truncate(filepath.Join(dir, openName), 0) }, k.known().Segment},
		"segments swapped": {func(dir string) error {
			a, b := filepath.Join(dir, segments[0]), filepath.Join(dir, segments[1])
			return errors.Join(os.Rename(a, a+"x"), os.Rename(b, a), os.Rename(a+"x", b))
		}, 1},
		"digest edited": {func(dir string) error {
			text, err := os.ReadFile(filepath.Join(dir, digests[1]))
			return errors.Join(err, os.WriteFile(filepath.Join(dir, digests[1]), bytes.Replace(text, []byte(`"bytes":1`), []byte(`"bytes":2`), 1), 0o600))
		}, firstOf(segments[1])},
	} {
		dir := t.TempDir()
		must(t, os.CopyFS(dir, os.DirFS(whole)))
		must(t, c.do(dir))
		_, err := k.verify(dir)
		if fault, ok := errors.AsType[*audit.Fault](err); !ok || fault.Sequence != c.want {
			t.Errorf("%s: %v, want record %d named", name, err, c.want)
		}
	}
}

// Segments are closed while many append; nothing is lost or delayed, and the log verifies at any
// time.
func TestSegments(t *testing.T) {
	k, dir := newKept(), t.TempDir()
	settings := audit.Settings{SegmentSize: 20_000, SegmentAge: time.Hour}
	l := k.open(t, dir, settings)
	const callers, records = 8, 400
	var group sync.WaitGroup
	for range callers {
		group.Go(func() {
			for n := range records {
				if err := l.Append(&audit.Record{Time: time.Now(), Event: "e"}, n%100 == 0); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 20 {
		if _, err := audit.Verify(os.DirFS(dir), audit.VerifyOptions{Open: openName, Key: k.key()}); err != nil {
			t.Error(err)
		}
	}
	group.Wait()
	must(t, l.Close())
	l = k.open(t, dir, settings) // what the first left open is closed by the next
	await(t, "the segments to be closed", func() bool { return len(files(t, dir, ".jsonl")) == 1 })
	must(t, l.Close())
	report, err := k.verify(dir)
	if err != nil || report.Records != callers*records || report.Segments < 50 {
		t.Errorf("%+v, %v", report, err)
	}
	if len(k.notices) > 0 {
		t.Errorf("notices %v", k.notices)
	}
}

// A segment is closed at its age, too, which goes on while the log is closed.
func TestSegmentAge(t *testing.T) {
	k, dir := newKept(), t.TempDir()
	l := k.open(t, dir, large)
	must(t, l.Append(&audit.Record{Time: time.Now().Add(-2 * time.Hour), Event: "old"}, false))
	must(t, l.Close())
	l = k.open(t, dir, large)
	appendTo(t, l, 1, 1)
	if head := l.Head(); head.Segment != 2 {
		t.Errorf("the open segment begins with record %d, want 2", head.Segment)
	}
	aged := large
	aged.SegmentAge = time.Nanosecond
	l.SetSettings(aged)
	l.Tend() // though no further record comes
	await(t, "the segment to be closed", func() bool { return len(files(t, dir, ".digest")) == 2 })
	if report, err := k.verify(dir); err != nil || report.Signed != 2 {
		t.Errorf("%+v, %v", report, err)
	}
}

// Segments that are too old are removed, which is not the same as if somebody had taken them away.
func TestPruning(t *testing.T) {
	k, dir := makeLog(t)
	settings := large
	settings.Retention = time.Nanosecond
	l := k.open(t, dir, settings)
	await(t, "old segments to be removed", func() bool { return len(files(t, dir, ".jsonl.zst")) == 0 })
	must(t, l.Close())
	report, err := k.verify(dir)
	if err != nil || report.Pruned != report.Signed || report.Records != 60 {
		t.Errorf("%+v, %v", report, err)
	}
	if found := k.noticed(audit.NoticePruned); len(found) != report.Segments {
		t.Errorf("notices %v of %d segments", found, report.Segments)
	}
	statements := files(t, dir, ".pruned")
	must(t, os.Rename(filepath.Join(dir, statements[0]), filepath.Join(dir, statements[1])))
	if _, err := k.verify(dir); err == nil {
		t.Error("a statement about another segment is taken")
	}
}

// What was answered is there after a crash, wherever the store's knowledge has got to. What is gone
// is noticed, and the log goes on behind it.
func TestReopened(t *testing.T) {
	for _, settings := range []audit.Settings{large, {SegmentSize: 3000, SegmentAge: time.Hour}} {
		k, dir := newKept(), t.TempDir()
		l := k.open(t, dir, settings)
		appendTo(t, l, 1, 3)
		must(t, l.Close())
		known := k.known()
		l = k.open(t, dir, settings)
		appendTo(t, l, 4, 20)
		crashed := t.TempDir()
		must(t, os.CopyFS(crashed, os.DirFS(dir)))
		must(t, l.Close())
		k.head = known
		f, err := os.OpenFile(filepath.Join(crashed, openName), os.O_APPEND|os.O_WRONLY, 0)
		must(t, err)
		_, err = f.WriteString(`{"torn":`)
		must(t, errors.Join(err, f.Close()))
		l = k.open(t, crashed, settings)
		appendTo(t, l, 21, 25)
		must(t, l.Close())
		if report, err := k.verify(crashed); err != nil || report.Records != 25 {
			t.Errorf("%+v, %v", report, err)
		}
		if found := k.noticed(audit.NoticeDamaged); len(found) > 0 {
			t.Errorf("notices %v", found)
		}
		must(t, os.Truncate(filepath.Join(crashed, openName), 0))
		l = k.open(t, crashed, settings)
		if found := k.noticed(audit.NoticeDamaged); len(found) != 1 {
			t.Errorf("notices %v", found)
		}
		appendTo(t, l, 26, 30)
		must(t, l.Close())
		_, err = k.verify(crashed)
		if _, ok := errors.AsType[*audit.Fault](err); !ok {
			t.Errorf("a log with a gap: %v", err)
		}
	}
}

// A power cut that leaves anything at all behind the records that were on disk loses none of those,
// and isn't taken for tampering.
func TestPowerCut(t *testing.T) {
	k, whole := newKept(), t.TempDir()
	l := k.open(t, whole, large)
	appendTo(t, l, 1, 3)
	must(t, l.Close())
	known := k.known()
	l = k.open(t, whole, large)
	appendTo(t, l, 4, 20)
	must(t, l.Close())
	known.Closed = false // as the store knows it after a sync in the middle
	text, err := os.ReadFile(filepath.Join(whole, openName))
	must(t, err)
	lines := slices.Collect(bytes.Lines(text))
	join := func(lines [][]byte) []byte { return bytes.Join(lines, nil) }
	zeros := func(size int) []byte { return make([]byte, size) }
	for name, c := range map[string]struct {
		files map[string][]byte
		last  uint64 // that is there still
		torn  bool
	}{
		"nothing":                {map[string][]byte{openName: join(lines)}, 20, false},
		"a part of a record":     {map[string][]byte{openName: append(join(lines[:9]), lines[9][:50]...)}, 9, false},
		"zeros in a record":      {map[string][]byte{openName: slices.Concat(join(lines[:9]), zeros(100), lines[9][100:], join(lines[10:]))}, 9, true},
		"zeros over records":     {map[string][]byte{openName: slices.Concat(join(lines[:3]), zeros(len(join(lines[3:8]))), join(lines[8:]))}, 3, true},
		"a megabyte of zeros":    {map[string][]byte{openName: append(join(lines[:5]), zeros(1<<20)...)}, 5, true},
		"a segment, cut off":     {map[string][]byte{"00000000000000000001.jsonl": join(lines[:6]), openName: join(lines[10:])}, 6, true},
		"a segment, in a record": {map[string][]byte{"00000000000000000001.jsonl": append(join(lines[:6]), lines[6][:40]...), openName: join(lines[10:])}, 6, true},
		"a second segment, empty": {map[string][]byte{
			"00000000000000000001.jsonl": join(lines[:6]), "00000000000000000007.jsonl": zeros(4096), openName: join(lines[10:]),
		}, 6, true},
	} {
		t.Run(name, func(t *testing.T) {
			k, dir := newKept(), t.TempDir()
			k.head = known
			for name, content := range c.files {
				must(t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
			}
			l := k.open(t, dir, large)
			if head := l.Head(); head.Sequence != c.last || !l.Unclean() {
				t.Errorf("the log goes on behind record %d, want %d; unclean: %t", head.Sequence, c.last, l.Unclean())
			}
			appendTo(t, l, 1, 5)
			must(t, l.Close())
			if report, err := k.verify(dir); err != nil || report.Records != c.last+5 {
				t.Errorf("%+v, %v", report, err)
			}
			if torn, damaged := k.noticed(audit.NoticeTorn), k.noticed(audit.NoticeDamaged); len(torn) > 0 != c.torn || len(damaged) > 0 {
				t.Errorf("notices %v and %v", torn, damaged)
			}
			k.open(t, dir, large) // and closes what is to be closed
			await(t, "the segments to be closed", func() bool {
				plain, err := filepath.Glob(filepath.Join(dir, "0*.jsonl"))
				must(t, err)
				return len(plain) == 0
			})
			if _, err := k.verify(dir); err != nil {
				t.Error(err)
			}
		})
	}
}

// Records are refused as soon as their file isn't the log any more, and taken again once it is.
func TestGone(t *testing.T) {
	for name, c := range map[string]struct{ do, undo func(path string) error }{
		"renamed": {
			func(path string) error { return os.Rename(path, path+".away") },
			func(path string) error { return os.Rename(path+".away", path) },
		},
		"replaced": {
			func(path string) error {
				return errors.Join(os.Rename(path, path+".away"), os.WriteFile(path, nil, 0o600))
			},
			func(path string) error { return os.Rename(path+".away", path) },
		},
		"cut off": {
			func(path string) error {
				return errors.Join(copyFile(path, path+".away"), os.Truncate(path, 10))
			},
			func(path string) error {
				text, err := os.ReadFile(path + ".away")
				return errors.Join(err, os.WriteFile(path, text, 0o600))
			},
		},
	} {
		l, path := openLog(t)
		appendTo(t, l, 1, 3)
		must(t, c.do(path))
		if err := l.Failing(); !errors.Is(err, audit.ErrGone) {
			t.Errorf("%s: failing: %v before a record shows it", name, err)
		}
		if err := l.Append(&audit.Record{Time: time.Now(), Event: "e"}, false); !errors.Is(err, audit.ErrGone) || l.Failing() == nil {
			t.Errorf("%s: %v, failing: %v", name, err, l.Failing())
		}
		must(t, c.undo(path))
		if err := l.Failing(); err != nil {
			t.Errorf("%s: failing when all is well again: %v", name, err)
		}
		appendTo(t, l, 4, 4)
		if l.Failing() != nil {
			t.Errorf("%s: not healthy afterwards", name)
		}
	}
}

func copyFile(from, to string) error {
	text, err := os.ReadFile(from)
	return errors.Join(err, os.WriteFile(to, text, 0o600))
}

func BenchmarkVerify(b *testing.B) {
	k, dir := newKept(), b.TempDir()
	l := k.open(b, dir, large)
	for range 200_000 {
		must(b, l.Append(benchmarkRecord(), false))
	}
	must(b, l.Close())
	b.SetBytes(k.known().Size)
	spent := processor(b)
	for b.Loop() {
		_, err := k.verify(dir)
		must(b, err)
	}
	reportProcessor(b, spent)
}
