package envelope_test

import (
	"errors"
	"testing"

	"kmsfs/envelope"
)

// TestFresh counts the data keys that a file takes.
func TestFresh(t *testing.T) { eachForm(t, testFresh) }

func testFresh(t *testing.T, form envelope.Compression) {
	v, st := newVolume(t, false), newDisk()
	m := newModel(t, v, st, form)
	id := m.file.Header().FileID
	expect := func(what string, keys int, text string) {
		t.Helper()
		if m.keys != keys {
			t.Errorf("%s: %d fresh keys, want %d", what, m.keys, keys)
		}
		mustHold(t, m.file, []byte(text))
		if h := m.file.Header(); h.FileID != id || h.Compression != form {
			t.Errorf("%s: another file ID or compression", what)
		}
	}
	reopen := func() {
		t.Helper()
		if err := m.file.Close(); err != nil {
			t.Fatal(err)
		}
		m.file = mustOpen(t, v, st, m.key, m.options)
	}
	truncate := func(size int64) {
		t.Helper()
		if err := m.file.Truncate(size); err != nil {
			t.Fatal(err)
		}
	}
	mustWrite(t, m.file, []byte("text"), 0)
	expect("first write to a new file", 0, "text")
	truncate(2)
	expect("truncation", 0, "te")
	truncate(0)
	expect("truncation to nothing", 1, "")
	truncate(0)
	mustWrite(t, m.file, []byte("more"), 0)
	expect("first write under a fresh key", 1, "more")
	reopen()
	mustWrite(t, m.file, []byte("r"), 3)
	expect("write to what is there", 1, "morr")
	truncate(0)
	reopen()
	expect("reopening", 2, "")
	mustWrite(t, m.file, []byte("x"), 1)
	expect("first write after opening", 3, "\x00x")
	reopen()
	expect("reopening", 3, "\x00x")

	// A key that is refused, or that can't be stored, changes nothing.
	refused := errors.New("refused")
	m.options.Fresh = func(envelope.Header) (envelope.Header, []byte, error) { return envelope.Header{}, nil, refused }
	reopen()
	if err := m.file.Truncate(0); !errors.Is(err, refused) {
		t.Errorf("truncation without a key: %v", err)
	}
	expect("truncation without a key", 3, "\x00x")
	m.options.Fresh = nil
	reopen()
	truncate(0)
	mustWrite(t, m.file, []byte("same key"), 0)
	expect("no fresh keys", 3, "same key")
	reopen()
	expect("no fresh keys", 3, "same key")
}

// TestSmallFile counts the writes that a small file takes.
func TestSmallFile(t *testing.T) {
	st := newDisk()
	changes := st.record()
	f := mustCreate(t, newVolume(t, false), st, envelope.FileOptions{})
	mustWrite(t, f, pattern(1, 3000), 0)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if c := *changes; len(c) != 2 || len(c[0].p) != 1024 || c[1].off != 0 || len(c[1].p) != 3000+1052 {
		t.Errorf("%d changes", len(c))
	}
}

// TestSequential counts the reads that many small writes one after another take.
func TestSequential(t *testing.T) {
	st := &counted{disk: newDisk()}
	f := mustCreate(t, newVolume(t, false), st, envelope.FileOptions{})
	want := pattern(1, 50_000)
	for at := 0; at < len(want); at += 100 {
		mustWrite(t, f, want[at:at+100], int64(at))
	}
	if st.reads > 0 {
		t.Errorf("%d reads", st.reads)
	}
	mustHold(t, f, want)
	st.reads = 0
	for at := int64(0); at < int64(len(want)); at += 100 {
		if _, err := f.ReadAt(want[:100], at); err != nil {
			t.Fatal(err)
		}
	}
	if st.reads > 13 {
		t.Errorf("%d reads", st.reads)
	}
}

type counted struct {
	*disk
	reads int
}

func (c *counted) ReadAt(p []byte, off int64) (int, error) {
	c.reads++
	return c.disk.ReadAt(p, off)
}

func TestHoles(t *testing.T) { eachForm(t, testHoles) }

func testHoles(t *testing.T, form envelope.Compression) {
	st, unit := newRealDisk(t), int64(4068)
	if form == envelope.CompressionZstd {
		unit = chunk
	}
	f := mustCreateAs(t, newVolume(t, false), st, form, envelope.FileOptions{})
	const size = 1 << 30
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, f, []byte("in the middle"), size/2)
	if data, err := f.SeekData(10_000); err != nil || data > size/2 || data < size/2-unit {
		t.Errorf("data at %d, %v", data, err)
	}
	if hole, err := f.SeekHole(0); err != nil || hole != blockStart(1) {
		t.Errorf("hole at %d, %v", hole, err)
	}
	if hole, err := f.SeekHole(size / 2); err != nil || hole > size/2+2*unit {
		t.Errorf("hole at %d, %v", hole, err)
	}
	if n := st.use(t); n > 64<<10 {
		t.Errorf("a file with %d bytes of text takes %d bytes", len("in the middle"), n)
	}
	if err := f.Check(); err != nil {
		t.Error(err)
	}
}
