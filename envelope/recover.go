package envelope

import (
	"errors"
	"fmt"
	"io"
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
			err = &CorruptError{Block: -2, Reason: fmt.Sprintf("header does not belong to %d bytes of content", f.size), Err: ErrAuthentication}
		}
		return err
	}
	f.size = TolerantPlainSize(now)
	if !f.header.content {
		f.size = 0
	}
	possible := CipherSize(f.size) == now && f.header.content == (f.size > 0)
	if !possible {
		f.accept(-2, fmt.Sprintf("%d bytes of ciphertext", now))
	}
	last := lastBlock(f.size)
	if last < 0 {
		f.unsettled = !possible
	} else if err := f.openLast(last, possible); err != nil {
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
	n := CipherSize(f.size) - sealedStart(last)
	sealed := page[:n]
	if got, err := f.storage.ReadAt(sealed, sealedStart(last)); int64(got) < n {
		if err == nil || errors.Is(err, io.EOF) {
			err = &CorruptError{Block: last, Reason: "cut off", Err: ErrAuthentication}
		}
		return fmt.Errorf("reading block %d: %w", last, err)
	}
	block := w.block[:blockLen(last, f.size)]
	if f.keys.open(w, block, sealed, last, true) {
		if !possible {
			f.tail.set(last, block)
			f.unsettled = true
		}
		return nil
	}
	opened, what := f.keys.recover(w, w.block[:], sealed, last, true)
	if f.isHole(sealed, last) {
		opened, what = blockSize, "hole at the end"
	}
	if what == "" {
		return nil
	}
	f.accept(last, what)
	f.size = blockStart(last) + int64(opened)
	f.tail.set(last, w.block[:opened])
	f.unsettled = true
	return nil
}

// accept notes that a block was accepted under tolerance.
func (f *File) accept(block int64, what string) {
	f.accepted.mu.Lock()
	defer f.accepted.mu.Unlock()
	f.accepted.blocks = append(f.accepted.blocks, acceptance{block, what})
	f.accepted.any.Store(true)
}

// report tells the user which blocks were accepted, and returns them. The caller doesn't hold mu.
func (f *File) report() []acceptance {
	f.accepted.mu.Lock()
	accepted := f.accepted.blocks
	f.accepted.blocks = nil
	f.accepted.any.Store(false)
	f.accepted.mu.Unlock()
	for _, a := range accepted {
		if f.options.Repaired != nil {
			f.options.Repaired(a.block, a.what)
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
		f.rewrite(a.block)
		f.accepted.mu.Lock()
		f.accepted.blocks = nil // it is known already
		f.accepted.any.Store(false)
		f.accepted.mu.Unlock()
		f.mu.Unlock()
	}
}

// rewrite seals block i anew. If that fails, the block is accepted the next time too.
func (f *File) rewrite(i int64) {
	if i < 0 || i > lastBlock(f.size) {
		return
	}
	w := getWorker()
	defer w.release()
	block, err := f.load(w, i)
	if err == nil {
		_ = f.put(block, blockStart(i), int64(len(block)))
	}
}
