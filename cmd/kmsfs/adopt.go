package main

import (
	"github.com/spf13/pflag"

	"kmsfs/fs/control"
)

func adoptCommand() command {
	return command{
		name: "adopt", arguments: "[OPTIONS] PATH...", summary: "accept files that an administrator has restored or moved",
		details: `
Accepts files and directories that lie elsewhere in the volume, or belong to somebody else, than was sealed in them: after a restoration to another place, or
by another owner, they are refused otherwise. Only root, and the user whose mount it is, may do so; it is recorded in the audit log, with
both places. What isn't authentic is not accepted.

Example:
  kmsfs adopt --recursive /srv/clear/restored`,
		prepare: func(flags *pflag.FlagSet) func([]string) error {
			recursive := flags.Bool("recursive", false, "accept also what lies in directories")
			return func(args []string) error {
				if len(args) == 0 {
					return usagef("adopt", "want at least one PATH")
				}
				return runWalk(&control.Walk{Attribute: control.Adopt, Recursive: *recursive, Directories: true}, args, "adopted")
			}
		},
	}
}
