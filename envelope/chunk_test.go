package envelope_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"kmsfs/envelope"
)

const (
	chunk = 16 * 4068
	slot  = 16 * page
)

// chunkStart is where chunk j begins, as FORMAT.md has it.
func chunkStart(j int) int { return 3044 + (j-1)*chunk }

// diskUse is how many bytes a file takes on the disk.
func diskUse(t testing.TB, st *disk) int64 {
	t.Helper()
	if err := st.Sync(); err != nil {
		t.Fatal(err)
	}
	return st.use(t)
}

// TestCompressionSaves looks at what files take on the disk, however they came to be what they are.
func TestCompressionSaves(t *testing.T) {
	const size = 4 << 20
	good, bad := text(1, size, 80), pattern(1, size)
	writeBy := func(n int, p []byte) func(t *testing.T, f *envelope.File) {
		return func(t *testing.T, f *envelope.File) {
			for at := 0; at < len(p); at += n {
				mustWrite(t, f, p[at:min(at+n, len(p))], int64(at))
			}
		}
	}
	for _, c := range []struct {
		name  string
		write func(t *testing.T, f *envelope.File)
		want  []byte
		most  int64 // bytes that it may take
	}{
		{"at once", writeBy(size, good), good, size * 3 / 10},
		{"by 1 MiB", writeBy(1<<20, good), good, size * 3 / 10},
		{"by 128 KiB", writeBy(128<<10, good), good, size * 3 / 10},
		{"by 4 KiB", writeBy(4<<10, good), good, size * 3 / 10},
		{"from its end", func(t *testing.T, f *envelope.File) {
			for at := size - 64<<10; at >= 0; at -= 64 << 10 {
				mustWrite(t, f, good[at:at+64<<10], int64(at))
			}
		}, good, size * 3 / 10},
		{"twice", func(t *testing.T, f *envelope.File) {
			writeBy(128<<10, text(2, size, 80))(t, f)
			if err := f.Sync(); err != nil {
				t.Fatal(err)
			}
			writeBy(128<<10, good)(t, f)
		}, good, size * 3 / 10},
		{"over what doesn't compress, made a hole before", func(t *testing.T, f *envelope.File) {
			writeBy(1<<20, bad)(t, f)
			if err := f.PunchHole(0, size); err != nil {
				t.Fatal(err)
			}
			writeBy(1<<20, good)(t, f)
		}, good, size * 3 / 10},
		{"with a little that doesn't compress", writeBy(1<<20, text(1, size, 15)), text(1, size, 15), size * 19 / 20},
		{"what doesn't compress", writeBy(1<<20, bad), bad, size + size/64},
		{"small", writeBy(1<<20, good[:20_000]), good[:20_000], 4 * page},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, st := newVolume(t, false), newRealDisk(t)
			f := mustCreateAs(t, v, st, envelope.CompressionZstd, envelope.FileOptions{})
			c.write(t, f)
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			if got := diskUse(t, st); got > c.most {
				t.Errorf("%d bytes take %d, want %d at most", len(c.want), got, c.most)
			}
			if got, err := st.Size(); err != nil || got != envelope.CipherSize(int64(len(c.want))) {
				t.Errorf("ciphertext of %d bytes: %v", got, err)
			}
			mustHold(t, mustOpen(t, v, st, newKey(1), envelope.FileOptions{}), c.want)
		})
	}
}

// TestNoGarbage has what was replaced gone after a sync, or after closing.
func TestNoGarbage(t *testing.T) {
	v := newVolume(t, false)
	rapid.Check(t, func(rt *rapid.T) {
		st := newDisk()
		m := newModel(rt, v, st, envelope.CompressionZstd)
		turns := rapid.Bool().Draw(rt, "turns")
		for range rapid.IntRange(1, 20).Draw(rt, "steps") {
			if name, err := m.step(rt, func(name string, from, to int64) int64 { return rapid.Int64Range(from, to).Draw(rt, name) }); err != nil {
				rt.Fatalf("%s: %v", name, err)
			}
			if turns {
				if err := m.file.Reload(); err != nil {
					rt.Fatal(err)
				}
			}
		}
		finish := m.file.Sync
		if !turns && rapid.Bool().Draw(rt, "close") {
			finish = m.file.Close
		}
		if err := finish(); err != nil {
			rt.Fatal(err)
		}
		// Whatever is taken away is missed.
		content := st.content()
		for at := page; at < len(content); at += page {
			p := content[at:min(at+page, len(content))]
			if len(bytes.Trim(p, "\x00")) == 0 || rapid.IntRange(0, 5).Draw(rt, "page") > 0 {
				continue
			}
			less := st.clone()
			less.put(make([]byte, len(p)), int64(at))
			f := mustOpen(rt, v, less, m.key, envelope.FileOptions{ReadOnly: true})
			if got, err := readAll(f); err == nil && bytes.Equal(got, m.want) && !f.Header().Sparse {
				rt.Fatalf("page %d holds nothing that is needed", at/page)
			}
		}
	})
}

// synced counts the syncs of a Storage.
type synced struct {
	*disk
	syncs int
}

func (s *synced) Sync() error {
	s.syncs++
	return s.disk.Sync()
}

// TestWritesWithoutSync has writes that don't sync: such as append, in whatever portions, and such as overwrite what compresses well, once between two syncs.
func TestWritesWithoutSync(t *testing.T) {
	const size = 600_000
	for _, saved := range []int{0, 10, 30, 50, 70, 100} {
		for _, portion := range []int{1000, 4096, 10_000, 65_536, 128 << 10, size} {
			if portion < 4096 && saved != 50 || portion < 10_000 && !*soak {
				continue // each write packs a chunk
			}
			st := &synced{disk: newDisk()}
			f := mustCreateAs(t, newVolume(t, false), st, envelope.CompressionZstd, envelope.FileOptions{})
			for round := range 2 {
				p := text(byte(round), size, saved)
				if round == 1 && saved < 60 && saved > 0 {
					break // there may be no room
				}
				for at := 0; at < size; at += portion {
					mustWrite(t, f, p[at:min(at+portion, size)], int64(at))
				}
				if st.syncs > 0 {
					t.Errorf("saving %d %%, by %d bytes, round %d: %d syncs", saved, portion, round, st.syncs)
				}
				mustHold(t, f, p)
				if err := f.Sync(); err != nil {
					t.Fatal(err)
				}
				st.syncs = 0
			}
		}
	}
}

// TestTamperCompressed changes a compressed file in the ways that its store can: whoever reads it gets the right bytes or an error.
func TestTamperCompressed(t *testing.T) {
	v := newVolume(t, false)
	for _, saved := range []int{0, 30, 80} {
		for _, size := range []int{3044 + 1, 30_000, 3044 + chunk, 3044 + chunk + 10_000} {
			t.Run(fmt.Sprintf("size=%d/saved=%d", size, saved), func(t *testing.T) {
				st, other := newDisk(), newDisk()
				f := mustCreateAs(t, v, st, envelope.CompressionZstd, envelope.FileOptions{})
				mustWrite(t, f, text(2, size, saved), 0)
				if err := f.Sync(); err != nil {
					t.Fatal(err)
				}
				older := st.clone()
				want := text(1, size, saved)
				mustWrite(t, f, want, 0)
				if err := f.Close(); err != nil {
					t.Fatal(err)
				}
				mustWrite(t, mustCreateAs(t, v, other, envelope.CompressionZstd, envelope.FileOptions{}), text(3, size, saved), 0)
				tamperCompressed(t, v, st, older, other, want)
			})
		}
	}
}

func tamperCompressed(t *testing.T, v *envelope.Volume, st, older, other *disk, want []byte) {
	size := len(st.content())
	// check makes a change. What is refused is refused with the right error, and what opens is right; one of harmless may open.
	check := func(what string, harmless bool, change func(m *disk)) {
		t.Helper()
		m := st.clone()
		change(m)
		if bytes.Equal(m.content(), st.content()) {
			return
		}
		f, err := open(v, m, newKey(1), envelope.FileOptions{ReadOnly: true})
		if err == nil {
			got := bytes.Repeat([]byte{0xee}, int(f.Size()))
			var n int
			if n, err = f.ReadAt(got, 0); err == io.EOF {
				err = nil
			}
			if n > len(want) || !bytes.Equal(got[:n], want[:n]) || len(bytes.Trim(got[n:], "\x00")) > 0 {
				t.Fatalf("%s: wrong bytes", what)
			}
		}
		if err == nil && !harmless {
			t.Fatalf("%s: unnoticed", what)
		}
		if _, ok := errors.AsType[*envelope.CorruptError](err); err != nil && !ok {
			t.Fatalf("%s: %v", what, err)
		}
	}
	empty := func(i int) bool {
		return len(bytes.Trim(st.content()[i*page:min((i+1)*page, size)], "\x00")) == 0
	}
	r := rand.New(rand.NewPCG(uint64(size), 4))
	pages := (size + page - 1) / page
	for i := range pages {
		for range 12 {
			at := min(i*page+r.IntN(page), size-1)
			check(fmt.Sprintf("bit of byte %d", at), empty(i), func(m *disk) { m.edit(func(p []byte) { p[at] ^= 1 << r.IntN(8) }) })
		}
		last := min((i+1)*page, size) - 1
		check("last bit of a page", empty(i), func(m *disk) { m.edit(func(p []byte) { p[last] ^= 1 }) })
		check(fmt.Sprintf("cut at page %d", i), false, func(m *disk) { m.resize(int64(i * page)) })
		check(fmt.Sprintf("cut within page %d", i), false, func(m *disk) { m.resize(int64(i*page + r.IntN(min(page, size-i*page)))) })
		if i == 0 {
			continue
		}
		check(fmt.Sprintf("page %d zeros", i), false, func(m *disk) { m.edit(func(p []byte) { clear(p[i*page : last+1]) }) })
		for j := 1; j < pages; j++ {
			copyPage := func(what string, from []byte) {
				check(fmt.Sprintf("%s page %d in place of %d", what, i, j), empty(j), func(m *disk) {
					m.put(from[i*page:min((i+1)*page, size, i*page+size-j*page)], int64(j*page))
				})
			}
			if i != j {
				copyPage("the", st.content())
			}
			copyPage("another file's", other.content())
		}
		check(fmt.Sprintf("without page %d", i), false, func(m *disk) {
			m.put(st.content()[last+1:], int64(i*page))
			m.resize(int64(size - (last + 1 - i*page)))
		})
	}
	for _, n := range []int{1, 28, 29, page, slot, 2 * slot} {
		check(fmt.Sprintf("%d zeros more", n), false, func(m *disk) { m.resize(int64(size + n)) })
	}
	for j := 0; 1+16*j < pages; j++ {
		at := (1 + 16*j) * page
		end := min(at+slot, size)
		// The older version beside the newer: the newer is the chunk.
		check("an older version beside", true, func(m *disk) {
			for i := at; i < end; i += page {
				if empty(i / page) {
					m.put(older.content()[i:min(i+page, end)], int64(i))
				}
			}
		})
		check("slot of another file", false, func(m *disk) { m.edit(func(p []byte) { copy(p[at:end], other.content()[at:]) }) })
		for k := 0; 1+16*k < pages; k++ {
			if k != j && (17+16*k)*page <= size && end-at == slot {
				from := (1 + 16*k) * page
				check("another slot", false, func(m *disk) { m.edit(func(p []byte) { copy(p[at:end], st.content()[from:min(from+slot, size)]) }) })
			}
		}
	}
	check("header of a file that isn't compressed", false, func(m *disk) { m.edit(func(p []byte) { p[13] = 0 }) })
}

// TestReplaceInPlace overwrites what compresses with what doesn't, of many chunks at once, and back.
func TestReplaceInPlace(t *testing.T) {
	v, st := newVolume(t, false), &synced{disk: newDisk()}
	f := mustCreateAs(t, v, st, envelope.CompressionZstd, envelope.FileOptions{})
	const size = 5 << 20
	for round, saved := range []int{60, 0, 90, 30, 0, 60} {
		p := text(byte(round), size, saved)
		mustWrite(t, f, p, 0)
		mustHold(t, f, p)
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		mustHold(t, mustOpen(t, v, st, newKey(1), envelope.FileOptions{ReadOnly: true}), p)
		if got, want := int64(len(st.content())), envelope.CipherSize(size); got != want {
			t.Fatalf("round %d: %d bytes of ciphertext, want %d", round, got, want)
		}
	}
	if st.syncs > 30 {
		t.Errorf("%d syncs", st.syncs)
	}
}

// FuzzForgedChunk opens pages that somebody with the key has sealed, who needn't keep to the format.
func FuzzForgedChunk(f *testing.F) {
	v := newVolume(f, false)
	f.Add([]byte{}, []byte{}, uint16(0), byte(1), byte(0), false)
	f.Add([]byte("\x28\xb5\x2f\xfd"), []byte{1}, uint16(65088), byte(2), byte(255), true)
	bomb := append([]byte("\x28\xb5\x2f\xfd\x60\x40\xfd"), 0x02, 0x00, 0x10, 'x') // a block of one byte repeated
	f.Add(bomb, []byte{}, uint16(len(bomb)), byte(1), byte(0), false)
	f.Fuzz(func(t *testing.T, first, second []byte, frame uint16, pages, number byte, tolerant bool) {
		st := newDisk()
		file := mustCreateAs(t, v, st, envelope.CompressionZstd, envelope.FileOptions{})
		mustWrite(t, file, text(1, 3044+chunk, 60), 0) // in several pages
		for i, data := range [][]byte{first, second} {
			forgePage(t, st, int64(1+i), true, func(plain []byte) {
				plain[18], plain[19] = byte(frame>>8), byte(frame)
				plain[20] = pages
				plain[21] = number + byte(i)
				copy(plain[22:], data)
			})
		}
		opened, err := open(v, st, newKey(1), envelope.FileOptions{Tolerant: tolerant})
		if err == nil {
			var got []byte
			if got, err = readAll(opened); err == nil && len(got) > 3044+chunk {
				t.Fatalf("%d bytes", len(got))
			}
		}
		if _, ok := errors.AsType[*envelope.CorruptError](err); err != nil && !ok {
			t.Fatal(err)
		}
	})
}

// TestVerifyCompressed damages chunks: those are named, and all others are handed over.
func TestVerifyCompressed(t *testing.T) {
	v, st := newVolume(t, false), newDisk()
	const size = 3044 + 40*chunk + 100
	want := slices.Concat(text(1, 3044+20*chunk, 60), pattern(2, 20*chunk+100))
	mustWrite(t, mustCreateAs(t, v, st, envelope.CompressionZstd, envelope.FileOptions{}), want, 0)
	var bad []envelope.Span
	for _, j := range []int{1, 2, 17, 30, 41} {
		st.edit(func(p []byte) { p[(1+(j-1)*16)*page+7] ^= 1 })
		s := envelope.Span{Offset: int64(chunkStart(j)), Length: int64(min(chunk, size-chunkStart(j)))}
		clear(want[s.Offset:s.End()])
		bad = append(bad, s)
	}
	f := mustOpen(t, v, st, newKey(1), envelope.FileOptions{ReadOnly: true})
	got, found := make([]byte, size), []envelope.Span(nil)
	err := f.Verify(envelope.Everything(), func(p []byte, off int64) error {
		copy(got[off:], p)
		return nil
	}, func(s envelope.Span) error {
		found = append(found, s)
		return nil
	})
	if err != nil || !slices.Equal(found, bad) || !bytes.Equal(got, want) {
		t.Errorf("bad are %v, %v, want %v", found, err, bad)
	}
}
