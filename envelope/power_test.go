package envelope_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"kmsfs/envelope"
	"kmsfs/fs/volume/backing/memory"
)

// TestPowerCut overwrites parts of files, and lets of what was not synced anything reach the disk,
// page by page and in any order: each block is then what it was when the file was synced, or has
// been since.
func TestPowerCut(t *testing.T) { eachForm(t, testPowerCut) }

func testPowerCut(t *testing.T, form envelope.Compression) {
	v := newVolume(t, false)
	cuts, syncs := 0, 0
	for seed := range uint64(seeds(form)) {
		r := rand.New(rand.NewPCG(seed, 3))
		st := newDiskOf(memory.Options{})
		m := newModel(t, v, st, form)
		overwrite(t, m, 0, 1+r.IntN(300_000), r)
		if r.IntN(2) == 0 { // a file with holes
			m.resize(int64(len(m.want)) + 200_000)
			if err := m.file.Truncate(int64(len(m.want))); err != nil {
				t.Fatal(err)
			}
		}
		var contents [][]byte // of the file, since it was synced
		for range 12 {
			if len(contents) == 0 || r.IntN(4) == 0 {
				if err := m.file.Sync(); err != nil {
					t.Fatal(err)
				}
				contents = [][]byte{bytes.Clone(m.want)}
			}
			var left []*disk
			st.after = func(c change) {
				if c.kind == 's' {
					syncs++
				}
				if r.IntN(2) == 0 && c.whole() {
					left = append(left, st.crash(r.IntN(st.fs.Points()+1), r.Uint64()))
				}
			}
			at := r.IntN(len(m.want))
			overwrite(t, m, at, min(1+r.IntN(150_000), len(m.want)-at), r)
			st.after = nil
			contents = append(contents, bytes.Clone(m.want))
			for _, cut := range left {
				checkPowerCut(t, v, cut, contents, fmt.Sprintf("seed %d, content %d", seed, len(contents)))
				cuts++
			}
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

func checkPowerCut(t *testing.T, v *envelope.Volume, st *disk, contents [][]byte, at string) {
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
