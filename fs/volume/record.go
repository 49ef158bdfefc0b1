package volume

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
)

// ReadDirectory reads the record of the directory dir, and says whether it was changed at or after
// the time in seconds since 1970.
func (b *Volume) ReadDirectory(dir int) (*envelope.Directory, error) {
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
func (b *Volume) WriteDirectory(dir int, d *envelope.Directory, replace bool) error {
	page, err := b.Sealed.SealDirectory(d)
	if err != nil {
		return err
	}
	return WriteControl(dir, envelope.DirectoryName, page, replace)
}

// ReplaceDirectory replaces a directory's record, durably.
func (b *Volume) ReplaceDirectory(fd int, record *envelope.Directory) error {
	if err := b.WriteDirectory(fd, record, true); err != nil {
		return err
	}
	return SyncControl(fd, envelope.DirectoryName)
}

// OwnerOf returns whose an open directory is.
func OwnerOf(fd int) (uint32, error) {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	return st.Uid, err
}
