package store_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"kmsfs/keyservice/store"
)

const pageSize = 4096

// largeFile is a store's with trees of several levels, and with free pages.
func largeFile(t *testing.T) []byte {
	f := newFixture(t)
	key := &store.Key{ID: store.KeyID{1}, Current: -1}
	f.update(func(tx *store.Tx) error {
		err := tx.PutKey(key)
		for i := range 3000 {
			err = errors.Join(err, tx.PutAlias(&store.Alias{Name: fmt.Sprintf("alias/%032d", i*7919%3000), Target: key.ID}))
		}
		return err
	})
	f.update(func(tx *store.Tx) (err error) {
		for i := range 300 {
			err = errors.Join(err, tx.DeleteAlias(fmt.Sprintf("alias/%032d", i)))
		}
		return err
	})
	f.update(func(tx *store.Tx) error { return tx.Remind(store.Due{Time: time.Now(), Key: key.ID}) })
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(f.path)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// try opens a file as a store and, where that is possible, reads and changes everything: whatever
// comes of it, the process is there afterwards.
func try(t *testing.T, file []byte) (opened bool) {
	f := &fixture{T: t, path: t.TempDir() + "/keys.db"}
	if err := os.WriteFile(f.path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(f.path, plain{}, func(flag int) (*os.File, error) { return os.OpenFile(f.path, flag, 0o600) })
	if err != nil {
		if !errors.Is(err, store.ErrDamaged) {
			t.Errorf("%v", err)
		}
		return false
	}
	var names []string
	_ = s.View(func(tx *store.Tx) error {
		_, err := tx.Facts()
		return errors.Join(err, tx.Aliases("", func(a *store.Alias) bool {
			names = append(names, a.Name)
			return true
		}), tx.KeyAliases(store.KeyID{1}, "", func(*store.Alias) bool { return true }))
	})
	_ = s.Update(func(tx *store.Tx) error {
		for i := 0; i < len(names); i += 50 {
			if err := tx.DeleteAlias(names[i]); err != nil {
				return err
			}
		}
		return tx.PutAlias(&store.Alias{Name: "alias/new", Target: store.KeyID{1}})
	})
	_ = s.Close()
	return true
}

// pages are the numbers of a file's pages with that flag.
func pages(file []byte, flag uint16) (found []uint64) {
	for id := range uint64(len(file) / pageSize) {
		page := file[id*pageSize:]
		if binary.NativeEndian.Uint64(page) == id && binary.NativeEndian.Uint16(page[8:]) == flag {
			found = append(found, id)
		}
	}
	return found
}

// Trees that lead in circles, pages that are used twice, and elements of any size are refused;
// bbolt would follow them until the process ends.
func TestImpossibleStructure(t *testing.T) {
	whole := largeFile(t)
	if !try(t, whole) {
		t.Fatal("an intact store isn't opened")
	}
	branches, leaves, lists := pages(whole, 1), pages(whole, 2), pages(whole, 16)
	if len(branches) < 2 || len(leaves) < 50 || len(lists) == 0 {
		t.Fatalf("%d branches, %d leaves and %d lists are too few", len(branches), len(leaves), len(lists))
	}
	refused := 0
	for _, branch := range branches {
		for _, child := range []uint64{branch, branches[0], 0, 1 << 40} {
			file := append([]byte{}, whole...)
			binary.NativeEndian.PutUint64(file[branch*pageSize+16+8:], child)
			if !try(t, file) {
				refused++
			}
		}
	}
	for i, page := range append(leaves[:12], lists...) {
		file := append([]byte{}, whole...)
		binary.NativeEndian.PutUint32(file[page*pageSize+16+12:], []uint32{1 << 31, 1<<32 - 1, 5000}[i%3])
		if !try(t, file) {
			refused++
		}
	}
	if refused < 6+len(branches) {
		t.Errorf("only %d structures are refused", refused)
	}
}

// Damage anywhere in the structure of a store of several levels never ends the process.
func TestDamagedStructure(t *testing.T) {
	whole := largeFile(t)
	random := rand.New(rand.NewPCG(3, 4))
	const damages = 40
	opened := 0
	for range damages {
		file := append([]byte{}, whole...)
		page := pageSize * random.IntN(len(file)/pageSize)
		for range 1 + random.IntN(4) {
			at := page + random.IntN(400)
			switch random.IntN(3) {
			case 0:
				file[at] ^= byte(1 + random.IntN(255))
			case 1:
				binary.NativeEndian.PutUint32(file[at&^3:], random.Uint32()>>random.IntN(32))
			case 2:
				binary.NativeEndian.PutUint64(file[at&^7:], uint64(random.IntN(len(file)/pageSize)))
			}
		}
		if try(t, file) {
			opened++
		}
	}
	if opened == 0 || opened == damages {
		t.Errorf("%d of %d damaged stores are opened", opened, damages)
	}
}
