package fsck

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/volume"
	"kmsfs/fs/volume/backing"
)

// lostAndFound is the directory in the volume's root that repair moves things to; with a number
// behind it where that name was taken.
const lostAndFound = "lost+found"

// unknownName stands for a name that doesn't open.
const unknownName = "?"

// checkedDirectory is a directory that a check goes through: its record has opened.
type checkedDirectory struct {
	c      *check
	parent *checkedDirectory // nil for where the check begins
	// above are the backing names that lead to a directory without a parent, base is its path.
	above []string
	base  string
	// entry is the backing name of a directory with a parent, name the one that users see.
	entry, name string
	dir         backing.Dir
	id          envelope.DirectoryID
	lost        bool // it is lost+found
}

// dirs are the backing names that lead to the directory.
func (d *checkedDirectory) dirs() (names []string) {
	for ; d.parent != nil; d = d.parent {
		names = append(names, d.entry)
	}
	slices.Reverse(names)
	return slices.Concat(d.above, names)
}

// path is where users see the directory. It is put together only when it is needed: directories may
// lie very deep.
func (d *checkedDirectory) path() string {
	var names []string
	for ; d.parent != nil; d = d.parent {
		names = append(names, volume.TextPath(d.name))
	}
	names = append(names, strings.TrimSuffix(d.base, "/"))
	slices.Reverse(names)
	return cmp.Or(strings.Join(names, "/"), "/")
}

func (d *checkedDirectory) isRoot() bool { return d.parent == nil && len(d.above) == 0 }

// pathOf is where users see what has that name.
func (d *checkedDirectory) pathOf(name string) string {
	return strings.TrimSuffix(d.path(), "/") + "/" + volume.TextPath(name)
}

func (d *checkedDirectory) Failed(e backing.Entry, err error) {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP): // it changed meanwhile
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		d.c.denied.Add(1)
	default:
		d.report(e, unknownName, []finding{{class: FaultUnreadable, detail: err.Error()}})
	}
}

// report reports what is wrong with an entry. What lies in lost+found because it doesn't open is
// left in peace there.
func (d *checkedDirectory) report(e backing.Entry, name string, found []finding) {
	if d.lost {
		before := len(found)
		found = slices.DeleteFunc(found, func(f finding) bool { return meaning(f.class).reachesNothing })
		if len(found) < before {
			d.c.lost.Add(1)
		}
	}
	if len(found) > 0 {
		d.c.report(suspect{dirs: d.dirs(), entry: e, path: d.pathOf(name), found: found})
	}
}

// enter checks a directory's name, place, record and attributes.
func (d *checkedDirectory) Enter(dir backing.Dir, e backing.Entry) volume.Branch {
	if !d.c.IsControl(e.Name) {
		d.c.directories.Add(1)
	}
	if in := d.examine(e, dir, nil); in != nil {
		return in
	}
	return nil
}

// see checks an entry that is no directory.
func (d *checkedDirectory) See(e backing.Entry) {
	c := d.c
	if c.IsControl(e.Name) {
		d.examine(e, nil, nil)
		return
	}
	file := &fileCheck{c: c, entry: e.Name}
	d.examine(e, nil, file)
	if e.Kind == unix.DT_REG {
		c.files.Add(1)
		c.bytes.Add(file.size)
	} else {
		c.others.Add(1)
	}
	if c.options.Progress != nil {
		c.options.Progress.Files.Add(1)
		c.options.Progress.Bytes.Add(max(file.size-file.counted, 0))
	}
}

// examine reports what is wrong with an entry, or postpones that. For a directory, open as fd,
// whose entries can be looked at, it returns that.
func (d *checkedDirectory) examine(e backing.Entry, dir backing.Dir, file *fileCheck) *checkedDirectory {
	v, sure := d.lookSure(e, dir, file)
	if !sure { // a directory is gone through when that is sure
		d.c.postpone(d, e, file)
		return nil
	}
	d.report(e, v.name, v.found)
	return v.inner
}

// view is what a look at an entry sees.
type view struct {
	name  string
	found []finding
	inner *checkedDirectory // of a directory that can be gone through
}

// look looks at an entry. fd is that of a directory, and file the check of what is none.
func (d *checkedDirectory) look(e backing.Entry, dir backing.Dir, file *fileCheck) (v view) {
	if d.c.IsControl(e.Name) {
		return view{name: unknownName, found: d.control(e)}
	}
	name, found := d.nameOf(e)
	v = view{name: name, found: found}
	switch e.Kind {
	case unix.DT_DIR:
		in := &checkedDirectory{c: d.c, parent: d, dir: dir, entry: e.Name, name: name, lost: d.isRoot() && isLostAndFound(name)}
		record, found := in.record(d.id, name)
		if record != nil {
			in.id, v.inner = record.ID, in
		}
		v.found = append(v.found, found...)
	case unix.DT_REG:
		file.in, file.location = d, envelope.Location{Directory: d.id, Name: name}
		v.found = append(v.found, file.look()...)
	case unix.DT_LNK:
		v.found = append(v.found, d.target(e)...)
	}
	return v
}

func isLostAndFound(name string) bool {
	return name == lostAndFound || strings.HasPrefix(name, lostAndFound+".")
}

// record reads the directory's record, and returns it unless the directory's entries can't be known
// by it.
func (d *checkedDirectory) record(parent envelope.DirectoryID, name string) (*envelope.Directory, []finding) {
	record, err := d.c.ReadDirectory(d.dir)
	switch {
	case isFault(err):
		return nil, []finding{{class: FaultRecord, detail: err.Error()}}
	case errors.Is(err, unix.EACCES):
		d.c.denied.Add(1)
		return nil, nil
	case err != nil:
		return nil, []finding{{class: FaultUnreadable, detail: err.Error()}}
	}
	var found []finding
	here := envelope.Location{Directory: parent, Name: name}
	switch {
	case name == unknownName: // that is a fault already
	case record.LiesAt(here):
		if len(record.Locations) > 1 {
			found = append(found, finding{class: FaultStaleLocation, detail: "the record lists a second place: " + describePlaces(record.Locations, here)})
		}
	case !d.c.owns(d.dir, record.ID):
		return nil, []finding{{class: FaultForeignRecord, detail: "nothing in the directory belongs to the one that the record is of"}}
	default:
		found = append(found, finding{class: FaultMisplaced, detail: "the record says that it lies elsewhere: " + describePlaces(record.Locations, here)})
	}
	owner, err := volume.OwnerOf(d.dir)
	switch {
	case err != nil:
		found = append(found, finding{class: FaultUnreadable, detail: err.Error()})
	case !record.OwnedBy(owner):
		found = append(found, finding{class: FaultOwner, detail: fmt.Sprintf("it belongs to %s, and by its record to %s", volume.OwnerName(owner), volume.OwnerName(record.Owners[0]))})
	case len(record.Owners) > 1:
		found = append(found, finding{class: FaultStaleOwner, detail: "the record lists a second owner, as if it were being given away"})
	}
	return record, append(found, d.c.attributes(d.dir, record.ID)...)
}

// describePlaces lists locations other than the one where something was found.
func describePlaces(locations []envelope.Location, found envelope.Location) string {
	var b []string
	for _, l := range locations {
		if l != found {
			b = append(b, fmt.Sprintf("%q in directory %s", l.Name, l.Directory))
		}
	}
	if len(b) == 0 {
		return "nowhere"
	}
	return strings.Join(b, ", ")
}

// nameOf returns the name of an entry, or unknownName and what is wrong with it.
func (d *checkedDirectory) nameOf(e backing.Entry) (string, []finding) {
	name, err := d.c.NameOf(d.dir, d.id, e)
	switch {
	case err == nil:
		return name, nil
	case envelope.IsLong(e.Name):
		return unknownName, []finding{{class: FaultLongName, detail: err.Error()}}
	}
	return unknownName, []finding{{class: FaultName, detail: err.Error()}}
}

var (
	longFileSuffix  = envelope.LongFile("")
	longEntryPrefix = "kmsfs.long."
)

// control looks at an entry that is none of users'.
func (d *checkedDirectory) control(e backing.Entry) []finding {
	if _, err := d.dir.StatAt(e.Name); err != nil {
		return nil
	}
	switch {
	case e.Name == envelope.DirectoryName: // its directory's check has read it
	case d.isRoot() && volume.IsMarker(e.Name):
		if _, err := d.c.ReadMarker(e.Name); err != nil && !errors.Is(err, unix.ENOENT) {
			return []finding{{class: FaultMark, detail: err.Error()}}
		}
	case d.isRoot() && e.Kind == unix.DT_REG && slices.Contains([]string{envelope.ConfigName, envelope.LockName, volume.SpareMarker}, e.Name):
	case strings.HasPrefix(e.Name, volume.TempPrefix):
		return []finding{{class: FaultLeftover, detail: "it was being made, or removed"}}
	case strings.HasSuffix(e.Name, longFileSuffix) && strings.HasPrefix(e.Name, longEntryPrefix):
		_, err := d.dir.StatAt(strings.TrimSuffix(e.Name, longFileSuffix))
		if errors.Is(err, unix.ENOENT) {
			return []finding{{class: FaultOrphanName, detail: "there is no entry of that name"}}
		}
	default:
		return []finding{{class: FaultUnknownControl, detail: "no such file belongs here"}}
	}
	return nil
}

// target opens a symlink's target.
func (d *checkedDirectory) target(e backing.Entry) []finding {
	sealed, err := d.dir.Readlink(e.Name)
	if err == nil {
		_, err = d.c.Sealed.OpenTarget(sealed)
	}
	if isFault(err) {
		return []finding{{class: FaultSymlinkTarget, detail: err.Error()}}
	}
	return nil
}
