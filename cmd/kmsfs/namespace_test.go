package main_test

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// namespaceVariable says that the tests run in a mount namespace of their own.
const namespaceVariable = "KMSFS_TEST_NAMESPACE"

// enterNamespace begins root's tests anew in a mount namespace of their own. Otherwise another
// process that makes a namespace meanwhile gets a copy of their mounts, which then don't end.
func enterNamespace() error {
	if os.Geteuid() != 0 || os.Getenv(namespaceVariable) != "" {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	runtime.LockOSThread() // the namespace is the thread's, and execve(2) keeps that of its caller
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("making a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	return unix.Exec(self, os.Args, append(os.Environ(), namespaceVariable+"=1"))
}
