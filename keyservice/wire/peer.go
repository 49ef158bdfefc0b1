package wire

import (
	"context"
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"kmsfs/policy"
)

// peerKey is the key of a connection's peer in its context.
type peerKey struct{}

// peer is who has connected, or why that can't be told.
type peer struct {
	caller policy.Caller
	err    error
}

// withPeer puts the connection's peer into its context.
func withPeer(ctx context.Context, conn net.Conn) context.Context {
	caller, err := peerOf(conn)
	return context.WithValue(ctx, peerKey{}, peer{caller, err})
}

// peerOf asks the kernel for the process that connected, as it was when it did.
func peerOf(conn net.Conn) (policy.Caller, error) {
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return policy.Caller{}, fmt.Errorf("a %T has no peer credentials", conn)
	}
	raw, err := unixConn.SyscallConn()
	if err != nil {
		return policy.Caller{}, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return policy.Caller{}, err
	}
	if credErr != nil {
		return policy.Caller{}, credErr
	}
	return policy.Caller{UID: cred.Uid, GID: cred.Gid, PID: cred.Pid}, nil
}
