// Package audit keeps a key service's audit log: one JSON record a line, in CloudTrail's schema.
package audit

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// syncDelay is how long a record that need not be durable at once may wait for those that come after it.
	syncDelay = 500 * time.Millisecond
	// lookInterval is how often it is checked that the log still has its name.
	lookInterval = time.Second
	// maxRecord bounds a record's line in bytes, far above what the service's limits on requests allow.
	maxRecord = 256 << 10
	// spareBuffer is the largest buffer in bytes that is kept for the next record.
	spareBuffer = 16 << 10
)

var (
	// ErrGone says that the log's file was removed, renamed or replaced while it was open.
	ErrGone = errors.New("the audit log was removed or replaced")
	// ErrTooLong says that a record is too long to be written.
	ErrTooLong = errors.New("audit record too long")
	errClosed  = errors.New("audit log closed")
)

// Log is an open audit log, which nobody else writes to. It is safe for concurrent use.
type Log struct {
	dir  int // the directory's descriptor, not owned
	name string
	file *os.File

	mu      sync.Mutex // guards what follows, and that records are written one by one
	closed  bool
	size    int64     // of the whole records, in bytes
	torn    bool      // a part of a record may lie behind them
	looked  time.Time // when the name was last checked
	buffer  []byte
	pending *time.Timer // for the next sync; nil if everything is synced or being synced
	syncErr error       // of the last sync
}

// Open opens the log of that name in the directory, whose descriptor stays the caller's and open; the file must be there. A part of a record at
// its end, left by a power cut in the middle of a call that was never answered, is cut off.
func Open(dir int, name string, file *os.File) (*Log, error) {
	l := &Log{dir: dir, name: name, file: file}
	end, size, err := lastRecordEnd(file)
	if err != nil {
		return nil, fmt.Errorf("open the audit log: %w", err)
	}
	l.size, l.torn = end, end != size
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
	if err := l.append(r, durable); err != nil {
		return fmt.Errorf("write the audit log: %w", err)
	}
	if !durable {
		return nil
	}
	if err := l.sync(); err != nil {
		return fmt.Errorf("sync the audit log: %w", err)
	}
	return nil
}

// append writes the record to the file.
func (l *Log) append(r *Record, durable bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.ready(); err != nil {
		return err
	}
	line := r.appendTo(l.buffer[:0])
	if len(line) > maxRecord {
		return ErrTooLong
	}
	if cap(line) <= spareBuffer {
		l.buffer = line
	}
	n, err := l.file.Write(line)
	if err != nil {
		if l.torn = n > 0; l.torn {
			_ = l.mend() // or before the next record
		}
		return err
	}
	l.size += int64(n)
	if !durable && l.pending == nil {
		l.pending = time.AfterFunc(syncDelay, func() { _ = l.sync() }) // the next Append sees the error
	}
	return nil
}

// ready finds out whether records may be written.
func (l *Log) ready() error {
	if l.closed {
		return errClosed
	}
	if err := l.look(); err != nil {
		return err
	}
	if l.syncErr != nil {
		if l.syncErr = l.file.Sync(); l.syncErr != nil {
			return l.syncErr
		}
	}
	if l.torn {
		return l.mend()
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
	if now.Sub(l.looked) < lookInterval {
		return nil
	}
	err := unix.Fstatat(l.dir, l.name, &named, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) || err == nil && (named.Ino != open.Ino || named.Dev != open.Dev) {
		return ErrGone
	}
	if err == nil {
		l.looked = now
	}
	return err
}

// mend removes what is left of a record that could not be written.
func (l *Log) mend() error {
	if err := l.file.Truncate(l.size); err != nil {
		return err
	}
	l.torn = false
	return nil
}

// sync puts on disk what was written before.
func (l *Log) sync() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return errClosed
	}
	l.pending = nil // records from here on need a sync of their own
	l.mu.Unlock()

	err := l.file.Sync()
	if err != nil {
		l.mu.Lock()
		l.syncErr = err
		l.mu.Unlock()
	}
	return err
}

// Close syncs and closes the log. Records are refused from then on.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	if l.pending != nil {
		l.pending.Stop()
	}
	return errors.Join(l.file.Sync(), l.file.Close())
}
