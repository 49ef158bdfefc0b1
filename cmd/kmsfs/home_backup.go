package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/pflag"

	"kmsfs/keyservice"
	"kmsfs/keyservice/sealer"
)

var errHomeServed = errors.New("another process has the key service home open")

func homeBackupCommand() command {
	return serviceCommand(command{
		name: "backup", arguments: "[OPTIONS] FILE", summary: "back up the home into one file",
		details: `
Writes all of the key service home into FILE, which must not be there yet: keys, policies, grants and the audit log, sealed. What opens the home opens the
backup: keep that elsewhere. No other kmsfs may have the home open meanwhile.

Example:
  kmsfs home backup /mnt/usb/kmsfs-home.backup`,
	}, func(_ *serviceOptions, _ *pflag.FlagSet) func(*session, []string) error {
		return func(s *session, args []string) error {
			if s.service == nil {
				return fmt.Errorf("%w: %s", errHomeServed, s.dir)
			}
			return s.service.Backup(args[0])
		}
	})
}

func homeRestoreCommand() command {
	return command{
		name: "restore", arguments: "[OPTIONS] FILE", summary: "make a home of a backup",
		details: `
Makes a key service home of a backup, where there is none yet. It is opened by what opened the home when the backup was made.

Example:
  kmsfs home restore --home ~/.local/share/kmsfs /mnt/usb/kmsfs-home.backup`,
		prepare: func(flags *pflag.FlagSet) func([]string) error {
			var o serviceOptions
			o.declare(flags)
			return func(args []string) error {
				if len(args) != 1 {
					return usagef("", "want one FILE, got %d arguments", len(args))
				}
				return o.restore(args[0])
			}
		},
	}
}

func (o *serviceOptions) restore(path string) error {
	if err := errors.Join(o.secret.complete(), harden()); err != nil {
		return err
	}
	dir, err := homeDir(o.home)
	if err != nil {
		return err
	}
	backup, err := os.Open(path)
	if err != nil {
		return pathError(err)
	}
	defer backup.Close()
	secret, err := o.secret.readFor("the backup " + path)
	if err != nil {
		return err
	}
	defer secret.wipe()
	opener, err := secret.sealer()
	if err != nil {
		return err
	}
	finishOnSignals()
	return keyservice.Restore(backup, dir, opener, self().UID)
}

// readFor returns what is given, or else the passphrase that is asked for.
func (o secretOptions) readFor(what string) (*secret, error) {
	s, err := o.given(sealer.KindCredential)
	if s != nil || err != nil {
		return s, err
	}
	passphrase, err := ask("Passphrase of " + what + ": ")
	if err != nil {
		return nil, err
	}
	return &secret{Kind: sealer.KindPassphrase, Passphrase: passphrase}, nil
}

func homePasswdCommand() command {
	return command{
		name: "passwd", arguments: "[OPTIONS]", summary: "open the home with another secret from now on",
		details: `
Seals the home's root key with another passphrase or key file. What opened it so far is given as for other commands; the new one by --new-passphrase-file
or --new-key-file, or asked for. A new key file is made if it isn't there. Whoever has an older copy of the home, and the old secret, can still open that
copy. No other kmsfs may have the home open meanwhile.

Examples:
  kmsfs home passwd
  kmsfs home passwd --key-file old --new-key-file new`,
		prepare: func(flags *pflag.FlagSet) func([]string) error {
			var o serviceOptions
			var next secretOptions
			flags.StringVar(&next.PassphraseFile, "new-passphrase-file", "", "`FILE` whose first line is the new passphrase")
			flags.StringVar(&next.KeyFile, "new-key-file", "", "new key `FILE`")
			o.declare(flags)
			return func(args []string) error {
				switch {
				case len(args) > 0:
					return usagef("", "want no arguments, got %d", len(args))
				case next.PassphraseFile != "" && next.KeyFile != "":
					return usagef("", "a new passphrase file and a new key file are given: want one of them")
				}
				return o.changeSecret(next)
			}
		},
	}
}

func (o *serviceOptions) changeSecret(next secretOptions) error {
	if err := o.secret.complete(); err != nil {
		return err
	}
	dir, err := homeDir(o.home)
	if err != nil {
		return err
	}
	old, err := o.secret.read(dir)
	if err != nil {
		return err
	}
	if old == nil {
		return fmt.Errorf("%w: %s", errHomeServed, dir)
	}
	defer old.wipe()
	fresh, err := next.readNew()
	if err != nil {
		return err
	}
	defer fresh.wipe()
	finishOnSignals()
	var made made
	if err := made.keyFile(fresh); err != nil {
		return err
	}
	if err := reseal(dir, old, fresh); err != nil {
		return errors.Join(err, made.undo())
	}
	return nil
}

func reseal(dir string, old, fresh *secret) error {
	from, err := old.sealer()
	if err != nil {
		return err
	}
	to, err := fresh.sealer()
	if err != nil {
		return err
	}
	return keyservice.ChangeSealer(dir, from, to)
}
