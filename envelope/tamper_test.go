package envelope_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"

	"kmsfs/envelope"
)

// TestTamper changes a sealed file in every way that its store can: whoever reads it gets the right bytes or an error.
func TestTamper(t *testing.T) {
	const full = 3044 + 3*4068
	for _, plaintextNames := range []bool{false, true} {
		v := newVolume(t, plaintextNames)
		for _, size := range []int{0, 1, 3044, 3045, 5000, full - 1, full} {
			for _, sparse := range []bool{false, true} {
				t.Run(fmt.Sprintf("plaintextNames=%v/size=%d/sparse=%v", plaintextNames, size, sparse), func(t *testing.T) {
					st := newDisk()
					f := mustCreate(t, v, st, envelope.FileOptions{})
					if sparse {
						// A hole makes the file sparse; it is filled again.
						mustWrite(t, f, []byte{1}, 1<<20)
						if err := f.Truncate(0); err != nil {
							t.Fatal(err)
						}
					}
					want := pattern(1, size)
					older := st.clone()
					if size > 0 {
						mustWrite(t, f, pattern(2, size), 0)
						older = st.clone()
						mustWrite(t, f, want, 0)
					}
					other := newDisk()
					g := mustCreate(t, v, other, envelope.FileOptions{})
					mustWrite(t, g, pattern(3, max(size, 1)), 0)
					tamper(t, v, st, older, other, want, sparse)
				})
			}
		}
	}
}

func tamper(t *testing.T, v *envelope.Volume, st, older, other *disk, want []byte, sparse bool) {
	// check reads what was made of a copy of st; zeroed is the block that may be zeros, or 0.
	check := func(what string, st *disk, zeroed int64) {
		t.Helper()
		f, err := open(v, st, newKey(1), envelope.FileOptions{ReadOnly: true})
		if err == nil {
			got := bytes.Repeat([]byte{0xee}, int(f.Size()))
			var n int
			if n, err = f.ReadAt(got, 0); err == io.EOF {
				err = nil
			}
			right := bytes.Clone(want)
			if zeroed > 0 {
				clear(right[blockStart(zeroed):blockStart(zeroed+1)])
			}
			if n > len(right) || !bytes.Equal(got[:n], right[:n]) {
				t.Fatalf("%s: wrong bytes", what)
			}
			if len(bytes.Trim(got[n:], "\x00")) > 0 {
				t.Fatalf("%s: plaintext after an error", what)
			}
			if err == nil && (zeroed > 0 || sparse && bytes.Equal(got, want)) {
				return
			}
		}
		if err == nil {
			t.Fatalf("%s: unnoticed", what)
		}
		if !errors.Is(err, envelope.ErrAuthentication) && !errors.Is(err, envelope.ErrFormat) {
			t.Fatalf("%s: %v", what, err)
		}
		if _, ok := errors.AsType[*envelope.CorruptError](err); !ok {
			t.Fatalf("%s: %T", what, err)
		}
	}
	size := int64(len(st.content()))
	pages := (size + page - 1) / page
	edit := func(change func(m *disk)) *disk {
		m := st.clone()
		change(m)
		return m
	}
	for at := int64(0); at < size; at += 1 + at/1200 { // each byte of the header, and some of each block
		check(fmt.Sprintf("bit of byte %d", at), edit(func(m *disk) { m.edit(func(p []byte) { p[at] ^= 1 << (at % 8) }) }), 0)
	}
	for at := int64(0); at < size; at++ {
		if at > 1100 && at < size-40 && at%page > 40 && at%page < page-40 && at%97 != 0 {
			continue
		}
		check(fmt.Sprintf("cut at %d", at), edit(func(m *disk) { m.resize(at) }), 0)
	}
	for _, n := range []int64{1, 28, 29, page - 1, page, page + 1, 2 * page} {
		check(fmt.Sprintf("zeros to %d", size+n), edit(func(m *disk) { m.resize(size + n) }), 0)
	}
	if len(want) == 0 {
		return
	}
	last := pages - 1
	check("last page once more", edit(func(m *disk) { m.resize((pages + 1) * page); m.put(st.content()[last*page:], pages*page) }), 0)
	check("header of another file", edit(func(m *disk) { m.edit(func(p []byte) { copy(p[:1024], other.content()[:1024]) }) }), 0)
	check("block 0 of another file", edit(func(m *disk) { m.edit(func(p []byte) { copy(p[1024:], other.content()[1024:min(page, size)]) }) }), 0)
	for i := int64(1); i < pages; i++ {
		check(fmt.Sprintf("block %d of another file", i), edit(func(m *disk) {
			m.edit(func(p []byte) { copy(p[i*page:], other.content()[i*page:min((i+1)*page, size)]) })
		}), 0)
		for j := int64(1); j < pages; j++ {
			if i == j {
				continue
			}
			check(fmt.Sprintf("block %d in place of %d", i, j), edit(func(m *disk) { m.edit(func(p []byte) { copy(p[j*page:min((j+1)*page, size)], st.content()[i*page:]) }) }), 0)
			check(fmt.Sprintf("older block %d in place of %d", i, j), edit(func(m *disk) {
				m.edit(func(p []byte) { copy(p[j*page:min((j+1)*page, size)], older.content()[i*page:]) })
			}), 0)
		}
		zeroed := int64(0)
		if sparse && i != last {
			zeroed = i
		}
		check(fmt.Sprintf("block %d zeros", i), edit(func(m *disk) { m.edit(func(p []byte) { clear(p[i*page : min((i+1)*page, size)]) }) }), zeroed)
		if sparse && i != last {
			continue
		}
		check(fmt.Sprintf("without block %d", i), edit(func(m *disk) {
			m.resize(size - min(page, size-i*page))
			m.put(st.content()[min((i+1)*page, size):], i*page)
		}), 0)
	}
	check("block 0 zeros", edit(func(m *disk) { m.edit(func(p []byte) { clear(p[1024:min(page, size)]) }) }), 0)
}

// TestWrongKey opens a file with a data key that its header doesn't commit to, and in another volume.
func TestWrongKey(t *testing.T) {
	v, st := newVolume(t, false), newDisk()
	mustCreate(t, v, st, envelope.FileOptions{})
	if _, err := open(v, st, newKey(2), envelope.FileOptions{}); !errors.Is(err, envelope.ErrAuthentication) {
		t.Errorf("wrong key: %v", err)
	}
	if _, err := open(v, st, newKey(2)[1:], envelope.FileOptions{}); err == nil {
		t.Error("short key is accepted")
	}
	if _, err := open(newVolume(t, true), st, newKey(1), envelope.FileOptions{}); !errors.Is(err, envelope.ErrFormat) {
		t.Errorf("volume with plaintext names: %v", err)
	}
}
