package fsck

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/keys"
	"kmsfs/fs/volume"
)

// repairer mends what a check has found. Nobody else has the volume mounted, and it works alone.
type repairer struct {
	*check
	survey *survey
	lost   *lostDirectory // nil until it is needed
	// fresh are directories that could not be gone through before.
	fresh []*checkedDirectory
}

// repair mends all suspects, and what comes to light by that.
func (c *check) repair() error {
	for len(c.suspects) > 0 {
		suspects := c.suspects
		c.suspects = nil
		// What is beneath first: a directory may be moved.
		slices.SortStableFunc(suspects, func(a, b suspect) int { return -cmp.Compare(len(a.dirs), len(b.dirs)) })
		r := &repairer{check: c}
		if err := r.mendAll(suspects); err != nil {
			return err
		}
	}
	return nil
}

func (r *repairer) mendAll(suspects []suspect) (err error) {
	defer func() { err = errors.Join(err, r.close()) }()
	if err := r.look(suspects); err != nil {
		return err
	}
	for _, s := range suspects {
		if err := context.Cause(r.ctx); err != nil {
			return err
		}
		r.mend(s)
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
		unix.Close(d.fd)
	}
	if r.lost != nil {
		unix.Close(r.lost.fd)
	}
	if err := unix.Syncfs(r.Root); err != nil {
		return fmt.Errorf("syncing %s: %w", r.Path, err)
	}
	return nil
}

// mending is the repair of one entry.
type mending struct {
	*repairer
	suspect
	dir int
	id  envelope.DirectoryID // of the directory it lies in
}

// mend mends a suspect and reports how that ended.
func (r *repairer) mend(s suspect) {
	m := mending{repairer: r, suspect: s}
	done := make([]outcome, len(s.found))
	if err := m.open(); err != nil {
		for i := range done {
			done[i] = outcome{err: err}
		}
	} else {
		defer unix.Close(m.dir)
		m.run(done)
		m.lookAfter(done)
	}
	for i, f := range s.found {
		repaired, text := done[i].err == nil, done[i].what
		if !repaired {
			text = "not repaired: " + done[i].err.Error()
		}
		r.tell(s, f, text, &repaired)
	}
}

// lookAfter looks at a file again that could not be opened before: what else is wrong with it is seen only now.
func (m *mending) lookAfter(done []outcome) {
	var st unix.Stat_t
	if m.entry.Kind != unix.DT_REG || unix.Fstatat(m.dir, m.entry.Name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return // it has been moved
	}
	for i, f := range m.found {
		if done[i].err == nil && slices.Contains([]Class{FaultSize, FaultUncleanEnd}, f.class) {
			m.again(postponed{dirs: m.dirs, path: path.Dir(m.path), entry: m.entry, file: &fileCheck{c: m.check, entry: m.entry.Name, strict: true}})
			return
		}
	}
}

// outcome says what was done, or why it could not be.
type outcome struct {
	what string
	err  error
}

var errRootRecord = errors.New("the root directory can't be repaired: restore its owner, or kmsfs.dir from a backup of the volume")

// open opens the directory of the suspect.
func (m *mending) open() error {
	if m.entry.Name == "" {
		return errRootRecord
	}
	dir, err := openBeneath(m.Root, m.dirs)
	if err != nil {
		return err
	}
	record, err := m.ReadDirectory(dir)
	if err != nil {
		unix.Close(dir)
		return err
	}
	m.dir, m.id = dir, record.ID
	return nil
}

// openBeneath opens a directory by the names that lead to it.
func openBeneath(root int, names []string) (int, error) {
	dir, err := unix.Openat(root, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	for _, name := range names {
		if err != nil {
			break
		}
		above := dir
		dir, err = unix.Openat(above, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		unix.Close(above)
	}
	return dir, err
}

// run mends what can be mended in place, and then moves the entry, if something is left that asks for it.
func (m *mending) run(done []outcome) {
	var moving []int
	for i, f := range m.found {
		var ok bool
		if done[i], ok = m.inPlace(f); !ok {
			moving = append(moving, i)
		}
	}
	if len(moving) == 0 {
		return
	}
	o := m.move(m.movingClass(moving))
	for _, i := range moving {
		done[i] = o
	}
}

// movingClass is the fault that decides how the entry is moved: what can be had of a content comes first.
func (m *mending) movingClass(moving []int) Class {
	for _, i := range moving {
		if c := m.found[i].class; c == FaultBlock || c == FaultSize {
			return c
		}
	}
	return m.found[moving[0]].class
}

// inPlace mends a fault without moving the entry. It says whether that is all there is to do.
func (m *mending) inPlace(f finding) (o outcome, ok bool) {
	switch f.class {
	case FaultOwner:
		if m.entry.Kind == unix.DT_DIR {
			return m.giveBackDirectory(), true
		}
		return m.giveBack(), true
	case FaultStaleLocation:
		return m.dropLocations(), true
	case FaultStaleOwner:
		if m.entry.Kind == unix.DT_DIR {
			return m.dropDirectoryOwner(), true
		}
		return m.dropOwner(), true
	case FaultStaleOverflow:
		return m.dropOverflow(), true
	case FaultAttribute:
		return m.moveAttributes(), true
	case FaultOrphanName:
		if m.entry.Kind == unix.DT_DIR {
			return outcome{}, false
		}
		return m.remove("removed", func() error { return unix.Unlinkat(m.dir, m.entry.Name, 0) }), true
	case FaultLeftover:
		return m.removeLeftover()
	case FaultLongName:
		return m.writeLongName()
	case FaultUncleanEnd, FaultSize, FaultBlock:
		return m.tolerate(f)
	case FaultUnreadable:
		return outcome{err: errors.New(f.detail)}, true
	}
	return outcome{}, false
}

// note has the audit log tell what is about to be done.
func (m *mending) note(class Class, what string) error {
	event := keys.Event{Name: keys.EventRepaired, Details: map[string]string{
		"volume": m.Path, "path": m.path, "entry": m.inVolume(), "class": string(class), "what": what,
	}}
	return m.Keys.Record(m.ctx, keys.Self("fsck"), event)
}

// remove does what the audit log has been told.
func (m *mending) remove(what string, do func() error) outcome {
	if err := m.note(m.found[0].class, what); err != nil {
		return outcome{err: err}
	}
	return outcome{what, do()}
}

// removeLeftover removes a half made or half removed directory that holds nothing.
func (m *mending) removeLeftover() (outcome, bool) {
	if m.entry.Kind != unix.DT_DIR {
		return outcome{}, false
	}
	if err := m.note(FaultLeftover, "removed"); err != nil {
		return outcome{err: err}, true
	}
	err := m.Dismantle(m.dir, m.entry.Name)
	if errors.Is(err, unix.ENOTEMPTY) {
		return outcome{}, false
	}
	return outcome{"removed", err}, true
}

// writeLongName writes the file of a long name anew, if the entry tells its name.
func (m *mending) writeLongName() (outcome, bool) {
	for _, l := range m.listed(m.dir, m.entry) {
		name, err := m.Sealed.EncryptName(m.id, l.Name)
		if l.Directory != m.id || err != nil || name.Entry != m.entry.Name {
			continue
		}
		return m.remove("the name is written anew", func() error {
			if err := m.dropLongFile(); err != nil {
				return err
			}
			file := envelope.LongFile(m.entry.Name)
			if err := volume.WriteControl(m.dir, file, []byte(name.Long), false); err != nil {
				return err
			}
			return errors.Join(volume.SyncControl(m.dir, file), volume.SyncDir(m.dir))
		}), true
	}
	return outcome{}, false
}

// dropLongFile removes the file of the entry's long name, which means nothing any more; what is no file there goes to lost+found.
func (m *mending) dropLongFile() error {
	if !envelope.IsLong(m.entry.Name) {
		return nil
	}
	file := envelope.LongFile(m.entry.Name)
	err := unix.Unlinkat(m.dir, file, 0)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.EISDIR), errors.Is(err, unix.EPERM):
		_, err = m.moveRaw(m.dir, file, "name")
	}
	return err
}

// base is what the entry is called in lost+found.
func (m *mending) base() string {
	if i := strings.LastIndexByte(m.path, '/'); i >= 0 && m.path[i+1:] != unknownName {
		return m.path[i+1:]
	}
	for _, l := range m.listed(m.dir, m.entry) {
		return l.Name
	}
	if m.IsControl(m.entry.Name) {
		return m.entry.Name
	}
	return "unknown"
}

// move moves the entry to lost+found: if possible so that it opens there.
func (m *mending) move(class Class) outcome {
	lost, err := m.openLost()
	if err != nil {
		return outcome{err: err}
	}
	name, err := lost.freeName(m.base())
	if err != nil {
		return outcome{err: err}
	}
	if err := m.note(class, "moved to "+name.path); err != nil {
		return outcome{err: err}
	}
	what := "moved to " + name.path
	switch {
	case class == FaultBlock || class == FaultSize:
		what, err = m.salvage(lost, name)
	case m.entry.Kind == unix.DT_DIR && (class == FaultRecord || class == FaultForeignRecord):
		what, err = m.rebuild(lost, name)
	case m.entry.Kind == unix.DT_DIR && !m.IsControl(m.entry.Name):
		what, err = m.moveDirectory(m.dir, m.entry.Name, lost, name)
	case m.entry.Kind == unix.DT_REG && slices.Contains([]Class{FaultMisplaced, FaultPlantedLink, FaultName, FaultLongName}, class):
		what, err = m.moveFile(m.dir, m.entry.Name, lost, name)
	default:
		err = lost.take(m.dir, m.entry.Name, name)
	}
	if err == nil {
		err = m.dropLongFile()
	}
	return outcome{what, err}
}

// moveRaw moves something to lost+found as it is, under that name or one like it.
func (m *mending) moveRaw(dir int, entry, base string) (what string, err error) {
	lost, err := m.openLost()
	if err != nil {
		return "", err
	}
	name, err := lost.freeName(base)
	if err != nil {
		return "", err
	}
	return "moved to " + name.path, lost.take(dir, entry, name)
}
