package envelope

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// Reload takes what another File has made of the same storage meanwhile for the file's own state. The two must take turns, and each
// reload when its turn begins. An error that wraps ErrAuthentication may only mean that the file has another data key by now: it is to be
// opened anew, and this File still has its old state.
func (f *File) Reload() error {
	f.mu.Lock()
	err := f.reload()
	f.mu.Unlock()
	if f.accepted.any.Load() {
		f.report()
	}
	return err
}

// reload is Reload. The caller holds mu for writing.
func (f *File) reload() error {
	if f.closed {
		return os.ErrClosed
	}
	if f.undo != nil { // what the storage lacks is here only: the next change brings it there
		return nil
	}
	image := make([]byte, headerSize)
	if n, err := f.storage.ReadAt(image, 0); n < headerSize && err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("reading header: %w", err)
	}
	if !bytes.Equal(image, f.header.image) {
		if err := f.adopt(image); err != nil && !f.unsettled {
			return err
		}
	}
	if f.unsettled && !f.endsWell() {
		return nil // what the storage lacks is here only: the next change brings it there
	}
	f.unsettled = false
	f.tail.drop()
	f.slots.forget()
	return f.openEnd()
}

// adopt takes a header that the storage has for the file's own. If it is another data key's, what was to be brought to the storage went
// with the old one. The caller holds mu for writing.
func (f *File) adopt(image []byte) error {
	h, err := f.volume.parseHeader(slices.Clone(image), f.storage.Overflow)
	if err != nil {
		return err
	}
	if h.FileID != f.header.FileID {
		return corruptHeader("another file's", ErrAuthentication)
	}
	if h.Compression != f.header.Compression {
		return corruptHeader("another compression", ErrAuthentication)
	}
	if err := verifyHeader(image, f.keys.header); err != nil {
		f.unsettled = f.unsettled && bytes.Equal(h.WrappedKey, f.header.WrappedKey)
		return err
	}
	f.header = *h
	f.sealed, f.stored, f.used = max(f.sealed, int64(h.Sealed)), int64(h.Sealed), true
	return nil
}

// endsWell says whether the storage ends as a file does: after a change that failed, only if it changed nothing, or somebody else has
// mended the end. The caller holds mu for writing.
func (f *File) endsWell() bool {
	now, err := f.storage.Size()
	if err != nil {
		return false
	}
	size, err := PlainSize(now)
	if err != nil || f.header.content != (size > 0) {
		return false
	}
	last := f.layout.last(size)
	if last < 0 {
		return true
	}
	w := getWorker()
	defer w.release()
	buffer := getPages(chunkPages)
	defer putPages(buffer)
	first := f.layout.page(last)
	sealed := buffer[:now-sealedStart(first)]
	if n, err := f.storage.ReadAt(sealed, sealedStart(first)); n < len(sealed) || err != nil && !errors.Is(err, io.EOF) {
		return false
	}
	if last > 0 && f.layout == chunks {
		if c := f.readVersions(w, sealed, first, true, false); c.found {
			return c.newest.length == f.layout.size(last, size)
		}
	}
	block := lastBlock(size)
	return f.keys.open(w, w.block[:blockLen(block, size)], sealed[(block-first)*pageSize:], block, true)
}
