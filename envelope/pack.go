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
	// inPlace says that the slots may be overwritten.
	inPlace bool
}

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
		p.s, p.first, p.n, p.inPlace = s, first, int(min(to-first+1, mostChunks)), false
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
	if p.inPlace || last && (slot.plain || slot.empty()) {
		worth = pages / 2 // so that there is room for what comes next
	}
	if p.inPlace || slot.place(1, whole) >= 0 {
		c := w.forChunks()
		c.pack(plaintext)
		n, at := pagesFor(len(c.frame)), 0
		if !p.inPlace {
			at = slot.place(n, whole)
		}
		if n <= worth && at >= 0 {
			generation := max(slot.generation+1, uint64(s.file.sealed))
			v := version{generation: generation, length: len(plaintext), frame: len(c.frame), pages: n, first: at}
			s.file.keys.sealVersion(w, p.slot(k), v, l.page(i), last)
			slot.generation = generation
			return pageWrite{at, n, false}
		}
	}
	if p.inPlace || slot.plain || slot.empty() {
		return p.sealBlocks(w, k, plaintext, last)
	}
	return pageWrite{}
}

// sealBlocks seals those blocks of the k-th chunk that change.
func (p *packing) sealBlocks(w *worker, k int, plaintext []byte, last bool) pageWrite {
	s, i := p.s, p.first+int64(k)
	start, n := s.file.layout.start(i), len(plaintext)
	from, to := 0, n
	if p.slots[k].plain && !p.inPlace && !s.torn {
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

// makeRoom sees to the chunks for which there is no room beside what must be kept. First what was replaced before is made superfluous,
// by a sync; if that isn't enough, they are replaced in place.
func (p *packing) makeRoom(w *worker) error {
	f := p.s.file
	full, stale := 0, mask(0)
	for k := range p.n {
		if p.writes[k].n == 0 {
			full++
			stale |= p.slots[k].kept &^ p.slots[k].current
			f.slots.set(p.first+int64(k), p.slots[k])
		}
	}
	if stale != 0 {
		if err := f.syncSlots(); err != nil {
			return err
		}
		full = 0
		for k := range p.n {
			if p.writes[k].n > 0 {
				continue
			}
			if err := p.readSlot(w, k); err != nil {
				return err
			}
			if p.writes[k] = p.seal(w, k); p.writes[k].n == 0 {
				full++
			}
		}
	}
	if full == 0 {
		return nil
	}
	return p.replace(w)
}

// replace writes the chunks for which there is no room in place.
func (p *packing) replace(w *worker) error {
	s, f := p.s, p.s.file
	from, to := -1, -1
	for k := range p.n {
		if p.writes[k].n == 0 {
			if from < 0 {
				from = k
			}
			to = k
		}
	}
	a, b := p.first+int64(from), p.first+int64(to)
	if err := f.prepare(w, s.old, f.layout.page(a), f.layout.end(b)); err != nil {
		return err
	}
	p.inPlace = true
	for k := from; k <= to; k++ {
		if p.writes[k].n > 0 {
			continue
		}
		p.writes[k] = p.seal(w, k)
		if err := p.write(k); err != nil {
			return err
		}
		p.writes[k] = pageWrite{}
	}
	if err := f.storage.Sync(); err != nil {
		return fmt.Errorf("syncing: %w", err)
	}
	if err := f.cut(max(CipherSize(min(s.size, f.layout.start(b+1))), CipherSize(min(s.old, s.size)))); err != nil {
		return err
	}
	f.undo = nil
	f.slots.dropped++ // a sync that has begun before doesn't know of it
	f.free(f.slots.clone())
	return nil
}
