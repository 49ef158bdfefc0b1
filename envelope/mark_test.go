package envelope_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"

	"kmsfs/envelope"
)

func newMark() envelope.Mark {
	return envelope.Mark{Time: time.Unix(1_700_000_000, 123_456_789), BootID: [16]byte{6, 7, 8}}
}

func sameMark(a, b envelope.Mark) bool { return a.Time.Equal(b.Time) && a.BootID == b.BootID }

func TestMark(t *testing.T) {
	v := newVolume(t, false)
	for _, m := range []envelope.Mark{newMark(), {Time: time.Unix(0, 0)}, {Time: time.Unix(0, 1<<63-1)}} {
		b := v.SealMark(m)
		if len(b) != envelope.MarkSize {
			t.Fatalf("%d bytes", len(b))
		}
		if got, err := v.OpenMark(b); err != nil || !sameMark(got, m) {
			t.Errorf("opened %v, want %v: %v", got, m, err)
		}
		if again := v.SealMark(m); !bytes.Equal(again, b) {
			t.Errorf("then %x, first %x", again, b)
		}
	}
	b := v.SealMark(newMark())
	for bit := range 8 * len(b) {
		b[bit/8] ^= 1 << (bit % 8)
		if m, err := v.OpenMark(b); !isRefused(err) {
			t.Fatalf("bit %d: opened %v: %v", bit, m, err)
		}
		b[bit/8] ^= 1 << (bit % 8)
	}
	for n := range b {
		if m, err := v.OpenMark(b[:n]); !errors.Is(err, envelope.ErrFormat) {
			t.Fatalf("%d bytes: opened %v: %v", n, m, err)
		}
	}
	for _, b := range [][]byte{append(bytes.Clone(b), 0), make([]byte, envelope.MarkSize)} {
		if m, err := v.OpenMark(b); !errors.Is(err, envelope.ErrFormat) {
			t.Errorf("%d bytes: opened %v: %v", len(b), m, err)
		}
	}
	c := v.Config()
	c.VolumeID[0]++
	configuration, err := c.Marshal(newKey(7))
	if err != nil {
		t.Fatal(err)
	}
	w, err := envelope.OpenVolume(configuration, newKey(7))
	if err != nil {
		t.Fatal(err)
	}
	if m, err := w.OpenMark(b); !errors.Is(err, envelope.ErrAuthentication) {
		t.Errorf("in another volume: opened %v: %v", m, err)
	}
}

func TestMarkRoundTrip(t *testing.T) {
	v := newVolume(t, false)
	rapid.Check(t, func(t *rapid.T) {
		m := envelope.Mark{
			Time:   time.Unix(0, rapid.Int64Min(0).Draw(t, "time")),
			BootID: [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "boot")),
		}
		if got, err := v.OpenMark(v.SealMark(m)); err != nil || !sameMark(got, m) {
			t.Fatalf("opened %v, want %v: %v", got, m, err)
		}
	})
}

func FuzzOpenMark(f *testing.F) {
	v := newVolume(f, false)
	f.Add(v.SealMark(newMark()))
	f.Add(make([]byte, envelope.MarkSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := v.OpenMark(b)
		if err != nil {
			if !isRefused(err) {
				t.Fatal(err)
			}
			return
		}
		if !sameMark(m, newMark()) || !bytes.Equal(v.SealMark(m), b) {
			t.Fatalf("opened %v", m)
		}
	})
}
