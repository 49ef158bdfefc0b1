package fs

import (
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
)

// A volume may be in use while it is checked, and what is just being changed can look like a fault. So a fault counts only if what has it was left
// alone all the while: because it was changed long ago, or because it is found twice, with a pause between.
const (
	// longAgo is the age of a change that makes a second look needless: clocks and their ticks don't matter beyond it.
	longAgo = 10 * time.Second
	// ordinaryPause is far longer than a clock's tick, by which changes are dated. longPause is for what comes and goes as a whole, and may have
	// to wait for a disk.
	ordinaryPause = 50 * time.Millisecond
	longPause     = time.Second
	// mostLooks is how often something is looked at that changes all the while.
	mostLooks = 10
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

func (d *checkedDirectory) stampOf(e entry) stamp {
	s := stamp{entry: factsOf(d.fd, e.name)}
	if e.kind == unix.DT_DIR {
		fd, err := unix.Openat(d.fd, e.name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err == nil {
			s.beside = factsOf(fd, envelope.DirectoryName)
			unix.Close(fd)
		}
	} else if envelope.IsLong(e.name) {
		s.beside = factsOf(d.fd, envelope.LongFile(e.name))
	}
	return s
}

func (s stamp) isOld() bool {
	limit := time.Now().Add(-longAgo)
	return time.Unix(s.entry.changed.Unix()).Before(limit) && time.Unix(s.beside.changed.Unix()).Before(limit)
}

// settled returns what look finds wrong with an entry, once that is sure. In repair nobody else changes anything.
func (d *checkedDirectory) settled(e entry, pause time.Duration, look func() []finding) []finding {
	var seen stamp
	for try := range mostLooks {
		before := d.stampOf(e)
		found := look()
		if len(found) == 0 || d.c.Repair {
			return found
		}
		after := d.stampOf(e)
		switch {
		case after.entry == facts{}: // it is gone
			return nil
		case before == after && (after.isOld() || try > 0 && before == seen):
			return found
		}
		seen = after
		select {
		case <-time.After(pause):
		case <-d.c.ctx.Done():
			return nil
		}
	}
	d.c.changing.Add(1)
	return nil
}
