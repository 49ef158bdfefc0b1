package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// namespaceVariable says that the tests run in a mount namespace of their own.
const namespaceVariable = "KMSFS_INTEGRATION_NAMESPACE"

// enterNamespace begins the tests anew in a mount namespace of their own, so that what they mount and
// bind is nobody else's. It returns if that has been done, or on an error.
func enterNamespace() error {
	if os.Getenv(namespaceVariable) != "" {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	runtime.LockOSThread() // the namespace is the thread's, and execve(2) keeps that of the thread which calls it
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("making a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	return unix.Exec(self, os.Args, append(os.Environ(), namespaceVariable+"=1"))
}

// ownSettings gives the tests an /etc of their own, in which they make users and groups.
func ownSettings() error {
	etc := filepath.Join(suite, "etc")
	if out, err := exec.Command("cp", "-a", "/etc", etc).CombinedOutput(); err != nil {
		return fmt.Errorf("copying /etc: %w\n%s", err, out)
	}
	if err := unix.Mount(etc, "/etc", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("binding a copy over /etc: %w", err)
	}
	return nil
}

// ownPrograms gives the tests a directory of system programs of their own, over the one at path, until
// the test ends.
func ownPrograms(t *testing.T, path string) {
	t.Helper()
	dir, err := filepath.EvalSymlinks(path)
	must(t, err)
	own := filepath.Join(tempDir(t), "programs")
	run(t, "/", "cp", "-a", dir, own)
	must(t, unix.Mount(own, dir, "", unix.MS_BIND, ""))
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
}
