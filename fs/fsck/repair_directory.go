package fsck

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/volume"
)

// moveDirectory moves a directory, so that it opens in its new place. One that is a copy of another stays unopened.
func (m *mending) moveDirectory(dir int, entry string, to *lostDirectory, name lostName) (string, error) {
	fd, err := unix.Openat(dir, entry, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	record, err := m.ReadDirectory(fd)
	if isFault(err) {
		return "moved as it is to " + name.path, to.take(dir, entry, name)
	}
	if err != nil {
		return "", err
	}
	if !m.survey.claimDirectory(record.ID) {
		return "it is a copy of a directory that there is: moved as it is to " + name.path, to.take(dir, entry, name)
	}
	next := *record
	next.Locations = []envelope.Location{record.Locations[0], name.location}
	if err := m.ReplaceDirectory(fd, &next); err != nil {
		return "", err
	}
	if err := to.take(dir, entry, name); err != nil {
		return "", err
	}
	next.Locations = []envelope.Location{name.location}
	return "moved to " + name.path, m.ReplaceDirectory(fd, &next)
}

// rebuild makes a new directory of what can be identified in one whose record is lost. The rest stays in the old one, which is moved too.
func (m *mending) rebuild(lost *lostDirectory, name lostName) (string, error) {
	fd, err := unix.Openat(m.dir, m.entry.Name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
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
	id, known := m.identify(fd, entries)
	if !known {
		return "nothing in it can be identified: moved as it is to " + name.path, lost.take(m.dir, m.entry.Name, name)
	}
	fresh, err := lost.make(name, st.Mode&0o7777, int(st.Uid), int(st.Gid))
	if err != nil {
		return "", err
	}
	m.fresh = append(m.fresh, &checkedDirectory{c: m.check, above: fresh.dirs, fd: fresh.fd, path: fresh.path, id: fresh.id})
	moved, left := 0, 0
	var failed error
	for _, e := range entries {
		if m.IsControl(e.Name) {
			continue
		}
		if err := m.moveInto(fresh, fd, id, e); err != nil {
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
	if left == 0 && m.dismantleRecordless(fd) {
		return what, unix.Unlinkat(m.dir, m.entry.Name, unix.AT_REMOVEDIR)
	}
	rest, err := m.moveRaw(m.dir, m.entry.Name, name.location.Name+".remains")
	return fmt.Sprintf("%s; the directory, with %d entries that can't be, %s", what, left, rest), err
}

// identify finds out the ID that a directory had: an entry that names it, and whose own name opens by it, proves it.
func (m *mending) identify(fd int, entries []volume.Entry) (envelope.DirectoryID, bool) {
	for _, e := range entries {
		if m.IsControl(e.Name) {
			continue
		}
		for _, l := range m.listed(fd, e) {
			name, err := m.Sealed.EncryptName(l.Directory, l.Name)
			if err == nil && name.Entry == e.Name {
				return l.Directory, true
			}
		}
	}
	return envelope.DirectoryID{}, false
}

// moveInto moves an entry of a directory that had that ID.
func (m *mending) moveInto(to *lostDirectory, dir int, id envelope.DirectoryID, e volume.Entry) error {
	plain, err := m.NameOf(dir, id, e)
	if err != nil {
		return err
	}
	name, err := to.nameOf(plain)
	if err != nil {
		return err
	}
	switch e.Kind {
	case unix.DT_DIR:
		if !m.lists(dir, e, envelope.Location{Directory: id, Name: plain}) {
			return volume.ErrMismatch
		}
		_, err = m.moveDirectory(dir, e.Name, to, name)
	case unix.DT_REG:
		if !m.lists(dir, e, envelope.Location{Directory: id, Name: plain}) {
			return volume.ErrMismatch
		}
		_, err = m.moveFile(dir, e.Name, to, name)
	default:
		err = to.take(dir, e.Name, name)
	}
	if err == nil && envelope.IsLong(e.Name) {
		err = unix.Unlinkat(dir, envelope.LongFile(e.Name), 0)
	}
	return err
}

// lists says whether an entry's header or record lists that location.
func (c *check) lists(dir int, e volume.Entry, l envelope.Location) bool {
	fd, err := unix.Openat(dir, e.Name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	if e.Kind == unix.DT_DIR {
		record, err := c.ReadDirectory(fd)
		return err == nil && record.LiesAt(l)
	}
	header, err := c.Sealed.ReadHeader(&volume.Storage{FD: fd}, false)
	return err == nil && c.Sealed.LiesAt(header, l)
}

// dismantleRecordless empties a directory that has nothing in it but the remains of kmsfs's own, and no record that somebody may want to look at.
func (m *mending) dismantleRecordless(fd int) bool {
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

// giveBackDirectory gives a directory to the owner that its record names.
func (m *mending) giveBackDirectory() outcome {
	var what string
	err := m.withRecord(func(fd int, record *envelope.Directory) error {
		what = "given back to " + volume.OwnerName(record.Owners[0])
		if err := m.note(FaultOwner, what); err != nil {
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

// dropDirectoryOwner has a directory's record name its owner alone.
func (m *mending) dropDirectoryOwner() outcome {
	return m.remove("dropped", func() error {
		return m.withRecord(func(fd int, record *envelope.Directory) error {
			owner, err := volume.OwnerOf(fd)
			if err != nil {
				return err
			}
			next := *record
			next.Owners = []uint32{owner}
			return m.ReplaceDirectory(fd, &next)
		})
	})
}

// withRecord calls do with the entry, a directory, open, and its record.
func (m *mending) withRecord(do func(fd int, record *envelope.Directory) error) error {
	fd, err := unix.Openat(m.dir, m.entry.Name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	record, err := m.ReadDirectory(fd)
	if err != nil {
		return err
	}
	return do(fd, record)
}
