package audit

import (
	"errors"
	"os"
)

// syncLater puts on disk what nobody waits for, and anchors the log's head. The next Append sees
// its error.
func (l *Log) syncLater() {
	l.mu.Lock()
	l.pending = nil // records from here on need a sync of their own
	head, end := l.head, l.written
	l.mu.Unlock()
	if l.sync(end) == nil {
		l.closer.anchor(head)
	}
}

// sync returns when all records up to end, as Log.written counts, are on disk, with those that wait
// for the same.
func (l *Log) sync(end int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.synced < end || len(l.former) > 0 {
		if l.closed {
			return errClosed
		}
		if l.syncing {
			l.changed.Wait()
			continue
		}
		l.syncing = true
		reached, former, file, standIn := l.written, l.former, l.file, l.standIn.file
		l.former = nil
		l.mu.Unlock()
		err := errors.Join(l.syncFormer(former), syncFiles(file, standIn))
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

// syncFiles puts the open segment on disk, and what stands in for its end if there was ever any.
func syncFiles(file, standIn *os.File) error {
	if standIn == nil {
		return file.Sync()
	}
	return errors.Join(file.Sync(), standIn.Sync())
}

// syncFormer puts closed segments and their names on disk, and closes the files.
func (l *Log) syncFormer(files []*os.File) (err error) {
	if len(files) == 0 {
		return nil
	}
	for _, f := range files {
		err = errors.Join(err, f.Sync(), f.Close())
	}
	return errors.Join(err, l.options.Dir.Sync())
}

// anchor tells who keeps it the head of a log that is on disk so far. Nobody else does at the same
// time.
func (l *Log) anchor(head Head) error {
	if l.options.Anchor == nil || l.anchored == head {
		return nil
	}
	if err := l.options.Anchor(head); err != nil {
		return err
	}
	l.anchored = head
	return nil
}
