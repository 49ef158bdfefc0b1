package fsck

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/volume"
	"kmsfs/fs/volume/backing"
)

// directoryRepair is the repair of a directory.
type directoryRepair struct{ *entryRepair }

func (d *directoryRepair) inPlace(f finding) (o outcome, ok bool) {
	switch f.class {
	case FaultOwner:
		return d.giveBack(), true
	case FaultStaleLocation:
		return d.dropLocations(), true
	case FaultStaleOwner:
		return d.dropOwner(), true
	}
	return outcome{}, false
}

// rebuild makes a new directory of what can be identified in one whose record is lost. The rest
// stays in the old one, which is moved too.
func (d *directoryRepair) rebuild(lost *lostDirectory, name lostName) (string, error) {
	dir, err := d.dir.OpenDir(d.entry.Name)
	if err != nil {
		return "", err
	}
	defer dir.Close()
	st, err := dir.Stat()
	if err != nil {
		return "", err
	}
	entries, err := backing.Entries(dir)
	if err != nil {
		return "", err
	}
	id, known := d.identify(dir, entries)
	if !known {
		return "nothing in it can be identified: moved as it is to " + name.path, lost.take(d.dir, d.entry.Name, name)
	}
	fresh, err := lost.make(name, st.Mode&0o7777, int(st.Uid), int(st.Gid))
	if err != nil {
		return "", err
	}
	d.fresh = append(d.fresh, &checkedDirectory{c: d.check, above: fresh.dirs, base: fresh.path, dir: fresh.dir, id: fresh.id})
	moved, left := 0, 0
	var failed error
	for _, e := range entries {
		if d.IsControl(e.Name) {
			continue
		}
		if err := d.moveInto(fresh, dir, id, e); err != nil {
			failed = errors.Join(failed, err)
			left++
			continue
		}
		moved++
	}
	what := fmt.Sprintf("%d entries moved to a new directory %s", moved, name.path)
	if failed != nil && left == 0 {
		return what, failed
	}
	if left == 0 && d.dismantleRecordless(dir) {
		return what, d.dir.Rmdir(d.entry.Name)
	}
	rest, err := d.moveRaw(d.dir, d.entry.Name, name.location.Name+".remains")
	return fmt.Sprintf("%s; the directory, with %d entries that can't be, %s", what, left, rest), err
}

// identify finds out the ID that a directory had: an entry that names it, and whose own name opens
// by it, proves it.
func (d *directoryRepair) identify(dir backing.Dir, entries []backing.Entry) (envelope.DirectoryID, bool) {
	for _, e := range entries {
		if d.IsControl(e.Name) {
			continue
		}
		for _, l := range d.listed(dir, e) {
			name, err := d.Sealed.EncryptName(l.Directory, l.Name)
			if err == nil && name.Entry == e.Name {
				return l.Directory, true
			}
		}
	}
	return envelope.DirectoryID{}, false
}

// moveInto moves an entry of a directory that had that ID.
func (d *directoryRepair) moveInto(to *lostDirectory, dir backing.Dir, id envelope.DirectoryID, e backing.Entry) error {
	plain, err := d.NameOf(dir, id, e)
	if err != nil {
		return err
	}
	name, err := to.nameOf(plain)
	if err != nil {
		return err
	}
	switch e.Kind {
	case unix.DT_DIR:
		if !d.lists(dir, e, envelope.Location{Directory: id, Name: plain}) {
			return volume.ErrMismatch
		}
		_, err = d.moveDirectory(dir, e.Name, to, name)
	case unix.DT_REG:
		if !d.lists(dir, e, envelope.Location{Directory: id, Name: plain}) {
			return volume.ErrMismatch
		}
		_, err = d.moveFile(dir, e.Name, to, name)
	default:
		err = to.take(dir, e.Name, name)
	}
	if err == nil && envelope.IsLong(e.Name) {
		err = dir.Unlink(envelope.LongFile(e.Name))
	}
	return err
}

// dismantleRecordless empties a directory that has nothing in it but the remains of kmsfs's own,
// and no record that somebody may want to look at.
func (d *directoryRepair) dismantleRecordless(dir backing.Dir) bool {
	if _, err := dir.StatAt(envelope.DirectoryName); !errors.Is(err, unix.ENOENT) {
		return false
	}
	all, err := dir.OpenDir(".")
	if err != nil {
		return false
	}
	defer all.Close()
	entries, err := backing.Entries(all)
	return err == nil && len(entries) == 0
}

// giveBack gives a directory to the owner that its record names.
func (d *directoryRepair) giveBack() outcome {
	var what string
	err := d.withRecord(func(dir backing.Dir, record *envelope.Directory) error {
		what = "given back to " + volume.OwnerName(record.Owners[0])
		if err := d.note(FaultOwner, what); err != nil {
			return err
		}
		st, err := dir.Stat()
		if err != nil {
			return err
		}
		if err := dir.Chown(int(record.Owners[0]), -1); err != nil {
			return err
		}
		return dir.Chmod(st.Mode & 0o7777) // a change of owner clears bits
	})
	return outcome{what, err}
}

// dropOwner has a directory's record name its owner alone.
func (d *directoryRepair) dropOwner() outcome {
	return d.remove("dropped", func() error {
		return d.withRecord(func(dir backing.Dir, record *envelope.Directory) error {
			owner, err := volume.OwnerOf(dir)
			if err != nil {
				return err
			}
			next := *record
			next.Owners = []uint32{owner}
			return d.ReplaceDirectory(dir, &next)
		})
	})
}

// withRecord calls do with the entry, a directory, open, and its record.
func (d *directoryRepair) withRecord(do func(dir backing.Dir, record *envelope.Directory) error) error {
	dir, err := d.dir.OpenDir(d.entry.Name)
	if err != nil {
		return err
	}
	defer dir.Close()
	record, err := d.ReadDirectory(dir)
	if err != nil {
		return err
	}
	return do(dir, record)
}

// dropLocations has a directory's record list only the place where it lies.
func (d *directoryRepair) dropLocations() outcome {
	return d.remove("dropped", func() error {
		return d.withRecord(func(dir backing.Dir, record *envelope.Directory) error {
			name, err := d.NameOf(d.dir, d.id, d.entry)
			if err != nil {
				return err
			}
			next := *record
			next.Locations = []envelope.Location{{Directory: d.id, Name: name}}
			return d.ReplaceDirectory(dir, &next)
		})
	})
}
