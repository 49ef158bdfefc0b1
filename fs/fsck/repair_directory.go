package fsck

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/volume"
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
	fd, err := unix.Openat(d.dir, d.entry.Name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", err
	}
	entries, err := volume.ListEntries(fd)
	if err != nil {
		return "", err
	}
	id, known := d.identify(fd, entries)
	if !known {
		return "nothing in it can be identified: moved as it is to " + name.path, lost.take(d.dir, d.entry.Name, name)
	}
	fresh, err := lost.make(name, st.Mode&0o7777, int(st.Uid), int(st.Gid))
	if err != nil {
		return "", err
	}
	d.fresh = append(d.fresh, &checkedDirectory{c: d.check, above: fresh.dirs, base: fresh.path, fd: fresh.fd, id: fresh.id})
	moved, left := 0, 0
	var failed error
	for _, e := range entries {
		if d.IsControl(e.Name) {
			continue
		}
		if err := d.moveInto(fresh, fd, id, e); err != nil {
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
	if left == 0 && d.dismantleRecordless(fd) {
		return what, unix.Unlinkat(d.dir, d.entry.Name, unix.AT_REMOVEDIR)
	}
	rest, err := d.moveRaw(d.dir, d.entry.Name, name.location.Name+".remains")
	return fmt.Sprintf("%s; the directory, with %d entries that can't be, %s", what, left, rest), err
}

// identify finds out the ID that a directory had: an entry that names it, and whose own name opens
// by it, proves it.
func (d *directoryRepair) identify(fd int, entries []volume.Entry) (envelope.DirectoryID, bool) {
	for _, e := range entries {
		if d.IsControl(e.Name) {
			continue
		}
		for _, l := range d.listed(fd, e) {
			name, err := d.Sealed.EncryptName(l.Directory, l.Name)
			if err == nil && name.Entry == e.Name {
				return l.Directory, true
			}
		}
	}
	return envelope.DirectoryID{}, false
}

// moveInto moves an entry of a directory that had that ID.
func (d *directoryRepair) moveInto(to *lostDirectory, dir int, id envelope.DirectoryID, e volume.Entry) error {
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
		err = unix.Unlinkat(dir, envelope.LongFile(e.Name), 0)
	}
	return err
}

// dismantleRecordless empties a directory that has nothing in it but the remains of kmsfs's own,
// and no record that somebody may want to look at.
func (d *directoryRepair) dismantleRecordless(fd int) bool {
	var st unix.Stat_t
	if !errors.Is(unix.Fstatat(fd, envelope.DirectoryName, &st, unix.AT_SYMLINK_NOFOLLOW), unix.ENOENT) {
		return false
	}
	dir, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(dir)
	entries, err := volume.ListEntries(dir)
	return err == nil && len(entries) == 0
}

// giveBack gives a directory to the owner that its record names.
func (d *directoryRepair) giveBack() outcome {
	var what string
	err := d.withRecord(func(fd int, record *envelope.Directory) error {
		what = "given back to " + volume.OwnerName(record.Owners[0])
		if err := d.note(FaultOwner, what); err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		if err := unix.Fchown(fd, int(record.Owners[0]), -1); err != nil {
			return err
		}
		return unix.Fchmod(fd, st.Mode&0o7777) // a change of owner clears bits
	})
	return outcome{what, err}
}

// dropOwner has a directory's record name its owner alone.
func (d *directoryRepair) dropOwner() outcome {
	return d.remove("dropped", func() error {
		return d.withRecord(func(fd int, record *envelope.Directory) error {
			owner, err := volume.OwnerOf(fd)
			if err != nil {
				return err
			}
			next := *record
			next.Owners = []uint32{owner}
			return d.ReplaceDirectory(fd, &next)
		})
	})
}

// withRecord calls do with the entry, a directory, open, and its record.
func (d *directoryRepair) withRecord(do func(fd int, record *envelope.Directory) error) error {
	fd, err := unix.Openat(d.dir, d.entry.Name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	record, err := d.ReadDirectory(fd)
	if err != nil {
		return err
	}
	return do(fd, record)
}

// dropLocations has a directory's record list only the place where it lies.
func (d *directoryRepair) dropLocations() outcome {
	return d.remove("dropped", func() error {
		return d.withRecord(func(fd int, record *envelope.Directory) error {
			name, err := d.NameOf(d.dir, d.id, d.entry)
			if err != nil {
				return err
			}
			next := *record
			next.Locations = []envelope.Location{{Directory: d.id, Name: name}}
			return d.ReplaceDirectory(fd, &next)
		})
	})
}
