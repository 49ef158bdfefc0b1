package volume

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
)

// readControl reads a control file of at least least and at most most bytes. It must be a regular
// file of the volume's owner, of root or of this process's user, and not a link: control files are
// what an attacker would replace first.
func (b *Volume) readControl(dir int, name string, least, most int64) ([]byte, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) {
		return nil, fmt.Errorf("%s is not a regular file: %w", name, envelope.ErrFormat)
	}
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", name, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("opening %s: %w", name, err)
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, fmt.Errorf("%s is not a regular file: %w", name, envelope.ErrFormat)
	case st.Size < least || st.Size > most:
		return nil, fmt.Errorf("%s has %d bytes, want %d to %d: %w", name, st.Size, least, most, envelope.ErrFormat)
	case st.Uid != 0 && st.Uid != b.Owner && st.Uid != b.UID:
		return nil, fmt.Errorf("%s belongs to uid %d, who has no business with it: %w", name, st.Uid, envelope.ErrFormat)
	}
	content := make([]byte, st.Size)
	s := Storage{FD: fd}
	if n, err := s.ReadAt(content, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	} else if n < len(content) {
		return nil, fmt.Errorf("%s is cut off: %w", name, envelope.ErrFormat)
	}
	return content, nil
}

// WriteControl writes a new control file; with replace, over one that is there.
func WriteControl(dir int, name string, content []byte, replace bool) error {
	flags := unix.O_WRONLY | unix.O_CREAT | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC // not to wait for a pipe's reader
	if !replace {
		flags |= unix.O_EXCL
	}
	fd, err := unix.Openat(dir, name, flags, 0o600)
	if err != nil {
		return fmt.Errorf("making %s: %w", name, err)
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = envelope.ErrFormat
	}
	if err == nil {
		_, err = (&Storage{FD: fd}).WriteAt(content, 0)
	}
	if closed := unix.Close(fd); err == nil {
		err = closed
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return nil
}

// SyncControl makes a control file durable.
func SyncControl(dir int, name string) error {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening %s: %w", name, err)
	}
	defer unix.Close(fd)
	if err := unix.Fsync(fd); err != nil {
		return fmt.Errorf("syncing %s: %w", name, err)
	}
	return nil
}

// SyncDir makes a directory's entries durable. dir may be open with O_PATH.
func SyncDir(dir int) error { return SyncControl(dir, ".") }

// Dismantle removes a directory that holds control files only.
func (b *Volume) Dismantle(parent int, entry string) error {
	dir, err := unix.Openat(parent, entry, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	entries, err := ListEntries(dir)
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
			err = unix.Unlinkat(dir, e.Name, 0)
		}
		if err != nil {
			return err
		}
	}
	return unix.Unlinkat(parent, entry, unix.AT_REMOVEDIR)
}
