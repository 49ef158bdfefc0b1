package fsck

import (
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/volume"
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

func factsOf(dir int, name string) facts {
	var st unix.Stat_t
	if unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return facts{}
	}
	return facts{st.Ino, uint64(st.Nlink), st.Size, st.Mode, st.Uid, st.Ctim}
}

func (d *checkedDirectory) stampOf(e volume.Entry) stamp {
	s := stamp{entry: factsOf(d.fd, e.Name)}
	if e.Kind == unix.DT_DIR {
		fd, err := unix.Openat(d.fd, e.Name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err == nil {
			s.beside = factsOf(fd, envelope.DirectoryName)
			unix.Close(fd)
		}
	} else if envelope.IsLong(e.Name) {
		s.beside = factsOf(d.fd, envelope.LongFile(e.Name))
	}
	return s
}

func (s stamp) isOld() bool {
	limit := time.Now().Add(-longAgo)
	return time.Unix(s.entry.changed.Unix()).Before(limit) && time.Unix(s.beside.changed.Unix()).Before(limit)
}

// lookSure looks at an entry, and says whether what it finds is sure.
func (d *checkedDirectory) lookSure(e volume.Entry, fd int, file *fileCheck) (v view, sure bool) {
	before := d.stampOf(e)
	v = d.look(e, fd, file)
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
	entry volume.Entry
	file  *fileCheck
}

func (c *check) postpone(d *checkedDirectory, e volume.Entry, file *fileCheck) {
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
	defer unix.Close(dir)
	record, err := c.ReadDirectory(dir)
	if err != nil {
		return
	}
	d := &checkedDirectory{c: c, above: p.dirs, base: p.path, fd: dir, id: record.ID, lost: p.lost}
	if p.entry.Kind != unix.DT_DIR {
		d.examine(p.entry, -1, p.file)
		return
	}
	fd, err := unix.Openat(dir, p.entry.Name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if in := d.examine(p.entry, fd, nil); in != nil {
		volume.Walk(c.ctx, fd, in)
	}
}
