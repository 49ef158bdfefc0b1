package audit_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"kmsfs/keyservice/audit"
)

// Every record that can be written is found again, whatever its numbers.
func TestLargeNumbers(t *testing.T) {
	dir := t.TempDir()
	l := newKept().open(t, dir, large)
	ids := []uint32{1000, 2_000_000_000, 1 << 31, 3_000_000_000, 1<<32 - 1}
	for _, id := range ids {
		r := &audit.Record{Time: time.Now(), Event: "ReEncrypt", Identity: audit.Identity{
			UID: id, GID: id, UserName: "root", PID: 1<<31 - 1, Behind: &audit.Process{UID: id, GID: id, PID: 1<<31 - 1},
		}}
		must(t, l.Append(r, false))
	}
	var found, followed []uint32
	must(t, audit.Query(os.DirFS(dir), openName, audit.Filter{Event: "ReEncrypt"}, func(e *audit.Entry) error {
		found = append(found, e.AdditionalEventData.Behind.UID)
		return nil
	}))
	tail := audit.NewTail(os.DirFS(dir), openName)
	defer func() { must(t, tail.Close()) }()
	must(t, tail.Next(func(e *audit.Entry) error {
		followed = append(followed, e.AdditionalEventData.Behind.UID)
		return nil
	}))
	if !slices.Equal(found, ids) || !slices.Equal(followed, ids) {
		t.Errorf("found %v, followed %v, want %v", found, followed, ids)
	}
}

// Records that can't be read are counted, and the others are found all the same.
func TestUnreadable(t *testing.T) {
	dir := t.TempDir()
	l := newKept().open(t, dir, large)
	for i := range 10 {
		appendTo(t, l, i, i)
	}
	path := filepath.Join(dir, openName)
	text, err := os.ReadFile(path)
	must(t, err)
	lines := bytes.SplitAfter(text, []byte("\n"))
	lines[3] = []byte("no record\n")
	lines[6] = bytes.Replace(lines[6], []byte(`"eventTime":"`), []byte(`"eventTime":"x`), 1)
	must(t, os.WriteFile(path, bytes.Join(lines, nil), 0o600))
	want := []uint64{1, 2, 3, 5, 6, 8, 9, 10}
	tail := audit.NewTail(os.DirFS(dir), openName)
	defer func() { must(t, tail.Close()) }()
	for name, read := range map[string]func(func(*audit.Entry) error) error{
		"query": func(found func(*audit.Entry) error) error {
			return audit.Query(os.DirFS(dir), openName, audit.Filter{}, found)
		},
		"tail": tail.Next,
	} {
		var got []uint64
		err := read(func(e *audit.Entry) error {
			got = append(got, e.Sequence)
			return nil
		})
		unreadable, ok := errors.AsType[*audit.UnreadableError](err)
		if !ok || unreadable.Records != 2 || !slices.Equal(got, want) {
			t.Errorf("%s: records %v and %v, want %v and 2 that can't be read", name, got, err, want)
		}
	}
	if err := tail.Next(func(e *audit.Entry) error { return errors.New("again") }); err != nil {
		t.Errorf("the tail goes on: %v", err)
	}
}
