package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// fileWorker writes to, shortens and syncs one file, and knows which bytes may be there.
type fileWorker struct {
	path    string
	durable []byte   // as of the last fsync
	now     []byte   // as of the last operation
	pending []change // since the last fsync
	seed    uint64
	file    *os.File
}

// change is a write, or, without bytes, a new size.
type change struct {
	at    int
	bytes []byte
}

func newFileWorker(path string) worker { return &fileWorker{path: path} }

func (w *fileWorker) step(random *rand.Rand) error {
	if w.file == nil {
		f, err := os.OpenFile(w.path, os.O_CREATE|os.O_RDWR, 0o644)
		if err != nil {
			return stopped(err)
		}
		w.file = f
	}
	const most = 200 << 10
	var err error
	switch random.IntN(10) {
	default:
		w.seed++
		n := 1 + random.IntN([]int{100, 5000, 60000}[random.IntN(3)])
		at := random.IntN(most - n)
		if random.IntN(3) == 0 {
			at = min(len(w.now), most-n) // appended
		}
		c := change{at, noise(w.seed, n)}
		if random.IntN(2) == 0 { // half of it can be compressed
			clear(c.bytes[n/2:])
		}
		w.apply(c)
		_, err = w.file.WriteAt(c.bytes, int64(at))
	case 0:
		c := change{at: random.IntN(most)}
		w.apply(c)
		err = w.file.Truncate(int64(c.at))
	case 1, 2, 3:
		if err = w.file.Sync(); err == nil {
			w.durable, w.pending = slices.Clone(w.now), nil
		}
	case 4:
		// Closing writes, but doesn't sync: a kill takes nothing away that is written.
		err = w.file.Close()
		w.file = nil
		if err == nil {
			w.durable, w.pending = slices.Clone(w.now), nil
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", w.path, stopped(err))
	}
	return nil
}

// apply adds a change to what may be there.
func (w *fileWorker) apply(c change) {
	w.pending = append(w.pending, c)
	size := c.at + len(c.bytes)
	if size > len(w.now) {
		w.now = append(w.now, make([]byte, size-len(w.now))...)
	}
	if c.bytes == nil {
		w.now = w.now[:size:size]
	}
	copy(w.now[c.at:], c.bytes)
}

func (w *fileWorker) check(t *testing.T) {
	t.Helper()
	if w.file != nil {
		_ = w.file.Close() // its mount is gone
		w.file = nil
	}
	got, err := os.ReadFile(w.path)
	if errors.Is(err, fs.ErrNotExist) && w.durable == nil {
		w.now, w.pending = nil, nil
		return
	}
	if err != nil {
		t.Errorf("after a crash: %v", err)
		return
	}
	// Where a size was between changes, any in between may have been left.
	least, most, size := len(w.durable), len(w.durable), len(w.durable)
	for _, c := range w.pending {
		if size = max(size, c.at+len(c.bytes)); c.bytes == nil {
			size = c.at
		}
		least, most = min(least, size), max(most, size)
	}
	if len(got) < least || len(got) > most {
		t.Errorf("%s: %d bytes, want %d to %d", w.path, len(got), least, most)
		return
	}
	for i, b := range got {
		if i < len(w.durable) && w.durable[i] == b {
			continue
		}
		possible := b == 0 && i >= len(w.durable)
		for _, c := range w.pending {
			possible = possible || c.bytes == nil && b == 0 && i >= c.at
			possible = possible || i >= c.at && i < c.at+len(c.bytes) && c.bytes[i-c.at] == b
		}
		if !possible {
			t.Errorf("%s: byte %d of %d is %x, which was never there (last synced: %d bytes, %d changes since)", w.path, i, len(got), b, len(w.durable), len(w.pending))
			return
		}
	}
	w.durable, w.now, w.pending = got, slices.Clone(got), nil
}

// nameWorker renames, links and unlinks files, whose content is their identity.
type nameWorker struct {
	dir string
	// is holds each name with its content; unsure are those that the last operation may have changed, with their contents then.
	is, unsure map[string]string
	seed       int
}

func newNameWorker(dir string) worker { return &nameWorker{dir: dir, is: make(map[string]string)} }

func (w *nameWorker) step(random *rand.Rand) error {
	w.unsure = make(map[string]string)
	names := slices.Sorted(maps.Keys(w.is))
	name := func() string {
		return fmt.Sprintf("%s%d", strings.Repeat("n", 1+random.IntN(2)*200), random.IntN(30))
	}
	path := func(name string) string { return filepath.Join(w.dir, name) }
	var err error
	if len(names) < 5 {
		w.seed++
		to, content := name(), fmt.Sprintf("content %d of %s\n", w.seed, w.dir)
		if _, ok := w.is[to]; ok {
			return nil
		}
		// Made whole beside it and renamed, as editors do it.
		if err := makeSynced(path("new"), content); err != nil {
			w.unsure["new"] = "?"
			return stopped(err)
		}
		w.unsure["new"], w.unsure[to] = content, content
		err = os.Rename(path("new"), path(to))
		if err == nil {
			w.is[to] = content
		}
	} else {
		from, to := names[random.IntN(len(names))], name()
		_, there := w.is[to]
		switch operation := random.IntN(4); {
		case operation == 0 && len(names) > 8:
			w.unsure[from] = ""
			if err = os.Remove(path(from)); err == nil {
				delete(w.is, from)
			}
		case operation == 1 && there && from != to:
			w.unsure[from], w.unsure[to] = w.is[to], w.is[from]
			if err = unix.Renameat2(unix.AT_FDCWD, path(from), unix.AT_FDCWD, path(to), unix.RENAME_EXCHANGE); err == nil {
				w.is[from], w.is[to] = w.is[to], w.is[from]
			}
		case operation == 2 && !there:
			w.unsure[to] = w.is[from]
			if err = os.Link(path(from), path(to)); err == nil {
				w.is[to] = w.is[from]
			}
		case w.is[from] != w.is[to]: // links of the same file stay both
			w.unsure[from], w.unsure[to] = "", w.is[from]
			if err = os.Rename(path(from), path(to)); err == nil {
				w.is[to] = w.is[from]
				delete(w.is, from)
			}
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", w.dir, stopped(err))
	}
	w.unsure = nil
	return nil
}

func makeSynced(path, content string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	return errors.Join(err, f.Sync(), f.Close())
}

func (w *nameWorker) check(t *testing.T) {
	t.Helper()
	found := make(map[string]string)
	entries, err := os.ReadDir(w.dir)
	if err != nil {
		t.Error(err)
		return
	}
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(w.dir, e.Name()))
		if err != nil {
			t.Errorf("after a crash: %v", err)
		}
		found[e.Name()] = string(content)
	}
	changed := make([]string, 0, 2)
	for name := range maps.Keys(mergeKeys(w.is, found)) {
		if found[name] == w.is[name] {
			continue
		}
		after, ok := w.unsure[name]
		if !ok || after != found[name] && after != "?" {
			t.Errorf("%s: %q is %q, want %q, or %q", w.dir, name, found[name], w.is[name], after)
		}
		changed = append(changed, name)
	}
	// The operation was done wholly, or not at all. (Of "new", that is made before, nothing is known.)
	for name, after := range w.unsure {
		if len(changed) > 0 && found[name] != after && name != "new" && !slices.Contains(changed, "new") {
			t.Errorf("%s: the last operation was done in part: %q, but %q is %q, not %q", w.dir, changed, name, found[name], after)
		}
	}
	if _, ok := found["new"]; ok {
		if err := os.Remove(filepath.Join(w.dir, "new")); err != nil {
			t.Error(err)
		}
		delete(found, "new")
	}
	w.is, w.unsure = found, nil
}

func mergeKeys(a, b map[string]string) map[string]string {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

// makeWorker makes directories with files, and removes them.
type makeWorker struct {
	dir  string
	made []string // directories that must be there; the first may be being removed
	next int
}

func newMakeWorker(dir string) worker { return &makeWorker{dir: dir} }

func (w *makeWorker) step(random *rand.Rand) error {
	if len(w.made) > 20 {
		gone := w.made[0]
		w.made = w.made[1:]
		return stopped(os.RemoveAll(filepath.Join(w.dir, gone)))
	}
	w.next++
	name := fmt.Sprintf("%s%d", strings.Repeat("d", 1+random.IntN(2)*220), w.next)
	dir := filepath.Join(w.dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return stopped(err)
	}
	w.made = append(w.made, name)
	if err := makeSynced(filepath.Join(dir, "file"), name); err != nil {
		return stopped(err)
	}
	return stopped(os.Symlink(name, filepath.Join(dir, "link")))
}

func (w *makeWorker) check(t *testing.T) {
	t.Helper()
	for i, name := range w.made {
		dir := filepath.Join(w.dir, name)
		content, err := os.ReadFile(filepath.Join(dir, "file"))
		// In the last one, making the file may have been cut short.
		last := i == len(w.made)-1
		if err != nil && (!last || !errors.Is(err, fs.ErrNotExist)) || err == nil && !last && string(content) != name {
			t.Errorf("after a crash: %s: %q, %v", dir, content, err)
		}
		if err := os.WriteFile(filepath.Join(dir, "more"), []byte("more"), 0o644); err != nil {
			t.Errorf("after a crash: %v", err)
		}
	}
	// All that is there, half made or half removed, can be removed.
	entries, err := os.ReadDir(w.dir)
	if err != nil {
		t.Error(err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(w.dir, e.Name())); err != nil {
			t.Errorf("after a crash: %v", err)
		}
	}
	w.made = nil
}
