// Package audit keeps a key service's audit log: one JSON record a line, in CloudTrail's schema,
// each chained to the one before it.
//
//   - record.go, chain.go: a record's line, and how it is chained
//   - log.go, sync.go: appending records, and putting them on disk
//   - open.go: finding the end of a log
//   - standin.go: what stands in for the open segment while that can't be written
//   - segment.go, digest.go: the files of a log, and what is signed when one is closed
//   - read.go, verify.go: going through a log, and proving that it is whole
package audit

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// syncDelay is how long a record that need not be durable at once may wait for those that come
	// after it.
	syncDelay = 500 * time.Millisecond
	// failureLife is how long a record that could not be written makes the log unhealthy.
	failureLife = 10 * time.Second
	// maxRecord bounds a record's line in bytes, far above what the service's limits on requests
	// allow.
	maxRecord = 256 << 10
	// spareBuffer is the largest buffer in bytes that is kept for the next records.
	spareBuffer = 256 << 10
)

var (
	// ErrGone says that the log's file was removed, renamed, replaced or cut off while it was open.
	ErrGone = errors.New("the audit log was removed, replaced or cut off")
	// ErrTooLong says that a record is too long to be written.
	ErrTooLong = errors.New("audit record too long")
	errClosed  = errors.New("audit log closed")
)

// Where a key service home has its audit log: the directory, and the file of the open segment in
// it.
const (
	Directory = "audit"
	OpenName  = "current.jsonl"
)

// Options say what log is opened.
type Options struct {
	// Dir is the log's directory, which stays the caller's and open, and Name the open segment's.
	Dir  *os.File
	Name string
	// File is the open segment, for reading and appending. Once Open returns, it is the Log's to
	// close.
	File *os.File
	// Anchor, if not nil, keeps the log's head where who can change the files can't, and Head is
	// what it was last given. It is called when records have been put on disk, twice a second at
	// most, and is not called by two at once.
	Anchor func(Head) error
	Head   Head
	// Signer, if not nil, signs what closed segments hold. Without it, the log is one segment.
	Signer Signer
	// Settings say when segments are closed and removed, until SetSettings.
	Settings Settings
	// Closed, if not nil, is called when segments have been closed and signed for, on the log's own
	// goroutine.
	Closed func()
	// Notice, if not nil, is told what is to be known and has nobody to be returned to.
	Notice func(Notice)
}

// Head is the end of a log.
type Head struct {
	Position
	// Segment is the number of the open segment's first record, and Size its size in bytes.
	Segment uint64
	Size    int64
	// Closed says that the log was closed there, and that nobody has written to it since.
	Closed bool
}

// Log is an open audit log, which nobody else writes to. It is safe for concurrent use.
//
// Those who append at the same time write together: the first of them writes for all that have come
// by then, while the next ones collect behind it.
type Log struct {
	options Options
	dir     int // the directory's descriptor

	// files is held while closed segments are compressed or removed, and naming while the open one
	// is closed. They are taken in this order, before mu.
	files, naming sync.Mutex
	// closer closes segments behind the writer. anchored is what was anchored last: the closer's,
	// and Close's once that has stopped.
	closer   closer
	anchored Head

	mu      sync.Mutex // guards what follows; never held while the file is written or synced
	changed *sync.Cond // on mu: writing, syncing or a group has come to an end
	closed  bool
	unclean bool   // it wasn't closed by whom had it open before; changed by Open alone
	next    *group // collects records while others are written; nil if there are none
	writing bool   // somebody writes; what belongs to the writer is the writer's meanwhile
	syncing bool   // somebody syncs
	head    Head   // behind the last record in the file
	written int64  // bytes of whole records since the log was opened, in all segments
	synced  int64  // of those, the bytes that are on disk
	pending *time.Timer
	syncErr error      // of the last sync
	failed  time.Time  // when a record could last not be written; zero if one was written since
	failure error      // and why
	former  []*os.File // segments that were closed since the last sync

	settings atomic.Pointer[Settings]
	standIn  standIn

	file    *os.File // the open segment; changed by the writer, with mu held
	writer  writer
	buffers sync.Pool // of *[]byte, for lines
}

// writer is what the one who writes needs.
type writer struct {
	torn  bool      // a part of a record may lie behind the whole ones
	began time.Time // when the open segment got its first record in this process; zero if it is empty
	alone int       // how many records were written alone, one after the other
	spare group     // whose buffers are for the next group
	// open says what file is.
	open unix.Stat_t
	file *os.File
}

// group is records that are written together.
type group struct {
	lines []byte
	ends  []int // where each ends
	// bodies are the hashes of their bodies.
	bodies [][sha256.Size]byte
	done   bool
	end    int64 // of the records, as Log.written counts, once done
	err    error
}

// Append writes a record; when it returns nil, the record is in the file, and on disk if durable is
// set, else within a second. If it can't be written, nothing of it is left in the file, or will be
// once the file can be written again; if it can't be synced, it stays.
func (l *Log) Append(r *Record, durable bool) error {
	buffer := l.buffers.Get().(*[]byte)
	defer l.buffers.Put(buffer)
	*buffer = r.appendTo((*buffer)[:0])
	if len(*buffer) > maxRecord {
		*buffer = nil
		return fmt.Errorf("write the audit log: %w", ErrTooLong)
	}
	end, err := l.append(*buffer, bodyHash(*buffer))
	if err != nil {
		return fmt.Errorf("write the audit log: %w", err)
	}
	if !durable && !l.settings.Load().SyncAlways {
		return nil
	}
	if err := l.sync(end); err != nil {
		return fmt.Errorf("sync the audit log: %w", err)
	}
	return nil
}

// append has the line written, and returns where it ends, as Log.written counts.
func (l *Log) append(line []byte, body [sha256.Size]byte) (end int64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return 0, errClosed
	}
	if l.next == nil {
		l.next = l.writer.take()
	}
	g := l.next
	g.lines = append(g.lines, line...)
	g.ends = append(g.ends, len(g.lines))
	g.bodies = append(g.bodies, body)
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
	if l.writer.expects() {
		l.mu.Unlock()
		runtime.Gosched() // those who are about to append come along
		l.mu.Lock()
	}
	l.next = nil
	l.writer.counts(len(g.ends))
	head, syncErr := l.head, l.syncErr
	l.mu.Unlock()

	head, err := l.ready(head, syncErr)
	next := head
	if err == nil {
		next, err = l.write(g, head)
	}

	l.mu.Lock()
	if l.failed = (time.Time{}); err != nil {
		l.failed, l.failure = time.Now(), err
	}
	l.head = head
	if err == nil {
		l.head = next
		l.written += int64(len(g.lines))
		if syncErr != nil && errors.Is(l.syncErr, syncErr) {
			l.syncErr = nil
		}
		if l.pending == nil {
			l.pending = time.AfterFunc(syncDelay, l.syncLater)
		}
	}
	g.done, g.end, g.err = true, l.written, err
	l.writer.give(g)
	l.writing = false
	l.changed.Broadcast()
}

// expects says whether others can be expected to append now: as they did lately, or to find out.
func (w *writer) expects() bool { return w.alone < lonely || w.alone%lonely == 0 }

// counts takes note of how many records are written together.
func (w *writer) counts(records int) {
	if w.alone++; records > 1 {
		w.alone = 0
	}
}

// lonely is how many records have been written alone when nobody else is expected any more. To wait
// for nobody costs more than a record.
const lonely = 32

// take returns a group, with buffers that were used before.
func (w *writer) take() *group {
	g := &group{lines: w.spare.lines[:0], ends: w.spare.ends[:0], bodies: w.spare.bodies[:0]}
	w.spare = group{}
	return g
}

// give takes a group's buffers back.
func (w *writer) give(g *group) {
	if cap(g.lines) <= spareBuffer {
		w.spare.lines, w.spare.ends, w.spare.bodies = g.lines, g.ends, g.bodies
	}
	g.lines, g.ends, g.bodies = nil, nil, nil
}

// write writes a group's lines behind head, and returns what the head is then.
func (l *Log) write(g *group, head Head) (Head, error) {
	next := head
	start := 0
	for i, end := range g.ends {
		next.Position = next.link(g.lines[start:end], g.bodies[i])
		start = end
	}
	next.Size += int64(len(g.lines))
	if err := l.writeLines(g.lines, head); err != nil {
		return head, err
	}
	if l.writer.began.IsZero() {
		l.writer.began = time.Now()
	}
	return next, nil
}

// writeLines writes to the open segment, or to what stands in for its end.
func (l *Log) writeLines(lines []byte, head Head) error {
	if l.standIn.size > 0 {
		return l.appendStandIn(lines)
	}
	n, err := l.file.Write(lines)
	if err == nil {
		return nil
	}
	if l.writer.torn = n > 0; l.writer.torn {
		_ = l.mend(head) // or before the next record
	}
	if err := l.startStandIn(head, err); err != nil {
		return err
	}
	return l.appendStandIn(lines)
}

// ready finds out whether records may be written behind head, and returns the new one if it has
// closed a segment.
func (l *Log) ready(head Head, syncErr error) (Head, error) {
	if syncErr != nil {
		if err := syncFiles(l.file, l.standIn.file); err != nil {
			return head, err
		}
	}
	if l.writer.torn {
		if err := l.mend(head); err != nil {
			return head, err
		}
	}
	if err := l.look(head); err != nil {
		return head, err
	}
	if l.standIn.size > 0 {
		l.giveBack(head)
	}
	if l.standIn.size == 0 && l.isFull(head) {
		return l.closeSegment(head)
	}
	return head, nil
}

// look makes sure, at every record, that the file is still the log.
func (l *Log) look(head Head) error {
	var named unix.Stat_t
	if l.writer.file != l.file {
		if err := unix.Fstat(int(l.file.Fd()), &l.writer.open); err != nil {
			return err
		}
		l.writer.file = l.file
	}
	open := &l.writer.open
	err := unix.Fstatat(l.dir, l.options.Name, &named, unix.AT_SYMLINK_NOFOLLOW)
	if err == unix.ENOENT || err == nil && (named.Ino != open.Ino || named.Dev != open.Dev || named.Size != head.Size-l.standIn.size) {
		return ErrGone
	}
	return err
}

// mend removes what is left of records that could not be written.
func (l *Log) mend(head Head) error {
	if err := l.file.Truncate(head.Size - l.standIn.size); err != nil {
		return err
	}
	l.writer.torn = false
	return nil
}

// SetSettings changes the settings, from the next record on.
func (l *Log) SetSettings(s Settings) { l.settings.Store(&s) }

// Head returns the end of what has been written.
func (l *Log) Head() Head {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head
}

// Unclean says that the log was not closed before it was opened now: who wrote to it was killed, or
// the machine stopped.
func (l *Log) Unclean() bool { return l.unclean }

// Failing says why records can't be written, as far as is known; nil if they can. Whether the file
// is still the log is looked at now; any other failure is forgotten after a while, so that somebody
// tries again.
func (l *Log) Failing() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	recent := time.Since(l.failed) <= failureLife
	switch {
	case l.closed:
		return errClosed
	case l.syncErr != nil:
		return l.syncErr
	case recent && (l.writing || !errors.Is(l.failure, ErrGone)):
		return l.failure
	case l.writing || l.writer.torn: // who writes looks; what is behind the records is cut off before the next
		return nil
	}
	return l.look(l.head)
}

// Close syncs and closes the log, after those that are writing to it. Records are refused from then
// on.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	for l.writing || l.syncing || l.next != nil {
		l.changed.Wait()
	}
	if l.pending != nil {
		l.pending.Stop()
	}
	former, head := l.former, l.head
	l.former = nil
	l.mu.Unlock()
	l.closer.stop()
	head.Closed = true
	err := errors.Join(l.syncFormer(former), syncFiles(l.file, l.standIn.file))
	if err == nil {
		err = l.anchor(head)
	}
	if l.standIn.file != nil {
		err = errors.Join(err, l.standIn.file.Close())
	}
	return errors.Join(err, l.file.Close())
}
