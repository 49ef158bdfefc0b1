package envelope

import (
	"errors"
	"fmt"
	"syscall"
)

// PunchHole makes n bytes at off zeros, as far as they lie within the file, and frees the storage of whole blocks.
func (f *File) PunchHole(off, n int64) error {
	if err := checkRange(off, n); err != nil {
		return err
	}
	if err := f.begin(); err != nil {
		return err
	}
	defer f.end()
	return f.punch(off, min(off+n, f.size))
}

// ZeroRange makes n bytes at off zeros. Unless keepSize is set, the file grows to hold them.
func (f *File) ZeroRange(off, n int64, keepSize bool) error {
	if err := checkRange(off, n); err != nil {
		return err
	}
	if err := f.begin(); err != nil {
		return err
	}
	defer f.end()
	end := min(off+n, f.size)
	err := f.punch(off, end)
	if errors.Is(err, syscall.EOPNOTSUPP) {
		err = f.put(nil, off, end-off)
	}
	if err == nil && !keepSize && off+n > f.size {
		err = f.put(nil, off+n, 0)
	}
	return err
}

// punch makes the bytes off..end-1, which lie within the file, zeros.
func (f *File) punch(off, end int64) error {
	if off >= end {
		return nil
	}
	// The units first..last-1 become holes: never unit 0 or the file's last.
	l := f.layout
	first := max(l.of(off), 1)
	if off > l.start(first) {
		first++
	}
	last := min(l.of(end), l.last(f.size))
	if first >= last {
		return f.put(nil, off, end-off)
	}
	if err := f.allowHoles(); err != nil {
		return err
	}
	f.tail.drop()
	f.slots.drop(first, last-1)
	if err := f.storage.PunchHole(l.page(first)*pageSize, (l.page(last)-l.page(first))*pageSize); err != nil {
		return fmt.Errorf("punching hole: %w", err)
	}
	if start := l.start(first); off < start {
		if err := f.put(nil, off, start-off); err != nil {
			return err
		}
	}
	if start := l.start(last); start < end {
		return f.put(nil, start, end-start)
	}
	return nil
}

// Allocate reserves the storage for n bytes at off. Unless keepSize is set, the file grows to hold them.
func (f *File) Allocate(off, n int64, keepSize bool) error {
	if n <= 0 {
		return syscall.EINVAL
	}
	if err := checkRange(off, n); err != nil {
		return err
	}
	if err := f.begin(); err != nil {
		return err
	}
	defer f.end()
	first, last := blockOf(off), blockOf(off+n-1)
	if err := f.storage.Allocate(first*pageSize, (last-first+1)*pageSize, true); err != nil {
		return fmt.Errorf("allocating: %w", err)
	}
	if keepSize || off+n <= f.size {
		return nil
	}
	return f.put(nil, off+n, 0)
}
