package envelope_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"kmsfs/envelope"
)

// model is a file beside the plain bytes that it has to hold.
type model struct {
	volume  *envelope.Volume
	storage envelope.Storage
	options envelope.FileOptions
	key     []byte
	keys    int
	file    *envelope.File
	want    []byte
	seed    byte
	form    envelope.Compression
}

func newModel(t fatalf, v *envelope.Volume, st envelope.Storage, c envelope.Compression) *model {
	m := &model{volume: v, storage: st, key: newKey(1), form: c}
	m.options.Fresh = func(old envelope.Header) (envelope.Header, []byte, error) {
		m.keys++
		old.WrappedKey = fmt.Appendf(nil, "wrapped key %d", m.keys)
		m.key = newKey(byte(1 + m.keys))
		return old, m.key, nil
	}
	m.file = mustCreateAs(t, v, st, c, m.options)
	return m
}

// resize is what a change of the size does to the plain bytes.
func (m *model) resize(n int64) {
	if n <= int64(len(m.want)) {
		m.want = m.want[:n:n]
	} else {
		m.want = append(m.want[:len(m.want):len(m.want)], make([]byte, n-int64(len(m.want)))...)
	}
}

// step does one thing, chosen by draw, and returns its name.
func (m *model) step(t fatalf, draw func(name string, from, to int64) int64) (name string, err error) {
	off := func() int64 {
		// Near a block's edge, or anywhere.
		if draw("near", 0, 2) > 0 {
			return max(0, blockStart(draw("block", 0, 70))+draw("delta", -2, 2))
		}
		return draw("offset", 0, 300_000)
	}
	length := func() int64 {
		if draw("small", 0, 3) > 0 {
			return draw("length", 1, 10_000)
		}
		return draw("length", 1, 400_000)
	}
	m.seed++
	switch draw("op", 0, 10) {
	case 0, 1, 2:
		at, n := off(), length()
		if draw("append", 0, 1) == 0 {
			at = int64(len(m.want))
		}
		p := pattern(m.seed, int(n))
		if m.form == envelope.CompressionZstd {
			p = text(m.seed, int(n), int(draw("saved", 0, 4)*30)%101)
		}
		name = fmt.Sprintf("write %d at %d", n, at)
		if _, err = m.file.WriteAt(p, at); err == nil {
			m.resize(max(int64(len(m.want)), at+n))
			m.want = bytes.Clone(m.want)
			copy(m.want[at:], p)
		}
	case 3, 4:
		at, n := off(), length()
		p := bytes.Repeat([]byte{0xee}, int(n))
		got, err := m.file.ReadAt(p, at)
		want := m.want[min(at, int64(len(m.want))):min(at+n, int64(len(m.want)))]
		if (got < len(p)) != (err == io.EOF) || err != nil && err != io.EOF {
			t.Fatalf("read %d at %d: %d, %v", n, at, got, err)
		}
		if !bytes.Equal(p[:got], want) {
			t.Fatalf("read %d at %d: wrong bytes", n, at)
		}
		return "read", nil
	case 5:
		n := off()
		name = fmt.Sprintf("truncate to %d", n)
		if err = m.file.Truncate(n); err == nil {
			m.resize(n)
		}
	case 6, 7:
		at, n, keep := off(), length(), draw("keep", 0, 1) == 1
		punch := draw("punch", 0, 1) == 1
		name = fmt.Sprintf("zero %d at %d", n, at)
		if punch {
			err = m.file.PunchHole(at, n)
		} else {
			err = m.file.ZeroRange(at, n, keep)
		}
		if err == nil {
			m.want = bytes.Clone(m.want)
			if !punch && !keep {
				m.resize(max(int64(len(m.want)), at+n))
			}
			clear(m.want[min(at, int64(len(m.want))):min(at+n, int64(len(m.want)))])
		}
	case 8:
		at, n, keep := off(), length(), draw("keep", 0, 1) == 1
		name = fmt.Sprintf("allocate %d at %d", n, at)
		if err = m.file.Allocate(at, n, keep); err == nil && !keep {
			m.resize(max(int64(len(m.want)), at+n))
		}
	case 9:
		name = "reopen"
		if err = m.file.Close(); err == nil {
			m.file = mustOpen(t, m.volume, m.storage, m.key, m.options)
		}
	case 10:
		name, err = "sync", m.file.Sync()
	}
	return name, err
}

// blockStart is where block i begins, as FORMAT.md has it.
func blockStart(i int64) int64 {
	if i == 0 {
		return 0
	}
	return 3044 + (i-1)*4068
}

func (m *model) check(t fatalf) {
	t.Helper()
	if got := m.file.Size(); got != int64(len(m.want)) {
		t.Fatalf("size %d, want %d", got, len(m.want))
	}
	cipherSize, err := m.storage.Size()
	if err != nil || cipherSize != envelope.CipherSize(int64(len(m.want))) {
		t.Fatalf("ciphertext size %d (%v), want %d", cipherSize, err, envelope.CipherSize(int64(len(m.want))))
	}
	mustHold(t, m.file, m.want)
}

func TestFileModel(t *testing.T) { eachForm(t, testFileModel) }

func testFileModel(t *testing.T, form envelope.Compression) {
	for _, c := range []struct {
		name    string
		storage func(t testing.TB) envelope.Storage
	}{
		{"memory", func(testing.TB) envelope.Storage { return newDisk() }},
		{"file", func(t testing.TB) envelope.Storage { return newRealDisk(t) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := newVolume(t, false)
			rapid.Check(t, func(rt *rapid.T) {
				m := newModel(rt, v, c.storage(t), form)
				for range rapid.IntRange(1, 30).Draw(rt, "steps") {
					name, err := m.step(rt, func(name string, from, to int64) int64 {
						return rapid.Int64Range(from, to).Draw(rt, name)
					})
					if err != nil {
						rt.Fatalf("%s: %v", name, err)
					}
				}
				m.check(rt)
				if err := m.file.Close(); err != nil {
					rt.Fatalf("closing: %v", err)
				}
				m.file = mustOpen(rt, v, m.storage, m.key, m.options)
				m.check(rt)
				m.checkHoles(rt)
			})
		})
	}
}

// checkHoles walks the file by SeekData and SeekHole: what lies in holes is zeros.
func (m *model) checkHoles(t fatalf) {
	t.Helper()
	for at := int64(0); at < int64(len(m.want)); {
		data, err := m.file.SeekData(at)
		if err != nil || data < at {
			t.Fatalf("data from %d: %d, %v", at, data, err)
		}
		if !bytes.Equal(m.want[at:data], make([]byte, data-at)) {
			t.Fatalf("hole %d..%d is not zeros", at, data)
		}
		hole, err := m.file.SeekHole(data)
		if err != nil || hole <= data {
			t.Fatalf("hole from %d: %d, %v", data, hole, err)
		}
		at = hole
	}
	if _, err := m.file.SeekData(int64(len(m.want))); !errors.Is(err, syscall.ENXIO) {
		t.Fatalf("data beyond the end: %v", err)
	}
}

// setHeader replaces a file's header by h.
func setHeader(f *envelope.File, h envelope.Header) error {
	return f.ChangeHeader(func(now *envelope.Header) error {
		*now = h
		return nil
	})
}
