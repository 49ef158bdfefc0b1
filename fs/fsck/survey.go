package fsck

import (
	"context"
	"errors"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/volume"
	"kmsfs/fs/volume/backing"
)

// survey is what a repair has to know of the whole volume: where links of files lie that are said
// to lie elsewhere too, and whether what lies in a wrong place is a copy of something in its right
// place.
type survey struct {
	c *check

	mu sync.Mutex // guards what follows, during the walk
	// files and directories are IDs that are looked for: true once one is found in its place, or is
	// given one.
	files       map[envelope.FileID]bool
	directories map[envelope.DirectoryID]bool
	// links are the places, by inode number, where files lie by right; with an entry for each file
	// that is looked for.
	links map[uint64][]envelope.Location
}

// look makes the survey.
func (r *repairer) look(suspects []suspect) error {
	s := &survey{
		c: r.check, files: map[envelope.FileID]bool{}, directories: map[envelope.DirectoryID]bool{}, links: map[uint64][]envelope.Location{},
	}
	r.survey = s
	for _, each := range suspects {
		if err := s.want(each); err != nil {
			return err
		}
	}
	if len(s.files)+len(s.directories)+len(s.links) == 0 {
		return nil
	}
	record, err := r.ReadDirectory(r.Root)
	if isFault(err) {
		return nil // nothing can be repaired
	}
	if err != nil {
		return err
	}
	volume.Walk(r.ctx, r.Root, &surveyed{s, r.Root, record.ID})
	return context.Cause(r.ctx)
}

// want notes what is to be known for the repair of a suspect.
func (s *survey) want(each suspect) error {
	if each.entry.Name == "" {
		return nil
	}
	dir, err := openBeneath(s.c.Root, each.dirs)
	if err != nil {
		return err
	}
	defer dir.Close()
	switch {
	case each.has(FaultRecord, FaultForeignRecord):
		return s.wantChildren(dir, each.entry)
	case each.has(FaultMisplaced, FaultName, FaultLongName):
		s.wantEntry(dir, each.entry)
	case each.has(FaultStaleLocation) && each.entry.Kind == unix.DT_REG:
		s.links[each.entry.Ino] = nil
	}
	return nil
}

func (s suspect) has(classes ...Class) bool {
	return slices.ContainsFunc(s.found, func(f finding) bool { return slices.Contains(classes, f.class) })
}

// wantEntry asks whether an entry is a copy.
func (s *survey) wantEntry(dir backing.Dir, e backing.Entry) {
	if e.Kind == unix.DT_DIR {
		if record, err := s.c.record(dir, e.Name); err == nil {
			s.directories[record.ID] = false
		}
		return
	}
	if header, err := s.c.header(dir, e.Name); err == nil {
		s.files[header.FileID] = false
	}
}

// wantChildren asks that for all that lies in a directory.
func (s *survey) wantChildren(dir backing.Dir, e backing.Entry) error {
	inner, err := dir.OpenDir(e.Name)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	if err != nil {
		return err
	}
	defer inner.Close()
	return inner.EachBatch(func(entries []backing.Entry) error {
		for _, e := range entries {
			if !s.c.IsControl(e.Name) && (e.Kind == unix.DT_DIR || e.Kind == unix.DT_REG) {
				s.wantEntry(inner, e)
			}
		}
		return nil
	})
}

// claimDirectory says whether a directory with that ID may be given a place, and notes that it has
// one then.
func (s *survey) claimDirectory(id envelope.DirectoryID) bool {
	placed := s.directories[id]
	s.directories[id] = true
	return !placed
}

// claimFile is claimDirectory for files.
func (s *survey) claimFile(id envelope.FileID) bool {
	placed := s.files[id]
	s.files[id] = true
	return !placed
}

// surveyed is the branch of a survey's walk.
type surveyed struct {
	s   *survey
	dir backing.Dir
	id  envelope.DirectoryID
}

// failed leaves out what can't be read: a check has told of it.
func (d *surveyed) Failed(backing.Entry, error) {}

func (d *surveyed) location(e backing.Entry) (envelope.Location, bool) {
	name, err := d.s.c.NameOf(d.dir, d.id, e)
	return envelope.Location{Directory: d.id, Name: name}, err == nil
}

func (d *surveyed) Enter(dir backing.Dir, e backing.Entry) volume.Branch {
	if d.s.c.IsControl(e.Name) {
		return nil
	}
	record, err := d.s.c.ReadDirectory(dir)
	if err != nil {
		return nil
	}
	l, ok := d.location(e)
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	if _, wanted := d.s.directories[record.ID]; wanted && ok && record.LiesAt(l) {
		d.s.directories[record.ID] = true
	}
	return &surveyed{d.s, dir, record.ID}
}

func (d *surveyed) See(e backing.Entry) {
	s := d.s
	if e.Kind != unix.DT_REG || s.c.IsControl(e.Name) {
		return
	}
	_, linked := s.links[e.Ino] // no key is added during the walk
	if !linked && len(s.files) == 0 {
		return
	}
	l, ok := d.location(e)
	if !ok {
		return
	}
	header, err := s.c.header(d.dir, e.Name)
	if err != nil || !s.c.Sealed.LiesAt(header, l) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if linked {
		s.links[e.Ino] = append(s.links[e.Ino], l)
	}
	if _, wanted := s.files[header.FileID]; wanted {
		s.files[header.FileID] = true
	}
}
