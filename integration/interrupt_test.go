package integration

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// TestKeyServiceStops stops a key service: the open and the rename that need it wait, and nothing
// else does. SIGINT and SIGKILL end the programs that wait.
func TestKeyServiceStops(t *testing.T) {
	_, s, e := onSocket(t)
	v := volumeAt(t, e, "--kms-cache", "none")
	for _, dir := range []string{"read", "renamed", "other"} {
		must(t, os.Mkdir(v.path(dir), 0o755))
		write(t, v.path(dir, "file"), []byte(dir))
	}
	open, err := os.OpenFile(v.path("other", "file"), os.O_RDWR, 0)
	must(t, err)
	defer open.Close()
	must(t, s.cmd.Process.Signal(syscall.SIGSTOP))
	defer func() { must(t, s.cmd.Process.Signal(syscall.SIGCONT)) }()

	waiting := []*exec.Cmd{
		exec.Command("cat", v.path("read", "file")),
		exec.Command("mv", v.path("renamed", "file"), v.path("renamed", "moved")),
	}
	for _, cmd := range waiting {
		must(t, cmd.Start())
		awaitRequest(t, cmd)
	}
	// The kernel itself keeps others out of the directory of the rename.
	_, err = os.ReadDir(v.path("read"))
	must(t, err)
	_, err = os.Stat(v.path("read", "file"))
	must(t, err)
	must(t, os.Mkdir(v.path("other", "new"), 0o755))
	must(t, os.Rename(v.path("other", "new"), v.path("other", "newer")))
	_, err = open.WriteAt([]byte("written"), 0)
	must(t, err)
	for _, cmd := range waiting {
		if wchan(t, cmd) != inRequest {
			t.Errorf("%s doesn't wait any more: what should not wait has waited as long", cmd)
		}
	}
	for i, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		cmd := waiting[i]
		must(t, cmd.Process.Signal(signal))
		soon(t, cmd.String()+" after "+signal.String(), func() { _ = cmd.Wait() })
		if status := cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != signal {
			t.Errorf("%s: %v, want it to end by %v", cmd, cmd.ProcessState, signal)
		}
	}
}

// inRequest is where a process is in the kernel that waits for the answer to a request to a mount.
const inRequest = "request_wait_answer"

// awaitRequest waits until a program waits for the answer to a request to the mount.
func awaitRequest(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	await(t, "a request of "+cmd.String(), func() bool { return wchan(t, cmd) == inRequest })
}

func wchan(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/wchan", cmd.Process.Pid))
	must(t, err)
	return string(text)
}
