package fsck

import (
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/volume"
	"kmsfs/fs/volume/backing"
)

// A volume may be in use while it is checked, and what is just being changed can look like a fault.
// So a fault of a volume in use counts only if what has it was left alone for some time; until then
// it is postponed, and looked at again after all else.
const (
	// longAgo is how long: the steps of a change, with what the disk takes to sync each, and a key
	// service to answer, have come to their end by then.
	longAgo = 10 * time.Second
	// againAfter is the time between one look at all that was postponed and the next, mostPatience
	// how long that goes on, and mostPostponed how much it may be: what is beyond is only counted.
	againAfter    = 500 * time.Millisecond
	mostPatience  = time.Minute
	mostPostponed = 100_000
)

// stamp tells whether something has changed between two looks.
type stamp struct {
	entry, beside facts // beside is the record of a directory, or the file of a long name
}

type facts struct {
	ino, nlink uint64
	size       int64
	mode, uid  uint32
	changed    unix.Timespec
}

func factsOf(dir backing.Dir, name string) facts {
	st, err := dir.StatAt(name)
	if err != nil {
		return facts{}
	}
	return facts{st.Ino, uint64(st.Nlink), st.Size, st.Mode, st.Uid, st.Ctim}
}

func (d *checkedDirectory) stampOf(e backing.Entry) stamp {
	s := stamp{entry: factsOf(d.dir, e.Name)}
	if e.Kind == unix.DT_DIR {
		fd, err := d.dir.OpenDir(e.Name)
		if err == nil {
			s.beside = factsOf(fd, envelope.DirectoryName)
			fd.Close()
		}
	} else if envelope.IsLong(e.Name) {
		s.beside = factsOf(d.dir, envelope.LongFile(e.Name))
	}
	return s
}

func (s stamp) isOld() bool {
	limit := time.Now().Add(-longAgo)
	return time.Unix(s.entry.changed.Unix()).Before(limit) && time.Unix(s.beside.changed.Unix()).Before(limit)
}

// lookSure looks at an entry, and says whether what it finds is sure.
func (d *checkedDirectory) lookSure(e backing.Entry, dir backing.Dir, file *fileCheck) (v view, sure bool) {
	before := d.stampOf(e)
	v = d.look(e, dir, file)
	if len(v.found) == 0 || !d.c.inUse() {
		return v, true
	}
	after := d.stampOf(e)
	if after.entry == (facts{}) { // it is gone
		return view{}, true
	}
	return v, before == after && after.isOld()
}

// inUse says whether somebody may be changing the volume.
func (c *check) inUse() bool {
	if c.options.Repair {
		return false
	}
	if factsOf(c.Root, envelope.MarkName) == (facts{}) {
		shared, err := c.IsShared()
		return shared || err != nil
	}
	free, err := c.IsFree()
	return !free || err != nil
}

// postponed is an entry that is to be looked at again.
type postponed struct {
	dirs  []string // as in suspect
	path  string   // of the directory; users see it there
	lost  bool
	entry backing.Entry
	file  *fileCheck
}

func (c *check) postpone(d *checkedDirectory, e backing.Entry, file *fileCheck) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.later) >= mostPostponed {
		c.changing.Add(1)
		return
	}
	c.later = append(c.later, postponed{d.dirs(), d.path(), d.lost, e, file})
}

// lookAgain looks at what was postponed, until nothing is left that isn't sure, or patience ends.
func (c *check) lookAgain() {
	for deadline := time.Now().Add(mostPatience); len(c.later) > 0; {
		if time.Now().After(deadline) {
			c.changing.Add(int64(len(c.later)))
			return
		}
		select {
		case <-time.After(againAfter):
		case <-c.ctx.Done():
			return
		}
		again := c.later
		c.later = nil
		for _, p := range again {
			if c.ctx.Err() != nil {
				return
			}
			c.again(p)
		}
	}
}

// again looks at an entry whose directory may have been moved or removed meanwhile: then the entry
// is in use.
func (c *check) again(p postponed) {
	dir, err := openBeneath(c.Root, p.dirs)
	if err != nil {
		return
	}
	defer dir.Close()
	record, err := c.ReadDirectory(dir)
	if err != nil {
		return
	}
	d := &checkedDirectory{c: c, above: p.dirs, base: p.path, dir: dir, id: record.ID, lost: p.lost}
	if p.entry.Kind != unix.DT_DIR {
		d.examine(p.entry, nil, p.file)
		return
	}
	fd, err := dir.OpenDir(p.entry.Name)
	if err != nil {
		return
	}
	defer fd.Close()
	if in := d.examine(p.entry, fd, nil); in != nil {
		volume.Walk(c.ctx, fd, in)
	}
}
