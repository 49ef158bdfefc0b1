package envelope

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"sync"
)

// mostChunks is how many chunks are written at once.
const mostChunks = requestPages / chunkPages

// packing is a request to seal adjacent chunks and write them.
type packing struct {
	s      *sealing
	first  int64 // the first chunk
	n      int
	slots  [mostChunks]slot
	writes [mostChunks]pageWrite
	buffer []byte // of chunkPages for each
	over   over
}

// over says what may be overwritten.
type over int

const (
	overNothing over = iota
	overCurrent      // what the chunk is now, unless that is durable
	overAll
)

// pageWrite is adjacent pages of a slot that are to be written: none if there is no room.
type pageWrite struct {
	first, n int
	plain    bool
}

func (p *pageWrite) mask() mask { return pagesMask(p.first, p.n) }

var packings = sync.Pool{New: func() any { return new(packing) }}

// storeChunks seals and writes the chunks from..to.
func (s *sealing) storeChunks(from, to int64) error {
	f := s.file
	if len(f.slots.of) > mostSlots {
		if err := f.syncSlots(); err != nil {
			return err
		}
	}
	p := packings.Get().(*packing)
	defer packings.Put(p)
	p.buffer = getPages(mostChunks * chunkPages)
	defer putPages(p.buffer)
	for first := from; first <= to; first += mostChunks {
		p.s, p.first, p.n, p.over = s, first, int(min(to-first+1, mostChunks)), overNothing
		err := p.store()
		p.s = nil
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *packing) store() error {
	w := getWorker()
	defer w.release()
	for k := range p.n {
		if err := p.readSlot(w, k); err != nil {
			return err
		}
	}
	if err := share(p.n, p.n, p); err != nil {
		return err
	}
	if err := p.makeRoom(w); err != nil {
		return err
	}
	for k := range p.n {
		if p.writes[k].n > 0 {
			if err := p.write(k); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *packing) readSlot(w *worker, k int) (err error) {
	p.slots[k], err = p.s.file.readSlot(w, p.slot(k), p.first+int64(k), p.s.old)
	return err
}

// slot is the buffer's part for the k-th chunk.
func (p *packing) slot(k int) []byte { return p.buffer[k*chunkPages*pageSize:][:chunkPages*pageSize] }

func (p *packing) work(w *worker, from, to int) error {
	for k := from; k < to; k++ {
		p.writes[k] = p.seal(w, k)
	}
	return nil
}

// seal seals the k-th chunk into the buffer: compressed if it has room and is worth it, else as blocks.
func (p *packing) seal(w *worker, k int) pageWrite {
	s, slot, i := p.s, &p.slots[k], p.first+int64(k)
	l := s.file.layout
	plaintext, last := s.plaintext(i), i == l.last(s.size)
	pages := (len(plaintext) + blockSize - 1) / blockSize
	whole := len(plaintext) / blockSize // pages that end before the file does
	worth := pages - 1
	if p.over == overAll || last && (slot.plain || slot.empty()) {
		worth = max((pages-1)/2, min(pages-1, 1)) // so that there is room for what comes next
	}
	use := [...]mask{slot.kept | slot.current, slot.kept, 0}[p.over]
	if worth > 0 && (!slot.plain || use != pagesMask(0, pages)) {
		c := w.forChunks()
		c.pack(plaintext)
		n := pagesFor(len(c.frame))
		at := place(n, whole, use)
		if n == 1 && at < 0 {
			at = 0 // one page is replaced at once: there is what was before, or the version
		}
		if n <= worth && at >= 0 {
			generation := max(slot.generation+1, uint64(s.file.sealed))
			v := version{generation: generation, length: len(plaintext), frame: len(c.frame), pages: n, first: at}
			s.file.keys.sealVersion(w, p.slot(k), v, l.page(i), last)
			slot.generation = generation
			return pageWrite{at, n, false}
		}
	}
	if slot.plain || use == 0 {
		return p.sealBlocks(w, k, plaintext, last)
	}
	return pageWrite{}
}

// sealBlocks seals those blocks of the k-th chunk that change.
func (p *packing) sealBlocks(w *worker, k int, plaintext []byte, last bool) pageWrite {
	s, i := p.s, p.first+int64(k)
	start, n := s.file.layout.start(i), len(plaintext)
	from, to := 0, n
	if p.slots[k].plain && p.over != overAll && !s.torn {
		from = int(min(max(s.off-start, 0), int64(n-1)))
		if s.size > s.old { // what was last isn't any more, or is longer
			from = int(max(min(int64(from), s.old-1-start), 0))
		} else {
			to = int(min(s.end-start, int64(n)))
		}
	}
	first, end := from/blockSize, (to+blockSize-1)/blockSize
	for b := first; b < end; b++ {
		block := plaintext[b*blockSize : min((b+1)*blockSize, n)]
		page := p.slot(k)[b*pageSize:][:pageSize]
		clear(page[len(block)+blockOverhead:])
		rand.Read(page[:nonceSize])
		isLast := last && (b+1)*blockSize >= n
		s.file.keys.seal(w, page, block, s.file.layout.page(i)+int64(b), isLast)
		if isLast {
			markTorn(page, len(block)+blockOverhead)
		}
	}
	return pageWrite{first, end - first, true}
}

// markTorn notes at the end of a page that is about to be cut short how long it will be.
func markTorn(page []byte, sealed int) {
	if sealed+tornLength <= len(page) {
		binary.BigEndian.PutUint16(page[len(page)-tornLength:], uint16(sealed))
	}
}

// write writes what was sealed of the k-th chunk.
func (p *packing) write(k int) error {
	s, do, i := p.s, &p.writes[k], p.first+int64(k)
	off := (s.file.layout.page(i) + int64(do.first)) * pageSize
	n := int64(do.n) * pageSize
	if do.plain && !s.torn {
		n = min(n, CipherSize(s.size)-off)
	}
	if err := s.file.write(p.slot(k)[do.first*pageSize:][:n], off); err != nil {
		if !do.plain && p.slots[k].empty() && off < CipherSize(s.old) {
			// Part of a version is no hole: it goes before anything else is done.
			s.file.undo = &undo{size: s.old, first: off / pageSize, pages: make([]byte, n)}
		}
		return fmt.Errorf("writing block %d: %w", off/pageSize, err)
	}
	p.slots[k].wrote(do.mask(), do.plain)
	s.file.slots.set(i, p.slots[k])
	return nil
}

// makeRoom sees to the chunks for which there is no room beside what is kept. Those that are not durable as they are can be overwritten, if they can be
// restored should this end in the middle. For others, what they have replaced is made superfluous, by a sync; if that isn't enough, they are overwritten too.
func (p *packing) makeRoom(w *worker) error {
	full := p.full()
	if len(full) == 0 {
		return nil
	}
	for _, k := range full {
		p.over = overCurrent
		if p.seal(w, k).n == 0 {
			p.over = overAll
			break
		}
	}
	if p.over == overCurrent {
		return p.replace(w, full)
	}
	if err := p.s.file.syncSlots(); err != nil {
		return err
	}
	for k := range p.n {
		p.slots[k].kept |= p.slots[k].current // which is durable now
	}
	p.over = overNothing
	for _, k := range full {
		if err := p.readSlot(w, k); err != nil {
			return err
		}
		p.writes[k] = p.seal(w, k)
	}
	if full = p.full(); len(full) == 0 {
		return nil
	}
	p.over = overAll
	return p.replace(w, full)
}

// full returns the chunks for which there is no room.
func (p *packing) full() (full []int) {
	for k := range p.n {
		if p.writes[k].n == 0 {
			full = append(full, k)
		}
	}
	return full
}

// replace overwrites those chunks. If what is overwritten may be durable, everything is, step by step.
func (p *packing) replace(w *worker, full []int) error {
	s, f := p.s, p.s.file
	durable := p.over == overAll
	a, b := p.first+int64(full[0]), p.first+int64(full[len(full)-1])
	if err := f.prepare(w, s.old, f.layout.page(a), f.layout.end(b), durable); err != nil {
		return err
	}
	for _, k := range full {
		p.writes[k] = p.seal(w, k)
		if err := p.write(k); err != nil {
			return err
		}
		p.writes[k] = pageWrite{}
	}
	if durable {
		if err := f.storage.Sync(); err != nil {
			return fmt.Errorf("syncing: %w", err)
		}
	}
	if err := f.cut(max(CipherSize(min(s.size, f.layout.start(b+1))), CipherSize(min(s.old, s.size)))); err != nil {
		return err
	}
	f.undo = nil
	if durable {
		f.slots.dropped++ // a sync that has begun before doesn't know of it
		f.free(f.slots.clone())
	}
	return nil
}
