package fsck

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/control"
	"kmsfs/fs/volume"
	"kmsfs/fs/volume/backing"
)

// claims are what entries of a volume say of themselves, without their data keys.
type claims struct{ *volume.Volume }

// record reads the record of the directory that has that backing name.
func (c claims) record(dir backing.Dir, name string) (*envelope.Directory, error) {
	d, err := dir.OpenDir(name)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return c.ReadDirectory(d)
}

// header reads the header of the file that has that backing name.
func (c claims) header(dir backing.Dir, name string) (*envelope.Header, error) {
	f, err := dir.OpenFile(name, unix.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return c.Sealed.ReadHeader(volume.NewStorage(f), false)
}

// listed returns the locations that an entry's header or record lists.
func (c claims) listed(dir backing.Dir, e backing.Entry) []envelope.Location {
	switch e.Kind {
	case unix.DT_DIR:
		if record, err := c.record(dir, e.Name); err == nil {
			return record.Locations
		}
	case unix.DT_REG:
		if header, err := c.header(dir, e.Name); err == nil {
			return header.Locations
		}
	}
	return nil
}

// lists says whether an entry's header or record lists that location.
func (c claims) lists(dir backing.Dir, e backing.Entry, l envelope.Location) bool {
	if e.Kind == unix.DT_DIR {
		record, err := c.record(dir, e.Name)
		return err == nil && record.LiesAt(l)
	}
	header, err := c.header(dir, e.Name)
	return err == nil && c.Sealed.LiesAt(header, l)
}

// owns says whether what lies in a directory belongs to the directory with that ID: one thing that
// does is proof. An empty one may be anybody's.
func (c claims) owns(dir backing.Dir, id envelope.DirectoryID) bool {
	all, err := dir.OpenDir(".")
	if err != nil {
		return false
	}
	defer all.Close()
	owned, others := false, false
	err = all.EachBatch(func(entries []backing.Entry) error {
		for _, e := range entries {
			if c.IsControl(e.Name) {
				continue
			}
			if owned = c.belongs(dir, e, id); owned {
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
func (c claims) belongs(dir backing.Dir, e backing.Entry, id envelope.DirectoryID) bool {
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
	_, err := s.Getxattr(volume.OverflowAttribute, nil)
	return err == nil
}

// attributes opens the extended attributes of an open file or directory with that ID.
func (c claims) attributes(n backing.Node, object [envelope.IDSize]byte) (found []finding) {
	for _, a := range c.badAttributes(n, object) {
		found = append(found, finding{class: FaultAttribute, detail: a.name + ": " + a.err.Error()})
	}
	return found
}

// badAttribute is an attribute in the volume that doesn't open.
type badAttribute struct {
	name string
	err  error
}

func (c claims) badAttributes(n backing.Node, object [envelope.IDSize]byte) (bad []badAttribute) {
	size, err := n.Listxattr(nil)
	if err != nil || size == 0 {
		return nil // there are none where the file system knows of none
	}
	names := make([]byte, volume.MaxAttribute)
	length, err := n.Listxattr(names)
	if err != nil {
		return nil
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:length]), "\x00"), "\x00") {
		if !strings.HasPrefix(name, control.Prefix) || name == volume.OverflowAttribute {
			continue
		}
		if err := c.openAttribute(n, object, name); err != nil {
			bad = append(bad, badAttribute{name, err})
		}
	}
	return bad
}

func (c claims) openAttribute(n backing.Node, object [envelope.IDSize]byte, stored string) error {
	name, err := c.Sealed.OpenAttributeName(object, stored)
	if err != nil {
		return err
	}
	value, err := readAttribute(n, stored)
	if err != nil {
		return err
	}
	_, err = c.Sealed.OpenAttribute(object, name, value)
	return err
}

func readAttribute(n backing.Node, stored string) ([]byte, error) {
	value := make([]byte, volume.MaxAttribute+envelope.AttributeOverhead)
	length, err := n.Getxattr(stored, value)
	if err != nil {
		return nil, err
	}
	return value[:length], nil
}
