package keyservice

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

	"kmsfs/keyservice/wire"
)

// maxSocketPath is the longest path in bytes that a socket can be reached by.
const maxSocketPath = 107

// socketPath is a path of the home's socket that is short enough, as long as the directory is open.
func (d *homeDir) socketPath() string {
	if path := filepath.Join(d.Name(), socketFile); len(path) <= maxSocketPath {
		return path
	}
	return "/proc/self/fd/" + strconv.Itoa(int(d.Fd())) + "/" + socketFile
}

// server answers calls of other processes.
type server struct {
	*wire.Server
	// ended has what came of each listener.
	ended     chan error
	listeners int
}

// Serve lets other processes use the home, through the socket in it and the listeners, until Close. On Unix sockets the kernel says who calls;
// by others, calls have to be signed with an access key. The listeners are closed in any case.
func (s *Service) Serve(listeners ...net.Listener) (err error) {
	defer func() {
		for _, l := range listeners {
			if err != nil {
				l.Close()
			}
		}
	}()
	s.serving.Lock()
	defer s.serving.Unlock()
	s.life.RLock()
	defer s.life.RUnlock()
	if s.closed || s.server != nil {
		return errors.New("the key service is closed, or served already")
	}
	socket, err := s.dir.listen()
	if err != nil {
		return fmt.Errorf("listen on the key service home's socket: %w", err)
	}
	listeners = append(listeners, socket)
	s.server = &server{
		Server: wire.NewServer(wire.Service{Operations: s.wireHandlers(), Credentials: s, Refused: s.recordRefusal, Failing: s.log.Failing, Warnings: s.warnings}),
		ended:  make(chan error, len(listeners)), listeners: len(listeners),
	}
	for _, l := range listeners {
		go func(server *server) { server.ended <- server.Serve(l) }(s.server)
	}
	s.announce(eventStarted)
	return nil
}

func (s *Service) stopServing() error {
	s.serving.Lock()
	defer s.serving.Unlock()
	if s.server == nil {
		return nil
	}
	err := s.server.Close()
	for range s.server.listeners {
		err = errors.Join(err, <-s.server.ended)
	}
	s.server = nil
	s.announce(eventStopped)
	return err
}

// listen makes the home's socket, in place of one that a process has left behind: nobody else listens, as the home is locked.
func (d *homeDir) listen() (net.Listener, error) {
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

func (d *homeDir) removeSocket() error {
	var stat unix.Stat_t
	err := unix.Fstatat(int(d.Fd()), socketFile, &stat, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err == nil && stat.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return fmt.Errorf("%w: %s is not a socket", ErrDamagedHome, filepath.Join(d.Name(), socketFile))
	}
	if err != nil {
		return err
	}
	return unix.Unlinkat(int(d.Fd()), socketFile, 0)
}

// dialSocket connects to the process that has the home open.
func dialSocket(ctx context.Context, dir string) (net.Conn, error) {
	home, err := openHomeDir(dir)
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
