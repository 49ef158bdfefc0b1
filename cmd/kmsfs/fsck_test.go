package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestFsckCommand(t *testing.T) {
	p := newProgram(t)
	key := "--key-file=" + p.path("key")
	volume := p.path("volume")
	if r := p.run("init", key, volume); r.code != 0 {
		t.Fatal(r)
	}
	for _, test := range []struct {
		args           []string
		code           int
		stdout, stderr string
	}{
		{[]string{"fsck"}, 2, "", "want one VOLUME"},
		{[]string{"fsck", "a", "b"}, 2, "", "want one VOLUME"},
		{[]string{"fsck", "--fast", volume}, 2, "", "unknown flag"},
		{[]string{"fsck", key, p.path("missing")}, 1, "", "no such volume"},
		{[]string{"fsck", key, p.dir}, 1, "", "not a kmsfs volume"},
		{[]string{"fsck", key, volume}, 0, "0 files", ""},
		{[]string{"fsck", key, "--repair", "--read-data", volume}, 0, "Faults:", ""},
		{[]string{"fsck", key, "--json", volume}, 0, `{"summary":{"files":0,"directories":1,`, ""},
		{[]string{"key", "usage"}, 2, "", "want a KEY"},
		{[]string{"key", "usage", key, "alias/kmsfs-default", volume}, 0, volume, ""},
		{[]string{"key", "usage", key, "alias/kmsfs-default", p.path("missing")}, 1, "", "no such volume"},
	} {
		r := p.run(test.args...)
		if r.code != test.code || !strings.Contains(r.stdout, test.stdout) || !strings.Contains(r.stderr, test.stderr) || test.stderr == "" && r.stderr != "" {
			t.Errorf("%q: %+v, want %d, %q, %q", test.args, r, test.code, test.stdout, test.stderr)
		}
	}

	// A fault, with a name that a terminal could take for commands, as text.
	if err := os.WriteFile(filepath.Join(volume, "kmsfs.\x1b[2J"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := p.run("fsck", key, volume)
	if r.code != 1 || !strings.HasPrefix(r.stdout, "unknown-control: /?: ") || !strings.Contains(r.stdout, `"/kmsfs.\x1b[2J"`) || strings.Contains(r.stdout, "\x1b") {
		t.Errorf("a fault: %+v", r)
	}
	r = p.run("fsck", key, "--repair", volume)
	if r.code != 0 || !strings.Contains(r.stdout, "moved to /lost+found/") {
		t.Errorf("a repair: %+v", r)
	}
}

// TestFsckProgress looks for the progress bar on a terminal.
func TestFsckProgress(t *testing.T) {
	p := newProgram(t)
	key, volume := "--key-file="+p.path("key"), p.path("volume")
	if r := p.run("init", key, volume); r.code != 0 {
		t.Fatal(r)
	}
	master, slave := openTerminal(t)
	for _, args := range [][]string{{"fsck", key, volume}, {"key", "usage", key, "alias/kmsfs-default", volume}} {
		cmd := exec.Command(binary, args...)
		cmd.Dir, cmd.Env, cmd.Stderr = p.dir, p.environment, slave
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		shown := make([]byte, 4096)
		n, err := master.Read(shown)
		if text := string(shown[:n]); err != nil || !strings.Contains(text, " files  ") || !strings.HasSuffix(text, "\r\x1b[K") {
			t.Errorf("%q: the terminal shows %q, %v", args, text, err)
		}
	}
}

// openTerminal makes a terminal of 80 columns.
func openTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	fd := int(master.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 25, Col: 80}); err != nil {
		t.Fatal(err)
	}
	return master, slave
}
