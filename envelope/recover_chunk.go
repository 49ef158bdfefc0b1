package envelope

import "fmt"

// openChunkedEnd is openLast for a file of chunks, whose storage ends at now: what can't be the end of the content, or of what prepares a
// replacement, is not there.
func (f *File) openChunkedEnd(now int64) error {
	if err := f.findUndo(now); err != nil {
		return err
	}
	if f.undo != nil {
		f.accept(Part{Kind: PartSize}, fmt.Sprintf("%d bytes of ciphertext, with those of a replacement that did not end", now))
		f.size = f.undo.size
		now = CipherSize(f.size)
	}
	w := getWorker()
	defer w.release()
	slot := getPages(chunkPages)
	defer putPages(slot)
	end := now
	for last, i := f.layout.last(f.size), f.layout.last(f.size); i >= 0 && i >= last-mostChunks-1; i-- {
		end = min(end, f.layout.end(i))
		found, err := f.openEndIn(w, slot[:end-sealedStart(f.layout.page(i))], i)
		if err != nil {
			return err
		}
		if !found {
			continue
		}
		if CipherSize(f.size) != now {
			f.accept(Part{Kind: PartSize}, fmt.Sprintf("%d bytes of ciphertext", now))
			f.unsettled = true
		}
		return nil
	}
	return nil // reading is an error
}

// openEndIn says whether the content ends in unit i, of which the storage has as much as sealed has room for, and if so takes its size from what
// opens, and keeps the unit unless all is as it should be.
func (f *File) openEndIn(w *worker, sealed []byte, i int64) (bool, error) {
	first := f.layout.page(i)
	if n, err := f.storage.ReadAt(sealed, sealedStart(first)); n < len(sealed) {
		return false, readFailed(first, err)
	}
	f.undo.overlay(sealed, sealedStart(first))
	var c contents
	if i > 0 {
		if c = f.readVersions(w, sealed, first, true, true); c.found {
			return true, f.endWithVersion(w, &c.newest, i)
		}
		c.clearPages(sealed)
	}
	for b := first + int64(len(sealed)-1)/pageSize; b >= first; b-- {
		at := (b - first) * pageSize
		page := sealed[at:min(at+pageSize, int64(len(sealed)))]
		if f.isHole(page, b) && c.opened == 0 {
			continue // nobody has begun to write here
		}
		if n, what := f.lengthOf(w, page, b); n > 0 {
			return true, f.endWithBlock(w, sealed, i, b, n, what)
		}
	}
	return false, nil
}

// endWithVersion makes v, of chunk i, the file's last. It is kept, as its last flag or the storage's end may have to be changed.
func (f *File) endWithVersion(w *worker, v *version, i int64) error {
	plaintext := w.codec.chunk[:v.length]
	if !w.codec.unpack(plaintext, v) {
		return &CorruptError{Part: BlockPart(f.layout.page(i)), Reason: "does not decompress", Err: ErrFormat}
	}
	if v.flipped {
		f.accept(BlockPart(f.layout.page(i)), "last flag")
		f.unsettled = true
	}
	f.size = f.layout.start(i) + int64(v.length)
	f.tail.set(i, plaintext)
	return nil
}

// endWithBlock makes block b of unit i the file's last. w.block holds its n bytes.
func (f *File) endWithBlock(w *worker, sealed []byte, i, b int64, n int, what string) error {
	first := f.layout.page(i)
	f.size = blockStart(b) + int64(n)
	if what != "" {
		f.accept(BlockPart(b), what)
		f.unsettled = true
	}
	plaintext := w.forChunks().chunk[:f.layout.size(i, f.size)]
	copy(plaintext[blockStart(b)-blockStart(first):], w.block[:n])
	for k := first; k < b; k++ {
		if err := f.openBlock(w, plaintext[blockStart(k)-blockStart(first):][:blockSize], sealed[(k-first)*pageSize:][:pageSize], k); err != nil {
			return err
		}
	}
	f.tail.set(i, plaintext)
	return nil
}
