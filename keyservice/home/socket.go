package home

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// maxSocketPath is the longest path in bytes that a socket can be reached by.
const maxSocketPath = 107

// socketPath is a path of the home's socket that is short enough, as long as the directory is open.
func (d *Dir) socketPath() string {
	if path := filepath.Join(d.Name(), socketFile); len(path) <= maxSocketPath {
		return path
	}
	return "/proc/self/fd/" + strconv.Itoa(int(d.Fd())) + "/" + socketFile
}

// Listen makes the home's socket.
func (h *Home) Listen() (net.Listener, error) { return h.dir.listen() }

// listen makes the home's socket, in place of one that a process has left behind: nobody else listens, as the home is locked.
func (d *Dir) listen() (net.Listener, error) {
	if err := d.removeSocket(); err != nil {
		return nil, err
	}
	socket, err := net.Listen("unix", d.socketPath())
	if err != nil {
		return nil, err
	}
	// Only the owner comes as far as this; from here on, the mode and owner of the socket say so too.
	err = unix.Fchmodat(int(d.Fd()), socketFile, 0o600, 0)
	if err == nil && d.owner != uint32(os.Geteuid()) {
		err = unix.Fchownat(int(d.Fd()), socketFile, int(d.owner), -1, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err != nil {
		return nil, errors.Join(err, socket.Close())
	}
	return socket, nil
}

func (d *Dir) removeSocket() error {
	var stat unix.Stat_t
	err := unix.Fstatat(int(d.Fd()), socketFile, &stat, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err == nil && stat.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return fmt.Errorf("%w: %s is not a socket", ErrDamaged, filepath.Join(d.Name(), socketFile))
	}
	if err != nil {
		return err
	}
	return unix.Unlinkat(int(d.Fd()), socketFile, 0)
}

// Dial connects to the process that has the home open.
func Dial(ctx context.Context, dir string) (net.Conn, error) {
	home, err := openDirectory(dir)
	if err != nil {
		return nil, err
	}
	defer home.Close()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", home.socketPath())
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
		return nil, fmt.Errorf("%s: %w: %w", dir, ErrNotServed, err)
	}
	return conn, err
}
