package envelope

import (
	"crypto/rand"
	"fmt"
	"math"
)

// Truncate changes the plaintext's size. If it fails, the file has its old or its new size.
func (f *File) Truncate(size int64) error {
	if err := checkRange(size, 0); err != nil {
		return err
	}
	if err := f.begin(); err != nil {
		return err
	}
	defer f.end()
	switch {
	case size > f.size:
		return f.put(nil, size, 0)
	case size == f.size:
		return nil
	case size == 0:
		return f.empty()
	}
	return f.shrink(size)
}

// shrink makes the file shorter, but not empty.
func (f *File) shrink(size int64) error {
	if f.sealed >= maxSealed {
		return ErrExhausted
	}
	w := getWorker()
	defer w.release()
	last, old := f.layout.last(size), f.size
	block, err := f.load(w, last)
	if err != nil {
		return err
	}
	f.tail.set(last, block[:f.layout.size(last, size)])
	f.size, f.unsettled = size, true
	if err = f.settle(); err == nil {
		return nil
	}
	// If nothing has changed yet, the file is as it was; else the next change goes on from here.
	if now, sizeErr := f.storage.Size(); sizeErr == nil && now == CipherSize(old) {
		f.size, f.unsettled = old, false
		f.tail.drop()
		check := getWorker()
		defer check.release()
		_, loadErr := f.load(check, last)
		if loadErr == nil {
			_, loadErr = f.load(check, f.layout.last(old))
		}
		if loadErr != nil {
			f.tail.set(last, block[:f.layout.size(last, size)])
			f.size, f.unsettled = size, true
		}
	}
	return err
}

// settle makes the end of the storage what size and tail say, in the steps of FORMAT.md, section 9.
func (f *File) settle() error {
	if err := f.undoNow(); err != nil || !f.unsettled {
		return err
	}
	if f.size == 0 {
		if err := f.cut(headerSize); err != nil {
			return err
		}
		f.header.content = false
		f.updateHeader(max(f.sealed, f.stored))
		if err := f.write(f.header.image, 0); err != nil {
			return fmt.Errorf("writing header: %w", err)
		}
		f.stored, f.unsettled = int64(f.header.Sealed), false
		return nil
	}
	last := f.layout.last(f.size)
	f.slots.drop(last+1, math.MaxInt64)
	if f.layout == chunks && last > 0 {
		return f.settleChunk(last)
	}
	now, err := f.cutTo(sealedEnd(last))
	if err != nil {
		return err
	}
	if err := f.count(1, false); err != nil {
		return err
	}
	w := getWorker()
	defer w.release()
	n := f.tail.read(w.block[:], last, 0)
	page := getPages(1)
	defer putPages(page)
	sealed := page[:sealedEnd(last)-sealedStart(last)]
	clear(sealed)
	rand.Read(sealed[:nonceSize])
	f.keys.seal(w, sealed, w.block[:n], last, true)
	n += blockOverhead
	size := CipherSize(f.size)
	torn := now > size
	if torn {
		markTorn(sealed, n)
	} else {
		sealed = sealed[:n]
	}
	if err := f.write(sealed, sealedStart(last)); err != nil {
		return fmt.Errorf("writing block %d: %w", last, err)
	}
	if torn {
		if err := f.storage.Sync(); err != nil {
			return fmt.Errorf("syncing: %w", err)
		}
		if err := f.cut(size); err != nil {
			return err
		}
	}
	f.unsettled = false
	return nil
}

// settleChunk is settle for a file that ends with chunk i.
func (f *File) settleChunk(i int64) error {
	now, err := f.storage.Size()
	if err != nil {
		return fmt.Errorf("asking for size: %w", err)
	}
	w := getWorker()
	defer w.release()
	buffer := getPages(chunkPages)
	defer putPages(buffer)
	slot, err := f.readSlot(w, buffer, i, TolerantPlainSize(now))
	if err != nil {
		return err
	}
	switch {
	case slot.used == 0: // a hole: it must not become the end before there is something in it
	case slot.plain: // blocks tell where the file ends, versions don't
		now, err = f.cutTo(sealedEnd(lastBlock(f.size)))
	default:
		now, err = f.cutTo(f.layout.end(i))
	}
	if size := CipherSize(f.size); err == nil && now < size { // a version says more than there is of the slot
		now, err = size, f.cut(size)
	}
	if err != nil {
		return err
	}

	s := sealings.Get().(*sealing)
	defer sealings.Put(s)
	defer s.forget()
	s.file, s.p, s.off, s.end, s.size, s.torn = f, nil, f.layout.start(i), f.size, f.size, true
	s.old = TolerantPlainSize(now)
	s.merged[0].hold(i, f.layout.size(i, f.size))
	f.tail.read(s.merged[0].block, i, 0)
	if err := f.count(chunkPages, false); err != nil {
		return err
	}
	if err := s.store(i, i); err != nil {
		return err
	}
	if err := f.syncSlots(); err != nil {
		return err
	}
	if err := f.cut(CipherSize(f.size)); err != nil {
		return err
	}
	f.slots.drop(i, i)
	f.unsettled = false
	return nil
}

// cutTo makes the storage no longer than size, and returns its size then.
func (f *File) cutTo(size int64) (int64, error) {
	now, err := f.storage.Size()
	if err != nil {
		return 0, fmt.Errorf("asking for size: %w", err)
	}
	if now <= size {
		return now, nil
	}
	return size, f.cut(size)
}

// cut changes the storage's size.
func (f *File) cut(size int64) error {
	if err := f.storage.Truncate(size); err != nil {
		return fmt.Errorf("cutting: %w", err)
	}
	return nil
}

// empty makes the file empty and gives it a fresh data key.
func (f *File) empty() error {
	var next Header
	var keys fileKeys
	if f.options.Fresh != nil {
		var err error
		if next, keys, err = f.fresh(); err != nil {
			return err
		}
	}
	if err := f.cut(headerSize); err != nil {
		return err
	}
	f.size, f.unsettled = 0, true
	f.tail.drop()
	f.slots.drop(0, math.MaxInt64)
	if f.options.Fresh == nil {
		return f.settle()
	}
	return f.rekey(next, keys)
}

// renew gives the file, which is empty, a fresh data key.
func (f *File) renew() error {
	next, keys, err := f.fresh()
	if err != nil {
		return err
	}
	return f.rekey(next, keys)
}

// fresh asks for a new data key and its header.
func (f *File) fresh() (Header, fileKeys, error) {
	next, dataKey, err := f.options.Fresh(f.header.clone())
	if err != nil {
		return Header{}, fileKeys{}, err
	}
	next = next.clone()
	next.FileID, next.Compression = f.header.FileID, f.header.Compression
	next.Sparse, next.content, next.Sealed = false, false, 0
	keys, err := newFileKeys(dataKey, next.FileID)
	return next, keys, err
}

// rekey writes the header of a data key that has not been used yet. The file is empty.
func (f *File) rekey(next Header, keys fileKeys) error {
	if err := f.replaceHeader(next, keys); err != nil {
		return err
	}
	f.sealed, f.stored, f.step, f.used, f.unsettled = 0, 0, 0, false, false
	return nil
}
