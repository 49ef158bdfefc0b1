package volume

import (
	"github.com/spf13/cobra"

	"kmsfs/cmd/kmsfs/internal/cli"
)

// MountHelper is "kmsfs mount" as mount(8) calls its helpers, mount.kmsfs and mount.fuse.kmsfs:
//
//	mount.fuse.kmsfs VOLUME MOUNTPOINT [-sfnv] [-o OPTIONS] [-t TYPE]
func MountHelper(name string) *cobra.Command {
	var lists []string
	var sloppy, fake, readOnly bool
	c := &cobra.Command{
		Use: name + " VOLUME MOUNTPOINT [-sfnvrw] [-o OPTIONS] [-t TYPE]", Short: "Mount a volume for mount(8)",
		Long: `Mount a volume for mount(8). "kmsfs mount --help" lists the mount options.`,
		Example: `
  # /etc/fstab
  /srv/vault  /srv/clear  fuse.kmsfs  key_file=/etc/kmsfs.key,nofail  0  0`,
		Args: cli.Exactly(2, "VOLUME and MOUNTPOINT"),
		RunE: func(_ *cobra.Command, args []string) error {
			o := mountOptions{ReadOnly: readOnly}
			if err := o.complete(lists, args, sloppy); err != nil || fake {
				return err
			}
			return startDaemon(o)
		},
	}
	flags := c.Flags()
	flags.StringArrayVarP(&lists, "options", "o", nil, "mount `OPTIONS`, with commas between")
	flags.BoolVarP(&sloppy, "sloppy", "s", false, "ignore unknown mount options")
	flags.BoolVarP(&fake, "fake", "f", false, "do everything but mount")
	flags.BoolVarP(&readOnly, "read-only", "r", false, "change nothing in the volume")
	flags.BoolP("rw", "w", false, "mount for reading and writing")
	flags.BoolP("no-mtab", "n", false, "ignored")
	flags.BoolP("verbose", "v", false, "ignored")
	flags.StringP("types", "t", "", "ignored")
	return c
}
