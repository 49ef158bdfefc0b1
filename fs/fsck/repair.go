package fsck

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/keys"
	"kmsfs/fs/volume"
	"kmsfs/fs/volume/backing"
)

// repairer repairs what a check has found. No mount has the volume meanwhile, and the repairer
// works alone.
type repairer struct {
	*check
	survey *survey
	lost   *lostDirectory // nil until it is needed
	// fresh are directories that could not be gone through before.
	fresh []*checkedDirectory
}

// repair repairs all suspects, and what comes to light by that.
func (c *check) repair() error {
	for len(c.suspects) > 0 {
		suspects := c.suspects
		c.suspects = nil
		// What is beneath first: a directory may be moved.
		slices.SortStableFunc(suspects, func(a, b suspect) int { return -cmp.Compare(len(a.dirs), len(b.dirs)) })
		r := &repairer{check: c}
		if err := r.repairAll(suspects); err != nil {
			return err
		}
	}
	return nil
}

func (r *repairer) repairAll(suspects []suspect) (err error) {
	defer func() { err = errors.Join(err, r.close()) }()
	if err := r.look(suspects); err != nil {
		return err
	}
	for _, s := range suspects {
		if err := context.Cause(r.ctx); err != nil {
			return err
		}
		r.repairEntry(s)
	}
	for _, d := range r.fresh {
		if err := r.through(d); err != nil {
			return err
		}
	}
	return nil
}

// close makes everything durable.
func (r *repairer) close() error {
	for _, d := range r.fresh {
		d.dir.Close()
	}
	if r.lost != nil {
		r.lost.dir.Close()
	}
	if err := r.Root.Syncfs(); err != nil {
		return fmt.Errorf("syncing %s: %w", r.Path, err)
	}
	return nil
}

// outcome says what was done, or why it could not be.
type outcome struct {
	what string
	err  error
}

// repairEntry repairs a suspect and reports how that ended.
func (r *repairer) repairEntry(s suspect) {
	e := entryRepair{repairer: r, suspect: s}
	done := make([]outcome, len(s.found))
	if err := e.open(); err != nil {
		for i := range done {
			done[i] = outcome{err: err}
		}
	} else {
		defer e.dir.Close()
		e.run(done)
		e.lookAfter(done)
	}
	for i, f := range s.found {
		repaired, text := done[i].err == nil, done[i].what
		if !repaired {
			text = "not repaired: " + done[i].err.Error()
		}
		r.tell(s, f, text, &repaired)
	}
}

// openBeneath opens a directory by the names that lead to it.
func openBeneath(root backing.Dir, names []string) (backing.Dir, error) {
	dir, err := root.OpenDir(".")
	for _, name := range names {
		if err != nil {
			break
		}
		above := dir
		dir, err = above.OpenDir(name)
		above.Close()
	}
	return dir, err
}

// moveRaw moves something to lost+found as it is, under that name or one like it.
func (r *repairer) moveRaw(dir backing.Dir, entry, base string) (what string, err error) {
	lost, err := r.openLost()
	if err != nil {
		return "", err
	}
	name, err := lost.freeName(base)
	if err != nil {
		return "", err
	}
	return "moved to " + name.path, lost.take(dir, entry, name)
}

// moveFile moves a file, so that it opens in its new place. A file that doesn't open, or is a copy
// of another one, is moved as it is.
func (r *repairer) moveFile(dir backing.Dir, entry string, to *lostDirectory, name lostName) (string, error) {
	err := r.withFile(dir, entry, nil, func(f opened) error {
		if f.st.Nlink == 1 && !r.survey.claimFile(f.header.FileID) {
			return errCopy
		}
		return f.move(r.Sealed, dir, entry, to, name)
	})
	switch {
	case errors.Is(err, errCopy):
		return "it is a copy of a file that there is: moved as it is to " + name.path, to.take(dir, entry, name)
	case isFault(err), errors.Is(err, keys.ErrUnopened):
		return "moved as it is to " + name.path, to.take(dir, entry, name)
	}
	return "moved to " + name.path, err
}

var errCopy = errors.New("a copy")

// moveDirectory moves a directory, so that it opens in its new place. A copy of another directory
// is moved as it is.
func (r *repairer) moveDirectory(dir backing.Dir, entry string, to *lostDirectory, name lostName) (string, error) {
	fd, err := dir.OpenDir(entry)
	if err != nil {
		return "", err
	}
	defer fd.Close()
	record, err := r.ReadDirectory(fd)
	if isFault(err) {
		return "moved as it is to " + name.path, to.take(dir, entry, name)
	}
	if err != nil {
		return "", err
	}
	if !r.survey.claimDirectory(record.ID) {
		return "it is a copy of a directory that there is: moved as it is to " + name.path, to.take(dir, entry, name)
	}
	next := *record
	next.Locations = []envelope.Location{record.Locations[0], name.location}
	if err := r.ReplaceDirectory(fd, &next); err != nil {
		return "", err
	}
	if err := to.take(dir, entry, name); err != nil {
		return "", err
	}
	next.Locations = []envelope.Location{name.location}
	return "moved to " + name.path, r.ReplaceDirectory(fd, &next)
}

// createLost makes a file in lost+found that is like the one that st is of, but for its content.
// After an error there is none.
func (r *repairer) createLost(lost *lostDirectory, name lostName, keyARN string, st unix.Stat_t, content func(f *envelope.File) error) (err error) {
	if err := lost.prepareName(name); err != nil {
		return err
	}
	fd, err := lost.dir.OpenFile(name.Entry, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer fd.Close()
	defer func() {
		if err != nil {
			err = errors.Join(err, lost.dir.Unlink(name.Entry))
		}
	}()
	owner := r.UID
	if r.UID == 0 {
		owner = st.Uid
		if err := fd.Chown(int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
	}
	h := &envelope.Header{FileID: envelope.NewFileID(), Owner: owner, Path: name.path, Locations: []envelope.Location{name.location}}
	if err := r.seal(fd, h, keyARN, content); err != nil {
		return err
	}
	return errors.Join(fd.Chmod(st.Mode&0o777), volume.SetModified(fd, st.Mtim), fd.Sync(), volume.SyncDir(lost.dir))
}

// seal gives an empty file a header, under a data key of its own, and a content.
func (r *repairer) seal(f backing.File, h *envelope.Header, keyARN string, content func(f *envelope.File) error) error {
	key, err := r.Keys.GenerateDataKey(r.ctx, keys.Self("fsck"), keyARN, h.Context(r.Sealed.ID()))
	if err != nil {
		return err
	}
	defer clear(key.Plaintext)
	h.KeyARN, h.WrappedKey = key.KeyARN, key.Wrapped
	file, err := r.Sealed.CreateFile(volume.NewStorage(f), h, key.Plaintext, envelope.FileOptions{})
	if err != nil {
		return err
	}
	return errors.Join(content(file), file.Close())
}
