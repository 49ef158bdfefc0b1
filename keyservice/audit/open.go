package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// damagedPrefix begins the names of files that were set aside because they aren't what the store
// knows the log to be.
const damagedPrefix = "damaged-"

var (
	errDamaged = errors.New("records that were written are missing or changed")
	errTorn    = errors.New("what lies behind the last record that is known to be on disk doesn't follow it")
)

// Open opens a log. A part of a record at its end, left by a power cut in the middle of a call that
// was never answered, is cut off. What else a power cut left behind Head that doesn't follow is set
// aside, and Notice is told. Where records that Head stands for are missing or changed, Notice is
// told, all files from there are set aside, and the log goes on behind Head. If Open fails, File is
// still the caller's.
func Open(o Options) (*Log, error) {
	l := &Log{options: o, dir: int(o.Dir.Fd()), file: o.File, anchored: o.Head}
	l.SetSettings(o.Settings)
	l.changed = sync.NewCond(&l.mu)
	l.closer.idle = sync.NewCond(&l.closer.mu)
	l.buffers.New = func() any { return new([]byte) }
	var err error
	if o.Anchor == nil {
		err = l.openUnanchored()
	} else {
		err = l.openAnchored()
	}
	if err != nil {
		return nil, fmt.Errorf("open the audit log: %w", err)
	}
	l.writer.began = l.firstTime()
	l.closer.running = true
	go l.keepClosing()
	if o.Anchor != nil {
		was := o.Head
		was.Closed = false
		l.unclean = o.Head.Sequence > 0 && !o.Head.Closed || l.head != was && was != Head{}
		if l.head != was {
			if err := errors.Join(syncFiles(l.file, l.standIn.file), o.Dir.Sync()); err != nil { // only what is on disk is known
				l.closer.stop()
				return nil, fmt.Errorf("open the audit log: %w", err)
			}
			l.closer.anchor(l.head)
		} else if l.head.Segment > 1 { // segments may still have to be closed
			l.closer.anchor(o.Head)
		}
	}
	return l, nil
}

// openUnanchored takes the last record's word for where the log ends.
func (l *Log) openUnanchored() error {
	end, size, err := lastRecordEnd(l.file)
	if err != nil {
		return err
	}
	l.writer.torn = end != size
	l.head = Head{Segment: 1, Size: end}
	if end == 0 {
		return nil
	}
	line, err := lineBefore(l.file, end)
	if err != nil {
		return err
	}
	before, ok := parseLink(line)
	if !ok {
		return errors.New("its last record isn't chained to the one before it")
	}
	l.head.Position, _ = before.step(line)
	return nil
}

// openAnchored follows the log from where the store knows it to be.
func (l *Log) openAnchored() error {
	head := l.options.Head
	head.Segment, head.Closed = max(head.Segment, 1), false
	name, err := l.follow(head)
	if errors.Is(err, errTorn) && !l.options.Head.Closed {
		return l.cutOff(name, err)
	}
	if !errors.Is(err, errDamaged) && !errors.Is(err, errTorn) {
		return err
	}
	l.notice(NoticeDamaged, head.Segment, err)
	if err := l.setAside(head.Segment); err != nil {
		return err
	}
	l.head = Head{Position: head.Position, Segment: head.Sequence + 1}
	return nil
}

// follow finds the end of the log: what was written after head, in the segment that was open then
// and in those after it. With errTorn, the log can be followed up to Log.head, in the file of that
// name.
func (l *Log) follow(head Head) (name string, err error) {
	for {
		name = segmentName(head.Segment, plainSuffix)
		fd, err := unix.Openat(l.dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) {
			break
		}
		if err != nil {
			return name, err
		}
		f := os.NewFile(uintptr(fd), name)
		end, torn, err := followFile(f, 0, head)
		if err == nil && torn {
			err = fmt.Errorf("%s is cut off: %w", name, errTorn)
		}
		if err == nil {
			err = f.Sync() // the segment may have been closed by a process that was killed before it did
		}
		l.head = end
		if err = errors.Join(err, f.Close()); err != nil {
			return name, err
		}
		head = Head{Position: end.Position, Segment: end.Sequence + 1}
	}
	if err := l.takeBack(); err != nil {
		return "", err
	}
	var open segmentFile = l.file
	if l.standIn.size > 0 {
		end, _, err := lastRecordEnd(l.file)
		if err != nil {
			return "", err
		}
		open = continued{l.file, l.standIn.file, end}
	}
	l.head, l.writer.torn, err = followFile(open, l.standIn.size, head)
	return l.options.Name, err
}

// cutOff sets aside what doesn't follow Log.head, in the file of that name and those after it:
// records that were not on disk yet when the power went.
func (l *Log) cutOff(name string, cause error) error {
	l.notice(NoticeTorn, l.head.Segment, cause)
	later := l.head.Segment + 1
	if l.head.Size == 0 {
		later = l.head.Segment
	}
	if l.head.Size > 0 {
		if err := l.keepRest(name, l.head.Size); err != nil {
			return err
		}
	}
	if name == l.options.Name && l.head.Size > 0 {
		return l.dropStandIn()
	}
	if err := l.setAside(later); err != nil {
		return err
	}
	l.head = Head{Position: l.head.Position, Segment: l.head.Sequence + 1}
	return nil
}

// keepRest copies what lies in a file from an offset on to another, and cuts it off.
func (l *Log) keepRest(name string, from int64) error {
	fd, err := unix.Openat(l.dir, name, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	err = l.writeFile(asidePrefix()+name, func(w io.Writer) error {
		_, err := io.Copy(w, io.NewSectionReader(f, from, 1<<62))
		return err
	})
	if err == nil {
		err = f.Truncate(from)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func asidePrefix() string { return fmt.Sprintf("%s%d-", damagedPrefix, time.Now().UnixNano()) }

// dropStandIn sets aside what stood in for the end of a segment.
func (l *Log) dropStandIn() error {
	if l.standIn.file == nil {
		return nil
	}
	path := l.standIn.file.Name()
	err := errors.Join(os.Rename(path, filepath.Join(filepath.Dir(path), asidePrefix()+StandInName)), l.standIn.file.Close())
	l.standIn = standIn{}
	return err
}

// followFile returns the head of the segment in f, which goes on behind that file's end, of which
// head is known, and whether a part of a record is behind it.
func followFile(f segmentFile, more int64, head Head) (end Head, torn bool, err error) {
	info, err := f.Stat()
	if err != nil {
		return head, false, err
	}
	size := info.Size() + more
	damaged := func(what string) error { return fmt.Errorf("%s: %s: %w", info.Name(), what, errDamaged) }
	if size < head.Size {
		return head, false, damaged(fmt.Sprintf("%d bytes are less than the %d that were written", size, head.Size))
	}
	if head.Size > 0 {
		line, err := lineBefore(f, head.Size)
		if err != nil {
			return head, false, err
		}
		if len(line) == 0 || hashOf(line) != head.Hash {
			return head, false, damaged(fmt.Sprintf("record %d is another", head.Sequence))
		}
	}
	lines := newLineReader(io.NewSectionReader(f, head.Size, size-head.Size))
	for {
		line, err := lines.next()
		switch {
		case errors.Is(err, io.EOF):
			return head, false, nil
		case errors.Is(err, io.ErrUnexpectedEOF):
			return head, true, nil
		case errors.Is(err, errLongLine):
			return head, false, fmt.Errorf("%s: %w: %w", info.Name(), err, errTorn)
		case err != nil:
			return head, false, err
		}
		next, ok := head.step(line)
		if !ok {
			return head, false, fmt.Errorf("%s: record %d: %w", info.Name(), head.Sequence+1, errTorn)
		}
		head.Position = next
		head.Size += int64(len(line))
	}
}

// setAside renames all files of records from the segment on, and begins the log anew.
func (l *Log) setAside(segment uint64) error {
	plain, err := list(l.fs(), plainSuffix)
	if err != nil {
		return err
	}
	prefix := asidePrefix()
	names := []string{l.options.Name}
	for _, first := range plain {
		if first >= segment {
			names = append(names, segmentName(first, plainSuffix))
		}
	}
	for _, name := range names {
		if err := unix.Renameat(l.dir, name, l.dir, prefix+name); err != nil {
			return err
		}
	}
	fd, err := unix.Openat(l.dir, l.options.Name, unix.O_RDWR|unix.O_APPEND|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	if err := l.dropStandIn(); err != nil {
		return err
	}
	damaged := l.file
	l.file = os.NewFile(uintptr(fd), l.options.Name)
	return errors.Join(damaged.Close(), l.options.Dir.Sync())
}

// lastRecordEnd returns where the last whole line ends, and the file's size.
func lastRecordEnd(f *os.File) (end, size int64, err error) {
	info, err := f.Stat()
	if err != nil {
		return 0, 0, err
	}
	size = info.Size()
	tail := make([]byte, min(size, maxRecord))
	if _, err := f.ReadAt(tail, size-int64(len(tail))); err != nil && !errors.Is(err, io.EOF) {
		return 0, 0, err
	}
	if i := bytes.LastIndexByte(tail, '\n'); i >= 0 {
		return size - int64(len(tail)-i-1), size, nil
	}
	if size > int64(len(tail)) {
		return 0, 0, errors.New("it does not consist of records")
	}
	return 0, size, nil
}

// lineBefore returns the line that ends at an offset, with its newline; nothing if none does.
func lineBefore(f io.ReaderAt, end int64) ([]byte, error) {
	tail := make([]byte, min(end, maxRecord))
	if _, err := f.ReadAt(tail, end-int64(len(tail))); err != nil {
		return nil, err
	}
	if tail[len(tail)-1] != '\n' {
		return nil, nil
	}
	return tail[bytes.LastIndexByte(tail[:len(tail)-1], '\n')+1:], nil
}

// firstTime is when the open segment's first record was written; zero if it has none.
func (l *Log) firstTime() time.Time {
	if l.head.Size == 0 {
		return time.Time{}
	}
	line, err := newLineReader(io.NewSectionReader(l.file, 0, maxRecord)).next()
	if err != nil {
		return time.Time{}
	}
	at, err := recordTime(line)
	if err != nil {
		return time.Time{}
	}
	return at
}
