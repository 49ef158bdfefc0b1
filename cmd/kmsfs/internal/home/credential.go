package home

import (
	"github.com/spf13/cobra"

	"kmsfs/cmd/kmsfs/internal/cli"
	"kmsfs/cmd/kmsfs/internal/output"
	"kmsfs/cmd/kmsfs/internal/session"
	"kmsfs/keyservice/kms"
)

// Credential is the command "kmsfs credential".
func Credential() *cobra.Command {
	c := &cobra.Command{
		Use: "credential COMMAND", GroupID: cli.KeyService, Short: "Make access keys for clients on a network",
		Long: `
With an access key, AWS's clients sign calls to a key service that listens on
TCP (kmsfs serve --listen). The service takes the calls for the user's own.
Users make their own access keys; the home's owner makes them for others.`,
		Example: `
  kmsfs credential create --user alice`,
	}
	c.AddCommand(credentialCreate(), credentialList(), credentialDelete())
	return c
}

func credentialCreate() *cobra.Command {
	var o session.Options
	c := &cobra.Command{
		Use: "create [OPTIONS]", Short: "Make an access key, and show its secret this once",
		Long: `
Makes an access key for the calling user, or for another. The secret is never
shown again. With --json, in the form of AWS IAM's CreateAccessKey.`,
		Example: `
  kmsfs credential create
  kmsfs credential create --user alice --json`,
		Args: cli.None,
	}
	user := c.Flags().String("user", "", "user `NAME`, or uid:N (default: the calling user)")
	o.DeclareJSON(c.Flags())
	return o.Bind(c, func(s *session.Session, _ []string) error {
		out, err := kms.CreateAccessKey.Call(s.Ctx, s, s.Caller, &kms.CreateAccessKeyInput{UserName: *user})
		if err != nil {
			return err
		}
		if o.JSON {
			return output.JSON(out)
		}
		made := out.AccessKey
		return output.Facts("UserName", made.UserName, "AccessKeyId", made.AccessKeyId, "SecretAccessKey", made.SecretAccessKey)
	})
}

func credentialList() *cobra.Command {
	var o session.Options
	c := &cobra.Command{
		Use: "list [OPTIONS]", Short: "List access keys",
		Long: `
Lists the calling user's access keys, those of another user, or with --all those
of all users.`,
		Example: `
  kmsfs credential list --all`,
		Args: cli.None,
	}
	user := c.Flags().String("user", "", "user `NAME`, or uid:N (default: the calling user)")
	all := c.Flags().Bool("all", false, "list the access keys of all users")
	o.DeclareJSON(c.Flags())
	c.PreRunE = func(*cobra.Command, []string) error {
		if *all && *user != "" {
			return cli.Usagef("--all and --user exclude each other")
		}
		return nil
	}
	return o.Bind(c, func(s *session.Session, _ []string) error {
		if *all {
			*user = "*"
		}
		out, err := kms.ListAccessKeys.Call(s.Ctx, s, s.Caller, &kms.ListAccessKeysInput{UserName: *user})
		if err != nil {
			return err
		}
		if o.JSON {
			return output.JSON(out)
		}
		rows := [][]string{{"ACCESS KEY", "USER", "CREATED"}}
		for _, k := range out.AccessKeyMetadata {
			rows = append(rows, []string{k.AccessKeyId, k.UserName, output.Time(&k.CreateDate)})
		}
		return output.Table(rows)
	})
}

func credentialDelete() *cobra.Command {
	var o session.Options
	return o.Bind(&cobra.Command{
		Use: "delete [OPTIONS] ACCESSKEYID", Short: "Delete an access key",
		Long: `
Calls that are signed with it are denied at once.`,
		Example: `
  kmsfs credential delete KMFSEXAMPLEEXAMPLE23`,
		Args: cli.Exactly(1, "one ACCESSKEYID"),
	}, func(s *session.Session, args []string) error {
		_, err := kms.DeleteAccessKey.Call(s.Ctx, s, s.Caller, &kms.DeleteAccessKeyInput{AccessKeyId: args[0]})
		return err
	})
}
