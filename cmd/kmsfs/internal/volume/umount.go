package volume

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"kmsfs/cmd/kmsfs/internal/cli"
	"kmsfs/cmd/kmsfs/internal/session"
	"kmsfs/fs"
	"kmsfs/fs/control"
)

var errBusy = cli.Hinted("in use", "close the files and leave the directories in it; fuser -vm MOUNTPOINT lists their processes")

// finishTimeout is how long umount waits for the serving process to have written everything, once
// nothing is mounted any more: the kernel has handed over all its dirty pages by then.
const finishTimeout = 2 * time.Minute

// Umount is the command "kmsfs umount".
func Umount() *cobra.Command {
	return &cobra.Command{
		Use: "umount MOUNTPOINT", GroupID: cli.Volumes, Short: "Unmount a volume",
		Long: `
The command returns when everything is on disk and the volume is marked clean.
"umount MOUNTPOINT" and "fusermount3 -u MOUNTPOINT" unmount it too, but do not
wait for that.`,
		Example: `
  kmsfs umount ~/clear`,
		Args: cli.Exactly(1, "one MOUNTPOINT"), ValidArgsFunction: cli.Mountpoints,
		RunE: func(_ *cobra.Command, args []string) error { return umount(args[0]) },
	}
}

func umount(mountpoint string) error {
	path, m, ok, err := control.Find(mountpoint)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("%s: %w", path, control.ErrNotMounted)
	}
	// It is opened before: the volume may lie where it can only be reached through the mount.
	volume, openErr := os.Open(filepath.Join(m.Source, volumeFile))
	if openErr == nil {
		defer volume.Close()
	}
	if err := unmount(path, false); err != nil {
		return err
	}
	if openErr != nil {
		return fmt.Errorf("%s is unmounted, but whether everything is written can't be seen: %w", path, openErr)
	}
	return waitUnlocked(volume, finishTimeout)
}

// unmount unmounts what is at path. lazily means: out of sight now, and unmounted after its last
// use.
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
	case unix.EPERM: // not root: the set-user-ID helper may
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

// waitUnlocked waits until the process that has mounted the volume for writing releases its
// configuration. It holds a lock on it as long as it has anything to write.
func waitUnlocked(volume *os.File, timeout time.Duration) error {
	done := make(chan error, 1)
	go func() { done <- session.Flock(volume, unix.LOCK_SH) }()
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
