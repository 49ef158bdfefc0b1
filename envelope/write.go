package envelope

import (
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"syscall"
)

// begin locks the file for a change.
func (f *File) begin() error {
	f.mu.Lock()
	var err error
	switch {
	case f.closed:
		err = os.ErrClosed
	case f.options.ReadOnly:
		err = syscall.EROFS
	default:
		err = f.settle()
	}
	if err != nil {
		f.mu.Unlock()
	}
	return err
}

// end unlocks the file after a change.
func (f *File) end() {
	f.mu.Unlock()
	if f.accepted.any.Load() {
		f.report()
	}
}

// checkRange says whether a file can have n bytes at off.
func checkRange(off, n int64) error {
	if off < 0 || n < 0 {
		return syscall.EINVAL
	}
	if off > maxSize-n {
		return syscall.EFBIG
	}
	return nil
}

// WriteAt is io.WriterAt's. If it fails, the file has its old size; each block that was to be written has its old or its new
// content. Where off is beyond the end, there are zeros between.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	if err := checkRange(off, int64(len(p))); err != nil {
		return 0, err
	}
	if err := f.begin(); err != nil {
		return 0, err
	}
	defer f.end()
	if len(p) == 0 {
		return 0, nil
	}
	if err := f.put(p, off, int64(len(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// put writes n bytes of p, or zeros if p is nil, at off, and makes the file long enough for them. With n = 0 it only makes the file
// reach to off. The caller holds mu for writing, and the file is settled.
func (f *File) put(p []byte, off, n int64) error {
	old, size := f.size, max(f.size, off+n)
	if old == 0 && f.used && f.options.Fresh != nil {
		if err := f.renew(); err != nil {
			return err
		}
	}
	// The units first..last are written; and, if the file grows, those between the one that was last and first, except for
	// holes.
	l := f.layout
	first, last, start := l.of(off), l.of(max(off+n-1, off)), int64(0)
	if n == 0 {
		first, last = l.last(size), l.last(size)
	}
	start = first
	if size > old {
		start = min(max(l.last(old), 0), first)
	}
	holes := (first-start)*l.pages > holeBlocks
	if holes {
		if err := f.allowHoles(); err != nil {
			return err
		}
	}

	s := sealings.Get().(*sealing)
	defer sealings.Put(s)
	defer s.forget()
	s.file, s.p, s.off, s.end, s.old, s.size, s.torn = f, p, off, off+n, old, size, false
	for _, i := range [...]int64{start, first, last} {
		if err := s.merge(i); err != nil {
			return err
		}
	}
	count := (last - start + 1) * l.pages
	if holes {
		count = (last - first + 2) * l.pages
	}
	if f.sealed+count > maxSealed {
		return ErrExhausted
	}
	if err := f.count(count, start == 0); err != nil {
		return err
	}
	var err error
	if holes {
		if err = s.store(start, start); err == nil {
			err = s.store(first, last)
		}
	} else {
		err = s.store(start, last)
	}
	if err == nil && last > 0 && size > old && l == chunks {
		err = f.cut(CipherSize(size))
	}
	if err != nil {
		f.withdraw(s, start)
		return err
	}
	f.size = size
	f.tail.set(last, s.plaintext(last))
	return nil
}

// withdraw makes the file what it was before the write s failed, as far as it was going to grow.
func (f *File) withdraw(s *sealing, start int64) {
	if s.size == f.size {
		f.tail.drop()
		return
	}
	if f.size > 0 {
		// A file that grows has the unit that was last written first: s has its plaintext.
		last := f.layout.last(f.size)
		f.tail.set(last, s.plaintext(last)[:f.layout.size(last, f.size)])
	}
	f.unsettled = true
	_ = f.settle() // the caller has an error already; what can't be done now is done by the next change
}

// sealing is a request to seal units and write them.
type sealing struct {
	file     *File
	p        []byte // the bytes off..end-1 of the plaintext, or nil: zeros
	off, end int64
	old      int64   // size that what is stored stands for
	size     int64   // that the file will have
	torn     bool    // the last page is about to be cut short
	merged   [3]edge // units of which only a part is written
	pages    []byte  // a run of pages, beginning with page first
	first    int64
	nonces   [requestPages * nonceSize]byte
}

// edge is the new plaintext of one unit.
type edge struct {
	index int64
	used  bool
	block []byte // zeros while it isn't used
}

// forget wipes what s has of plaintext.
func (s *sealing) forget() {
	s.file, s.p, s.pages = nil, nil, nil
	for k := range s.merged {
		if s.merged[k].used {
			s.merged[k].used = false
			clear(s.merged[k].block)
		}
	}
}

// merge finds out the new plaintext of unit i, if it isn't simply what is written or zeros.
func (s *sealing) merge(i int64) error {
	l := s.file.layout
	start, n := l.start(i), l.size(i, s.size)
	isOld := i <= l.last(s.file.size)
	touched := s.off < start+int64(n) && s.end > start
	if s.off <= start && s.end >= start+int64(n) || !isOld && !touched {
		return nil
	}
	var e *edge
	for k := range s.merged {
		if s.merged[k].used && s.merged[k].index == i {
			return nil
		}
		if !s.merged[k].used {
			e = &s.merged[k]
			break
		}
	}
	if isOld {
		w := getWorker()
		defer w.release()
		old, err := s.file.load(w, i)
		if err != nil {
			return err
		}
		e.hold(i, n)
		copy(e.block, old)
	}
	e.hold(i, n)
	if touched {
		from, to := max(s.off, start), min(s.end, start+int64(n))
		if s.p != nil {
			copy(e.block[from-start:to-start], s.p[from-s.off:])
		} else {
			clear(e.block[from-start : to-start])
		}
	}
	return nil
}

// hold makes e unit i's, of n bytes.
func (e *edge) hold(i int64, n int) {
	if cap(e.block) < n {
		e.block = make([]byte, unitRoom(n))
	}
	e.index, e.used, e.block = i, true, e.block[:n]
}

// plaintext returns what unit i will hold.
func (s *sealing) plaintext(i int64) []byte {
	start, n := s.file.layout.start(i), s.file.layout.size(i, s.size)
	for k := range s.merged {
		if s.merged[k].used && s.merged[k].index == i {
			return s.merged[k].block[:n]
		}
	}
	if s.p != nil && s.off <= start && s.end >= start+int64(n) {
		return s.p[start-s.off:][:n]
	}
	return zeros[:n]
}

// store seals and writes the units from..to.
func (s *sealing) store(from, to int64) error {
	if s.file.layout == blocks {
		return s.run(from, to)
	}
	if from == 0 {
		if err := s.run(0, 0); err != nil {
			return err
		}
		from = 1
	}
	return s.storeChunks(from, to)
}

// run seals and writes the blocks from..to: of a file of chunks, block 0 only.
func (s *sealing) run(from, to int64) error {
	buffer := getPages(int(min(to-from+1, requestPages)))
	defer putPages(buffer)
	for first := from; first <= to; {
		n := min(to-first+1, requestPages)
		s.pages, s.first = buffer[:n*pageSize], first
		if first == 0 {
			copy(s.pages, s.file.header.image)
		}
		rand.Read(s.nonces[:n*nonceSize])
		if err := share(int(n), blocks.shares(int(n)), s); err != nil {
			return err
		}
		end := sealedEnd(first + n - 1)
		if first+n-1 == lastBlock(s.size) {
			end = CipherSize(s.size)
		}
		if err := s.file.write(s.pages[:end-first*pageSize], first*pageSize); err != nil {
			return fmt.Errorf("writing block %d: %w", first, err)
		}
		if first == 0 {
			s.file.stored = int64(s.file.header.Sealed)
		}
		first += n
	}
	return nil
}

func (s *sealing) work(w *worker, from, to int) error {
	last := lastBlock(s.size)
	for k := from; k < to; k++ {
		i := s.first + int64(k)
		sealed := s.pages[sealedStart(i)-s.first*pageSize:]
		copy(sealed, s.nonces[k*nonceSize:][:nonceSize])
		s.file.keys.seal(w, sealed, s.plaintext(i), i, i == last)
	}
	return nil
}

// write writes to the storage.
func (f *File) write(p []byte, off int64) error {
	n, err := f.storage.WriteAt(p, off)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	return err
}

// count notes that n blocks are going to be sealed. It sees to it that the storage's header never says less than were: with page0 it is
// written along with them.
func (f *File) count(n int64, page0 bool) error {
	sealed := f.sealed + n
	if page0 {
		f.header.content = true
		f.updateHeader(max(sealed, f.stored))
	} else if sealed > f.stored {
		step := min(max(2*f.step, leastStep), mostStep)
		ahead := max(min(sealed+step, maxSealed), sealed)
		f.updateHeader(ahead)
		if err := f.write(f.header.image, 0); err != nil {
			return fmt.Errorf("writing header: %w", err)
		}
		f.stored, f.step = ahead, step
	}
	f.sealed, f.used = sealed, true
	return nil
}

// updateHeader brings the header's bytes up to date, to be written: with that number of sealed blocks.
func (f *File) updateHeader(sealed int64) {
	f.header.Sealed = uint32(sealed)
	f.header.update(f.header.image, f.keys.header)
}

// allowHoles sets the header's flag that the file may have holes, and syncs it.
func (f *File) allowHoles() error {
	if f.header.Sparse {
		return nil
	}
	f.header.Sparse = true
	f.updateHeader(max(f.sealed, f.stored))
	err := f.write(f.header.image, 0)
	if err == nil {
		err = f.storage.Sync()
	}
	if err != nil {
		f.header.Sparse = false // as far as anybody may rely on it
		return fmt.Errorf("writing header: %w", err)
	}
	f.stored = int64(f.header.Sealed)
	return nil
}
