package main

import (
	"github.com/spf13/pflag"

	"kmsfs/keyservice/kms"
)

func aliasCommand() command {
	return command{
		name: "alias", arguments: "COMMAND", summary: "give KMS keys names",
		details: "Commands for aliases: names of KMS keys, which begin with alias/.\n\nExample:\n  kmsfs alias create alias/finance $(kmsfs key create)",
		commands: []command{
			aliasChangeCommand("create", "give a KMS key a further name", func(s *session, name, arn string) error {
				_, err := kms.CreateAlias.Call(s.ctx, s, s.caller, &kms.CreateAliasInput{AliasName: name, TargetKeyId: arn})
				return err
			}),
			aliasChangeCommand("update", "have an alias name another KMS key", func(s *session, name, arn string) error {
				_, err := kms.UpdateAlias.Call(s.ctx, s, s.caller, &kms.UpdateAliasInput{AliasName: name, TargetKeyId: arn})
				return err
			}),
			serviceCommand(command{
				name: "delete", arguments: "[OPTIONS] ALIAS", summary: "remove an alias; the KMS key stays",
				details: "Removes an alias. The KMS key stays.\n\nExample:\n  kmsfs alias delete alias/finance",
			}, func(_ *serviceOptions, _ *pflag.FlagSet) func(*session, []string) error {
				return func(s *session, args []string) error {
					_, err := kms.DeleteAlias.Call(s.ctx, s, s.caller, &kms.DeleteAliasInput{AliasName: args[0]})
					return err
				}
			}),
			serviceCommand(command{
				name: "list", arguments: "[OPTIONS]", summary: "list all aliases, or those of a KMS key",
				details: "Lists all aliases, or with --key those of one KMS key. With --json, in the form of ListAliases.\n\nExample:\n  kmsfs alias list",
			}, listAliases),
		},
	}
}

func aliasChangeCommand(name, summary string, change func(s *session, alias, arn string) error) command {
	return serviceCommand(command{
		name: name, arguments: "[OPTIONS] ALIAS KEY", summary: summary,
		details: "ALIAS begins with alias/; KEY is a key's ID, ARN or other alias.\n\nExample:\n  kmsfs alias " + name + " alias/finance 3f2b8c1e-4a5b-4c6d-8e7f-0123456789ab",
	}, func(_ *serviceOptions, _ *pflag.FlagSet) func(*session, []string) error {
		return func(s *session, args []string) error {
			arn, err := s.keyARN(args[1])
			if err != nil {
				return err
			}
			return change(s, args[0], arn)
		}
	})
}

func listAliases(o *serviceOptions, flags *pflag.FlagSet) func(*session, []string) error {
	key := flags.String("key", "", "`KEY` whose aliases are listed: ID, ARN or alias")
	o.declareJSON(flags)
	return func(s *session, _ []string) error {
		arn, err := s.keyARN(*key)
		if err != nil {
			return err
		}
		all := kms.ListAliasesOutput{Aliases: []kms.AliasListEntry{}}
		if err := s.eachAlias(arn, func(a kms.AliasListEntry) { all.Aliases = append(all.Aliases, a) }); err != nil {
			return err
		}
		if o.json {
			return printJSON(all)
		}
		rows := [][]string{{"ALIAS", "KEY", "CREATED"}}
		for _, a := range all.Aliases {
			rows = append(rows, []string{a.AliasName, a.TargetKeyId, when(&a.CreationDate)})
		}
		return table(rows)
	}
}

// eachAlias calls f with all aliases, or with those of a key.
func (s *session) eachAlias(key string, f func(kms.AliasListEntry)) error {
	return each(func(marker string) (string, error) {
		out, err := kms.ListAliases.Call(s.ctx, s, s.caller, &kms.ListAliasesInput{KeyId: key, Marker: marker})
		if err != nil {
			return "", err
		}
		for _, a := range out.Aliases {
			f(a)
		}
		return out.NextMarker, nil
	})
}
