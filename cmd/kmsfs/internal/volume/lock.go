package volume

import (
	"fmt"

	"github.com/spf13/cobra"

	"kmsfs/cmd/kmsfs/internal/cli"
	"kmsfs/cmd/kmsfs/internal/session"
	"kmsfs/fs/control"
	"kmsfs/keyservice/kms"
)

// Lock is the command "kmsfs lock".
func Lock() *cobra.Command {
	return lockCommand(&cobra.Command{
		Use: "lock [OPTIONS] MOUNTPOINT|KEY", GroupID: cli.Mounts, Short: "Lock a mount or a KMS key at once",
		Long: `
Locks a mount: the keys of its files are wiped, open files fail, and no file can
be opened until "kmsfs unlock". Names stay visible.

Locks a KMS key for all mounts and all uses, as "kmsfs key disable" does.`,
		Example: `
  kmsfs lock ~/clear
  kmsfs lock alias/finance`,
	}, true)
}

// Unlock is the command "kmsfs unlock".
func Unlock() *cobra.Command {
	return lockCommand(&cobra.Command{
		Use: "unlock [OPTIONS] MOUNTPOINT|KEY", GroupID: cli.Mounts, Short: "Unlock a mount or a KMS key",
		Long: `
Ends what "kmsfs lock" has begun. Files can be opened again, and files that were
open work again. A KMS key is enabled, as by "kmsfs key enable".`,
		Example: `
  kmsfs unlock ~/clear
  kmsfs unlock alias/finance`,
	}, false)
}

// lockCommand locks or unlocks a mount, or else the KMS key of that name.
func lockCommand(c *cobra.Command, lock bool) *cobra.Command {
	var o session.Options
	o.Declare(c.Flags())
	c.Args = cli.Exactly(1, "one MOUNTPOINT or KEY")
	c.ValidArgsFunction = func(c *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		mountpoints, directive := cli.Mountpoints(c, args, typed)
		keys, _ := o.Keys(0)(c, args, typed)
		return append(mountpoints, keys...), directive
	}
	c.RunE = func(_ *cobra.Command, args []string) error {
		path, _, ok, err := control.Find(args[0])
		switch {
		case err != nil:
			return err
		case ok:
			return lockMount(args[0], lock)
		case cli.IsDirectory(path):
			return fmt.Errorf("%s: %w", args[0], control.ErrNotMounted)
		}
		return o.Call(func(s *session.Session) error { return lockKey(s, args[0], lock) })
	}
	return c
}

func lockMount(mountpoint string, lock bool) error {
	dir, err := control.Open(mountpoint)
	if err != nil {
		return err
	}
	defer dir.Close()
	if lock {
		return dir.Set(control.Locked, control.Yes)
	}
	return dir.Remove(control.Locked)
}

// lockKey disables a KMS key, or enables it.
func lockKey(s *session.Session, key string, lock bool) error {
	arn, err := s.KeyARN(key)
	if err != nil {
		return err
	}
	if lock {
		_, err = kms.DisableKey.Call(s.Ctx, s, s.Caller, &kms.DisableKeyInput{KeyId: arn})
	} else {
		_, err = kms.EnableKey.Call(s.Ctx, s, s.Caller, &kms.EnableKeyInput{KeyId: arn})
	}
	return err
}
