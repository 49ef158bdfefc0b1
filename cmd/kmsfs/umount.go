package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"kmsfs/fs"
	"kmsfs/fs/control"
)

var errBusy = errors.New("in use")

// finishTimeout is how long umount waits for the serving process to have written everything, once nothing is mounted
// any more: the kernel has handed over all its dirty pages by then.
const finishTimeout = 2 * time.Minute

func umountCommand() command {
	return command{
		name:      "umount",
		arguments: "MOUNTPOINT",
		summary:   "unmount a volume",
		details: `
Unmounts a volume and returns when everything is on disk and the volume is marked clean. "umount MOUNTPOINT" and
"fusermount3 -u MOUNTPOINT" do the same, but don't wait for that.

Example:
  kmsfs umount ~/clear`,
		prepare: func(*pflag.FlagSet) func([]string) error { return umount },
	}
}

func umount(args []string) error {
	if len(args) != 1 {
		return usagef("umount", "want one MOUNTPOINT, got %d arguments", len(args))
	}
	path, m, ok, err := control.Find(args[0])
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("%s: %w", path, control.ErrNotMounted)
	}
	// Opened before, as the volume may lie where only its mount's users reach it.
	volume, openErr := os.Open(filepath.Join(m.Source, volumeFile))
	if openErr == nil {
		defer volume.Close()
	}
	if err := unmount(path, false); err != nil {
		return err
	}
	if openErr != nil {
		return fmt.Errorf("%s is unmounted, but whether all is written can't be seen: %w", path, openErr)
	}
	return waitUnlocked(volume, finishTimeout)
}

// unmount unmounts what is at path; lazily means: when nobody uses it any more, and out of sight at once.
func unmount(path string, lazily bool) error {
	flags := unix.UMOUNT_NOFOLLOW
	if lazily {
		flags |= unix.MNT_DETACH
	}
	switch err := unix.Unmount(path, flags); err {
	case nil:
		return nil
	case unix.EBUSY:
		return fmt.Errorf("%s: %w", path, errBusy)
	case unix.EPERM: // not root: the setuid helper may
	default:
		return fmt.Errorf("%s: %w", path, err)
	}
	args := []string{"-u", path}
	if lazily {
		args = []string{"-u", "-z", path}
	}
	helper := exec.Command("fusermount3", args...)
	helper.Env = append(os.Environ(), "LC_ALL=C")
	out, err := helper.CombinedOutput()
	text := strings.TrimSpace(string(out))
	switch {
	case err == nil:
		return nil
	case errors.Is(err, exec.ErrNotFound):
		return fmt.Errorf("%s: %w", path, fs.ErrNoFusermount)
	case strings.Contains(text, unix.EBUSY.Error()) || strings.Contains(text, "Device or resource busy"):
		return fmt.Errorf("%s: %w", path, errBusy)
	case text != "":
		text, _, _ = strings.Cut(text, "\n")
		return errors.New(text)
	}
	return fmt.Errorf("%s: fusermount3: %w", path, err)
}

// waitUnlocked waits until the process that mounted the volume for writing has let go of its configuration, which it
// holds locked for as long as it has anything to write.
func waitUnlocked(volume *os.File, timeout time.Duration) error {
	done := make(chan error, 1)
	go func() { done <- flock(volume, unix.LOCK_SH) }()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("%s: lock: %w", volume.Name(), err)
		}
		return nil
	case <-time.After(timeout):
		return fmt.Errorf("%s is unmounted, but its process still writes after %v", filepath.Dir(volume.Name()), timeout)
	}
}
