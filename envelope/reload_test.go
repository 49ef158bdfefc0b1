package envelope_test

import (
	"bytes"
	"errors"
	"testing"

	"pgregory.net/rapid"

	"kmsfs/envelope"
)

// TestReload has two Files take turns with one storage: each finds what the other has made of it.
func TestReload(t *testing.T) { eachForm(t, testReload) }

func testReload(t *testing.T, form envelope.Compression) {
	v := newVolume(t, false)
	rapid.Check(t, func(rt *rapid.T) {
		m := newModel(rt, v, newRealDisk(t), form)
		files := [2]*envelope.File{m.file, mustOpen(rt, v, m.storage, m.key, m.options)}
		for range rapid.IntRange(1, 30).Draw(rt, "steps") {
			turn := rapid.IntRange(0, 1).Draw(rt, "turn")
			m.file = files[turn]
			err := m.file.Reload()
			if errors.Is(err, envelope.ErrAuthentication) {
				m.file = mustOpen(rt, v, m.storage, m.key, m.options)
			} else if err != nil {
				rt.Fatalf("reloading: %v", err)
			}
			name, err := m.step(rt, func(name string, from, to int64) int64 {
				return rapid.Int64Range(from, to).Draw(rt, name)
			})
			if err != nil {
				rt.Fatalf("%s: %v", name, err)
			}
			m.check(rt)
			files[turn] = m.file
		}
	})
}

// TestReloadKeepsHeaders has two Files change each other's header.
func TestReloadKeepsHeaders(t *testing.T) {
	v, st := newVolume(t, false), newDisk()
	f := mustCreate(t, v, st, envelope.FileOptions{})
	g := mustOpen(t, v, st, newKey(1), envelope.FileOptions{})
	places := []envelope.Location{{Directory: envelope.NewDirectoryID(), Name: "a"}, {Directory: envelope.NewDirectoryID(), Name: "b"}}
	for i, file := range []*envelope.File{f, g} {
		if err := file.Reload(); err != nil {
			t.Fatal(err)
		}
		if err := file.ChangeHeader(func(h *envelope.Header) error { v.AddLocation(h, places[i]); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Reload(); err != nil {
		t.Fatal(err)
	}
	h := f.Header()
	if !v.LiesAt(&h, places[0]) || !v.LiesAt(&h, places[1]) {
		t.Errorf("the header names %v", h.Locations)
	}
	refused := errors.New("refused")
	if err := f.ChangeHeader(func(h *envelope.Header) error { h.Owner++; return refused }); !errors.Is(err, refused) || f.Header().Owner != h.Owner {
		t.Errorf("a change that is refused: %v", err)
	}
}

// TestReloadAfterFailure has a change fail half-way, so that one File has more than the storage: what the other has made of the storage until it mends
// the end is not undone.
func TestReloadAfterFailure(t *testing.T) {
	v := newVolume(t, false)
	changes := map[string]func(f *envelope.File) error{
		"grow":   func(f *envelope.File) error { _, err := f.WriteAt(make([]byte, 3*page), 10_000); return err },
		"shrink": func(f *envelope.File) error { return f.Truncate(9_000) },
		"empty":  func(f *envelope.File) error { return f.Truncate(0) },
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			others := 0
			for k, failed := 1, true; failed; k++ {
				st, old := newDisk(), bytes.Repeat([]byte("old"), 3400)
				f := mustCreate(t, v, st, envelope.FileOptions{})
				if _, err := f.WriteAt(old, 0); err != nil {
					t.Fatal(err)
				}
				g := mustOpen(t, v, st, newKey(1), envelope.FileOptions{})
				st.fail(k, true)
				failed = change(f) != nil
				st.heal()
				if f.Settled() {
					continue
				}
				changed := g.Reload() == nil && g.Truncate(5000) == nil // before what is broken
				if changed {
					if _, err := g.WriteAt([]byte("other"), 5000); err != nil {
						t.Fatalf("change %d: %v", k, err)
					}
					others++
				}
				if err := f.Reload(); err != nil {
					t.Fatalf("change %d: %v", k, err)
				}
				if _, err := f.WriteAt([]byte("own"), f.Size()); err != nil {
					t.Fatalf("change %d: %v", k, err)
				}
				want, err := readAll(f)
				if err != nil || changed && !bytes.HasSuffix(want, []byte("otherown")) {
					t.Fatalf("change %d: what the other has done is undone: %v", k, err)
				}
				if err := errors.Join(f.Close(), g.Reload()); err != nil {
					t.Fatalf("change %d: %v", k, err)
				}
				mustHold(t, g, want)
			}
			if others == 0 && name != "empty" { // of which nobody makes anything but who has begun it
				t.Error("the other has never changed what was left undone")
			}
		})
	}
}
