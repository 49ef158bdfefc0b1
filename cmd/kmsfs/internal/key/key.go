// Package key has the commands for KMS keys, their policies, aliases and grants, and for encrypting
// with them.
//
//   - key.go: "kmsfs key"; create.go, list.go, state.go, material.go, tag.go, policy.go: its
//     commands
//   - alias.go, grant.go: names of keys, and who may use them
//   - crypto.go: encrypting, decrypting and making data keys
package key

import (
	"github.com/spf13/cobra"

	"kmsfs/cmd/kmsfs/internal/cli"
	"kmsfs/cmd/kmsfs/internal/session"
)

// Command is "kmsfs key". The command usage is part of it.
func Command(usage *cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: "key COMMAND", GroupID: cli.Keys, Short: "Make, show, rotate, disable and delete KMS keys",
		Long: `
KMS keys follow AWS KMS's rules. A KEY is a key's ID, ARN or alias.`,
		Example: `
  kmsfs key create --description "Finance"
  kmsfs key disable alias/finance
  kmsfs key policy put alias/finance policy.json`,
	}
	c.AddCommand(
		createCommand(), listCommand(), describeCommand(),
		enableCommand(), disableCommand(), rotateCommand(), enableRotationCommand(), disableRotationCommand(),
		rotationsCommand(), usage, scheduleDeletionCommand(), cancelDeletionCommand(),
		importCommand(), tagCommand(), untagCommand(), policyCommand(),
	)
	return c
}

// needKey is the check of commands that can't do without the option --key.
func needKey(key *string) func(*cobra.Command, []string) error {
	return func(*cobra.Command, []string) error {
		if *key == "" {
			return cli.Usagef("--key is needed")
		}
		return nil
	}
}

// ofKey makes a command that does something with the key that its one argument names.
func ofKey(c *cobra.Command, o *session.Options, do func(s *session.Session, arn string) error) *cobra.Command {
	c.Args, c.ValidArgsFunction = cli.Exactly(1, "one KEY"), o.Keys(0)
	return o.Bind(c, func(s *session.Session, args []string) error {
		arn, err := s.KeyARN(args[0])
		if err != nil {
			return err
		}
		return do(s, arn)
	})
}
