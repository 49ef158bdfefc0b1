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
	switch {
	case f.closed:
		return os.ErrClosed
	case f.unsettled: // what the storage lacks is here only: the next change brings it there
		return nil
	}
	image := make([]byte, headerSize)
	if n, err := f.storage.ReadAt(image, 0); n < headerSize && err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("reading header: %w", err)
	}
	if !bytes.Equal(image, f.header.image) {
		h, err := f.volume.parseHeader(slices.Clone(image), f.storage.Overflow)
		if err != nil {
			return err
		}
		if h.FileID != f.header.FileID {
			return corruptHeader("another file's", ErrAuthentication)
		}
		if err := verifyHeader(image, f.keys.header); err != nil {
			return err
		}
		f.header = *h
		f.sealed, f.stored, f.used = int64(h.Sealed), int64(h.Sealed), true
	}
	f.tail.drop()
	return f.openEnd()
}
