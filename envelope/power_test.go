package envelope_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"kmsfs/envelope"
)

// TestPowerCut overwrites parts of files, and lets of what was not synced anything reach the disk, page by page and in any order: each block is then
// what it was when the file was synced, or has been since.
func TestPowerCut(t *testing.T) { eachForm(t, testPowerCut) }

func testPowerCut(t *testing.T, form envelope.Compression) {
	v := newVolume(t, false)
	cuts, syncs := 0, 0
	for seed := range uint64(seeds(form)) {
		r := rand.New(rand.NewPCG(seed, 3))
		st := &memory{}
		m := newModel(t, v, st, form)
		overwrite(t, m, 0, 1+r.IntN(300_000), r)
		if r.IntN(2) == 0 { // a file with holes
			m.resize(int64(len(m.want)) + 200_000)
			if err := m.file.Truncate(int64(len(m.want))); err != nil {
				t.Fatal(err)
			}
		}
		disk := &powerless{}
		for range 12 {
			if len(disk.contents) == 0 || r.IntN(4) == 0 {
				if err := m.file.Sync(); err != nil {
					t.Fatal(err)
				}
				st.record, st.changes = true, nil
				*disk = powerless{durable: st.clone(), contents: [][]byte{bytes.Clone(m.want)}}
			}
			at := r.IntN(len(m.want))
			overwrite(t, m, at, min(1+r.IntN(150_000), len(m.want)-at), r)
			disk.contents = append(disk.contents, bytes.Clone(m.want))
			for _, c := range st.changes {
				if c.kind == 's' {
					syncs++
				}
				disk.add(c)
				if r.IntN(2) == 0 {
					checkPowerCut(t, v, disk.cut(r), disk.contents, fmt.Sprintf("seed %d, content %d", seed, len(disk.contents)))
					cuts++
				}
			}
			st.changes = nil
		}
	}
	t.Logf("%d power cuts, %d syncs on the way", cuts, syncs)
}

// overwrite writes n bytes, or makes them zeros.
func overwrite(t *testing.T, m *model, at, n int, r *rand.Rand) {
	t.Helper()
	m.resize(int64(max(len(m.want), at+n)))
	m.want = bytes.Clone(m.want)
	if r.IntN(8) == 0 {
		clear(m.want[at : at+n])
		if err := m.file.ZeroRange(int64(at), int64(n), false); err != nil {
			t.Fatal(err)
		}
		return
	}
	m.seed++
	p := text(m.seed, n, r.IntN(101))
	copy(m.want[at:], p)
	mustWrite(t, m.file, p, int64(at))
}

// powerless is a disk that holds what was durable, and any part of what came after it.
type powerless struct {
	durable  *memory
	loose    []change
	contents [][]byte // of the file, since it was synced
}

func (d *powerless) add(c change) {
	d.loose = append(d.loose, c)
	if c.kind == 's' {
		for _, c := range d.loose {
			d.durable.apply(c, -1)
		}
		d.loose = nil
	}
}

// cut returns what is left: each page as it was at some time, and the size.
func (d *powerless) cut(r *rand.Rand) *memory {
	times := []*memory{d.durable.clone()}
	for _, c := range d.loose {
		next := times[len(times)-1].clone()
		next.apply(c, -1)
		times = append(times, next)
	}
	left := &memory{}
	left.resize(int64(len(times[r.IntN(len(times))].data)))
	for at := 0; at < len(left.data); at += page {
		from := times[r.IntN(len(times))].data
		if at < len(from) {
			left.write(from[at:min(at+page, len(left.data), len(from))], int64(at))
		}
	}
	return left
}

func checkPowerCut(t *testing.T, v *envelope.Volume, st *memory, contents [][]byte, at string) {
	t.Helper()
	var before []byte
	for _, o := range []envelope.FileOptions{{Tolerant: true, ReadOnly: true}, {Tolerant: true}, {}} {
		f, err := open(v, st, newKey(1), o)
		if err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		if err := f.Check(); err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		got, err := readAll(f)
		if err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		if before != nil && !bytes.Equal(got, before) {
			t.Fatalf("%s: the repair changed the content", at)
		}
		before = got
		if len(got) != len(contents[0]) {
			t.Fatalf("%s: %d bytes, want %d", at, len(got), len(contents[0]))
		}
		for i := int64(0); blockStart(i) < int64(len(got)); i++ {
			from, to := blockStart(i), min(blockStart(i+1), int64(len(got)))
			known := false
			for _, want := range contents {
				known = known || bytes.Equal(got[from:to], want[from:to])
			}
			if !known {
				t.Fatalf("%s: block %d is nothing that was written since the last sync", at, i)
			}
		}
		if err := f.Close(); err != nil {
			t.Fatalf("%s: %v", at, err)
		}
	}
}
