package envelope

import (
	"fmt"
)

// openEnd finds out the size of a file that is being opened. With tolerance it also looks at the last block, accepts it if it is one
// step behind or ahead, and repairs it.
func (f *File) openEnd() error {
	now, err := f.storage.Size()
	if err != nil {
		return fmt.Errorf("asking for size: %w", err)
	}
	if !f.options.Tolerant {
		f.size, err = PlainSize(now)
		if err == nil && f.header.content != (f.size > 0) {
			err = &CorruptError{Part: Part{Kind: PartSize}, Reason: fmt.Sprintf("header does not belong to %d bytes of content", f.size), Err: ErrAuthentication}
		}
		return err
	}
	f.size = TolerantPlainSize(now)
	if !f.header.content {
		f.size = 0
	}
	possible := CipherSize(f.size) == now && f.header.content == (f.size > 0)
	if !possible {
		f.accept(Part{Kind: PartSize}, fmt.Sprintf("%d bytes of ciphertext", now))
	}
	switch last := lastBlock(f.size); {
	case last < 0:
		f.unsettled = !possible
	case f.layout == chunks:
		err = f.openChunkedEnd(now)
	default:
		err = f.openLast(last, possible)
	}
	if err != nil {
		return err
	}
	if !f.options.ReadOnly {
		_ = f.settle() // tail has the block: what can't be repaired now is with the next change, and the file can be read
	}
	return nil
}

// openLast opens the last block and takes its length from what opens. One that doesn't open at all stays: reading it is an
// error.
func (f *File) openLast(last int64, possible bool) error {
	w := getWorker()
	defer w.release()
	page := getPages(1)
	defer putPages(page)
	sealed := page[:CipherSize(f.size)-sealedStart(last)]
	if got, err := f.storage.ReadAt(sealed, sealedStart(last)); got < len(sealed) {
		return readFailed(last, err)
	}
	n, what := f.lengthOf(w, sealed, last)
	if n == 0 || what == "" && possible {
		return nil
	}
	if what != "" {
		f.accept(BlockPart(last), what)
	}
	f.size = blockStart(last) + int64(n)
	f.tail.set(last, w.block[:n])
	f.unsettled = true
	return nil
}

// lengthOf opens block i as the last into w.block, and returns its length, 0 if it doesn't open at all, and what had to be accepted for it.
func (f *File) lengthOf(w *worker, sealed []byte, i int64) (n int, what string) {
	n = len(sealed) - blockOverhead
	if n > 0 && f.keys.open(w, w.block[:n], sealed, i, true) {
		return n, ""
	}
	n, what = f.keys.recover(w, w.block[:], sealed, i, true)
	if f.isHole(sealed, i) {
		n, what = blockSize, "hole at the end"
	}
	return n, what
}

// accept notes that a part was accepted under tolerance.
func (f *File) accept(part Part, what string) {
	f.accepted.mu.Lock()
	defer f.accepted.mu.Unlock()
	f.accepted.parts = append(f.accepted.parts, acceptance{part, what})
	f.accepted.any.Store(true)
}

// report tells the user which parts were accepted, and returns them. The caller doesn't hold mu.
func (f *File) report() []acceptance {
	f.accepted.mu.Lock()
	accepted := f.accepted.parts
	f.accepted.parts = nil
	f.accepted.any.Store(false)
	f.accepted.mu.Unlock()
	for _, a := range accepted {
		if f.options.Repaired != nil {
			f.options.Repaired(a.part, a.what)
		}
	}
	return accepted
}

// repair writes blocks that were accepted when they were read anew, so that the next reader needs no tolerance.
func (f *File) repair(accepted []acceptance) {
	if f.options.ReadOnly {
		return
	}
	for _, a := range accepted {
		if f.begin() != nil {
			return
		}
		if a.part.Kind == PartBlock {
			f.rewrite(a.part.Block)
		}
		f.accepted.mu.Lock()
		f.accepted.parts = nil // it is known already
		f.accepted.any.Store(false)
		f.accepted.mu.Unlock()
		f.mu.Unlock()
	}
}

// rewrite seals the unit that holds block i anew. If that fails, the block is accepted the next time too.
func (f *File) rewrite(i int64) {
	if i > lastBlock(f.size) {
		return
	}
	w := getWorker()
	defer w.release()
	i = f.layout.of(blockStart(i))
	block, err := f.load(w, i)
	if err == nil {
		_ = f.put(block, f.layout.start(i), int64(len(block)))
	}
}
