package wire_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/wire"
	"kmsfs/policy/caller"
)

// Only processes of root call on behalf of others, and on the home's own socket alone. Any other call
// that says so is denied, and not taken for the process's own either.
func TestBehalf(t *testing.T) {
	got := make(chan *wire.Behalf, 1)
	s := wire.NewServer(wire.Service{Failing: func() error { return nil }, Refused: func(wire.Refusal) error { return nil }, Operations: map[string]wire.Handler{
		"Whom": func(_ context.Context, peer wire.Peer, _ []byte) (any, error) {
			got <- peer.Behalf
			return struct{}{}, nil
		},
	}})
	dir := t.TempDir()
	for _, public := range []string{filepath.Dir(dir), dir} { // for nobody to come in
		if err := os.Chmod(public, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "socket")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	public := filepath.Join(dir, "public")
	open, err := net.Listen("unix", public)
	if err != nil {
		t.Fatal(err)
	}
	go func() { done <- s.ServeHome(l) }()
	go func() { done <- s.Serve(open) }()
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), <-done, <-done); err != nil {
			t.Error(err)
		}
	})
	want := wire.Behalf{Caller: caller.Caller{UID: 1, GID: 2, Groups: []uint32{3}, PID: 4}, Operation: "open for reading"}
	call := func(dial func(context.Context) (net.Conn, error)) error {
		c := wire.NewClient(dial)
		defer c.Close()
		return c.Call(wire.WithBehalf(t.Context(), want), "Whom", struct{}{}, &struct{}{})
	}
	refused := func(err error) bool {
		e, ok := errors.AsType[*kms.Error](err)
		return ok && e.Code == kms.CodeUnrecognizedClient
	}
	if os.Geteuid() != 0 {
		if err := call(dialer(path)); !refused(err) {
			t.Errorf("as a user: %v", err)
		}
		return
	}
	if err := call(dialer(public)); !refused(err) {
		t.Errorf("as root on another socket: %v", err)
	}
	if err := call(dialer(path)); err != nil {
		t.Fatalf("as root: %v", err)
	}
	if b := <-got; b == nil || b.Caller.UID != 1 || b.Caller.GID != 2 || len(b.Caller.Groups) != 1 || b.Caller.PID != 4 || b.Operation != want.Operation || b.Own {
		t.Errorf("as root: %+v", b)
	}
	if err := unix.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := call(func(context.Context) (net.Conn, error) { return dialAs(path, 65534) }); !refused(err) {
		t.Errorf("as nobody: %v", err)
	}
	if len(got) > 0 {
		t.Error("the operation was called for nobody")
	}
}

// dialAs connects as a user: on a thread that is one from then on, and that Go throws away.
func dialAs(path string, uid uintptr) (conn net.Conn, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid); errno != 0 {
			err = errno
			return
		}
		conn, err = net.Dial("unix", path)
	}()
	<-done
	return conn, err
}
