package audit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// returnInterval is how often the open segment is tried again while there is a stand-in for it.
const returnInterval = time.Second

// errBehind says that a stand-in has records that don't follow the open segment's.
var errBehind = errors.New("the records that stood in don't follow the log's")

// standIn is the continuation of the open segment in another directory, for as long as the segment
// itself can't be written: behind it, byte for byte, so that positions are the same before and
// after the segment has got it. It is the writer's, but for its file and size, which are changed
// with Log.mu held.
type standIn struct {
	file *os.File // nil before it is needed
	size int64    // of whole records, in bytes; 0 if the open segment has them all
	// tried is when the open segment was last tried.
	tried time.Time
}

// start begins to write to the directory that stands in for a segment that failed with cause.
func (l *Log) startStandIn(head Head, cause error) error {
	path := l.settings.Load().StandIn
	if path == "" {
		return cause
	}
	file, err := openStandIn(path, os.O_CREATE)
	if err == nil {
		err = file.Truncate(0)
	}
	if err != nil {
		return fmt.Errorf("%w, and neither can what stands in: %w", cause, err)
	}
	l.mu.Lock()
	if former := l.standIn.file; former != nil {
		l.former = append(l.former, former) // somebody may be syncing it
	}
	l.standIn = standIn{file: file, tried: time.Now()}
	l.mu.Unlock()
	l.notice(NoticeStandIn, head.Segment, cause)
	return nil
}

// appendStandIn writes lines behind the whole records, which isn't the file's end if there is a
// part of one.
func (l *Log) appendStandIn(lines []byte) error {
	if _, err := l.standIn.file.WriteAt(lines, l.standIn.size); err != nil {
		_ = l.standIn.file.Truncate(l.standIn.size)
		return fmt.Errorf("what stands in for the log can't be written either: %w", err)
	}
	l.mu.Lock()
	l.standIn.size += int64(len(lines))
	l.mu.Unlock()
	return nil
}

// openStandIn opens the file in a directory that stands in, which nobody else may have made.
func openStandIn(dir string, flags int) (*os.File, error) {
	path := filepath.Join(dir, StandInName)
	fd, err := unix.Open(path, flags|unix.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	var stat unix.Stat_t
	err = unix.Fstat(fd, &stat)
	if err == nil && (stat.Mode&unix.S_IFMT != unix.S_IFREG || stat.Mode&0o022 != 0 || stat.Uid != uint32(os.Geteuid()) && stat.Uid != 0) {
		err = fmt.Errorf("%s is somebody else's, or others can change it", path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// StandInName is the name of what stands in for the open segment.
const StandInName = "kmsfs-audit.jsonl"

// giveBack appends to the open segment what stands in for its end, if it can be written again.
func (l *Log) giveBack(head Head) {
	if time.Since(l.standIn.tried) < returnInterval {
		return
	}
	l.standIn.tried = time.Now()
	begin := head.Size - l.standIn.size
	_, err := io.Copy(l.file, io.NewSectionReader(l.standIn.file, 0, l.standIn.size))
	if err == nil {
		err = l.file.Sync()
	}
	if err != nil {
		l.writer.torn = l.file.Truncate(begin) != nil
		return
	}
	l.mu.Lock()
	l.standIn.size = 0
	l.mu.Unlock()
	// Where this fails, the next who opens the log finds records that it has already.
	_ = l.standIn.file.Truncate(0)
	l.notice(NoticeReturned, head.Segment, nil)
}

// takeBack finds what stands in for the end of the open segment, left by a process that ended
// before it could give it back, and does that or, if it can't still, goes on with it.
func (l *Log) takeBack() error {
	path := l.settings.Load().StandIn
	if path == "" {
		return nil
	}
	f, err := openStandIn(path, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	begin, size, err := l.missing(f)
	if errors.Is(err, errBehind) {
		l.notice(NoticeDamaged, l.head.Segment, err)
		return errors.Join(os.Rename(f.Name(), filepath.Join(path, asidePrefix()+StandInName)), f.Close())
	}
	if err != nil || size == begin {
		return errors.Join(err, f.Close())
	}
	end, _, err := lastRecordEnd(l.file)
	if err == nil {
		_, err = io.Copy(l.file, io.NewSectionReader(f, begin, size-begin))
	}
	if err == nil {
		err = l.file.Sync()
	}
	if err == nil {
		return errors.Join(f.Truncate(0), f.Close())
	}
	if err := errors.Join(l.file.Truncate(end), f.Truncate(size)); err != nil || begin > 0 {
		return errors.Join(fmt.Errorf("what stands in for the open segment can't be given back: %w", err), f.Close())
	}
	l.standIn = standIn{file: f, size: size}
	return nil
}

// missing says which part of what stands in the open segment doesn't have: after it has been cut
// off behind its last whole record.
func (l *Log) missing(standIn *os.File) (begin, end int64, err error) {
	whole, size, err := lastRecordEnd(l.file)
	if err != nil {
		return 0, 0, err
	}
	if whole != size {
		if err := l.file.Truncate(whole); err != nil {
			return 0, 0, err
		}
	}
	var last Position
	if whole > 0 {
		line, err := lineBefore(l.file, whole)
		if err != nil {
			return 0, 0, err
		}
		before, ok := parseLink(line)
		if !ok {
			return 0, 0, errBehind
		}
		last, _ = before.step(line)
	}
	info, err := standIn.Stat()
	if err != nil {
		return 0, 0, err
	}
	lines := newLineReader(io.NewSectionReader(standIn, 0, info.Size()))
	for {
		line, err := lines.next()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) { // the last was never answered
			return begin, end, nil
		}
		if err != nil {
			return 0, 0, fmt.Errorf("%w: %w", errBehind, err)
		}
		before, ok := parseLink(line)
		end += int64(len(line))
		switch {
		case !ok:
			return 0, 0, errBehind
		case whole > 0 && before.Sequence < last.Sequence:
			begin = end
			continue
		case whole > 0 && before != last:
			return 0, 0, errBehind
		}
		if last, ok = before.step(line); !ok {
			return 0, 0, errBehind
		}
		whole = end // from here on, each follows the one before it
	}
}

// Continuation is what stands in for the end of an open segment.
type Continuation struct {
	// Path is the file's; empty if nothing stands in.
	Path string
	// Begin is where in the segment it begins, in bytes.
	Begin int64
}

// StandingIn says what stands in for the end of the open segment.
func (l *Log) StandingIn() Continuation {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.standIn.size == 0 {
		return Continuation{}
	}
	return Continuation{l.standIn.file.Name(), l.head.Size - l.standIn.size}
}

// segmentFile is the open segment, or a part of it.
type segmentFile interface {
	io.ReaderAt
	Stat() (fs.FileInfo, error)
}

// continued is the open segment with what stands in for its end. It reads on where the segment
// ends, also when that has got the rest meanwhile.
type continued struct {
	segmentFile
	rest  io.ReaderAt
	begin int64 // of the rest
}

// ReadAt reads from either.
func (c continued) ReadAt(p []byte, off int64) (n int, err error) {
	if n, err = c.segmentFile.ReadAt(p, off); !errors.Is(err, io.EOF) || off+int64(n) < c.begin {
		return n, err
	}
	m, err := c.rest.ReadAt(p[n:], off+int64(n)-c.begin)
	return n + m, err
}

// Continue is the directory of a log whose open segment is continued elsewhere, for those who read
// it.
func Continue(dir fs.FS, open string, by Continuation) fs.FS { return &continuedDir{dir, open, by} }

type continuedDir struct {
	fs.FS
	open string
	by   Continuation
}

// ReadDir lists the directory.
func (d *continuedDir) ReadDir(name string) ([]fs.DirEntry, error) { return fs.ReadDir(d.FS, name) }

// Stat looks at a file; the open segment's is that of its beginning.
func (d *continuedDir) Stat(name string) (fs.FileInfo, error) { return fs.Stat(d.FS, name) }

// Open opens a file.
func (d *continuedDir) Open(name string) (fs.File, error) {
	f, err := d.FS.Open(name)
	segment, ok := f.(segmentFile)
	if err != nil || name != d.open || !ok {
		return f, err
	}
	whole, rest, err := d.by.Open(segment)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &continuedFile{SectionReader: io.NewSectionReader(whole, 0, 1<<62), stat: f.Stat, files: [2]io.Closer{f, rest}}, nil
}

// Open opens the continuation of a segment, which is read with it.
func (c Continuation) Open(segment segmentFile) (whole io.ReaderAt, rest io.Closer, err error) {
	file, err := os.Open(c.Path)
	if err != nil {
		return nil, nil, err
	}
	return continued{segment, file, c.Begin}, file, nil
}

// continuedFile is that as a file.
type continuedFile struct {
	*io.SectionReader
	stat  func() (fs.FileInfo, error)
	files [2]io.Closer
}

// Stat is that of the segment itself.
func (f *continuedFile) Stat() (fs.FileInfo, error) { return f.stat() }

// Close closes it.
func (f *continuedFile) Close() error { return errors.Join(f.files[0].Close(), f.files[1].Close()) }
