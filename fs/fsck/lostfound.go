package fsck

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/volume"
	"kmsfs/fs/volume/backing"
)

// lostDirectory is lost+found, or a directory made in it.
type lostDirectory struct {
	b    *volume.Volume
	dir  backing.Dir
	id   envelope.DirectoryID
	path string
	dirs []string // the backing names that lead to it
}

// lostName is a free name in a lostDirectory.
type lostName struct {
	envelope.BackingName
	location envelope.Location
	path     string
}

// mostTries bounds the search for a free name.
const mostTries = 100000

// openLost opens lost+found, or makes it. What is no directory that opens is left alone.
func (r *repairer) openLost() (*lostDirectory, error) {
	if r.lost != nil {
		return r.lost, nil
	}
	record, err := r.ReadDirectory(r.Root)
	if err != nil {
		return nil, err
	}
	root := &lostDirectory{b: r.Volume, dir: r.Root, id: record.ID}
	for i := 1; i < mostTries; i++ {
		name, err := root.nameOf(numbered(lostAndFound, i))
		if err != nil {
			return nil, err
		}
		_, err = root.dir.StatAt(name.Entry)
		switch {
		case errors.Is(err, unix.ENOENT):
			r.lost, err = root.make(name, 0o700, int(r.Owner), -1)
			return r.lost, err
		case err != nil:
			return nil, err
		}
		if lost := root.open(name); lost != nil {
			r.lost = lost
			return lost, nil
		}
	}
	return nil, fmt.Errorf("no name is free for %s", lostAndFound)
}

// numbered returns the i-th of names that are like base, and as long as names may be.
func numbered(base string, i int) string {
	suffix := ""
	if i > 1 {
		suffix = fmt.Sprintf(".%d", i)
	}
	return base[:min(len(base), envelope.MaxName-len(suffix))] + suffix
}

// nameOf returns a name in the directory.
func (d *lostDirectory) nameOf(name string) (lostName, error) {
	backing, err := d.b.Sealed.EncryptName(d.id, name)
	return lostName{backing, envelope.Location{Directory: d.id, Name: name}, volume.ShortenPath(d.path + "/" + volume.TextPath(name))}, err
}

// freeName returns a name like base that nothing has.
func (d *lostDirectory) freeName(base string) (lostName, error) {
	if base = strings.ReplaceAll(base, "/", "_"); base == "" || base == "." || base == ".." {
		base = "unknown"
	}
	for i := 1; i < mostTries; i++ {
		name, err := d.nameOf(numbered(base, i))
		if err != nil {
			return name, err
		}
		_, err = d.dir.StatAt(name.Entry)
		if errors.Is(err, unix.ENOENT) {
			return name, nil
		}
		if err != nil {
			return name, err
		}
	}
	return lostName{}, fmt.Errorf("no name like %q is free in %s", base, d.path)
}

// open opens a directory in this one; nil if it can't be used.
func (d *lostDirectory) open(name lostName) *lostDirectory {
	fd, err := d.dir.OpenDir(name.Entry)
	if err != nil {
		return nil
	}
	record, err := d.b.ReadDirectory(fd)
	if err != nil || !record.LiesAt(name.location) {
		fd.Close()
		return nil
	}
	return d.inner(fd, name, record.ID)
}

func (d *lostDirectory) inner(dir backing.Dir, name lostName, id envelope.DirectoryID) *lostDirectory {
	return &lostDirectory{d.b, dir, id, name.path, append(d.dirs[:len(d.dirs):len(d.dirs)], name.Entry)}
}

// make makes a directory in this one, durably: whole, with its record, under a temporary name,
// which it then leaves.
func (d *lostDirectory) make(name lostName, mode uint32, uid, gid int) (*lostDirectory, error) {
	temp := volume.NewTempName()
	if err := d.dir.Mkdir(temp, 0o700); err != nil {
		return nil, err
	}
	fd, err := d.dir.OpenDir(temp)
	if err != nil {
		return nil, err
	}
	owner := d.b.UID
	if owner == 0 {
		owner = uint32(uid)
	}
	record := &envelope.Directory{ID: envelope.NewDirectoryID(), Owners: []uint32{owner}, Locations: []envelope.Location{name.location}}
	err = d.b.WriteDirectory(fd, record, false)
	if err == nil {
		err = volume.SyncControl(fd, envelope.DirectoryName)
	}
	if err == nil && d.b.UID == 0 {
		err = fd.Chown(uid, gid)
	}
	if err == nil {
		err = fd.Chmod(mode)
	}
	if err == nil {
		err = d.take(d.dir, temp, name)
	}
	if err != nil {
		fd.Close()
		return nil, errors.Join(err, d.b.Dismantle(d.dir, temp))
	}
	return d.inner(fd, name, record.ID), nil
}

// take moves an entry here, as it is.
func (d *lostDirectory) take(dir backing.Dir, entry string, name lostName) error {
	if err := d.prepareName(name); err != nil {
		return err
	}
	if err := dir.Rename(entry, d.dir, name.Entry, 0); err != nil { // the name is free, and nobody else is there to take it
		return err
	}
	return errors.Join(volume.SyncDir(d.dir), volume.SyncDir(dir))
}

func (d *lostDirectory) prepareName(name lostName) error {
	if name.Long == "" {
		return nil
	}
	if err := volume.WriteControl(d.dir, envelope.LongFile(name.Entry), []byte(name.Long), true); err != nil {
		return err
	}
	return volume.SyncControl(d.dir, envelope.LongFile(name.Entry))
}
