package home

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Harden keeps the process's memory from other processes of its user, and out of core dumps. It is for the start of the program, as it
// holds for the whole process and can't be undone; the owner of its files in /proc becomes root.
func Harden() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("make the process undumpable: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	return nil
}
