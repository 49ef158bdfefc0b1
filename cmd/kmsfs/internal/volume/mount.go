package volume

import (
	"fmt"

	"github.com/spf13/cobra"

	"kmsfs/cmd/kmsfs/internal/cli"
	"kmsfs/cmd/kmsfs/internal/session"
	"kmsfs/fs/control"
	"kmsfs/keyservice/remote"
)

var errInsideVolume = cli.Hinted("lies inside the volume", "name a directory outside it")

// Mount is the command "kmsfs mount".
func Mount() *cobra.Command {
	var o mountOptions
	var lists []string
	var foreground, daemon bool
	c := &cobra.Command{
		Use: "mount [OPTIONS] VOLUME MOUNTPOINT", GroupID: cli.Volumes, Short: "Mount a volume",
		Long: `
The command returns when the mount is ready. A process of its own serves the
mount from then on, until it is unmounted.

What opens the key service home is the first of these that is given:
--passphrase-file or --key-file; $KMSFS_PASSPHRASE_FILE or $KMSFS_KEY_FILE; the
systemd credential "kmsfs"; a passphrase typed on the terminal. Nothing is
needed while another process serves the home.

With --kms, the keys are at a remote key service: AWS KMS, or a service that
speaks its protocol, with AWS's usual settings and credentials. On a Unix
socket no credentials are needed. No home is needed. A journal of all uses of
keys is kept in the directory HOME-remote. Data keys are wrapped under branch
keys: data keys of the service that this host keeps for the time of
--kms-cache. When the service denies a key, that takes effect within this time.

With --shared, several processes or hosts may have the volume mounted, all
with --shared. The file system that holds the volume must support locks.

Mount options (-o): ro, rw, shared, allow_other, home=DIR, kms=URL,
kms_cache=TIME, passphrase_file=FILE, key_file=FILE, [no]suid, [no]dev,
[no]exec, [no]atime, [no]diratime, [no]relatime, [no]strictatime, [no]lazytime,
sync, async, dirsync. With a link /sbin/mount.fuse.kmsfs to this program,
mount(8) and /etc/fstab know the type fuse.kmsfs.`,
		Example: `
  kmsfs mount ~/vault ~/clear
  kmsfs mount --key-file /etc/kmsfs.key --allow-other /srv/vault /srv/clear
  kmsfs mount --kms aws:eu-central-1 ~/vault ~/clear`,
		Args: cli.Exactly(2, "VOLUME and MOUNTPOINT"), ValidArgsFunction: cli.Directories(2),
		RunE: func(_ *cobra.Command, args []string) error {
			switch {
			case daemon:
				return runDaemon()
			case foreground:
				return o.runForeground(lists, args)
			}
			return o.runBackground(lists, args)
		},
	}
	flags := c.Flags()
	flags.BoolVar(&foreground, "foreground", false, "serve the mount in this process, and log to standard error")
	flags.BoolVar(&o.AllowOther, "allow-other", false, "let other users in, as modes and key policies allow")
	flags.BoolVar(&o.ReadOnly, "read-only", false, "change nothing in the volume")
	flags.BoolVar(&o.Shared, "shared", false, "let other mounts change the volume at the same time")
	flags.StringArrayVarP(&lists, "options", "o", nil, "mount `OPTIONS`, with commas between")
	o.Secret.Declare(flags)
	session.DeclareHome(flags, &o.Home)
	session.DeclareKMS(flags, &o.KMS)
	flags.StringVar(&o.KMSCache, "kms-cache", "",
		"with --kms, keep branch keys for a `TIME`; none asks at each open (default "+session.DefaultCache+")")
	flags.BoolVar(&daemon, "daemon", false, "")
	flags.Lookup("daemon").Hidden = true
	return c
}

// runBackground mounts the volume and leaves it to a process of its own.
func (o *mountOptions) runBackground(lists, args []string) error {
	if err := o.complete(lists, args, false); err != nil {
		return err
	}
	return startDaemon(*o)
}

// runForeground serves the mount until it is unmounted.
func (o *mountOptions) runForeground(lists, args []string) error {
	if err := o.complete(lists, args, false); err != nil {
		return err
	}
	secret, err := o.readSecret()
	if err != nil {
		return err
	}
	return o.serve(secret, foregroundLog(), func() error { return nil })
}

// complete adds to the options the lists of mount options, the arguments and the environment. It
// refuses what can't be mounted at a glance, before a passphrase is asked for.
func (o *mountOptions) complete(lists, args []string, sloppy bool) error {
	for _, list := range lists {
		if err := o.apply(list, sloppy); err != nil {
			return err
		}
	}
	o.Volume, o.Mountpoint = args[0], args[1]
	if err := o.Secret.Complete(); err != nil {
		return err
	}
	var err error
	if o.Home, err = session.HomeDir(o.Home); err != nil {
		return err
	}
	if err := o.absolute(); err != nil {
		return err
	}
	if o.KMS != "" {
		if err := remote.CheckURL(o.KMS); err != nil {
			return err
		}
		if _, err := session.CacheTime(o.KMSCache); err != nil {
			return err
		}
	}
	return o.checkPlaces()
}

// checkPlaces refuses directories between which no mount is possible.
func (o *mountOptions) checkPlaces() error {
	if err := checkDirectory(o.Volume, errNoVolume); err != nil {
		return err
	}
	if err := checkDirectory(o.Mountpoint, errNoDirectory); err != nil {
		return err
	}
	if err := checkVolume(o.Volume); err != nil {
		return err
	}
	if control.Within(o.Volume, o.Mountpoint) {
		return fmt.Errorf("mountpoint %s: %w", o.Mountpoint, errInsideVolume)
	}
	return nil
}
