package key

import (
	"github.com/spf13/cobra"

	"kmsfs/cmd/kmsfs/internal/cli"
	"kmsfs/cmd/kmsfs/internal/output"
	"kmsfs/cmd/kmsfs/internal/session"
	"kmsfs/keyservice/kms"
)

// Alias is the command "kmsfs alias".
func Alias() *cobra.Command {
	c := &cobra.Command{
		Use: "alias COMMAND", GroupID: cli.Keys, Short: "Give KMS keys names",
		Long: `
Aliases are names of KMS keys. They begin with alias/.`,
		Example: `
  kmsfs alias create alias/finance $(kmsfs key create)`,
	}
	c.AddCommand(
		aliasOf("create", "Give a KMS key a further name", func(s *session.Session, name, arn string) error {
			_, err := kms.CreateAlias.Call(s.Ctx, s, s.Caller, &kms.CreateAliasInput{AliasName: name, TargetKeyId: arn})
			return err
		}),
		aliasOf("update", "Let an alias name another KMS key", func(s *session.Session, name, arn string) error {
			_, err := kms.UpdateAlias.Call(s.Ctx, s, s.Caller, &kms.UpdateAliasInput{AliasName: name, TargetKeyId: arn})
			return err
		}),
		aliasDelete(), aliasList(),
	)
	return c
}

// aliasOf makes a command that does something with an alias and a key.
func aliasOf(name, summary string, do func(s *session.Session, alias, arn string) error) *cobra.Command {
	var o session.Options
	return o.Bind(&cobra.Command{
		Use: name + " [OPTIONS] ALIAS KEY", Short: summary,
		Long: `
ALIAS begins with alias/. KEY is a key's ID, ARN or other alias.`,
		Example: `
  kmsfs alias ` + name + ` alias/finance 3f2b8c1e-4a5b-4c6d-8e7f-0123456789ab`,
		Args: cli.Exactly(2, "ALIAS and KEY"), ValidArgsFunction: o.Keys(1),
	}, func(s *session.Session, args []string) error {
		arn, err := s.KeyARN(args[1])
		if err != nil {
			return err
		}
		return do(s, args[0], arn)
	})
}

func aliasDelete() *cobra.Command {
	var o session.Options
	return o.Bind(&cobra.Command{
		Use: "delete [OPTIONS] ALIAS", Short: "Remove an alias; the KMS key stays",
		Example: `
  kmsfs alias delete alias/finance`,
		Args: cli.Exactly(1, "one ALIAS"), ValidArgsFunction: o.Keys(0),
	}, func(s *session.Session, args []string) error {
		_, err := kms.DeleteAlias.Call(s.Ctx, s, s.Caller, &kms.DeleteAliasInput{AliasName: args[0]})
		return err
	})
}

func aliasList() *cobra.Command {
	var o session.Options
	c := &cobra.Command{
		Use: "list [OPTIONS]", Short: "List all aliases, or those of a KMS key",
		Long: `
With --json, in the form of ListAliases.`,
		Example: `
  kmsfs alias list
  kmsfs alias list --key alias/finance`,
		Args: cli.None,
	}
	key := c.Flags().String("key", "", "list only the aliases of a `KEY`: ID, ARN or alias")
	o.DeclareJSON(c.Flags())
	o.CompleteKeyOption(c)
	return o.Bind(c, func(s *session.Session, _ []string) error {
		arn, err := s.KeyARN(*key)
		if err != nil {
			return err
		}
		all := kms.ListAliasesOutput{Aliases: []kms.AliasListEntry{}}
		if err := s.EachAlias(arn, func(a kms.AliasListEntry) { all.Aliases = append(all.Aliases, a) }); err != nil {
			return err
		}
		if o.JSON {
			return output.JSON(all)
		}
		rows := [][]string{{"ALIAS", "KEY", "CREATED"}}
		for _, a := range all.Aliases {
			rows = append(rows, []string{a.AliasName, a.TargetKeyId, output.Time(&a.CreationDate)})
		}
		return output.Table(rows)
	})
}
