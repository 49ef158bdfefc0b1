package fsck

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/control"
	"kmsfs/fs/volume"
)

// claims are what entries of a volume say of themselves, without their data keys.
type claims struct{ *volume.Volume }

// listed returns the locations that an entry's header or record lists, without asking for its data
// key.
func (c claims) listed(dir int, e volume.Entry) []envelope.Location {
	fd, err := unix.Openat(dir, e.Name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	switch e.Kind {
	case unix.DT_DIR:
		if record, err := c.ReadDirectory(fd); err == nil {
			return record.Locations
		}
	case unix.DT_REG:
		if header, err := c.Sealed.ReadHeader(&volume.Storage{FD: fd}, false); err == nil {
			return header.Locations
		}
	}
	return nil
}

// lists says whether an entry's header or record lists that location.
func (c claims) lists(dir int, e volume.Entry, l envelope.Location) bool {
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

// owns says whether what lies in a directory belongs to the directory with that ID: one thing that
// does is proof. An empty one may be anybody's.
func (c claims) owns(fd int, id envelope.DirectoryID) bool {
	dir, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(dir)
	owned, others := false, false
	err = volume.EachBatch(dir, func(entries []volume.Entry) error {
		for _, e := range entries {
			if c.IsControl(e.Name) {
				continue
			}
			if owned = c.belongs(fd, e, id); owned {
				return errFound
			}
			others = true
		}
		return nil
	})
	return owned || err == nil && !others
}

// errFound ends a search.
var errFound = errors.New("found")

// belongs says whether an entry says that it lies in the directory with that ID.
func (c claims) belongs(dir int, e volume.Entry, id envelope.DirectoryID) bool {
	if !c.Sealed.Config().PlaintextNames {
		_, err := c.NameOf(dir, id, e)
		return err == nil
	}
	for _, l := range c.listed(dir, e) {
		if l.Directory == id {
			return true
		}
	}
	return false
}

// hasOverflow says whether the file has an overflow attribute.
func (c claims) hasOverflow(s *volume.Storage) bool {
	_, err := unix.Fgetxattr(s.FD, volume.OverflowAttribute, nil)
	return err == nil
}

// attributes opens the extended attributes of an open file or directory with that ID.
func (c claims) attributes(fd int, object [envelope.IDSize]byte) (found []finding) {
	for _, a := range c.badAttributes(fd, object) {
		found = append(found, finding{class: FaultAttribute, detail: a.name + ": " + a.err.Error()})
	}
	return found
}

// badAttribute is an attribute in the volume that doesn't open.
type badAttribute struct {
	name string
	err  error
}

func (c claims) badAttributes(fd int, object [envelope.IDSize]byte) (bad []badAttribute) {
	size, err := unix.Flistxattr(fd, nil)
	if err != nil || size == 0 {
		return nil // there are none where the file system knows of none
	}
	names := make([]byte, volume.MaxAttribute)
	n, err := unix.Flistxattr(fd, names)
	if err != nil {
		return nil
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00") {
		if !strings.HasPrefix(name, control.Prefix) || name == volume.OverflowAttribute {
			continue
		}
		if err := c.openAttribute(fd, object, name); err != nil {
			bad = append(bad, badAttribute{name, err})
		}
	}
	return bad
}

func (c claims) openAttribute(fd int, object [envelope.IDSize]byte, stored string) error {
	name, err := c.Sealed.OpenAttributeName(object, stored)
	if err != nil {
		return err
	}
	value, err := readAttribute(fd, stored)
	if err != nil {
		return err
	}
	_, err = c.Sealed.OpenAttribute(object, name, value)
	return err
}

func readAttribute(fd int, stored string) ([]byte, error) {
	value := make([]byte, volume.MaxAttribute+envelope.AttributeOverhead)
	n, err := unix.Fgetxattr(fd, stored, value)
	if err != nil {
		return nil, err
	}
	return value[:n], nil
}
