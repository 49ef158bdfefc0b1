package envelope_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"kmsfs/envelope"
)

// FuzzReadHeader reads headers that nobody wrote. One that is read is written as it was.
func FuzzReadHeader(f *testing.F) {
	for _, plaintextNames := range []bool{true, false} {
		for _, links := range []int{1, 3} {
			st := newDisk()
			v := newVolume(f, plaintextNames)
			h := newHeader()
			for i := range links {
				v.AddLocation(h, envelope.Location{Name: string(rune('a' + i))})
			}
			if _, err := v.CreateFile(st, h, newKey(1), envelope.FileOptions{}); err != nil {
				f.Fatal(err)
			}
			f.Add(plaintextNames, st.content(), st.overflow())
		}
	}
	f.Fuzz(func(t *testing.T, plaintextNames bool, image, overflow []byte) {
		v := newVolume(t, plaintextNames)
		if len(image) > 2*page || len(overflow) > 1<<16 {
			return
		}
		st := newDisk()
		st.setOverflow(overflow)
		st.put(image, 0)
		for _, tolerant := range []bool{false, true} {
			h, err := v.ReadHeader(st, tolerant)
			if err != nil {
				if _, ok := errors.AsType[*envelope.CorruptError](err); !ok && !errors.Is(err, envelope.ErrEmpty) {
					t.Fatal(err)
				}
				continue
			}
			// Give it the MAC that it lacks, and have it written again.
			signed := st.clone()
			signed.resize(1024)
			signed.edit(func(p []byte) {
				resign(t, p)
				p[11] &^= 4
				resign(t, p)
			})
			want := signed.content()
			file, err := open(v, signed, newKey(1), envelope.FileOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if err := setHeader(file, *h); err != nil {
				t.Fatal(err)
			}
			got := signed.content()
			again := binary.BigEndian.Uint16(got[42:]) // one with two overflow digests loses one
			if again == binary.BigEndian.Uint16(want[42:]) && !bytes.Equal(got, want) {
				t.Fatalf("written otherwise than read:\n%x\n%x", want, got)
			}
		}
	})
}

// FuzzOpenFile opens files that nobody wrote, or that somebody changed: they never say what nobody wrote.
func FuzzOpenFile(f *testing.F) {
	v := newVolume(f, false)
	content := pattern(1, 13_000)
	for _, size := range []int{0, 1, 3044, 5000, 13_000} {
		st := newDisk()
		file := mustCreate(f, v, st, envelope.FileOptions{})
		mustWrite(f, file, content[:size], 0)
		f.Add(st.content()[1024:], uint16(len(st.content())), false, true)
		f.Add(st.content()[1024:], uint16(len(st.content())+5), true, true)
		f.Add(make([]byte, 5000), uint16(8192), true, false)
	}
	f.Fuzz(func(t *testing.T, body []byte, size uint16, tolerant, readOnly bool) {
		if len(body) > 1<<16 {
			return
		}
		st := newDisk()
		file := mustCreate(t, v, st, envelope.FileOptions{})
		mustWrite(t, file, []byte("x"), 0)
		st.put(body, 1024)
		st.resize(max(int64(size), 1024))
		file, err := open(v, st, newKey(1), envelope.FileOptions{Tolerant: tolerant, ReadOnly: readOnly})
		if err == nil {
			got := make([]byte, file.Size())
			var n int
			if n, err = file.ReadAt(got, 0); err == nil || err == io.EOF {
				if tolerant && n == 0 || n == 1 && got[0] == 'x' {
					return
				}
				t.Fatalf("%d bytes that nobody wrote: %v", n, err)
			}
			// Under tolerance a block that was last may have become longer, by zeros.
			if n > 0 && (!tolerant || got[0] != 'x' || len(bytes.Trim(got[1:n], "\x00")) > 0) {
				t.Fatalf("%d bytes that nobody wrote", n)
			}
			_, _ = file.WriteAt(body, int64(size))
			_ = file.Truncate(int64(size) / 2)
			_ = file.Check()
		}
		if _, ok := errors.AsType[*envelope.CorruptError](err); !ok {
			t.Fatal(err)
		}
	})
}
