package volume

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"

	"kmsfs/cmd/kmsfs/internal/cli"
	"kmsfs/cmd/kmsfs/internal/session"
)

// The daemon is this program again, in a session of its own, with two pipes from the process that
// the user started. On one it gets its orders, so that no secret shows in its arguments or
// environment. On the other it answers that the volume is mounted, or why it can't be.
const (
	answerFD = 3
	ordersFD = 4

	answerReady = "ready"

	// maxOrders bounds the orders in bytes: paths, options and a passphrase.
	maxOrders = 64 << 10
)

// orders tell the daemon what to do.
type orders struct {
	Options mountOptions
	Secret  *session.Secret
}

// startDaemon starts a process that serves the mount, and returns when the mount is ready.
func startDaemon(o mountOptions) error {
	secret, err := o.readSecret()
	if err != nil {
		return err
	}
	defer secret.Wipe()
	text, err := json.Marshal(orders{o, secret})
	if err != nil {
		return err
	}
	defer clear(text)
	if len(text) > maxOrders {
		return fmt.Errorf("mount options have %d bytes, want at most %d", len(text), maxOrders)
	}

	answer, answerEnd, err := os.Pipe()
	if err != nil {
		return err
	}
	defer answer.Close()
	ordersEnd, ordersPipe, err := os.Pipe()
	if err != nil {
		return err
	}
	daemon := exec.Command("/proc/self/exe", "mount", "--daemon", "--", o.Volume, o.Mountpoint)
	daemon.Args[0] = "kmsfs"
	daemon.ExtraFiles = []*os.File{answerEnd, ordersEnd}
	daemon.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	// The daemon must not keep open what this process has inherited: its parent may wait for that
	// to close.
	if err := unix.CloseRange(ordersFD+1, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil && err != unix.ENOSYS {
		return fmt.Errorf("start the serving process: %w", err)
	}
	err = daemon.Start()
	answerEnd.Close()
	ordersEnd.Close()
	if err != nil {
		ordersPipe.Close()
		return fmt.Errorf("start the serving process: %w", err)
	}
	_, writeErr := ordersPipe.Write(text)
	ordersPipe.Close()

	line, err := io.ReadAll(io.LimitReader(answer, maxOrders))
	switch {
	case string(line) == answerReady:
		return daemon.Process.Release()
	case len(line) > 0:
		return cli.Explained(string(line))
	}
	if waitErr := daemon.Wait(); waitErr != nil {
		err = errors.Join(waitErr, err)
	}
	return fmt.Errorf("the serving process ended early: %w", errors.Join(err, writeErr))
}

// runDaemon is the process that startDaemon starts.
func runDaemon() error {
	for _, fd := range []int{answerFD, ordersFD} {
		var stat unix.Stat_t
		if err := unix.Fstat(fd, &stat); err != nil || stat.Mode&unix.S_IFMT != unix.S_IFIFO {
			return cli.Usagef("--daemon is for kmsfs's own use")
		}
		unix.CloseOnExec(fd)
	}
	answer := os.NewFile(answerFD, "answer")
	err := obey(os.NewFile(ordersFD, "orders"), func() error {
		_, err := answer.WriteString(answerReady)
		return errors.Join(err, answer.Close())
	})
	if err != nil {
		// Nobody reads it if the daemon was ready before.
		_, _ = answer.WriteString(cli.Explain(err))
	}
	return err
}

// obey reads the orders and serves the mount.
func obey(in *os.File, ready func() error) error {
	if err := session.Harden(); err != nil {
		return err
	}
	text := make([]byte, maxOrders)
	defer clear(text)
	n, err := io.ReadFull(in, text)
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("orders: %w", err)
	}
	in.Close()
	var o orders
	if err := json.NewDecoder(bytes.NewReader(text[:n])).Decode(&o); err != nil {
		return fmt.Errorf("orders: %w", err)
	}
	clear(text)
	defer o.Secret.Wipe()
	return o.Options.serve(o.Secret, daemonLog(o.Options.logDir()), ready)
}
