package main

import (
	"github.com/spf13/pflag"

	"kmsfs/keyservice/kms"
)

func credentialCommand() command {
	return command{
		name: "credential", arguments: "COMMAND", summary: "make access keys for clients on a network",
		details: `
Commands for access keys: with one, AWS's clients sign calls to a key service that listens on TCP (kmsfs serve --listen), and the service takes
them for its user's. Users make their own; the home's owner makes them for others.

Example:
  kmsfs credential create --user alice`,
		commands: []command{
			serviceCommand(command{
				name: "create", arguments: "[OPTIONS]", summary: "make an access key, and show its secret this once",
				details: `
Makes an access key for the calling user, or another. The secret is shown now and never again. With --json, in the form of AWS IAM's CreateAccessKey.

Examples:
  kmsfs credential create
  kmsfs credential create --user alice --json`,
			}, createCredential),
			serviceCommand(command{
				name: "list", arguments: "[OPTIONS]", summary: "list access keys",
				details: "Lists the calling user's access keys, another's, or with --all everybody's.\n\nExample:\n  kmsfs credential list --all",
			}, listCredentials),
			serviceCommand(command{
				name: "delete", arguments: "[OPTIONS] ACCESSKEYID", summary: "have an access key refused from now on",
				details: "Deletes an access key. Calls that are signed with it are refused at once.\n\nExample:\n  kmsfs credential delete KMFSEXAMPLEEXAMPLE23",
			}, func(_ *serviceOptions, _ *pflag.FlagSet) func(*session, []string) error {
				return func(s *session, args []string) error {
					_, err := kms.DeleteAccessKey.Call(s.ctx, s, s.caller, &kms.DeleteAccessKeyInput{AccessKeyId: args[0]})
					return err
				}
			}),
		},
	}
}

func createCredential(o *serviceOptions, flags *pflag.FlagSet) func(*session, []string) error {
	user := flags.String("user", "", "user `NAME`, or uid:N (default: the calling user)")
	o.declareJSON(flags)
	return func(s *session, _ []string) error {
		out, err := kms.CreateAccessKey.Call(s.ctx, s, s.caller, &kms.CreateAccessKeyInput{UserName: *user})
		if err != nil {
			return err
		}
		if o.json {
			return printJSON(out)
		}
		return facts("UserName", out.AccessKey.UserName, "AccessKeyId", out.AccessKey.AccessKeyId, "SecretAccessKey", out.AccessKey.SecretAccessKey)
	}
}

func listCredentials(o *serviceOptions, flags *pflag.FlagSet) func(*session, []string) error {
	user := flags.String("user", "", "user `NAME`, or uid:N (default: the calling user)")
	all := flags.Bool("all", false, "list everybody's access keys")
	o.declareJSON(flags)
	return func(s *session, _ []string) error {
		if *all && *user != "" {
			return usagef("credential", "--all and --user exclude each other")
		}
		if *all {
			*user = "*"
		}
		out, err := kms.ListAccessKeys.Call(s.ctx, s, s.caller, &kms.ListAccessKeysInput{UserName: *user})
		if err != nil {
			return err
		}
		if o.json {
			return printJSON(out)
		}
		rows := [][]string{{"ACCESS KEY", "USER", "CREATED"}}
		for _, k := range out.AccessKeyMetadata {
			rows = append(rows, []string{k.AccessKeyId, k.UserName, when(&k.CreateDate)})
		}
		return table(rows)
	}
}
