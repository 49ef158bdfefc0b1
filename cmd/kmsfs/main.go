// Command kmsfs makes, mounts and examines encrypted volumes, and runs their key service. It has no
// logic of its own: the commands read options, call the packages below, and print what comes of it.
//
//   - main.go: which command is called
//   - version.go, completion.go, man.go: commands about the program itself
//   - internal/volume: init, mount, umount, status, inspect, fsck, policy, rewrap, adopt, lock,
//     key usage
//   - internal/key: key, alias, grant, data-key, encrypt, decrypt
//   - internal/audit: audit
//   - internal/home: home, serve, credential
//
// Beneath them:
//
//   - internal/cli: how commands are called, their help, and how they fail
//   - internal/output: what they print
//   - internal/session: where the key service is, and what opens it
//   - internal/auditlog: reading a home's audit log
//   - internal/filekeys: the key service as the file system calls it
package main

import (
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"kmsfs/cmd/kmsfs/internal/audit"
	"kmsfs/cmd/kmsfs/internal/cli"
	"kmsfs/cmd/kmsfs/internal/home"
	"kmsfs/cmd/kmsfs/internal/key"
	"kmsfs/cmd/kmsfs/internal/volume"
)

func main() { os.Exit(kmsfs()) }

// kmsfs runs the program, and returns its exit status.
func kmsfs() int {
	cobra.EnableCommandSorting = false // they are listed as a user meets them
	return cli.Report(run(os.Args))
}

// run runs the command that the arguments ask for, and the name by which the program was called.
func run(argv []string) error {
	name, args := filepath.Base(argv[0]), argv[1:]
	switch name {
	case "mount.kmsfs", "mount.fuse.kmsfs":
		return cli.Execute(volume.MountHelper(name), args)
	}
	root := rootCommand()
	// mount.fuse3, which mount(8) runs for the type fuse.kmsfs, calls the program as
	// "kmsfs VOLUME MOUNTPOINT -o OPTIONS".
	if len(args) > 0 && !isCommand(root, args[0]) && cli.IsDirectory(args[0]) {
		return cli.Execute(volume.MountHelper(name), args)
	}
	return cli.Execute(root, args)
}

func isCommand(root *cobra.Command, name string) bool {
	found, _, err := root.Find([]string{name})
	return err == nil && found != root
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use: "kmsfs COMMAND [OPTIONS] [ARGUMENTS]", DisableAutoGenTag: true,
		Short: "Mount encrypted directories and run their key service",
		Long: `
kmsfs mounts an encrypted directory. Each file is sealed under its own data key,
which a KMS key wraps. Every use of a key is authorized and logged.`,
		Example: `
  kmsfs init ~/vault
  mkdir ~/clear
  kmsfs mount ~/vault ~/clear
  kmsfs umount ~/clear

The keys, and the log of their use, lie in the key service home: --home DIR,
else $KMSFS_HOME, else $XDG_DATA_HOME/kmsfs (~/.local/share/kmsfs), and
/var/lib/kmsfs for root. Back it up: no volume can be opened without it.

Exit status: 0 done, 1 failed, 2 called wrongly.`,
	}
	root.AddGroup(
		&cobra.Group{ID: cli.Volumes, Title: "Volumes:"},
		&cobra.Group{ID: cli.Mounts, Title: "Files and directories on a mount:"},
		&cobra.Group{ID: cli.Keys, Title: "Keys:"},
		&cobra.Group{ID: cli.KeyService, Title: "The key service:"},
		&cobra.Group{ID: cli.Program, Title: "The program:"},
	)
	root.AddCommand(
		volume.Init(), volume.Mount(), volume.Umount(), volume.Status(), volume.Inspect(), volume.Fsck(),
		volume.Policy(), volume.Rewrap(), volume.Adopt(), volume.Lock(), volume.Unlock(),
		key.Command(volume.KeyUsage()), key.Alias(), key.Grant(), key.DataKey(), key.Encrypt(), key.Decrypt(),
		home.Serve(), home.Credential(), audit.Command(), home.Command(),
		versionCommand(), completionCommand(root), manCommand(root),
	)
	root.SetHelpCommand(cli.Help())
	root.Version = version()
	root.SetVersionTemplate("{{.Version}}\n")
	root.Flags().Bool("version", false, "show the program's version")
	return root
}
