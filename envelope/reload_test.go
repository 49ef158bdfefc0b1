package envelope_test

import (
	"errors"
	"testing"

	"pgregory.net/rapid"

	"kmsfs/envelope"
)

// TestReload has two Files take turns with one storage: each finds what the other has made of it.
func TestReload(t *testing.T) {
	v := newVolume(t, false)
	rapid.Check(t, func(rt *rapid.T) {
		m := newModel(rt, v, newBacking(t))
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
	v, st := newVolume(t, false), &memory{}
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
