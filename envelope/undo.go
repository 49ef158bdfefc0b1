package envelope

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

const undoMagic = "kmsu" // ends the page that describes what follows it

// undo is what some pages held before they were replaced in place (FORMAT.md, section 9, Replacing).
type undo struct {
	size  int64  // of the plaintext then
	first int64  // the first of the pages
	pages []byte // what they held; nil if that doesn't matter, since none has been replaced
}

// marshal returns the plaintext of the page before u's.
func (u *undo) marshal() []byte {
	b := make([]byte, pagePlain)
	binary.BigEndian.PutUint64(b, uint64(u.size))
	binary.BigEndian.PutUint64(b[8:], uint64(u.first))
	binary.BigEndian.PutUint64(b[16:], uint64(len(u.pages)))
	sum := sha256.Sum256(u.pages)
	copy(b[24:], sum[:])
	return b
}

// overlay puts what u has of the ciphertext that begins at off into sealed.
func (u *undo) overlay(sealed []byte, off int64) {
	if u == nil || len(u.pages) == 0 {
		return
	}
	start := u.first * pageSize
	if end := start + int64(len(u.pages)); start < off+int64(len(sealed)) && off < end {
		copy(sealed[max(start-off, 0):], u.pages[max(off-start, 0):])
	}
}

// prepare stores behind everything else what the pages from first to the offset end hold.
func (f *File) prepare(w *worker, size, first, end int64, durable bool) error {
	now, err := f.storage.Size()
	if err != nil {
		return fmt.Errorf("asking for size: %w", err)
	}
	at := max((now+pageSize-1)/pageSize*pageSize, (end+pageSize-1)/pageSize*pageSize)
	u := &undo{size: size, first: first, pages: make([]byte, max(min(end, now)-first*pageSize, 0))}
	if n, err := f.storage.ReadAt(u.pages, first*pageSize); n < len(u.pages) {
		return readFailed(first, err)
	}
	page := make([]byte, pageSize, pageSize+len(u.pages))
	f.keys.sealPage(w, page, u.marshal(), at/pageSize, false, kindUndo, undoMagic)
	f.undo = &undo{size: size}
	if err := f.write(append(page, u.pages...), at); err != nil {
		return fmt.Errorf("writing block %d: %w", at/pageSize, err)
	}
	if durable {
		if err := f.storage.Sync(); err != nil {
			return fmt.Errorf("syncing: %w", err)
		}
	}
	f.undo = u
	return nil
}

// undoNow makes the storage what it was before a replacement that has not ended.
func (f *File) undoNow() error {
	u := f.undo
	if u == nil {
		return nil
	}
	if len(u.pages) > 0 {
		if err := f.write(u.pages, u.first*pageSize); err != nil {
			return fmt.Errorf("writing block %d: %w", u.first, err)
		}
		if err := f.storage.Sync(); err != nil {
			return fmt.Errorf("syncing: %w", err)
		}
		f.slots.drop(f.layout.of(blockStart(u.first)), f.layout.last(u.size))
	}
	if err := f.cut(CipherSize(u.size)); err != nil {
		return err
	}
	f.undo = nil
	return nil
}

// findUndo looks for what a replacement that has not ended has left behind the content, which ends at now.
func (f *File) findUndo(now int64) error {
	w := getWorker()
	defer w.release()
	// A replacement is of one request's pages at most.
	from := max((now+pageSize-1)/pageSize-requestPages-1, 1)
	tail := make([]byte, max(now-from*pageSize, 0))
	if n, err := f.storage.ReadAt(tail, from*pageSize); n < len(tail) {
		return readFailed(from, err)
	}
	for p := int64(0); (p+1)*pageSize <= int64(len(tail)); p++ {
		page := tail[p*pageSize:][:pageSize]
		if string(page[pageSize-len(undoMagic):]) != undoMagic {
			continue
		}
		plain := w.forChunks().pages[0][:]
		if !f.keys.openPage(w, plain, page, from+p, false, kindUndo) {
			continue
		}
		f.undo = parseUndo(plain, tail[(p+1)*pageSize:])
		return nil
	}
	return nil
}

// parseUndo reads the page that describes the pages that follow it. If those are not all there, nothing has been replaced yet.
func parseUndo(plain, pages []byte) *undo {
	u := &undo{size: int64(binary.BigEndian.Uint64(plain)), first: int64(binary.BigEndian.Uint64(plain[8:]))}
	n := binary.BigEndian.Uint64(plain[16:])
	if n > uint64(len(pages)) {
		return u
	}
	if sum := sha256.Sum256(pages[:n]); string(sum[:]) == string(plain[24:][:sha256.Size]) {
		u.pages = pages[:n:n]
	}
	return u
}
