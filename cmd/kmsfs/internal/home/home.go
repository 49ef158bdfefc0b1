// Package home has the commands for the key service home: its secret, its backups and its policy,
// and for serving it to other programs.
package home

import (
	"github.com/spf13/cobra"

	"kmsfs/cmd/kmsfs/internal/cli"
	"kmsfs/cmd/kmsfs/internal/key"
	"kmsfs/cmd/kmsfs/internal/output"
	"kmsfs/cmd/kmsfs/internal/session"
	"kmsfs/keyservice/kms"
)

// Command is "kmsfs home".
func Command() *cobra.Command {
	c := &cobra.Command{
		Use: "home COMMAND", GroupID: cli.KeyService, Short: "Back up the key service home, change its secret or policy",
		Long: `
The key service home holds the keys, policies and grants of its owner's volumes,
and the audit log.`,
		Example: `
  kmsfs home backup /mnt/usb/kmsfs-home.backup
  kmsfs home passwd`,
	}
	c.AddCommand(backupCommand(), restoreCommand(), passwdCommand(), policyCommand())
	return c
}

func policyCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "policy COMMAND", Short: "Show and change the service policy",
		Long: `
The service policy applies to what concerns no key, such as making one, and to
what key policies leave to the account.`,
		Example: `
  kmsfs home policy get > service.json
  kmsfs home policy put service.json`,
	}
	c.AddCommand(policyGetCommand(), policyPutCommand())
	return c
}

func policyGetCommand() *cobra.Command {
	var o session.Options
	return o.Bind(&cobra.Command{
		Use: "get [OPTIONS]", Short: "Print the service policy",
		Example: `
  kmsfs home policy get > service.json`,
		Args: cli.None,
	}, func(s *session.Session, _ []string) error {
		out, err := kms.GetServicePolicy.Call(s.Ctx, s, s.Caller, &kms.GetServicePolicyInput{})
		if err != nil {
			return err
		}
		return output.Document(out.Policy)
	})
}

func policyPutCommand() *cobra.Command {
	var o session.Options
	return o.Bind(&cobra.Command{
		Use: "put [OPTIONS] FILE", Short: "Change the service policy",
		Long: `
Makes FILE the service policy; - stands for standard input. A policy that would
not let you change it again is rejected.`,
		Example: `
  kmsfs home policy put service.json`,
		Args: cli.Exactly(1, "one FILE"),
	}, func(s *session.Session, args []string) error {
		document, err := key.ReadPolicy(args[0])
		if err != nil {
			return err
		}
		_, err = kms.PutServicePolicy.Call(s.Ctx, s, s.Caller, &kms.PutServicePolicyInput{Policy: document})
		return err
	})
}
