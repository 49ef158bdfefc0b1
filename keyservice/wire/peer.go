package wire

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"kmsfs/policy/caller"
)

// connectionKey is the key of a connection in its context.
type connectionKey struct{}

// connection is a connection's other end.
type connection struct {
	// local says that it is a process on a Unix socket: the caller, or why that can't be told.
	local bool
	// atHome says that the connection came by the home's own socket.
	atHome bool
	caller caller.Caller
	// executable is the path of the program that connected; empty if it can't be told.
	executable string
	err        error
}

// withPeer puts the connection's other end into its context.
func withPeer(ctx context.Context, conn net.Conn, atHome bool) context.Context {
	c := connection{atHome: atHome}
	if local, ok := conn.(*net.UnixConn); ok {
		c.local = true
		if c.caller, c.err = peerOf(local); c.err == nil {
			c.executable = executableOf(c.caller.PID)
		}
	}
	return context.WithValue(ctx, connectionKey{}, c)
}

// peerOf asks the kernel for the process that connected, as it was when it did.
func peerOf(conn *net.UnixConn) (caller.Caller, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return caller.Caller{}, err
	}
	var cred *unix.Ucred
	var groups []uint32
	var optErr error
	if err := raw.Control(func(fd uintptr) {
		if cred, optErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); optErr == nil {
			groups, optErr = peerGroups(fd)
		}
	}); err != nil {
		return caller.Caller{}, err
	}
	if optErr != nil {
		return caller.Caller{}, optErr
	}
	return caller.Caller{UID: cred.Uid, GID: cred.Gid, Groups: groups, PID: cred.Pid}, nil
}

func executableOf(pid int32) string {
	path, err := os.Readlink("/proc/" + strconv.Itoa(int(pid)) + "/exe")
	if err != nil {
		return ""
	}
	return path
}

// peerGroups returns the supplementary groups that the process had when it connected; never nil without an error.
func peerGroups(fd uintptr) ([]uint32, error) {
	groups := make([]uint32, 64)
	for {
		size := uint32(4 * len(groups)) // a socklen_t, in bytes
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == unix.ERANGE && int(size) > 4*len(groups): // the kernel says how many there are
			groups = make([]uint32, size/4)
		case errno != 0:
			return nil, fmt.Errorf("getsockopt SO_PEERGROUPS: %w", errno)
		default:
			return groups[:size/4], nil
		}
	}
}
