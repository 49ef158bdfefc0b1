package store_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"kmsfs/keyservice/store"
)

// plain seals nothing, and binds records to their places.
type plain struct{}

func (plain) Seal(table string, id, plaintext []byte) []byte {
	return slices.Concat([]byte(table), id, []byte{0}, plaintext)
}

func (plain) Open(dst []byte, table string, id, sealed []byte) ([]byte, error) {
	prefix := slices.Concat([]byte(table), id, []byte{0})
	if len(sealed) < len(prefix) || !slices.Equal(sealed[:len(prefix)], prefix) {
		return nil, errors.New("another record")
	}
	return append(dst, sealed[len(prefix):]...), nil
}

// fixture is a store in a file.
type fixture struct {
	*testing.T
	path string
	*store.Store
}

func newFixture(t *testing.T) *fixture {
	f := &fixture{T: t, path: filepath.Join(t.TempDir(), "keys.db")}
	if err := store.Create(f.path, plain{}, []byte("facts")); err != nil {
		t.Fatal(err)
	}
	f.open()
	return f
}

func (f *fixture) open() {
	s, err := store.Open(f.path, plain{}, func(flag int) (*os.File, error) { return os.OpenFile(f.path, flag, 0o600) })
	if err != nil {
		f.Fatal(err)
	}
	f.Store = s
	f.Cleanup(func() { _ = s.Close() }) // a second time, if all went well
}

func (f *fixture) reopen() {
	if err := f.Close(); err != nil {
		f.Fatal(err)
	}
	f.open()
}

func (f *fixture) update(change func(tx *store.Tx) error) {
	f.Helper()
	if err := f.Update(change); err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) view(read func(tx *store.Tx) error) {
	f.Helper()
	if err := f.View(read); err != nil {
		f.Fatal(err)
	}
}

// A change is made as a whole, or not at all.
func TestUpdate(t *testing.T) {
	f := newFixture(t)
	if err := store.Create(f.path, plain{}, nil); !errors.Is(err, os.ErrExist) {
		t.Errorf("a second one: %v", err)
	}
	key := &store.Key{ID: uuid.New(), State: "Enabled", Current: -1}
	put := func(tx *store.Tx) error {
		return errors.Join(tx.AddKey(key), tx.PutSecret(key.ID, store.MaterialID{1}, []byte("wrapped")), tx.PutAlias(&store.Alias{Name: "alias/a", Target: key.ID}))
	}
	refusal := errors.New("no")
	if err := f.Update(func(tx *store.Tx) error { return errors.Join(put(tx), refusal) }); !errors.Is(err, refusal) {
		t.Errorf("got %v, want %v", err, refusal)
	}
	for _, there := range []bool{false, true} {
		if there {
			f.update(put)
		}
		f.reopen()
		f.view(func(tx *store.Tx) error {
			k, keyErr := tx.Key(key.ID)
			a, aliasErr := tx.Alias("alias/a")
			secret, secretErr := tx.Secret(key.ID, store.MaterialID{1})
			if (k != nil) != there || (a != nil) != there || (secret != nil) != there || (tx.KeyCount() == 1) != there {
				t.Errorf("got %v, %v, %q, %d keys: want all there: %v", k, a, secret, tx.KeyCount(), there)
			}
			return errors.Join(keyErr, aliasErr, secretErr)
		})
	}
}

// With a key goes all that is its own, and nothing of another's.
func TestDeleteKey(t *testing.T) {
	f := newFixture(t)
	gone, stays := uuid.New(), uuid.New()
	for _, id := range []uuid.UUID{gone, stays} {
		f.update(func(tx *store.Tx) error {
			g := &store.Grant{Key: id, ID: store.GrantID{1}, Name: "n", Grantee: "alice", Retirer: "bob", Operations: []string{"Decrypt"}}
			return errors.Join(
				tx.AddKey(&store.Key{ID: id, Current: -1}), tx.PutKeyPolicy(id, []byte("{}")), tx.PutSecret(id, store.MaterialID{1}, []byte("s")),
				tx.PutAlias(&store.Alias{Name: "alias/" + id.String(), Target: id}), tx.AddGrant(g, "p"),
				tx.PutUsage(id, &store.Usage{Operation: "Decrypt"}))
		})
	}
	f.update(func(tx *store.Tx) error { return tx.DeleteKey(gone) })
	left := func(id uuid.UUID) (n int) {
		f.view(func(tx *store.Tx) error {
			count := func(ok bool) {
				if ok {
					n++
				}
			}
			k, err1 := tx.Key(id)
			p, err2 := tx.KeyPolicy(id)
			u, err3 := tx.Usage(id)
			a, err4 := tx.Alias("alias/" + id.String())
			g, err5 := tx.Grant(id, store.GrantID{1})
			named, err6 := tx.NamedGrant(id, "p")
			for _, ok := range []bool{k != nil, p != nil, u != nil, a != nil, g != nil, named != nil, tx.GrantCount(id) > 0, tx.AliasCount(id) > 0} {
				count(ok)
			}
			err7 := tx.Secrets(id, func(store.MaterialID, []byte) error { n++; return nil })
			err8 := tx.GranteeGrants(id, "alice", nil, func(*store.Grant) bool { n++; return true })
			err9 := tx.RetirableGrants("bob", nil, nil, func(g *store.Grant) bool { count(g.Key == id); return true })
			return errors.Join(err1, err2, err3, err4, err5, err6, err7, err8, err9)
		})
		return n
	}
	if got := left(gone); got != 0 {
		t.Errorf("%d things are left of the key", got)
	}
	if got := left(stays); got != 11 {
		t.Errorf("%d things are left of the other key, want 11", got)
	}
}

// The agenda gives what falls due first.
func TestAgenda(t *testing.T) {
	f := newFixture(t)
	start := time.UnixMilli(1e12).UTC()
	late := store.Due{Time: start.Add(time.Hour), Kind: store.DueDeletion, Key: uuid.New()}
	early := store.Due{Time: start, Kind: store.DueGrantExpiry, Key: uuid.New(), Grant: store.GrantID{1}}
	f.update(func(tx *store.Tx) error { return errors.Join(tx.Remind(late), tx.Remind(early), tx.Remind(late)) })
	for _, want := range []store.Due{early, late} {
		f.update(func(tx *store.Tx) error {
			got, ok, err := tx.Next()
			if !ok || got != want {
				t.Errorf("got %v, %v: want %v", got, ok, want)
			}
			return errors.Join(err, tx.Forget(got))
		})
	}
	f.view(func(tx *store.Tx) error {
		if got, ok, _ := tx.Next(); ok {
			t.Errorf("%v is left", got)
		}
		return nil
	})
}

// Lists go on behind the last item, also if it has gone.
func TestLists(t *testing.T) {
	f := newFixture(t)
	key := uuid.New()
	f.update(func(tx *store.Tx) error {
		var errs []error
		for _, name := range []string{"alias/a", "alias/b", "alias/c"} {
			errs = append(errs, tx.PutAlias(&store.Alias{Name: name, Target: key}))
		}
		return errors.Join(append(errs, tx.DeleteAlias("alias/b"))...)
	})
	for after, want := range map[string][]string{"": {"alias/a", "alias/c"}, "alias/a": {"alias/c"}, "alias/b": {"alias/c"}, "alias/c": nil} {
		var all, keys []string
		f.view(func(tx *store.Tx) error {
			return errors.Join(
				tx.Aliases(after, func(a *store.Alias) bool { all = append(all, a.Name); return true }),
				tx.KeyAliases(key, after, func(a *store.Alias) bool { keys = append(keys, a.Name); return true }))
		})
		if !slices.Equal(all, want) || !slices.Equal(keys, want) {
			t.Errorf("behind %q: got %v and %v, want %v", after, all, keys, want)
		}
	}
}

// Slots are reused once they are erased, and what was in them is in the file no more.
func TestSlots(t *testing.T) {
	path := filepath.Join(t.TempDir(), "slots")
	open := func() *store.Slots {
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		s, err := store.OpenSlots(file)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open()
	contents := map[uint32][store.SlotSize]byte{}
	for range 3 {
		slot, content, err := s.Take()
		if err != nil {
			t.Fatal(err)
		}
		contents[slot] = content
	}
	if err := errors.Join(s.Erase(1), s.Erase(1), s.Close()); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if erased := contents[1]; len(contents) != 3 || bytes.Contains(file, erased[:]) {
		t.Errorf("of %d slots, %x is in the file still", len(contents), erased)
	}
	s = open()
	defer func() { _ = s.Close() }()
	for _, slot := range []uint32{0, 2} {
		if got, err := s.Read(slot); err != nil || got != contents[slot] {
			t.Errorf("slot %d: got %x, %v, want %x", slot, got, err, contents[slot])
		}
	}
	if slot, _, err := s.Take(); err != nil || slot != 1 {
		t.Errorf("got slot %d, %v, want the erased one", slot, err)
	}
	if slot, _, err := s.Take(); err != nil || slot != 3 {
		t.Errorf("got slot %d, %v, want a new one", slot, err)
	}
}
