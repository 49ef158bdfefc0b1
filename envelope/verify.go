package envelope

import (
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"syscall"
)

// Span is a run of plaintext, in bytes.
type Span struct {
	Offset int64 `json:"offset"`
	Length int64 `json:"length"`
}

// End is where the span ends.
func (s Span) End() int64 { return s.Offset + s.Length }

// Everything is a span that no file goes beyond.
func Everything() Span { return Span{0, math.MaxInt64} }

// Verify reads what there is of the plaintext in the span, and calls good with each piece of it that opens, holes excepted, and bad with each run
// of blocks that don't open: whole blocks, in ascending order. What either returns ends it. The other errors are the storage's.
func (f *File) Verify(in Span, good func(p []byte, off int64) error, bad func(Span) error) error {
	p, release := verifyBuffer(min(in.End(), f.Size()) - in.Offset)
	defer release()
	for off, step := in.Offset, int64(len(p)); off < in.End(); {
		data, err := f.SeekData(off)
		if errors.Is(err, syscall.ENXIO) || err == nil && data >= in.End() {
			return nil
		}
		if err != nil {
			return err
		}
		n, err := f.ReadAt(p[:min(step, in.End()-data)], data)
		if n > 0 {
			if err := good(p[:n], data); err != nil {
				return err
			}
		}
		off, step = data+int64(n), min(2*step, int64(len(p)))
		corrupt, ok := errors.AsType[*CorruptError](err)
		switch {
		case ok && corrupt.Part.Kind == PartBlock: // in a chunk, of which nothing is read then
			span, err := f.unopened(corrupt.Part.Block)
			if err != nil {
				return err
			}
			if err := bad(span); err != nil {
				return err
			}
			off, step = span.End(), min(int64(f.layout.pages*blockSize), int64(len(p))) // the next one may not open either
		case err != nil && !errors.Is(err, io.EOF):
			return err
		}
	}
	return nil
}

// largeBuffers are the buffers of Verify for large files, wiped.
var largeBuffers = sync.Pool{New: func() any { return new([1 << 20]byte) }}

// verifyBuffer returns room for plaintext of that size, or for a part of it.
func verifyBuffer(size int64) (p []byte, release func()) {
	const small = 16 * blockSize
	if size <= small {
		p = make([]byte, max(size, 1))
		return p, func() { clear(p) }
	}
	large := largeBuffers.Get().(*[1 << 20]byte)
	return large[:], func() {
		clear(large[:])
		largeBuffers.Put(large)
	}
}

// unopened returns the run of units that don't open, beginning with the one that holds that block: those in a hole of the storage need not be
// tried.
func (f *File) unopened(first int64) (Span, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	l := f.layout
	unit := l.of(blockStart(first))
	end := unit + 1
	if !f.header.Sparse {
		at, err := f.storage.SeekData(l.page(unit) * pageSize)
		if errors.Is(err, syscall.ENXIO) {
			at, err = math.MaxInt64, nil
		}
		if err != nil {
			return Span{}, fmt.Errorf("seeking data: %w", err)
		}
		end = max(end, min(l.of(blockStart(min(at/pageSize, lastBlock(f.size)))), l.last(f.size)))
	}
	start := l.start(unit)
	return Span{start, max(min(l.start(end), f.size)-start, 0)}, nil
}

// RefersToOverflow says whether the header that was read refers to an overflow attribute.
func (h *Header) RefersToOverflow() bool { return len(h.digests) > 0 }

// Listed returns how many locations the header lists.
func (h *Header) Listed() int { return len(h.Locations) + len(h.LinkDigests) }
