package envelope

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
)

// ChangeHeader replaces the header by what edit makes of it: other locations or owners, or the wrapped form of the same data key with
// what that is bound to. File ID and the fields on the content stay. If edit returns an error, so does ChangeHeader, and nothing is
// changed; edit must not use the File. At every point of a crash the storage has the old header or the new, or one that says everything
// that either says.
func (f *File) ChangeHeader(edit func(h *Header) error) error {
	if err := f.begin(); err != nil {
		return err
	}
	defer f.end()
	next := f.header.clone()
	if err := edit(&next); err != nil {
		return err
	}
	next = next.clone()
	next.FileID, next.Compression = f.header.FileID, f.header.Compression
	next.Sparse, next.content, next.Sealed = f.header.Sparse, f.header.content, f.header.Sealed
	if err := f.replaceHeader(next, f.keys); err != nil {
		return err
	}
	f.stored = int64(f.header.Sealed)
	return nil
}

// replaceHeader writes next, whose MAC is under keys, and its overflow, as FORMAT.md, section 5, says. If it fails, the
// file has the old header or the new.
func (f *File) replaceHeader(next Header, keys fileKeys) error {
	more, err := f.volume.arrange(&next)
	if err != nil {
		return err
	}
	value, err := f.volume.sealOverflow(more, next.FileID)
	if err != nil {
		return err
	}
	// First the overflow gets all that either header needs ...
	old := f.header.overflowValue
	both, bothValue := more, value
	switch {
	case old != nil && value != nil:
		needed := f.header.overflow // without a path that a replacement which did not end has left there: two is all that fit
		needed.paths = slices.DeleteFunc(slices.Clone(needed.paths), func(p string) bool { return p != f.header.Path })
		both = more.union(needed)
		if bothValue, err = f.volume.sealOverflow(both, next.FileID); err != nil {
			return err
		}
	case old != nil:
		both, bothValue = f.header.overflow, old
	}
	if !bytes.Equal(old, bothValue) {
		if old != nil {
			if err := f.writeHeader(&f.header, f.keys, old, bothValue); err != nil {
				return err
			}
		}
		if err := f.setOverflow(bothValue); err != nil {
			return err
		}
		if old != nil {
			f.header.overflow, f.header.overflowValue = both, bothValue
		}
	}

	// ... then the header is replaced ...
	next.overflow, next.overflowValue = both, bothValue
	if value == nil {
		next.overflow, next.overflowValue = overflow{}, nil
	}
	if err := f.writeHeader(&next, keys, next.overflowValue, value); err != nil {
		return err
	}
	f.header = next
	if f.keys.content != keys.content {
		f.keys.wipe()
		f.keys = keys
	}

	// ... and then the overflow loses what only the old one needed.
	if bytes.Equal(bothValue, value) {
		return nil
	}
	if err := f.setOverflow(value); err != nil || value == nil {
		return err
	}
	f.header.overflow, f.header.overflowValue = more, value
	return f.writeHeader(&f.header, f.keys, value)
}

// setOverflow replaces the overflow attribute: after what was written before it, and before what is written next.
func (f *File) setOverflow(value []byte) error {
	err := f.storage.Sync()
	if err == nil {
		err = f.storage.SetOverflow(value)
	}
	if err == nil {
		err = f.storage.Sync()
	}
	if err != nil {
		return fmt.Errorf("writing overflow: %w", err)
	}
	return nil
}

// writeHeader writes h, which accepts the overflows of those values: nil is none.
func (f *File) writeHeader(h *Header, keys fileKeys, overflows ...[]byte) error {
	var digests [][sha256.Size]byte
	for _, value := range overflows {
		if digest := sha256.Sum256(value); value != nil && !slices.Contains(digests, digest) {
			digests = append(digests, digest)
		}
	}
	image, err := f.volume.marshalHeader(h, digests, keys.header)
	if err != nil {
		return err
	}
	if err := f.write(image, 0); err != nil {
		return fmt.Errorf("writing header: %w", err)
	}
	h.image, h.digests = image, digests
	return nil
}
