package audit

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// Settings say when segments are closed and removed.
type Settings struct {
	// SegmentSize in bytes and SegmentAge are what a segment is closed at, whichever comes first.
	SegmentSize int64
	SegmentAge  time.Duration
	// Retention is how long closed segments are kept, counted from their last record; 0: for ever.
	Retention time.Duration
	// SyncAlways puts every record on disk before Append returns.
	SyncAlways bool
	// StandIn is a directory that records go to while the open segment can't be written; empty for
	// none.
	StandIn string
}

// The files of a log besides the open segment: each segment, under the number of its first record,
// until it is compressed and signed for, and from then on. A digest stays when its segment is
// removed, with a statement that it was.
const (
	plainSuffix      = ".jsonl"
	compressedSuffix = ".jsonl.zst"
	digestSuffix     = ".digest"
	prunedSuffix     = ".pruned"
	newSuffix        = ".new"

	numberWidth = 20
)

func segmentName(first uint64, suffix string) string {
	return fmt.Sprintf("%0*d%s", numberWidth, first, suffix)
}

// parseSegmentName is the inverse of segmentName.
func parseSegmentName(name string) (first uint64, suffix string, ok bool) {
	if len(name) <= numberWidth {
		return 0, "", false
	}
	first, err := strconv.ParseUint(name[:numberWidth], 10, 64)
	suffix = name[numberWidth:]
	known := slices.Contains([]string{plainSuffix, compressedSuffix, digestSuffix, prunedSuffix}, suffix)
	return first, suffix, err == nil && first > 0 && known && name[0] != '+'
}

// IsFile says whether a name is that of one of a log's files, besides the open segment.
func IsFile(name string) bool {
	_, _, ok := parseSegmentName(name)
	return ok
}

// fileNames returns the names of a log's files, besides the open segment, in ascending order.
func fileNames(dir fs.FS) (names []string, err error) {
	entries, err := fs.ReadDir(dir, ".")
	for _, e := range entries {
		if IsFile(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// list returns the numbers of the segments that have a file with that suffix, in ascending order.
func list(dir fs.FS, suffix string) ([]uint64, error) {
	names, err := fileNames(dir)
	if err != nil {
		return nil, err
	}
	var found []uint64
	for _, name := range names {
		if first, s, ok := parseSegmentName(name); ok && s == suffix {
			found = append(found, first)
		}
	}
	return found, nil
}

// isFull says whether the open segment is to be closed before the next record.
func (l *Log) isFull(head Head) bool {
	s := l.settings.Load()
	return l.options.Signer != nil && head.Size > 0 && (head.Size >= s.SegmentSize || time.Since(l.writer.began) >= s.SegmentAge)
}

// Tend closes the open segment if it is too old, and has those removed that are older than is
// wanted, which otherwise wait for the next record.
func (l *Log) Tend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.writing {
		l.changed.Wait()
	}
	if l.closed || l.standIn.size > 0 {
		return
	}
	if l.isFull(l.head) {
		l.writing = true
		head := l.head
		l.mu.Unlock()
		err := l.look(head)
		if err == nil {
			head, err = l.closeSegment(head)
		}
		l.mu.Lock()
		if err == nil { // or the next record says what is wrong
			l.head = head
		}
		l.writing = false
		l.changed.Broadcast()
	}
	if l.pending == nil {
		l.pending = time.AfterFunc(0, l.syncLater)
	}
}

// closeSegment gives the open segment its number for a name, and begins another. Where that can't
// be done, records go on to the old one.
func (l *Log) closeSegment(head Head) (Head, error) {
	if !l.naming.TryLock() { // the files are being copied: that may take longer than a record may wait
		return head, nil
	}
	defer l.naming.Unlock()
	fresh := l.options.Name + newSuffix
	if err := unix.Unlinkat(l.dir, fresh, 0); err != nil && err != unix.ENOENT {
		return head, nil
	}
	fd, err := unix.Openat(l.dir, fresh, unix.O_RDWR|unix.O_APPEND|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return head, nil
	}
	file := os.NewFile(uintptr(fd), l.options.Name)
	closed := segmentName(head.Segment, plainSuffix)
	if err := unix.Renameat2(l.dir, l.options.Name, l.dir, closed, unix.RENAME_NOREPLACE); err != nil {
		return head, file.Close()
	}
	if err := unix.Renameat(l.dir, fresh, l.dir, l.options.Name); err != nil {
		return head, errors.Join(err, file.Close(), unix.Renameat2(l.dir, closed, l.dir, l.options.Name, unix.RENAME_NOREPLACE))
	}
	l.mu.Lock()
	l.former = append(l.former, l.file)
	l.file = file
	l.mu.Unlock()
	l.writer.began = time.Time{}
	head.Segment, head.Size = head.Sequence+1, 0
	return head, nil
}

// Notice is something that a log finds out behind the back of those who append.
type Notice struct {
	// Event is one of the Notice constants.
	Event string
	// Segment is the number of the segment's first record.
	Segment uint64
	Err     error
}

// The events of notices.
const (
	// NoticeDamaged says that records that the store knows of are not there, or are others: a new
	// segment follows them.
	NoticeDamaged = "AuditLogDamaged"
	// NoticeTorn says that a power cut has left something of records that were not on disk yet: it
	// is set aside.
	NoticeTorn = "AuditLogTorn"
	// NoticeUnclosed says that a segment couldn't be compressed and signed for. It is tried again.
	NoticeUnclosed = "AuditSegmentNotClosed"
	// NoticeStandIn says that the open segment can't be written, and that records go to the
	// directory that stands in; NoticeReturned that the segment has got them.
	NoticeStandIn  = "AuditLogStandIn"
	NoticeReturned = "AuditLogReturned"
	// NoticePruned says that a segment was removed, as the settings want it.
	NoticePruned = "AuditSegmentPruned"
)

func (l *Log) notice(event string, segment uint64, err error) {
	if l.options.Notice != nil {
		l.options.Notice(Notice{Event: event, Segment: segment, Err: err})
	}
}

// closer anchors the log's head and closes segments, in the background and one thing after the
// other.
type closer struct {
	mu      sync.Mutex // guards what follows
	head    Head       // to be anchored
	wanted  bool       // head is new
	running bool
	stopped bool
	idle    *sync.Cond // running is false
}

// anchor has the log anchored at a head that is on disk, and the segments before it closed.
func (c *closer) anchor(head Head) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.head, c.wanted = head, true
	c.idle.Broadcast()
}

// stop ends the closer's work.
func (c *closer) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = true
	c.idle.Broadcast()
	for c.running {
		c.idle.Wait()
	}
}

// next returns the next head to be anchored; false when there will be none.
func (c *closer) next() (Head, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for !c.wanted && !c.stopped {
		c.idle.Wait()
	}
	c.wanted = false
	if c.stopped {
		c.running = false
		c.idle.Broadcast()
		return Head{}, false
	}
	return c.head, true
}

func (c *closer) isStopped() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stopped
}

// keepClosing is the closer's goroutine.
func (l *Log) keepClosing() {
	failing := false
	failed := func(head Head, err error) {
		if !failing { // once: each notice is a record, which comes here again
			l.notice(NoticeUnclosed, head.Segment, err)
		}
		failing = true
	}
	for {
		head, ok := l.closer.next()
		if !ok {
			return
		}
		if err := l.anchor(head); err != nil {
			failed(head, err)
			continue
		}
		if l.options.Signer == nil {
			continue
		}
		l.files.Lock()
		closed, err := l.closeFormer(head.Segment)
		if err := errors.Join(err, l.prune(time.Now())); err != nil {
			failed(head, err)
		} else {
			failing = false
		}
		l.files.Unlock()
		if closed && l.options.Closed != nil {
			l.options.Closed()
		}
	}
}

// closeFormer compresses and signs for all segments before the one that the store knows to be open,
// and says whether there were any. files is held.
func (l *Log) closeFormer(open uint64) (closed bool, err error) {
	dir := l.fs()
	plain, err := list(dir, plainSuffix)
	if err != nil {
		return false, err
	}
	for _, first := range plain {
		if first >= open || l.closer.isStopped() {
			break
		}
		before, previous, err := lastDigest(dir)
		if err == nil && (before == nil || before.FirstSequence < first) {
			err = l.compress(first, previous)
		}
		if err == nil {
			err = unix.Unlinkat(l.dir, segmentName(first, plainSuffix), 0)
		}
		if err != nil {
			return closed, fmt.Errorf("close segment %d of the audit log: %w", first, err)
		}
		closed = true
	}
	return closed, nil
}

// fs is the log's directory.
func (l *Log) fs() fs.FS { return os.DirFS(fmt.Sprintf("/proc/self/fd/%d", l.dir)) }

// compress writes the compressed form of a segment, and the digest that signs for it. previous is
// the hash of the digest before that.
func (l *Log) compress(first uint64, previous string) error {
	plain, err := l.fs().Open(segmentName(first, plainSuffix))
	if err != nil {
		return err
	}
	defer plain.Close()
	d := newDigest(l.options.Signer.Log(), first, previous)
	err = l.writeFile(segmentName(first, compressedSuffix), func(w io.Writer) error {
		packed, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
		if err != nil {
			return err
		}
		lines := newLineReader(plain)
		for {
			line, err := lines.next()
			if errors.Is(err, io.EOF) {
				return packed.Close()
			}
			if err != nil {
				return err
			}
			if err := d.add(line); err != nil {
				return err
			}
			if _, err := packed.Write(line); err != nil {
				return err
			}
			if l.closer.isStopped() {
				return errClosed
			}
		}
	})
	if err != nil {
		return err
	}
	signed, err := d.sign(l.options.Signer)
	if err != nil {
		return err
	}
	return l.writeFile(segmentName(first, digestSuffix), func(w io.Writer) error {
		_, err := w.Write(signed)
		return err
	})
}

// writeFile makes a file that is on disk, whole, when it has its name.
func (l *Log) writeFile(name string, write func(io.Writer) error) error {
	fresh := name + newSuffix
	fd, err := unix.Openat(l.dir, fresh, unix.O_WRONLY|unix.O_TRUNC|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), fresh)
	buffered := bufio.NewWriterSize(f, 1<<20)
	err = write(buffered)
	if err == nil {
		err = buffered.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = unix.Renameat(l.dir, fresh, l.dir, name)
	}
	if err != nil {
		return errors.Join(err, ignoreMissing(unix.Unlinkat(l.dir, fresh, 0)))
	}
	return l.options.Dir.Sync()
}

func ignoreMissing(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// prune removes closed segments that are older than the settings want, and leaves a signed
// statement that it did. files is held.
func (l *Log) prune(now time.Time) error {
	retention := l.settings.Load().Retention
	if retention == 0 {
		return nil
	}
	dir := l.fs()
	segments, err := list(dir, compressedSuffix)
	if err != nil {
		return err
	}
	for _, first := range segments {
		d, err := readDigest(dir, first)
		if errors.Is(err, fs.ErrNotExist) {
			continue // not closed yet
		}
		if err != nil {
			return err
		}
		if now.Sub(d.LastTime) < retention {
			return nil
		}
		if err := l.pruneSegment(d, now); err != nil {
			return err
		}
		l.notice(NoticePruned, first, nil)
	}
	return nil
}

// pruneSegment removes one segment: the statement comes first.
func (l *Log) pruneSegment(d *Digest, now time.Time) error {
	statement, err := signPruning(d, now, l.options.Signer)
	if err != nil {
		return err
	}
	err = l.writeFile(segmentName(d.FirstSequence, prunedSuffix), func(w io.Writer) error {
		_, err := w.Write(statement)
		return err
	})
	if err != nil {
		return err
	}
	return unix.Unlinkat(l.dir, segmentName(d.FirstSequence, compressedSuffix), 0)
}

// Names returns the names of the log's files, the open segment's last.
func (l *Log) Names() ([]string, error) {
	names, err := fileNames(l.fs())
	return append(names, l.options.Name), err
}

// WithFiles calls do with the names of all the log's files, none of which goes or changes its name
// meanwhile; records may be appended.
func (l *Log) WithFiles(do func(names []string) error) error {
	l.files.Lock()
	defer l.files.Unlock()
	l.naming.Lock()
	defer l.naming.Unlock()
	names, err := fileNames(l.fs())
	if err != nil {
		return err
	}
	return do(append(names, l.options.Name))
}
