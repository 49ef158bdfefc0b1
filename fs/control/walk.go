package control

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	// parallel is how many files are worked on at a time.
	parallel = 4
	// batch is how many entries of a directory are read at a time.
	batch = 1000
)

// ErrIsDirectory says that a walk that is not recursive was given a directory.
var ErrIsDirectory = errors.New("is a directory")

// Walk has a mount do something with files: it sets an attribute of their directory to their name.
type Walk struct {
	// Attribute is Rewrap or Adopt.
	Attribute string
	// Recursive has the walk go through directories. It stays on the mount.
	Recursive bool
	// Directories says that the order is for directories too, and before their entries. If it is
	// not, a file with several links is done once.
	Directories bool
	// Volume has a recursive walk from the mountpoint end with the order for the volume itself, if
	// nothing failed before.
	Volume bool
	// Report is told of each entry that was done, or failed with that error. Its calls don't
	// overlap.
	Report func(path string, err error)

	seen    map[inodeID]bool
	workers chan struct{}

	mu     sync.Mutex // guards failed and the calls of Report
	failed bool
}

type inodeID struct{ dev, ino uint64 }

// Run goes through the paths. Errors of single entries beneath them are reported. An error that
// ends the walk is returned.
func (w *Walk) Run(paths []string) error {
	w.seen, w.workers = map[inodeID]bool{}, make(chan struct{}, parallel)
	for _, path := range paths {
		if err := w.path(path); err != nil {
			return err
		}
	}
	return nil
}

// Count calls found for each entry that Run would report, as far as this user can see. It is for
// progress bars: Run itself reports what can't be read.
func (w *Walk) Count(paths []string, found func()) {
	for _, path := range paths {
		_ = filepath.WalkDir(path, func(_ string, e fs.DirEntry, err error) error {
			if err == nil && (e.Type().IsRegular() || w.Directories && e.IsDir()) {
				found()
			}
			return nil
		})
	}
}

// path does what a user has named.
func (w *Walk) path(path string) error {
	resolved, m, err := onMount(path)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Stat(resolved, &st); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	isDir, isRoot := st.Mode&unix.S_IFMT == unix.S_IFDIR, m.Path == resolved
	if !isDir || w.Directories && !isRoot {
		if err := w.named(path); err != nil || !isDir || !w.Recursive {
			return err
		}
	} else if !w.Recursive {
		return fmt.Errorf("%s: %w", path, ErrIsDirectory)
	}
	dir, err := Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := w.directory(dir); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if w.Volume && isRoot && !w.hasFailed() {
		return dir.Set(w.Attribute, "")
	}
	return nil
}

// named gives the order for the last element of a path.
func (w *Walk) named(path string) error {
	dir, name, err := openParent(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := dir.order(w.Attribute, name); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	w.report(path, nil)
	return nil
}

// directory does all in a directory and beneath.
func (w *Walk) directory(dir *Directory) error {
	var pending sync.WaitGroup // those that use dir
	defer pending.Wait()
	for {
		entries, err := dir.f.ReadDir(batch)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return bare(err)
		}
		for _, e := range entries {
			w.entry(dir, e, &pending)
		}
	}
}

// entry does an entry of a directory, and all beneath.
func (w *Walk) entry(dir *Directory, e fs.DirEntry, pending *sync.WaitGroup) {
	name, path := e.Name(), filepath.Join(dir.named, e.Name())
	switch {
	case e.Type().IsRegular() && w.isNew(dir, name):
		w.workers <- struct{}{}
		pending.Go(func() {
			w.report(path, dir.order(w.Attribute, name))
			<-w.workers
		})
	case e.IsDir():
		if w.Directories {
			err := dir.order(w.Attribute, name)
			if w.report(path, err); err != nil {
				return
			}
		}
		if err := w.descend(dir, name, path); err != nil {
			w.report(path, err)
		}
	}
}

// descend goes into a directory that lies in dir, unless something else is mounted there.
func (w *Walk) descend(dir *Directory, name, path string) error {
	fd, err := unix.Openat(int(dir.f.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	below := newDirectory(fd, path)
	defer below.Close()
	var here, there unix.Stat_t
	if err := unix.Fstat(int(dir.f.Fd()), &here); err != nil {
		return err
	}
	if err := unix.Fstat(fd, &there); err != nil {
		return err
	}
	if here.Dev != there.Dev {
		return nil
	}
	return w.directory(below)
}

// isNew says whether a file is still to be done: one with several links is done once.
func (w *Walk) isNew(dir *Directory, name string) bool {
	var st unix.Stat_t
	if w.Directories || unix.Fstatat(int(dir.f.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || st.Nlink < 2 {
		return true
	}
	id := inodeID{st.Dev, st.Ino}
	if w.seen[id] {
		return false
	}
	w.seen[id] = true
	return true
}

func (w *Walk) report(path string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failed = w.failed || err != nil
	if w.Report != nil {
		w.Report(path, err)
	}
}

func (w *Walk) hasFailed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failed
}

// bare takes the path and the system call's name from an error.
func bare(err error) error {
	if e, ok := errors.AsType[*os.PathError](err); ok {
		return e.Err
	}
	return err
}
