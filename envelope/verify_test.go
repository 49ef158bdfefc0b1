package envelope_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"kmsfs/envelope"
)

// TestVerify damages blocks: those are named, and all others are handed over.
func TestVerify(t *testing.T) {
	const size = 3044 + 400*4068 + 100
	v := newVolume(t, false)
	want := pattern(1, size)
	for _, test := range []struct {
		name   string
		damage func(st *disk)
		bad    []envelope.Span
	}{
		{"whole", func(*disk) {}, nil},
		{"first", func(st *disk) { st.edit(func(p []byte) { p[2000] ^= 1 }) }, []envelope.Span{{Offset: 0, Length: 3044}}},
		{"last", func(st *disk) { st.edit(func(p []byte) { p[len(p)-1] ^= 1 }) }, []envelope.Span{{Offset: 3044 + 400*4068, Length: 100}}},
		{"several", func(st *disk) {
			for _, block := range []int{3, 4, 257, 258, 300} {
				st.edit(func(p []byte) { p[block*page+7] ^= 1 })
			}
		}, []envelope.Span{
			{Offset: 3044 + 2*4068, Length: 4068},
			{Offset: 3044 + 3*4068, Length: 4068},
			{Offset: 3044 + 256*4068, Length: 4068},
			{Offset: 3044 + 257*4068, Length: 4068},
			{Offset: 3044 + 299*4068, Length: 4068},
		}},
		{"hole", func(st *disk) {
			if err := st.PunchHole(10*page, 20*page); err != nil {
				t.Fatal(err)
			}
		}, []envelope.Span{{Offset: 3044 + 9*4068, Length: 20 * 4068}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			st := newDisk()
			f := mustCreate(t, v, st, envelope.FileOptions{})
			mustWrite(t, f, want, 0)
			test.damage(st)
			f, err := open(v, st, newKey(1), envelope.FileOptions{ReadOnly: true})
			if err != nil {
				t.Fatal(err)
			}
			got, bad := make([]byte, size), []envelope.Span(nil)
			err = f.Verify(envelope.Everything(), func(p []byte, off int64) error {
				copy(got[off:], p)
				return nil
			}, func(s envelope.Span) error {
				bad = append(bad, s)
				return nil
			})
			if err != nil || !slices.Equal(bad, test.bad) {
				t.Fatalf("bad are %v, %v, want %v", bad, err, test.bad)
			}
			right := bytes.Clone(want)
			for _, s := range test.bad {
				clear(right[s.Offset:s.End()])
				again := 0
				if err := f.Verify(s, func([]byte, int64) error { return errors.New("opened") }, func(envelope.Span) error { again++; return nil }); err != nil || again == 0 {
					t.Errorf("%v alone: %v, bad %d times", s, err, again)
				}
			}
			if !bytes.Equal(got, right) {
				t.Error("what opens is not what was written")
			}
		})
	}
}

// TestVerifySmall damages the first of two blocks.
func TestVerifySmall(t *testing.T) {
	v, st := newVolume(t, false), newDisk()
	f := mustCreate(t, v, st, envelope.FileOptions{})
	mustWrite(t, f, pattern(1, 3100), 0)
	st.edit(func(p []byte) { p[2000] ^= 1 })
	f, err := open(v, st, newKey(1), envelope.FileOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	var good, bad int64
	err = f.Verify(envelope.Everything(), func(p []byte, off int64) error {
		good += int64(len(p))
		return nil
	}, func(s envelope.Span) error {
		bad += s.Length
		return nil
	})
	if err != nil || good != 56 || bad != 3044 {
		t.Errorf("%v, %d bytes open and %d don't, want 56 and 3044", err, good, bad)
	}
}
