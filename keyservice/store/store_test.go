package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/uuid"

	"kmsfs/keyservice/store"
)

func open(t *testing.T, path string) (*store.Store, *store.Contents) {
	t.Helper()
	s, contents, err := store.Open(path, func(flag int) (*os.File, error) { return os.OpenFile(path, flag, 0o600) })
	if err != nil {
		t.Fatal(err)
	}
	return s, contents
}

// A change is made as a whole, or not at all.
func TestUpdate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	if err := store.Create(path, []byte("facts")); err != nil {
		t.Fatal(err)
	}
	if err := store.Create(path, nil); !errors.Is(err, os.ErrExist) {
		t.Errorf("a second one: %v", err)
	}
	s, contents := open(t, path)
	if string(contents.Home) != "facts" || len(contents.Keys) > 0 {
		t.Errorf("a new store has %+v", contents)
	}
	key := &store.Key{ID: uuid.New(), State: "Enabled", Current: store.MaterialID{1}}
	material := &store.Material{Key: key.ID, ID: key.Current, Wrapped: []byte("wrapped")}
	alias := &store.Alias{Name: "alias/a", Target: key.ID}
	put := func(tx *store.Tx) error {
		return errors.Join(tx.PutKey(key), tx.PutMaterial(material), tx.PutAlias(alias))
	}
	refusal := errors.New("no")
	if err := s.Update(func(tx *store.Tx) error { return errors.Join(put(tx), refusal) }); !errors.Is(err, refusal) {
		t.Errorf("got %v, want %v", err, refusal)
	}
	for _, want := range []int{0, 1} {
		if want == 1 {
			if err := s.Update(put); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s, contents = open(t, path)
		if len(contents.Keys) != want || len(contents.Materials) != want || len(contents.Aliases) != want {
			t.Errorf("got %+v, want %d of each", contents, want)
		}
	}
	if got := contents.Keys[0]; got.ID != key.ID || got.Current != key.Current || string(contents.Materials[0].Wrapped) != "wrapped" || contents.Aliases[0].Target != key.ID {
		t.Errorf("got %+v", contents)
	}
	if err := errors.Join(s.Update(func(tx *store.Tx) error { return tx.DeleteAlias("alias/a") }), s.Close()); err != nil {
		t.Fatal(err)
	}
	s, contents = open(t, path)
	if len(contents.Aliases) > 0 {
		t.Error("the alias is there still")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
