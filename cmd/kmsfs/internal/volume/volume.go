// Package volume has the commands for volumes and their mounts.
//
//   - init.go: creating a volume
//   - mount.go, mount_options.go, mount_helper.go: mounting one
//   - serve.go, daemon.go, log.go: the process that serves the mount
//   - umount.go, lock.go, status.go: what is mounted
//   - policy.go, walk.go: directories and files on a mount
//   - inspect.go, fsck.go, usage.go: looking through a volume, mounted or not
//   - volume.go: how these begin
package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"kmsfs/cmd/kmsfs/internal/cli"
	"kmsfs/cmd/kmsfs/internal/session"
	"kmsfs/envelope"
	"kmsfs/fs/control"
	disk "kmsfs/fs/volume"
	"kmsfs/keyservice/kms"
)

// volumeFile is the file that makes a directory a volume.
const volumeFile = envelope.ConfigName

var (
	errNoVolume    = cli.Hinted("no such volume", "make one with kmsfs init")
	errNoDirectory = cli.Hinted("no such directory", "make it with mkdir")
	errInterrupted = errors.New("interrupted: not all of the volume was looked at")
)

// keyOptions say which key service has the keys of the volumes that a command looks through.
type keyOptions struct {
	home, kms string
	secret    session.SecretOptions
}

func (o *keyOptions) declare(flags *pflag.FlagSet) {
	o.secret.Declare(flags)
	session.DeclareHome(flags, &o.home)
	session.DeclareKMS(flags, &o.kms)
}

// open calls do with the key service. The name is that of the journal, if the service is remote.
func (o *keyOptions) open(journal string, do func(service kms.Invoker) error) error {
	if err := o.secret.Complete(); err != nil {
		return err
	}
	dir, err := session.HomeDir(o.home)
	if err != nil {
		return err
	}
	if o.kms != "" {
		service, err := session.OpenRemote(o.kms, dir, journal, 0)
		if err != nil {
			return err
		}
		return errors.Join(do(service), service.Close())
	}
	secret, err := o.secret.Read(dir)
	if err != nil {
		return err
	}
	defer secret.Wipe()
	home, err := session.Open(dir, secret)
	if err != nil {
		return err
	}
	return errors.Join(do(home), home.Close())
}

// findVolume returns the volume at a path, or the one that is mounted there.
func findVolume(path string) (string, error) {
	abs, m, mounted, err := control.Find(path)
	if err != nil || mounted {
		return m.Source, err
	}
	return abs, checkVolume(abs)
}

// checkVolume refuses a directory that is no volume.
func checkVolume(dir string) error {
	if err := checkDirectory(dir, errNoVolume); err != nil {
		return err
	}
	if _, err := os.Lstat(filepath.Join(dir, volumeFile)); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", dir, disk.ErrNotVolume)
	}
	return nil
}

// checkDirectory refuses what is no directory. Its error wraps missing if nothing is there.
func checkDirectory(path string, missing error) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: %w", path, missing)
	case err != nil:
		return session.PathError(err)
	case !info.IsDir():
		return fmt.Errorf("%s: %w", path, unix.ENOTDIR)
	}
	return nil
}
