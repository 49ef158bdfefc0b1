package integration

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// lockHelper is the other process of testLocks: it obeys orders from its standard input, a line each, and answers
// each with a line, "ok" or the error. An order is the kind of lock, wait or try, the type, start and length.
func lockHelper(args []string) int {
	f, err := os.OpenFile(args[0], os.O_RDWR, 0)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if err := applyLock(int(f.Fd()), lines.Text()); err != nil {
			fmt.Println(err)
		} else {
			fmt.Println("ok")
		}
	}
	return 0
}

var lockTypes = map[string]int{"read": unix.F_RDLCK, "write": unix.F_WRLCK, "unlock": unix.F_UNLCK}

func applyLock(fd int, order string) error {
	var kind, how, lockType string
	var start, length int64
	if _, err := fmt.Sscan(order, &kind, &how, &lockType, &start, &length); err != nil {
		return err
	}
	if kind == "flock" {
		flags := map[string]int{"read": unix.LOCK_SH, "write": unix.LOCK_EX, "unlock": unix.LOCK_UN}[lockType]
		if how == "try" {
			flags |= unix.LOCK_NB
		}
		return unix.Flock(fd, flags)
	}
	cmd := map[string]int{"fcntl wait": unix.F_SETLKW, "fcntl try": unix.F_SETLK, "ofd wait": unix.F_OFD_SETLKW, "ofd try": unix.F_OFD_SETLK}[kind+" "+how]
	return unix.FcntlFlock(uintptr(fd), cmd, &unix.Flock_t{Type: int16(lockTypes[lockType]), Start: start, Len: length})
}

// locker is another process that takes locks.
type locker struct {
	t     *testing.T
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string
}

func newLocker(t *testing.T, path string) *locker {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), testBinary, path)
	cmd.Env = append(os.Environ(), roleVariable+"=lock")
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	l := &locker{t: t, cmd: cmd, in: in, lines: make(chan string, 100)}
	go func() {
		defer close(l.lines)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			l.lines <- lines.Text()
		}
	}()
	t.Cleanup(l.end)
	return l
}

func (l *locker) end() {
	_ = l.cmd.Process.Kill()
	_ = l.cmd.Wait() // it was killed
}

func (l *locker) order(order string) {
	l.t.Helper()
	if _, err := fmt.Fprintln(l.in, order); err != nil {
		l.t.Fatal(err)
	}
}

func (l *locker) answer() string {
	l.t.Helper()
	select {
	case line := <-l.lines:
		return line
	case <-time.After(time.Minute):
		l.t.Fatal("the other process waits for its lock forever")
		return ""
	}
}

// want gives an order and checks the answer.
func (l *locker) want(order, answer string) {
	l.t.Helper()
	l.order(order)
	if got := l.answer(); got != answer {
		l.t.Errorf("%s: %s, want %s", order, got, answer)
	}
}

// inSystemCall waits until the other process is in one of its calls to fcntl or flock.
func (l *locker) inSystemCall() {
	l.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for time.Now().Before(deadline) {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", l.cmd.Process.Pid))
		if err != nil {
			l.t.Fatal(err)
		}
		for _, task := range tasks {
			text, err := os.ReadFile(task)
			if number, _, _ := strings.Cut(string(text), " "); err == nil && (number == fmt.Sprint(unix.SYS_FCNTL) || number == fmt.Sprint(unix.SYS_FLOCK)) {
				return
			}
		}
		time.Sleep(time.Millisecond)
	}
	l.t.Fatal("the other process does not wait for its lock")
}

func testLocks(t *testing.T, dir string) {
	const busy = "resource temporarily unavailable"
	for _, kind := range []string{"flock", "fcntl", "ofd"} {
		path := filepath.Join(dir, kind)
		write(t, path, []byte("content to be locked"))
		fd := open(t, path, unix.O_RDWR)
		other := newLocker(t, path)
		mine := func(order string) {
			t.Helper()
			if err := applyLock(fd, order); err != nil {
				t.Fatalf("%s: %v", order, err)
			}
		}
		mine(kind + " try write 0 0")
		other.want(kind+" try write 0 0", busy)
		other.want(kind+" try read 0 0", busy)
		// It waits, and gets the lock only when it is free: after the file says so.
		other.order(kind + " wait write 0 0")
		other.inSystemCall()
		select {
		case got := <-other.lines:
			t.Fatalf("%s: the other process got the lock, or %q, while it was taken", kind, got)
		case <-time.After(50 * time.Millisecond):
		}
		mine(kind + " wait unlock 0 0")
		if got := other.answer(); got != "ok" {
			t.Errorf("%s: the lock that was waited for: %s", kind, got)
		}
		if err := applyLock(fd, kind+" try read 0 0"); err != unix.EAGAIN {
			t.Errorf("%s: lock that the other process has: %v", kind, err)
		}
		// Shared.
		other.want(kind+" try unlock 0 0", "ok")
		mine(kind + " try read 0 0")
		other.want(kind+" try read 0 0", "ok")
		if err := applyLock(fd, kind+" try write 0 0"); err != unix.EAGAIN {
			t.Errorf("%s: write lock beside the other process's read lock: %v", kind, err)
		}
		mine(kind + " try unlock 0 0")
		other.want(kind+" try write 0 0", "ok")
		if kind != "flock" {
			// Ranges.
			other.want(kind+" try unlock 0 0", "ok")
			other.want(kind+" try write 100 50", "ok")
			mine(kind + " try write 0 100")
			mine(kind + " try write 150 0")
			if err := applyLock(fd, kind+" try write 149 1"); err != unix.EAGAIN {
				t.Errorf("%s: lock of the last byte: %v", kind, err)
			}
		}
		if kind == "fcntl" {
			lock := unix.Flock_t{Type: unix.F_WRLCK, Start: 120, Len: 5}
			must(t, unix.FcntlFlock(uintptr(fd), unix.F_GETLK, &lock))
			if int(lock.Pid) != other.cmd.Process.Pid || lock.Start != 100 || lock.Len != 50 || lock.Type != unix.F_WRLCK {
				t.Errorf("F_GETLK: %+v, want process %d, 50 bytes from 100", lock, other.cmd.Process.Pid)
			}
		}
		// The end of a process is the end of its locks.
		other.end()
		mine(kind + " wait write 0 0")
		mine(kind + " wait unlock 0 0")
	}
}
