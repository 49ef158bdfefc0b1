package volume

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/volume/backing"
)

// ReadDirectory reads the record of a directory. That it is the directory's own is for the caller to check.
func (b *Volume) ReadDirectory(dir backing.Dir) (*envelope.Directory, error) {
	page, err := b.readControl(dir, envelope.DirectoryName, envelope.DirectorySize, envelope.DirectorySize)
	if errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("the directory's record is missing: %w", envelope.ErrFormat)
	}
	if err != nil {
		return nil, err
	}
	return b.Sealed.OpenDirectory(page)
}

// WriteDirectory seals a directory's record into dir; with replace, over the one that is there.
func (b *Volume) WriteDirectory(dir backing.Dir, d *envelope.Directory, replace bool) error {
	page, err := b.Sealed.SealDirectory(d)
	if err != nil {
		return err
	}
	return WriteControl(dir, envelope.DirectoryName, page, replace)
}

// ReplaceDirectory replaces a directory's record, durably.
func (b *Volume) ReplaceDirectory(dir backing.Dir, record *envelope.Directory) error {
	if err := b.WriteDirectory(dir, record, true); err != nil {
		return err
	}
	return SyncControl(dir, envelope.DirectoryName)
}

// OwnerOf returns the uid of an open directory's owner.
func OwnerOf(dir backing.Dir) (uint32, error) {
	st, err := dir.Stat()
	return st.Uid, err
}
