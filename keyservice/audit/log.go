// Package audit keeps a key service's audit log: one JSON record a line, in CloudTrail's schema.
package audit

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// syncDelay is how long a record that need not be durable at once may wait for those that come after it.
	syncDelay = 500 * time.Millisecond
	// lookInterval is how often it is checked that the log still has its name.
	lookInterval = time.Second
	// failureLife is how long a record that could not be written makes the log unhealthy.
	failureLife = 10 * time.Second
	// maxRecord bounds a record's line in bytes, far above what the service's limits on requests allow.
	maxRecord = 256 << 10
	// spareBuffer is the largest buffer in bytes that is kept for the next records.
	spareBuffer = 256 << 10
)

var (
	// ErrGone says that the log's file was removed, renamed or replaced while it was open.
	ErrGone = errors.New("the audit log was removed or replaced")
	// ErrTooLong says that a record is too long to be written.
	ErrTooLong = errors.New("audit record too long")
	errClosed  = errors.New("audit log closed")
)

// Log is an open audit log, which nobody else writes to. It is safe for concurrent use.
//
// Those who append at the same time write together: the first of them writes for all that have come by then, while the next ones collect behind it.
type Log struct {
	dir  int // the directory's descriptor, not owned
	name string
	file *os.File

	mu      sync.Mutex // guards what follows; never held while the file is written or synced
	changed *sync.Cond // on mu: writing, syncing or a group has come to an end
	closed  bool
	next    *group // collects records while others are written; nil if there are none
	writing bool   // somebody writes; what belongs to the writer is the writer's meanwhile
	syncing bool   // somebody syncs
	written int64  // bytes of whole records in the file
	synced  int64  // of those, the bytes that are on disk
	pending *time.Timer
	syncErr error     // of the last sync
	failed  time.Time // when a record could last not be written; zero if one was written since

	writer  writer
	buffers sync.Pool // of *[]byte, for lines
}

// writer is what the one who writes needs.
type writer struct {
	torn   bool      // a part of a record may lie behind the whole ones
	looked time.Time // when the file's name was last checked
	spare  []byte    // a buffer for the next group
}

// group is records that are written together.
type group struct {
	lines []byte
	done  bool
	end   int64 // of the records in the file, once done
	err   error
}

// Open opens the log of that name in the directory, whose descriptor stays the caller's and open; the file must be there. A part of a record at
// its end, left by a power cut in the middle of a call that was never answered, is cut off.
func Open(dir int, name string, file *os.File) (*Log, error) {
	l := &Log{dir: dir, name: name, file: file}
	l.changed = sync.NewCond(&l.mu)
	l.buffers.New = func() any { return new([]byte) }
	end, size, err := lastRecordEnd(file)
	if err != nil {
		return nil, fmt.Errorf("open the audit log: %w", err)
	}
	l.written, l.synced, l.writer.torn = end, end, end != size
	return l, nil
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
	for i := len(tail); i > 0; i-- {
		if tail[i-1] == '\n' {
			return size - int64(len(tail)-i), size, nil
		}
	}
	if size > int64(len(tail)) {
		return 0, 0, errors.New("it does not consist of records")
	}
	return 0, size, nil
}

// Append writes a record; when it returns nil, the record is in the file, and on disk if durable is set, else within a
// second. If it can't be written, nothing of it is left in the file, or will be once the file can be written again; if it
// can't be synced, it stays.
func (l *Log) Append(r *Record, durable bool) error {
	buffer := l.buffers.Get().(*[]byte)
	defer l.buffers.Put(buffer)
	*buffer = r.appendTo((*buffer)[:0])
	if len(*buffer) > maxRecord {
		*buffer = nil
		return fmt.Errorf("write the audit log: %w", ErrTooLong)
	}
	end, err := l.append(*buffer)
	if err != nil {
		return fmt.Errorf("write the audit log: %w", err)
	}
	if !durable {
		return nil
	}
	if err := l.sync(end); err != nil {
		return fmt.Errorf("sync the audit log: %w", err)
	}
	return nil
}

// append has the line written, and returns where it ends in the file.
func (l *Log) append(line []byte) (end int64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return 0, errClosed
	}
	if l.next == nil {
		l.next = &group{lines: l.writer.take()}
	}
	g := l.next
	g.lines = append(g.lines, line...)
	for !g.done {
		if l.writing {
			l.changed.Wait()
			continue
		}
		l.lead(g)
	}
	return g.end, g.err
}

// lead writes the group, which nobody else writes. l.mu is held at its beginning and end.
func (l *Log) lead(g *group) {
	l.writing = true
	l.mu.Unlock()
	runtime.Gosched() // those who are about to append come along: with one processor, nobody would otherwise
	l.mu.Lock()
	l.next = nil
	written, syncErr := l.written, l.syncErr
	l.mu.Unlock()

	err := l.ready(written, syncErr)
	if err == nil {
		err = l.write(g.lines, written)
	}

	l.mu.Lock()
	if l.failed = (time.Time{}); err != nil {
		l.failed = time.Now()
	}
	if err == nil {
		l.written += int64(len(g.lines))
		if syncErr != nil && errors.Is(l.syncErr, syncErr) {
			l.syncErr = nil
		}
		if l.pending == nil {
			l.pending = time.AfterFunc(syncDelay, l.syncLater)
		}
	}
	g.done, g.end, g.err = true, l.written, err
	l.writer.give(g.lines)
	g.lines = nil
	l.writing = false
	l.changed.Broadcast()
}

// take returns a buffer for a group.
func (w *writer) take() []byte {
	buffer := w.spare
	w.spare = nil
	return buffer[:0]
}

// give takes a group's buffer back.
func (w *writer) give(buffer []byte) {
	if cap(buffer) <= spareBuffer {
		w.spare = buffer
	}
}

// write writes lines behind the whole records.
func (l *Log) write(lines []byte, written int64) error {
	n, err := l.file.Write(lines)
	if err != nil {
		if l.writer.torn = n > 0; l.writer.torn {
			_ = l.mend(written) // or before the next record
		}
	}
	return err
}

// ready finds out whether records may be written.
func (l *Log) ready(written int64, syncErr error) error {
	if err := l.look(); err != nil {
		return err
	}
	if syncErr != nil {
		if err := l.file.Sync(); err != nil {
			return err
		}
	}
	if l.writer.torn {
		return l.mend(written)
	}
	return nil
}

// look makes sure that the file is still the log: at every record that it has a name, and now and then that it is the right one.
func (l *Log) look() error {
	var open, named unix.Stat_t
	if err := unix.Fstat(int(l.file.Fd()), &open); err != nil {
		return err
	}
	if open.Nlink == 0 {
		return ErrGone
	}
	now := time.Now()
	if now.Sub(l.writer.looked) < lookInterval {
		return nil
	}
	err := unix.Fstatat(l.dir, l.name, &named, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) || err == nil && (named.Ino != open.Ino || named.Dev != open.Dev) {
		return ErrGone
	}
	if err == nil {
		l.writer.looked = now
	}
	return err
}

// mend removes what is left of records that could not be written.
func (l *Log) mend(written int64) error {
	if err := l.file.Truncate(written); err != nil {
		return err
	}
	l.writer.torn = false
	return nil
}

// syncLater puts on disk what nobody waits for. The next Append sees its error.
func (l *Log) syncLater() {
	l.mu.Lock()
	l.pending = nil // records from here on need a sync of their own
	end := l.written
	l.mu.Unlock()
	_ = l.sync(end)
}

// sync returns when the file is on disk up to the end, with those that wait for the same.
func (l *Log) sync(end int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.synced < end {
		if l.closed {
			return errClosed
		}
		if l.syncing {
			l.changed.Wait()
			continue
		}
		l.syncing = true
		reached := l.written
		l.mu.Unlock()
		err := l.file.Sync()
		l.mu.Lock()
		l.syncing = false
		l.changed.Broadcast()
		if err != nil {
			l.syncErr = err
			return err
		}
		l.synced = reached
	}
	return nil
}

// Healthy says whether records can be written, as far as is known: a failure is forgotten after a while, so that somebody tries again.
func (l *Log) Healthy() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.closed && l.syncErr == nil && time.Since(l.failed) > failureLife
}

// Close syncs and closes the log, after those that are writing to it. Records are refused from then on.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	for l.writing || l.syncing || l.next != nil {
		l.changed.Wait()
	}
	if l.pending != nil {
		l.pending.Stop()
	}
	return errors.Join(l.file.Sync(), l.file.Close())
}
