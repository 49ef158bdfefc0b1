// Command kmsfs makes, mounts and examines encrypted volumes. Its logic is that of the packages below it: here are
// options, output, and exit codes.
//
//   - main.go: dispatch; command.go: what a command is, usage errors and exit codes; hint.go: what to do about errors
//   - init.go, mount.go, umount.go, inspect.go, fsck.go, version.go: one command each; volume.go, progress.go: what those share that go through volumes
//   - policy.go, rewrap.go, adopt.go, lock.go: commands for a mount; control.go: how it is spoken to
//   - key.go, key_usage.go, key_policy.go, alias.go, grant.go, crypto.go, home_command.go, home_backup.go: commands for the key service; service.go: what they share
//   - serve.go, credential.go: the key service on sockets and TCP, and access keys for it
//   - remote.go: key services elsewhere
//   - options.go: mount options; helper.go: being called by mount(8)
//   - home.go, secret.go, keys.go: where the keys are, what opens them, and how the file system asks for them
//   - daemon.go, log.go, mountinfo.go: the process that serves a mount, where it logs, and how it is found
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	os.Exit(exitCode(run(os.Args)))
}

// commands lists the commands in the order in which a user meets them.
func commands() []command {
	return []command{
		initCommand(), mountCommand(), umountCommand(), statusCommand(), inspectCommand(), fsckCommand(),
		policyCommand(), rewrapCommand(), adoptCommand(), lockCommand(), unlockCommand(),
		keyCommand(), aliasCommand(), grantCommand(), dataKeyCommand(), encryptCommand(), decryptCommand(),
		serveCommand(), credentialCommand(), auditCommand(), homeCommand(),
		versionCommand(),
	}
}

// run runs the command that the arguments, and the name that the program was called by, ask for.
func run(argv []string) error {
	args := argv[1:]
	switch filepath.Base(argv[0]) {
	case "mount.kmsfs", "mount.fuse.kmsfs":
		return helperCommand().execute(args)
	}
	if len(args) == 0 {
		return usagef("", "no command given")
	}
	switch args[0] {
	case "help":
		if len(args) == 1 {
			fmt.Print(overview())
			return nil
		}
		args = []string{args[1], "--help"}
	case "-h", "--help":
		fmt.Print(overview())
		return nil
	case "--version":
		args[0] = "version"
	}
	for _, c := range commands() {
		if c.name == args[0] {
			return c.execute(args[1:])
		}
	}
	// mount.fuse3, which mount(8) runs for "-t fuse.kmsfs", calls the program as "kmsfs VOLUME MOUNTPOINT -o OPTIONS".
	if isDirectory(args[0]) {
		return helperCommand().execute(args)
	}
	return usagef("", "unknown command %q", args[0])
}

// overview is the text of "kmsfs --help".
func overview() string {
	var b strings.Builder
	b.WriteString(`Usage: kmsfs COMMAND [OPTIONS] [ARGUMENTS]

kmsfs mounts an encrypted directory. Every file is sealed under a data key of its own, which a KMS key wraps; every
use of a key is authorised and logged.

Commands:
`)
	for _, c := range commands() {
		fmt.Fprintf(&b, "  %-10s %s\n", c.name, c.summary)
	}
	b.WriteString(`
Example: an encrypted directory, to use and to put away.
  kmsfs init ~/vault
  mkdir ~/clear
  kmsfs mount ~/vault ~/clear
  kmsfs umount ~/clear

The keys, and the log of their use, lie in the key service home: --home DIR, else $KMSFS_HOME, else
$XDG_DATA_HOME/kmsfs (~/.local/share/kmsfs), and /var/lib/kmsfs for root. Back it up: a volume is nothing without it.

Exit status: 0 done, 1 failed, 2 called wrongly. "kmsfs COMMAND --help" says more.
`)
	return b.String()
}

func isDirectory(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
