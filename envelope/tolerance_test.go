package envelope_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"testing"

	"kmsfs/envelope"
)

// TestTolerance makes what power cuts leave, opens it without and with tolerance, and again without.
func TestTolerance(t *testing.T) {
	const full = 3044 + 2*4068
	v := newVolume(t, false)
	put := func(m *disk, from *disk, i int64) {
		// Page i as it was in from, the rest of it zeros.
		m.edit(func(p []byte) {
			p, old := p[i*page:min((i+1)*page, int64(len(p)))], from.content()
			clear(p)
			copy(p, old[i*page:min((i+1)*page, int64(len(old)))])
		})
	}
	grown := pattern(1, full+9000)
	for _, c := range []struct {
		name   string
		before int                          // size at first
		change func(f *envelope.File) error // then
		damage func(m, before *disk)        // and what of that reached the disk
		want   []byte
		parts  []envelope.Part // that are reported
	}{
		{
			"append, last flag stale", full, func(f *envelope.File) error { return write(f, grown[full:], full) },
			func(m, before *disk) { put(m, before, 2) }, grown,
			[]envelope.Part{envelope.BlockPart(2)},
		},
		{
			"append, only the last flag", full, func(f *envelope.File) error { return write(f, grown[full:], full) },
			func(m, before *disk) { m.resize(3 * page) }, grown[:full],
			[]envelope.Part{envelope.BlockPart(2)},
		},
		{
			"append, some pages", full - 10, func(f *envelope.File) error { return write(f, grown[full-10:], full-10) },
			func(m, before *disk) { m.resize(4 * page) }, grown[:full+4068],
			[]envelope.Part{envelope.BlockPart(3)},
		},
		{
			"append, old block stale and shorter", full - 1000, func(f *envelope.File) error { return write(f, grown[full-1000:], full-1000) },
			func(m, before *disk) { put(m, before, 2) }, zeroed(grown, full-1000, full),
			[]envelope.Part{envelope.BlockPart(2)},
		},
		{
			"growth within the page, page stale", full - 1000, func(f *envelope.File) error { return write(f, grown[full-1000:full-500], full-1000) },
			func(m, before *disk) { put(m, before, 2) }, grown[:full-1000],
			[]envelope.Part{envelope.BlockPart(2)},
		},
		{
			"growth to the page's end, page stale", full - 1, func(f *envelope.File) error { return write(f, grown[full-1:full], full-1) },
			func(m, before *disk) { put(m, before, 2) }, grown[:full-1],
			[]envelope.Part{envelope.BlockPart(2)},
		},
		{
			"growth of block 0, page stale", 100, func(f *envelope.File) error { return write(f, grown[100:3044], 100) },
			func(m, before *disk) { m.put(make([]byte, 3072), 1024); m.put(before.content(), 0) }, grown[:100],
			[]envelope.Part{envelope.BlockPart(0)},
		},
		{
			"only part of a nonce", full, func(f *envelope.File) error { return write(f, grown[full:], full) },
			func(m, before *disk) { m.resize(3*page + 5) }, grown[:full],
			[]envelope.Part{{Kind: envelope.PartSize}, envelope.BlockPart(2)},
		},
		{
			"part of a nonce, last flag stale", full, func(f *envelope.File) error { return write(f, grown[full:], full) },
			func(m, before *disk) { m.resize(3*page + 28); put(m, before, 2) }, grown[:full],
			[]envelope.Part{{Kind: envelope.PartSize}},
		},
		{
			"part of block 0's nonce", 0, func(f *envelope.File) error { return write(f, grown, 0) },
			func(m, before *disk) { m.resize(1052) }, nil,
			[]envelope.Part{{Kind: envelope.PartSize}},
		},
		{
			"cut before the new last page", full, func(f *envelope.File) error { return f.Truncate(4000) },
			func(m, before *disk) { m.resize(2 * page); put(m, before, 1) }, grown[:3044+4068],
			[]envelope.Part{envelope.BlockPart(1)},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := newDisk()
			f := mustCreate(t, v, st, envelope.FileOptions{})
			if err := write(f, grown[:c.before], 0); err != nil {
				t.Fatal(err)
			}
			before := st.clone()
			if err := c.change(f); err != nil {
				t.Fatal(err)
			}
			c.damage(st, before)
			checkTolerance(t, v, st, c.want, c.parts)
		})
	}
	// What an unfinished truncation leaves: a torn page, for each length of it.
	for _, size := range []int64{1, 2, 100, 3041, 3042, 3043, 3045, 3046, 5000, full - 4068 + 1, full - 3, full - 2, full - 1} {
		t.Run(fmt.Sprintf("torn at %d", size), func(t *testing.T) {
			st := newDisk()
			f := mustCreate(t, v, st, envelope.FileOptions{})
			mustWrite(t, f, grown, 0)
			changes := st.record()
			if err := f.Truncate(size); err != nil {
				t.Fatal(err)
			}
			c := (*changes)[len(*changes)-3] // cut, write, sync, cut
			i := c.off / page
			if c.kind != 'w' || c.off%page+int64(len(c.p)) != page && c.off%page != 0 {
				t.Fatalf("torn page is %d bytes at %d", len(c.p), c.off)
			}
			sealed := int(envelope.CipherSize(size) - max(c.off, 0))
			if room := len(c.p) - sealed; room >= 2 && int(binary.BigEndian.Uint16(c.p[len(c.p)-2:])) != sealed {
				t.Errorf("torn page says % x, want %d", c.p[len(c.p)-2:], sealed)
			}
			st.resize((i + 1) * page)
			st.put(c.p, c.off)
			checkTolerance(t, v, st, grown[:size], []envelope.Part{envelope.BlockPart(i)})
		})
	}
}

func zeroed(p []byte, from, to int) []byte {
	p = bytes.Clone(p)
	clear(p[from:to])
	return p
}

func write(f *envelope.File, p []byte, off int64) error {
	_, err := f.WriteAt(p, off)
	return err
}

func checkTolerance(t *testing.T, v *envelope.Volume, st *disk, want []byte, parts []envelope.Part) {
	t.Helper()
	var reported []envelope.Part
	o := envelope.FileOptions{Repaired: func(part envelope.Part, _ string) { reported = append(reported, part) }, ReadOnly: true}
	check := func(f *envelope.File, err error) error {
		if err != nil {
			return err
		}
		got, err := readAll(f)
		if err == nil && !bytes.Equal(got, want) {
			t.Fatalf("content of %d bytes, want %d", len(got), len(want))
		}
		return err
	}
	if err := check(open(v, st, newKey(1), o)); !errors.Is(err, envelope.ErrAuthentication) && !errors.Is(err, envelope.ErrFormat) {
		t.Fatalf("without tolerance: %v", err)
	}
	if len(reported) > 0 {
		t.Errorf("reported without tolerance: %v", reported)
	}
	o.Tolerant = true
	if err := check(open(v, st, newKey(1), o)); err != nil {
		t.Fatalf("read-only: %v", err)
	}
	if fmt.Sprint(reported) != fmt.Sprint(parts) {
		t.Errorf("reported %v, want %v", reported, parts)
	}
	o.ReadOnly = false
	if err := check(open(v, st, newKey(1), o)); err != nil {
		t.Fatalf("with tolerance: %v", err)
	}
	o.Tolerant, reported = false, nil
	if err := check(open(v, st, newKey(1), o)); err != nil || reported != nil {
		t.Fatalf("after the repair: %v, reported %d", err, reported)
	}
}

func TestEmptyStorage(t *testing.T) {
	v := newVolume(t, false)
	for _, size := range []int64{0, 1, 1023} {
		st := newDisk()
		st.resize(size)
		if _, err := v.ReadHeader(st, false); !errors.Is(err, envelope.ErrFormat) {
			t.Errorf("%d bytes: %v", size, err)
		}
		if _, err := v.ReadHeader(st, true); !errors.Is(err, envelope.ErrEmpty) {
			t.Errorf("%d bytes, with tolerance: %v", size, err)
		}
		mustWrite(t, mustCreate(t, v, st, envelope.FileOptions{}), []byte("text"), 0)
		mustHold(t, mustOpen(t, v, st, newKey(1), envelope.FileOptions{}), []byte("text"))
	}
}

func TestReadOnly(t *testing.T) {
	v, st := newVolume(t, false), newDisk()
	mustWrite(t, mustCreate(t, v, st, envelope.FileOptions{}), []byte("text"), 0)
	before := st.count
	f := mustOpen(t, v, st, newKey(1), envelope.FileOptions{ReadOnly: true})
	_, err := f.WriteAt([]byte("x"), 0)
	for _, err := range []error{err, f.Truncate(0), f.PunchHole(0, 1), f.ZeroRange(0, 1, true), f.Allocate(0, 1, true), setHeader(f, f.Header())} {
		if !errors.Is(err, syscall.EROFS) {
			t.Errorf("change of a read-only file: %v", err)
		}
	}
	if err := f.Close(); err != nil || st.count != before {
		t.Errorf("closing: %v, %d changes", err, st.count-before)
	}
}
