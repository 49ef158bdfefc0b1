package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

func rewrapCommand() command {
	return command{
		name: "rewrap", arguments: "[OPTIONS] PATH...", summary: "bring files under the KMS key, and the path, that hold where they are",
		details: `
Wraps the data keys of files anew: under the KMS key that the policy of their directory names, its current material, and the path where they lie now. So
it brings files under a policy that was set later, moves them to a rotated key, and refreshes the paths in contexts after a directory was renamed. Contents
are not touched; the files can be used all the time. What is as it should be already is passed over: after an interruption, run it again.

With --recursive on the mountpoint itself, the volume's own key, which all names are encrypted with, is wrapped anew too: after a policy for the mountpoint that
names another KMS key, nothing in the volume needs the old one any more.

It takes the owner of the files or root, and the KMS keys' leave for kms:Decrypt and kms:GenerateDataKey.

Examples:
  kmsfs rewrap --recursive ~/clear/finance
  kmsfs policy set --key alias/new ~/clear && kmsfs rewrap --recursive ~/clear`,
		prepare: func(flags *pflag.FlagSet) func([]string) error {
			recursive := flags.Bool("recursive", false, "wrap anew all that lies in directories")
			return func(args []string) error {
				if len(args) == 0 {
					return usagef("rewrap", "want at least one PATH")
				}
				return forEachEntry(args, &walk{recursive: *recursive, attribute: rewrapAttribute, root: *recursive, verb: "rewrapped"})
			}
		},
	}
}

// walk has something done, by an attribute of their directories, with files, and with --recursive with all that lies beneath directories.
type walk struct {
	recursive bool
	attribute string
	// directories says that it is done with directories too, before what is in them.
	directories bool
	// root says that it is done with the volume itself after all else, where its mountpoint is named.
	root bool
	// verb is what has been done, for people.
	verb string

	seen   map[inodeID]bool // files with several links that are done
	done   int
	failed int

	mu      sync.Mutex // guards failed and done while work is under way
	workers chan struct{}
	bar     *progressBar
}

type inodeID struct{ dev, ino uint64 }

// parallel is how many files are worked on at a time.
const parallel = 4

// errSome says that some files were passed over with an error, which has been printed.
var errSome = errors.New("not all could be done")

func forEachEntry(paths []string, w *walk) error {
	w.seen, w.workers = map[inodeID]bool{}, make(chan struct{}, parallel)
	if w.recursive {
		w.bar = startProgress(true)
	}
	counting := w.count(paths)
	err := w.all(paths)
	counting.Wait()
	w.bar.end()
	if err != nil {
		return err
	}
	if w.failed > 0 {
		return fmt.Errorf("%w: %d of %d", errSome, w.failed, w.failed+w.done)
	}
	if w.recursive {
		fmt.Printf("%d files %s\n", w.done, w.verb)
	}
	return nil
}

func (w *walk) all(paths []string) error {
	for _, path := range paths {
		if err := w.path(path); err != nil {
			return err
		}
	}
	return nil
}

// count counts what there is to do, if somebody sees it. What can't be read, the work itself will say.
func (w *walk) count(paths []string) *sync.WaitGroup {
	var counting sync.WaitGroup
	if w.bar == nil {
		return &counting
	}
	p := w.bar.counters()
	counting.Go(func() {
		for _, path := range paths {
			_ = filepath.WalkDir(path, func(_ string, e fs.DirEntry, err error) error {
				if err == nil && (e.Type().IsRegular() || w.directories && e.IsDir()) {
					p.AllFiles.Add(1)
				}
				return nil
			})
		}
		p.Counted.Store(true)
	})
	return &counting
}

func (w *walk) path(path string) error {
	resolved, m, err := onMount(path)
	if err != nil {
		return err
	}
	atRoot := m.path == resolved
	if !isDirectory(path) || w.directories && !atRoot {
		dir, name, err := openParent(path)
		if err != nil {
			return err
		}
		defer dir.Close()
		if err := tell(dir, w.attribute, []byte(name), path); err != nil || !w.recursive || !isDirectory(path) {
			w.done++
			return err
		}
	} else if !w.recursive {
		return fmt.Errorf("%s: is a directory: --recursive does what lies in it", path)
	}
	dir, err := openOnMount(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := w.directory(dir); err != nil {
		return err
	}
	if w.root && atRoot && w.failed == 0 {
		return tell(dir, w.attribute, []byte{}, path)
	}
	return nil
}

// directory does all in a directory and beneath. Errors about single entries are printed and counted.
func (w *walk) directory(dir *os.File) error {
	var pending sync.WaitGroup // those that need dir
	defer pending.Wait()
	for {
		entries, err := dir.ReadDir(1000)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return pathError(err)
		}
		for _, e := range entries {
			name, path := e.Name(), filepath.Join(dir.Name(), e.Name())
			if e.Type().IsRegular() && !w.isNew(dir, name) {
				continue
			}
			if e.Type().IsRegular() {
				w.start(&pending, func() error { return tell(dir, w.attribute, []byte(name), path) })
				continue
			}
			if !e.IsDir() {
				continue
			}
			if w.directories {
				if err := tell(dir, w.attribute, []byte(name), path); err != nil {
					w.note(err)
					continue
				}
				w.note(nil)
			}
			w.descend(dir, name, path)
		}
	}
}

// descend goes into a directory that lies in dir, unless something else is mounted there.
func (w *walk) descend(dir *os.File, name, path string) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		w.note(fmt.Errorf("%s: %w", path, err))
		return
	}
	below := os.NewFile(uintptr(fd), path)
	defer below.Close()
	var here, there unix.Stat_t
	if err := errors.Join(unix.Fstat(int(dir.Fd()), &here), unix.Fstat(fd, &there)); err != nil || here.Dev != there.Dev {
		if err != nil {
			w.note(fmt.Errorf("%s: %w", path, err))
		}
		return
	}
	if err := w.directory(below); err != nil {
		w.note(err)
	}
}

// isNew says whether a file is to be done: one with several links is done once.
func (w *walk) isNew(dir *os.File, name string) bool {
	var st unix.Stat_t
	if w.directories || unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || st.Nlink < 2 {
		return true
	}
	id := inodeID{st.Dev, st.Ino}
	if w.seen[id] {
		return false
	}
	w.seen[id] = true
	return true
}

// start does something beside the walk, when there is a worker free.
func (w *walk) start(pending *sync.WaitGroup, do func() error) {
	w.workers <- struct{}{}
	pending.Go(func() {
		w.note(do())
		<-w.workers
	})
}

func (w *walk) note(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.bar != nil {
		w.bar.counters().Files.Add(1)
	}
	if err == nil {
		w.done++
		return
	}
	w.failed++
	_ = w.bar.above(func() error { // what can't be shown is counted
		_, err := fmt.Fprintln(os.Stderr, "kmsfs: "+explain(err))
		return err
	})
}
