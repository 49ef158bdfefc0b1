package main

import "github.com/spf13/pflag"

// helperCommand is mount as mount(8) calls its helpers, mount.kmsfs and mount.fuse.kmsfs:
//
//	mount.fuse.kmsfs VOLUME MOUNTPOINT [-sfnv] [-o OPTIONS] [-t TYPE]
func helperCommand() command {
	return command{
		name:      "mount",
		arguments: "VOLUME MOUNTPOINT [-sfnvrw] [-o OPTIONS] [-t TYPE]",
		details: `
Mounts a volume for mount(8). "kmsfs mount --help" lists the mount options.

Example, in /etc/fstab:
  /srv/vault  /srv/clear  fuse.kmsfs  allow_other,key_file=/etc/kmsfs.key,nofail  0  0`,
		prepare: func(flags *pflag.FlagSet) func([]string) error {
			options := flags.StringArrayP("options", "o", nil, "mount `OPTIONS`, with commas between")
			sloppy := flags.BoolP("sloppy", "s", false, "pass over unknown mount options")
			fake := flags.BoolP("fake", "f", false, "do everything but mount")
			readOnly := flags.BoolP("read-only", "r", false, "mount for reading only")
			flags.BoolP("rw", "w", false, "mount for reading and writing")
			flags.BoolP("no-mtab", "n", false, "ignored")
			flags.BoolP("verbose", "v", false, "ignored")
			flags.StringP("types", "t", "", "ignored")
			return func(args []string) error {
				var o mountOptions
				for _, list := range *options {
					if err := o.apply(list, *sloppy); err != nil {
						return err
					}
				}
				o.ReadOnly = o.ReadOnly || *readOnly
				if err := o.complete(args); err != nil || *fake {
					return err
				}
				return startDaemon(o)
			}
		},
	}
}
