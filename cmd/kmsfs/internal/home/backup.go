package home

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"kmsfs/cmd/kmsfs/internal/cli"
	"kmsfs/cmd/kmsfs/internal/session"
	keyhome "kmsfs/keyservice/home"
)

var errHomeServed = cli.Hinted("another process has the key service home open", "unmount what it serves, and try again")

func backupCommand() *cobra.Command {
	var o session.Options
	return o.Bind(&cobra.Command{
		Use: "backup [OPTIONS] FILE", Short: "Back up the home into one file",
		Long: `
Writes all of the key service home into FILE, which must not exist: keys,
policies, grants and the audit log, sealed. What opens the home opens the
backup: keep that elsewhere. No other kmsfs may have the home open.`,
		Example: `
  kmsfs home backup /mnt/usb/kmsfs-home.backup`,
		Args: cli.Exactly(1, "one FILE"),
	}, func(s *session.Session, args []string) error {
		if s.Own == nil {
			return fmt.Errorf("%w: %s", errHomeServed, s.Dir)
		}
		return s.Own.Backup(args[0])
	})
}

func restoreCommand() *cobra.Command {
	var o session.Options
	c := &cobra.Command{
		Use: "restore [OPTIONS] FILE", Short: "Make a home from a backup",
		Long: `
Makes a key service home where there is none. It is opened by what opened the
home when the backup was made.`,
		Example: `
  kmsfs home restore /mnt/usb/kmsfs-home.backup
  kmsfs home restore --home /srv/home --key-file key kmsfs-home.backup`,
		Args: cli.Exactly(1, "one FILE"),
		RunE: func(_ *cobra.Command, args []string) error { return restore(&o, args[0]) },
	}
	o.Declare(c.Flags())
	return c
}

func restore(o *session.Options, path string) error {
	if err := o.Secret.Complete(); err != nil {
		return err
	}
	if err := session.Harden(); err != nil {
		return err
	}
	dir, err := session.HomeDir(o.Home)
	if err != nil {
		return err
	}
	backup, err := os.Open(path)
	if err != nil {
		return session.PathError(err)
	}
	defer backup.Close()
	secret, err := o.Secret.ReadFor("the backup " + path)
	if err != nil {
		return err
	}
	defer secret.Wipe()
	opener, err := secret.Sealer()
	if err != nil {
		return err
	}
	session.FinishOnSignals()
	return keyhome.Restore(backup, dir, opener, session.Self().UID)
}

type passwdOptions struct {
	session.Options
	next session.SecretOptions
}

func passwdCommand() *cobra.Command {
	var o passwdOptions
	c := &cobra.Command{
		Use: "passwd [OPTIONS]", Short: "Open the home with another secret from now on",
		Long: `
Seals the home's root key with another passphrase or key file. The present
secret is given as for other commands. The new one is given by
--new-passphrase-file or --new-key-file, or asked for. A new key file is made if
it does not exist. Anyone who has an older copy of the home, and the old secret,
can still open that copy. No other kmsfs may have the home open.`,
		Example: `
  kmsfs home passwd
  kmsfs home passwd --key-file old --new-key-file new`,
		Args: cli.None,
		RunE: func(*cobra.Command, []string) error { return o.run() },
	}
	c.Flags().StringVar(&o.next.PassphraseFile, "new-passphrase-file", "", "read the new passphrase from a `FILE`")
	c.Flags().StringVar(&o.next.KeyFile, "new-key-file", "", "open the home with a new key `FILE`")
	o.Declare(c.Flags())
	return c
}

func (o *passwdOptions) run() error {
	if o.next.PassphraseFile != "" && o.next.KeyFile != "" {
		return cli.Usagef("a new passphrase file and a new key file are given: want one of them")
	}
	if err := o.Secret.Complete(); err != nil {
		return err
	}
	dir, err := session.HomeDir(o.Home)
	if err != nil {
		return err
	}
	old, err := o.Secret.Read(dir)
	if err != nil {
		return err
	}
	if old == nil {
		return fmt.Errorf("%w: %s", errHomeServed, dir)
	}
	defer old.Wipe()
	fresh, err := o.next.ReadNew()
	if err != nil {
		return err
	}
	defer fresh.Wipe()
	session.FinishOnSignals()
	var created session.Created
	if err := created.KeyFile(fresh); err != nil {
		return err
	}
	if err := reseal(dir, old, fresh); err != nil {
		return errors.Join(err, created.Undo())
	}
	return nil
}

func reseal(dir string, old, fresh *session.Secret) error {
	from, err := old.Sealer()
	if err != nil {
		return err
	}
	to, err := fresh.Sealer()
	if err != nil {
		return err
	}
	return keyhome.ChangeSealer(dir, from, to)
}
