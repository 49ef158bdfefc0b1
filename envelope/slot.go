package envelope

import (
	"fmt"
	"maps"
	"math/bits"
)

// slot is what is known of the pages of a chunk that is being written. A version that is durable, or that the file's user has been told to be
// written, is not overwritten before a newer one is whole and durable, or whole.
type slot struct {
	used       mask   // may hold something
	kept       mask   // may be all that a power cut leaves
	current    mask   // hold what the chunk is now
	plain      bool   // current is blocks, not a version
	generation uint64 // of the newest version
	unknown    bool   // another File may have changed all of this
}

// slots are the chunks that were written and not yet synced: of the others, storage tells.
type slots struct {
	of map[int64]slot
	// dropped counts how often slots were forgotten otherwise than because they are synced.
	dropped int
}

// mostSlots bounds how many chunks are remembered before a sync: 1 GiB.
const mostSlots = 1 << 14

// forget makes what is known of the chunks unknown, but that they were written.
func (s *slots) forget() {
	s.dropped++
	for i := range s.of {
		s.of[i] = slot{unknown: true}
	}
}

func (s *slots) clone() slots { return slots{of: maps.Clone(s.of), dropped: s.dropped} }

func (s *slots) set(i int64, is slot) {
	if s.of == nil {
		s.of = map[int64]slot{}
	}
	s.of[i] = is
}

// drop forgets the chunks from..to.
func (s *slots) drop(from, to int64) {
	s.dropped++
	maps.DeleteFunc(s.of, func(i int64, _ slot) bool { return i >= from && i <= to })
}

// place returns where among the slot's first room pages, without those in use, a version of n pages can be written: -1 if nowhere. It keeps
// to the ends, so that what is left is in one piece.
func place(n, room int, use mask) int {
	if n <= room && use&pagesMask(0, n) == 0 {
		return 0
	}
	for p := room - n; p > 0; p-- {
		if use&pagesMask(p, n) == 0 {
			return p
		}
	}
	return -1
}

// empty says whether nothing in the slot has to be kept.
func (s *slot) empty() bool { return s.kept|s.current == 0 }

// wrote notes that the pages are what the chunk is now.
func (s *slot) wrote(pages mask, plain bool) {
	if plain && s.plain {
		pages |= s.current
	}
	s.current, s.plain = pages, plain
	s.used |= pages
}

// readSlot finds out what the slot of chunk i holds, in a file of oldSize; buffer is room for a slot.
func (f *File) readSlot(w *worker, buffer []byte, i, oldSize int64) (slot, error) {
	if s, ok := f.slots.of[i]; ok && !s.unknown {
		return s, nil
	}
	first := f.layout.page(i)
	sealed := buffer[:max(min(f.layout.end(i), CipherSize(oldSize))-first*pageSize, 0)]
	if len(sealed) == 0 {
		return slot{}, nil
	}
	if n, err := f.storage.ReadAt(sealed, first*pageSize); n < len(sealed) {
		return slot{}, readFailed(first, err)
	}
	c := f.readVersions(w, sealed, first, false, true)
	s := slot{generation: c.generation}
	for p := 0; p*pageSize < len(sealed); p++ {
		page := sealed[p*pageSize : min((p+1)*pageSize, len(sealed))]
		if string(page) != string(zeros[:len(page)]) {
			s.used |= pagesMask(p, 1)
		}
	}
	// What isn't of the newest version may be what it has replaced, and not be durable.
	s.kept, s.current, s.plain = s.used, s.used, true
	if c.found {
		s.current, s.plain = c.newest.mask(), false
	}
	return s, nil
}

// written returns the chunks that were written and not yet synced. The caller holds mu for writing.
func (f *File) written() slots {
	if len(f.slots.of) == 0 {
		return slots{}
	}
	w := getWorker()
	defer w.release()
	buffer := getPages(chunkPages)
	defer putPages(buffer)
	for i, s := range f.slots.of {
		if !s.unknown {
			continue
		}
		if s, err := f.readSlot(w, buffer, i, f.size); err == nil {
			f.slots.of[i] = s
		} else {
			delete(f.slots.of, i)
		}
	}
	return f.slots.clone()
}

// free gives back the pages that hold nothing but what was replaced, after a sync that began when the slots were as in synced. The caller
// holds mu for writing.
func (f *File) free(synced slots) {
	for i, before := range synced.of {
		now, ok := f.slots.of[i]
		if !ok || now.unknown || before.unknown {
			continue
		}
		if now.kept |= before.current; f.slots.dropped == synced.dropped {
			now.kept = before.current
		}
		f.punchSlot(i, &now)
		if now.used == now.current && now.kept == now.current {
			delete(f.slots.of, i)
		} else {
			f.slots.of[i] = now
		}
	}
}

// punchSlot makes the pages of a slot that hold nothing any more zeros. If that fails, they stay: a reader knows what is newer.
func (f *File) punchSlot(i int64, s *slot) {
	first := f.layout.page(i)
	stale := s.used &^ (s.kept | s.current)
	if stale == 0 {
		return
	}
	size, err := f.storage.Size()
	if err != nil {
		return
	}
	stale &= pagesMask(0, int(max(min(size/pageSize-first, chunkPages), 0)))
	for stale != 0 {
		p := bits.TrailingZeros16(uint16(stale))
		n := bits.TrailingZeros16(^uint16(stale >> p))
		run := pagesMask(p, n)
		stale &^= run
		if f.storage.PunchHole((first+int64(p))*pageSize, int64(n)*pageSize) == nil {
			s.used &^= run
		}
	}
}

// syncSlots makes all that was written durable, and gives back what it has replaced.
func (f *File) syncSlots() error {
	written := f.written()
	if err := f.storage.Sync(); err != nil {
		return fmt.Errorf("syncing: %w", err)
	}
	f.free(written)
	return nil
}

// tidy leaves no replaced version behind, before the file is closed. It syncs only if one of them is all that is durable of a chunk.
func (f *File) tidy() error {
	for _, s := range f.written().of {
		if s.kept&^s.current != 0 {
			return f.syncSlots()
		}
	}
	for i, s := range f.slots.of {
		f.punchSlot(i, &s)
	}
	return nil
}
