package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"kmsfs/fs/control"
	disk "kmsfs/fs/volume"
	"kmsfs/keyservice/kms"
)

// errInterrupted says that a signal ended the work on a volume.
var errInterrupted = errors.New("interrupted: not all of the volume was looked at")

// volumeOptions say which key service has the keys of volumes that a command goes through.
type volumeOptions struct {
	home, kms string
	secret    secretOptions
}

func (o *volumeOptions) declare(flags *pflag.FlagSet) {
	o.secret.declare(flags)
	declareHome(flags, &o.home)
	declareKMS(flags, &o.kms)
}

// open has do use the key service. The journal's name is for one that is elsewhere.
func (o *volumeOptions) open(journal string, do func(service kms.Invoker) error) error {
	if err := o.secret.complete(); err != nil {
		return err
	}
	dir, err := homeDir(o.home)
	if err != nil {
		return err
	}
	if o.kms != "" {
		service, err := openRemote(o.kms, dir, journal, 0)
		if err != nil {
			return err
		}
		return errors.Join(do(service), service.Close())
	}
	secret, err := o.secret.read(dir)
	if err != nil {
		return err
	}
	defer secret.wipe()
	home, err := openHome(dir, secret)
	if err != nil {
		return err
	}
	return errors.Join(do(home), home.close())
}

// findVolume returns the volume at that path, or that is mounted there.
func findVolume(path string) (string, error) {
	abs, m, mounted, err := control.Find(path)
	if err != nil || mounted {
		return m.Source, err
	}
	if err := checkDirectory(abs, errNoVolume); err != nil {
		return "", err
	}
	if _, err := os.Lstat(filepath.Join(abs, volumeFile)); errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%s: %w", path, disk.ErrNotVolume)
	}
	return abs, nil
}
