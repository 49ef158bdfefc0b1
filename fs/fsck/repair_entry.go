package fsck

import (
	"errors"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/keys"
	"kmsfs/fs/volume"
	"kmsfs/fs/volume/backing"
)

// entryRepair is the repair of one entry.
type entryRepair struct {
	*repairer
	suspect
	dir backing.Dir
	id  envelope.DirectoryID // of the directory it lies in
	// tolerated says that an unclean end may have left the entry one step behind. It is decided
	// before the first repair, which changes the time that decides.
	tolerated bool
}

var errRootRecord = errors.New("the root directory can't be repaired: restore its owner, or kmsfs.dir from a backup of the volume")

// open opens the directory of the suspect.
func (e *entryRepair) open() error {
	if e.entry.Name == "" {
		return errRootRecord
	}
	dir, err := openBeneath(e.Root, e.dirs)
	if err != nil {
		return err
	}
	record, err := e.ReadDirectory(dir)
	if err != nil {
		dir.Close()
		return err
	}
	e.dir, e.id = dir, record.ID
	if st, err := dir.StatAt(e.entry.Name); err == nil {
		e.tolerated = e.tolerance.Covers(st.Ctim)
	}
	return nil
}

// run repairs what can be repaired in place, and then moves the entry, if something is left that
// asks for it.
func (e *entryRepair) run(done []outcome) {
	var moving []int
	for i, f := range e.found {
		var ok bool
		if done[i], ok = e.inPlace(f); !ok {
			moving = append(moving, i)
		}
	}
	if len(moving) == 0 {
		return
	}
	o := e.move(e.movingClass(moving))
	for _, i := range moving {
		done[i] = o
	}
}

// movingClass is the fault that decides how the entry is moved: what can be had of a content comes
// first.
func (e *entryRepair) movingClass(moving []int) Class {
	for _, i := range moving {
		if c := e.found[i].class; c == FaultBlock || c == FaultSize {
			return c
		}
	}
	return e.found[moving[0]].class
}

// inPlace repairs a fault without moving the entry. It says whether that is all there is to do.
func (e *entryRepair) inPlace(f finding) (o outcome, ok bool) {
	switch f.class {
	case FaultAttribute:
		return e.moveAttributes(), true
	case FaultLeftover:
		return e.removeLeftover()
	case FaultLongName:
		return e.writeLongName()
	case FaultUnreadable:
		return outcome{err: errors.New(f.detail)}, true
	}
	if e.entry.Kind == unix.DT_DIR {
		return (&directoryRepair{e}).inPlace(f)
	}
	if f.class == FaultOrphanName {
		return e.remove("removed", func() error { return e.dir.Unlink(e.entry.Name) }), true
	}
	return (&fileRepair{e}).inPlace(f)
}

// note has the audit log tell what is about to be done.
func (e *entryRepair) note(class Class, what string) error {
	event := keys.Event{Name: keys.EventRepaired, Details: map[string]string{
		"volume": e.Path, "path": e.path, "entry": e.inVolume(), "class": string(class), "what": what,
	}}
	return e.Keys.Record(e.ctx, keys.Self("fsck"), event)
}

// remove does what the audit log has been told.
func (e *entryRepair) remove(what string, do func() error) outcome {
	if err := e.note(e.found[0].class, what); err != nil {
		return outcome{err: err}
	}
	return outcome{what, do()}
}

// removeLeftover removes a half made or half removed directory that holds nothing.
func (e *entryRepair) removeLeftover() (outcome, bool) {
	if e.entry.Kind != unix.DT_DIR {
		return outcome{}, false
	}
	if err := e.note(FaultLeftover, "removed"); err != nil {
		return outcome{err: err}, true
	}
	err := e.Dismantle(e.dir, e.entry.Name)
	if errors.Is(err, unix.ENOTEMPTY) {
		return outcome{}, false
	}
	return outcome{"removed", err}, true
}

// writeLongName writes the file of a long name anew, if the entry tells its name.
func (e *entryRepair) writeLongName() (outcome, bool) {
	for _, l := range e.listed(e.dir, e.entry) {
		name, err := e.Sealed.EncryptName(e.id, l.Name)
		if l.Directory != e.id || err != nil || name.Entry != e.entry.Name {
			continue
		}
		return e.remove("the name is written anew", func() error {
			if err := e.dropLongFile(); err != nil {
				return err
			}
			file := envelope.LongFile(e.entry.Name)
			if err := volume.WriteControl(e.dir, file, []byte(name.Long), false); err != nil {
				return err
			}
			return errors.Join(volume.SyncControl(e.dir, file), volume.SyncDir(e.dir))
		}), true
	}
	return outcome{}, false
}

// dropLongFile removes the file of the entry's long name, which means nothing any more; what is no
// file there goes to lost+found.
func (e *entryRepair) dropLongFile() error {
	if !envelope.IsLong(e.entry.Name) {
		return nil
	}
	file := envelope.LongFile(e.entry.Name)
	err := e.dir.Unlink(file)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.EISDIR), errors.Is(err, unix.EPERM):
		_, err = e.moveRaw(e.dir, file, "name")
	}
	return err
}

// move moves the entry to lost+found: if possible so that it opens there.
func (e *entryRepair) move(class Class) outcome {
	lost, err := e.openLost()
	if err != nil {
		return outcome{err: err}
	}
	name, err := lost.freeName(e.base())
	if err != nil {
		return outcome{err: err}
	}
	if err := e.note(class, "moved to "+name.path); err != nil {
		return outcome{err: err}
	}
	what := "moved to " + name.path
	switch {
	case class == FaultBlock || class == FaultSize:
		what, err = (&fileRepair{e}).salvage(lost, name)
	case e.entry.Kind == unix.DT_DIR && (class == FaultRecord || class == FaultForeignRecord):
		what, err = (&directoryRepair{e}).rebuild(lost, name)
	case e.entry.Kind == unix.DT_DIR && !e.IsControl(e.entry.Name):
		what, err = e.moveDirectory(e.dir, e.entry.Name, lost, name)
	case e.entry.Kind == unix.DT_REG && slices.Contains([]Class{FaultMisplaced, FaultPlantedLink, FaultName, FaultLongName}, class):
		what, err = e.moveFile(e.dir, e.entry.Name, lost, name)
	default:
		err = lost.take(e.dir, e.entry.Name, name)
	}
	if err == nil {
		err = e.dropLongFile()
	}
	return outcome{what, err}
}

// base is what the entry is called in lost+found.
func (e *entryRepair) base() string {
	if i := strings.LastIndexByte(e.path, '/'); i >= 0 && e.path[i+1:] != unknownName {
		return e.path[i+1:]
	}
	for _, l := range e.listed(e.dir, e.entry) {
		return l.Name
	}
	if e.IsControl(e.entry.Name) {
		return e.entry.Name
	}
	return "unknown"
}

// lookAfter looks at a file again that could not be opened before: what else is wrong with it is
// seen only now.
func (e *entryRepair) lookAfter(done []outcome) {
	if e.entry.Kind != unix.DT_REG {
		return
	}
	if _, err := e.dir.StatAt(e.entry.Name); err != nil {
		return // it has been moved
	}
	for i, f := range e.found {
		if done[i].err == nil && slices.Contains([]Class{FaultSize, FaultUncleanEnd}, f.class) {
			e.again(postponed{dirs: e.dirs, path: path.Dir(e.path), entry: e.entry, file: &fileCheck{c: e.check, entry: e.entry.Name, strict: true}})
			return
		}
	}
}
