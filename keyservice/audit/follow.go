package audit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"
)

// Tail is what follows a log as it is written.
type Tail struct {
	dir  fs.FS
	open string
	// file is the open segment, nil before it is opened; off is how far it has been read, in bytes.
	file *segmentReader
	off  int64
	// last is the number of the last record that was read; 0 before the first.
	last uint64
	// most is the number of the last one that may be read; 0 for any.
	most uint64
	// unreadable counts the records that can't be read.
	unreadable unreadable
}

// NewTail begins with the open segment. That must be an io.Seeker, and fail with fs.ErrNotExist at
// its end when it isn't the open one any more, or have a Stat that tells it from its successor.
func NewTail(dir fs.FS, open string) *Tail { return &Tail{dir: dir, open: open} }

// NewTailBehind begins behind the record of that number, 1 or more, wherever that is.
func NewTailBehind(dir fs.FS, open string, last uint64) *Tail {
	return &Tail{dir: dir, open: open, last: last}
}

// errLater says that records aren't to be read yet.
var errLater = errors.New("records for later")

// NextUpTo is Next for records up to the one of that number.
func (t *Tail) NextUpTo(sequence uint64, found func(*Entry) error) error {
	t.most = sequence
	err := t.Next(found)
	t.most = 0
	if errors.Is(err, errLater) {
		return nil
	}
	return err
}

// Close closes it.
func (t *Tail) Close() error {
	if t.file == nil {
		return nil
	}
	err := t.file.Close()
	t.file = nil
	return err
}

// Follow calls found with the records that are written, until stop is closed. It looks for them at
// intervals. If records can't be read, it goes on with the others and returns an *UnreadableError
// in the end.
func (t *Tail) Follow(interval time.Duration, stop <-chan struct{}, found func(*Entry) error) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		err := t.next(found)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // the segment is just being closed
			return errors.Join(err, t.unreadable.take())
		}
		select {
		case <-ticker.C:
		case <-stop:
			return t.unreadable.take()
		}
	}
}

// Next calls found with the records that have been written since the last time. If records can't be
// read, it goes on with the others and returns an *UnreadableError in the end.
func (t *Tail) Next(found func(*Entry) error) error {
	return errors.Join(t.next(found), t.unreadable.take())
}

func (t *Tail) next(found func(*Entry) error) (err error) {
	for {
		if t.file == nil {
			if t.file, err = openSegment(t.dir, t.open, false); err != nil {
				return err
			}
			t.off = 0
		}
		closed := t.closed() // asked first: to a closed segment nothing is added
		if err = t.read(found); errors.Is(err, fs.ErrNotExist) {
			closed, err = true, nil
		}
		if err != nil || !closed {
			return err
		}
		if err := t.Close(); err != nil {
			return err
		}
	}
}

// closed says whether the segment that is read isn't the open one any more.
func (t *Tail) closed() bool {
	was, err := t.file.file.Stat()
	if err != nil { // reading will tell
		return false
	}
	is, err := fs.Stat(t.dir, t.open)
	return err == nil && !os.SameFile(was, is)
}

// read reads on in the open segment.
func (t *Tail) read(found func(*Entry) error) error {
	seeker, ok := t.file.file.(io.Seeker)
	if !ok {
		return fmt.Errorf("%s: %w", t.open, errors.ErrUnsupported)
	}
	if _, err := seeker.Seek(t.off, io.SeekStart); err != nil {
		return err
	}
	return t.entries(t.file, &t.off, func(e *Entry) error {
		if t.last != 0 && e.Sequence > t.last+1 {
			if err := t.catchUp(e.Sequence, found); err != nil {
				return err
			}
		}
		return t.pass(e, found)
	})
}

func (t *Tail) pass(e *Entry, found func(*Entry) error) error {
	if e.Sequence <= t.last {
		return nil
	}
	t.last = e.Sequence
	return found(e)
}

// catchUp reads the records before one, from segments that were closed meanwhile.
func (t *Tail) catchUp(before uint64, found func(*Entry) error) error {
	names, err := fileNames(t.dir)
	if err != nil {
		return err
	}
	var segments []string
	for _, name := range names {
		first, suffix, _ := parseSegmentName(name)
		if first >= before || suffix != plainSuffix && suffix != compressedSuffix {
			continue
		}
		if first <= t.last+1 { // those before it are known
			segments = segments[:0]
		}
		segments = append(segments, name)
	}
	for _, name := range segments {
		f, err := openClosed(t.dir, name)
		if err != nil {
			return err
		}
		err = t.entries(f, new(int64), func(e *Entry) error { return t.pass(e, found) })
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// openClosed opens a closed segment, which may be compressed at that moment.
func openClosed(dir fs.FS, name string) (*segmentReader, error) {
	compressed := strings.HasSuffix(name, compressedSuffix)
	f, err := openSegment(dir, name, compressed)
	if errors.Is(err, fs.ErrNotExist) && !compressed {
		return openSegment(dir, name+strings.TrimPrefix(compressedSuffix, plainSuffix), true)
	}
	return f, err
}

// entries goes through whole records behind the last that was read, and adds to off how far. Behind
// the last there may be one that is just being written.
func (t *Tail) entries(r io.Reader, off *int64, each func(*Entry) error) error {
	lines := newLineReader(r)
	for {
		line, err := lines.next()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
		before, ok := parseLink(line)
		switch {
		case !ok:
			t.unreadable.note(errNoRecord)
			*off += int64(len(line))
			continue
		case before.Sequence < t.last:
			*off += int64(len(line))
			continue
		case t.most != 0 && before.Sequence >= t.most:
			return errLater
		}
		*off += int64(len(line))
		e, err := parseEntry(line)
		if err != nil {
			t.unreadable.note(err)
			t.last = before.Sequence + 1
			continue
		}
		if err := each(e); err != nil {
			return err
		}
	}
}
