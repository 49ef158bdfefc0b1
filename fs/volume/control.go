package volume

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/volume/backing"
)

// readControl reads a control file of at least least and at most most bytes. It must be a regular
// file of the volume's owner, of root or of this process's user, and not a link: control files are
// what an attacker would replace first.
func (b *Volume) readControl(dir backing.Dir, name string, least, most int64) ([]byte, error) {
	f, err := dir.OpenFile(name, unix.O_RDONLY, 0)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) {
		return nil, fmt.Errorf("%s is not a regular file: %w", name, envelope.ErrFormat)
	}
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", name, err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", name, err)
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, fmt.Errorf("%s is not a regular file: %w", name, envelope.ErrFormat)
	case st.Size < least || st.Size > most:
		return nil, fmt.Errorf("%s has %d bytes, want %d to %d: %w", name, st.Size, least, most, envelope.ErrFormat)
	case st.Uid != 0 && st.Uid != b.Owner && st.Uid != b.UID:
		return nil, fmt.Errorf("%s belongs to uid %d, which is neither root nor the volume's owner: %w",
			name, st.Uid, envelope.ErrFormat)
	}
	content := make([]byte, st.Size)
	n, err := f.ReadAt(content, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	if n < len(content) {
		return nil, fmt.Errorf("%s is cut off: %w", name, envelope.ErrFormat)
	}
	return content, nil
}

// WriteControl writes a new control file; with replace, over one that is there.
func WriteControl(dir backing.Dir, name string, content []byte, replace bool) error {
	flags := unix.O_WRONLY | unix.O_CREAT
	if !replace {
		flags |= unix.O_EXCL
	}
	f, err := dir.OpenFile(name, flags, 0o600)
	if err != nil {
		return fmt.Errorf("making %s: %w", name, err)
	}
	st, err := f.Stat()
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = envelope.ErrFormat
	}
	if err == nil {
		_, err = f.WriteAt(content, 0)
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return nil
}

// SyncControl makes a control file durable.
func SyncControl(dir backing.Dir, name string) error {
	f, err := dir.OpenFile(name, unix.O_RDONLY, 0)
	if err != nil {
		return fmt.Errorf("opening %s: %w", name, err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("syncing %s: %w", name, err)
	}
	return nil
}

// SyncDir makes a directory's entries durable. dir may be open with O_PATH.
func SyncDir(dir backing.Dir) error {
	d, err := dir.OpenDir(".")
	if err != nil {
		return fmt.Errorf("opening a directory: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("syncing a directory: %w", err)
	}
	return nil
}

// Dismantle removes a directory that holds control files only.
func (b *Volume) Dismantle(parent backing.Dir, entry string) error {
	dir, err := parent.OpenDir(entry)
	if err != nil {
		return err
	}
	defer dir.Close()
	entries, err := backing.Entries(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch {
		case !b.IsControl(e.Name):
			return unix.ENOTEMPTY
		case e.Kind == unix.DT_DIR && strings.HasPrefix(e.Name, TempPrefix):
			err = b.Dismantle(dir, e.Name)
		default:
			err = dir.Unlink(e.Name)
		}
		if err != nil {
			return err
		}
	}
	return parent.Rmdir(entry)
}
