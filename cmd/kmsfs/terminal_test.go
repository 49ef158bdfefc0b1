package main_test

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// dialog runs the program on a terminal. Each answer is typed once its question shows. It returns what
// the terminal has shown, and the exit status.
func (p *program) dialog(args []string, answers ...[2]string) (shown string, status int) {
	p.t.Helper()
	master, slave := openTerminal(p.t)
	cmd := exec.Command(binary, args...)
	cmd.Dir, cmd.Env = p.dir, p.environment
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	timeout := time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() })
	defer timeout.Stop()
	slave.Close()
	var screen bytes.Buffer
	read := func() bool {
		part := make([]byte, 4096)
		n, err := master.Read(part)
		screen.Write(part[:n])
		return err == nil
	}
	seen := 0
	for _, answer := range answers {
		for !strings.Contains(screen.String()[seen:], answer[0]) {
			if !read() {
				p.t.Fatalf("want %q, the terminal shows %q", answer[0], screen.String())
			}
		}
		seen = screen.Len()
		if _, err := master.WriteString(answer[1] + "\n"); err != nil {
			p.t.Fatal(err)
		}
	}
	for read() {
	}
	_ = cmd.Wait() // its exit status says more
	return strings.ReplaceAll(screen.String(), "\r", ""), cmd.ProcessState.ExitCode()
}

// Without options, init asks for a passphrase twice, and mount once.
func TestPassphraseOnTerminal(t *testing.T) {
	p := newProgram(t)
	shown, status := p.dialog([]string{"init", "vault"},
		[2]string{"New passphrase for the key service home: ", passphrase}, [2]string{"The same again: ", passphrase})
	if status != 0 || !strings.Contains(shown, "is ready") || strings.Contains(shown, passphrase) || strings.Contains(shown, "warning") {
		t.Errorf("init: exit status %d, the terminal shows %q", status, shown)
	}
	requireFUSE(t)
	mountpoint := p.mkdir("clear")
	shown, status = p.dialog([]string{"mount", "vault", "clear"},
		[2]string{"Passphrase of the key service home " + p.path("home") + ": ", passphrase})
	if status != 0 || !isMounted(t, mountpoint) {
		t.Fatalf("mount: exit status %d, the terminal shows %q", status, shown)
	}
	p.must("umount", mountpoint)
}

func TestShortPassphrase(t *testing.T) {
	p := newProgram(t)
	shown, status := p.dialog([]string{"init", "vault"},
		[2]string{"New passphrase", "elf letters"}, [2]string{"The same again: ", "elf letters"})
	const warning = "kmsfs: warning: the passphrase has fewer than 12 characters"
	if status != 0 || !strings.Contains(shown, warning) {
		t.Errorf("exit status %d, the terminal shows %q", status, shown)
	}
}

func TestDifferentPassphrases(t *testing.T) {
	p := newProgram(t)
	shown, status := p.dialog([]string{"init", "vault"},
		[2]string{"New passphrase", passphrase}, [2]string{"The same again: ", passphrase + "!"})
	if status != 1 || !strings.Contains(shown, "kmsfs: the two passphrases differ") {
		t.Errorf("exit status %d, the terminal shows %q", status, shown)
	}
	if _, err := os.Stat(p.path("home")); err == nil {
		t.Error("the home was made")
	}
}

// TestMountWaitsForEnd mounts a volume whose earlier mount is no longer to be seen, while its process
// has not ended: umount(8) returns before that.
func TestMountWaitsForEnd(t *testing.T) {
	requireFUSE(t)
	p := newProgram(t)
	volume, mountpoint := p.volume()
	p.must("mount", "--passphrase-file", "passphrase", volume, mountpoint)
	f, err := os.Create(p.path("clear/file")) // the process can't end while it is open
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Unmount(mountpoint, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(time.Second, func() { f.Close() })
	p.mount("--passphrase-file", "passphrase", volume, mountpoint)
	if _, err := os.Stat(p.path("clear/file")); err != nil {
		t.Error(err)
	}
}
