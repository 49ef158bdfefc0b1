package key

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"kmsfs/cmd/kmsfs/internal/cli"
	"kmsfs/cmd/kmsfs/internal/output"
	"kmsfs/cmd/kmsfs/internal/session"
	"kmsfs/keyservice/kms"
)

// Grant is the command "kmsfs grant".
func Grant() *cobra.Command {
	c := &cobra.Command{
		Use: "grant COMMAND", GroupID: cli.Keys, Short: "Grant the use of KMS keys, and revoke it",
		Long: `
A grant lets one principal perform some operations with one key. A principal is
user:NAME, uid:N, group:NAME, gid:N or an ARN.`,
		Example: `
  kmsfs grant create --key alias/finance --grantee user:bob \
    --operations Decrypt --path /finance/q3 --expires 24h
  kmsfs grant list --key alias/finance
  kmsfs grant revoke --key alias/finance GRANT-ID`,
	}
	c.AddCommand(grantCreate(), grantList(), grantRevoke(), grantRetire())
	return c
}

// grantOptions are the options of "kmsfs grant create".
type grantOptions struct {
	session.Options
	in             kms.CreateGrantInput
	equals, subset []string
	path           string
	life           time.Duration
}

func (g *grantOptions) declare(flags *pflag.FlagSet) {
	flags.StringVar(&g.in.KeyId, "key", "", "`KEY` to grant: ID, ARN or alias")
	flags.StringVar(&g.in.GranteePrincipal, "grantee", "", "`PRINCIPAL` who may use it")
	flags.StringSliceVar(&g.in.Operations, "operations", nil, "`OPERATIONS` with commas between: Decrypt,GenerateDataKey")
	flags.StringArrayVar(&g.equals, "context-equals", nil, "pair of the whole encryption context, `NAME=VALUE`")
	flags.StringArrayVar(&g.subset, "context-subset", nil, "pair that the encryption context must have, `NAME=VALUE`")
	flags.StringVar(&g.path, "path", "", "only for files at a `PATH` of the volume, or beneath it")
	flags.StringVar(&g.in.RetiringPrincipal, "retiring", "", "`PRINCIPAL` who may retire the grant")
	flags.StringVar(&g.in.Name, "name", "", "`NAME`: the same call again returns the same grant")
	flags.DurationVar(&g.life, "expires", 0, "end the grant after a `DURATION`, such as 24h")
}

func grantCreate() *cobra.Command {
	var g grantOptions
	c := &cobra.Command{
		Use: "create [OPTIONS]", Short: "Let a principal use a KMS key",
		Long: `
Prints the grant's ID. --key, --grantee and --operations are needed.`,
		Example: `
  kmsfs grant create --key alias/finance --grantee user:bob \
    --operations Decrypt --path /finance/q3 --expires 24h`,
		Args: cli.None,
	}
	g.declare(c.Flags())
	g.DeclareJSON(c.Flags())
	g.CompleteKeyOption(c)
	c.PreRunE = func(*cobra.Command, []string) error { return g.complete() }
	return g.Bind(c, func(s *session.Session, _ []string) error { return g.run(s) })
}

func (g *grantOptions) run(s *session.Session) (err error) {
	if g.in.KeyId, err = s.KeyARN(g.in.KeyId); err != nil {
		return err
	}
	out, err := kms.CreateGrant.Call(s.Ctx, s, s.Caller, &g.in)
	if err != nil {
		return err
	}
	if g.JSON {
		return output.JSON(out)
	}
	return output.Line(out.GrantId)
}

// complete makes the input from the options.
func (g *grantOptions) complete() error {
	if g.in.KeyId == "" || g.in.GranteePrincipal == "" || len(g.in.Operations) == 0 {
		return cli.Usagef("--key, --grantee and --operations are needed")
	}
	equals, err := cli.Pairs("context-equals", g.equals)
	if err != nil {
		return err
	}
	subset, err := cli.Pairs("context-subset", g.subset)
	if err != nil {
		return err
	}
	if len(equals) > 0 || len(subset) > 0 || g.path != "" {
		g.in.Constraints = &kms.GrantConstraints{
			EncryptionContextEquals: equals, EncryptionContextSubset: subset, PathPrefix: pathPrefix(g.path),
		}
	}
	if g.life != 0 {
		g.in.ExpirationDate = &kms.Timestamp{Time: time.Now().Add(g.life)}
	}
	return nil
}

// pathPrefix takes /a/b/ and /a/b/* to mean /a/b, which includes all beneath.
func pathPrefix(path string) string {
	trimmed := strings.TrimRight(strings.TrimSuffix(path, "/*"), "/")
	if trimmed == "" && path != "" {
		return "/"
	}
	return trimmed
}

func grantList() *cobra.Command {
	var o session.Options
	var in kms.ListGrantsInput
	var retirer string
	c := &cobra.Command{
		Use: "list [OPTIONS]", Short: "List the grants of a KMS key, or of a retiring principal",
		Long: `
Lists the grants of a KMS key, with --grantee only those of one principal. With
--retirable-by, lists the grants that a principal may retire. With --json, in
the form of ListGrants.`,
		Example: `
  kmsfs grant list --key alias/finance
  kmsfs grant list --retirable-by user:bob`,
		Args: cli.None,
	}
	flags := c.Flags()
	flags.StringVar(&in.KeyId, "key", "", "list the grants of a `KEY`: ID, ARN or alias")
	flags.StringVar(&in.GranteePrincipal, "grantee", "", "only those of a `PRINCIPAL`")
	flags.StringVar(&retirer, "retirable-by", "", "list those that a `PRINCIPAL` may retire")
	o.DeclareJSON(flags)
	o.CompleteKeyOption(c)
	c.PreRunE = func(*cobra.Command, []string) error {
		if (in.KeyId == "") == (retirer == "") {
			return cli.Usagef("want either --key or --retirable-by")
		}
		return nil
	}
	return o.Bind(c, func(s *session.Session, _ []string) error { return listGrants(s, &in, retirer, o.JSON) })
}

func listGrants(s *session.Session, in *kms.ListGrantsInput, retirer string, asJSON bool) (err error) {
	if in.KeyId, err = s.KeyARN(in.KeyId); err != nil {
		return err
	}
	all := kms.ListGrantsOutput{Grants: []kms.GrantListEntry{}}
	if err := session.EachPage(func(marker string) (string, error) {
		in.Marker = marker
		grants, next, err := grantsPage(s, in, retirer)
		all.Grants = append(all.Grants, grants...)
		return next, err
	}); err != nil {
		return err
	}
	if asJSON {
		return output.JSON(all)
	}
	return showGrants(all.Grants)
}

// grantsPage is a page of grants: a key's, or those that the retirer may retire.
func grantsPage(s *session.Session, in *kms.ListGrantsInput, retirer string) ([]kms.GrantListEntry, string, error) {
	if retirer != "" {
		out, err := kms.ListRetirableGrants.Call(s.Ctx, s, s.Caller, &kms.ListRetirableGrantsInput{
			RetiringPrincipal: retirer, Marker: in.Marker,
		})
		if err != nil {
			return nil, "", err
		}
		return out.Grants, out.NextMarker, nil
	}
	out, err := kms.ListGrants.Call(s.Ctx, s, s.Caller, in)
	if err != nil {
		return nil, "", err
	}
	return out.Grants, out.NextMarker, nil
}

func showGrants(grants []kms.GrantListEntry) error {
	rows := [][]string{{"GRANT", "GRANTEE", "OPERATIONS", "CONSTRAINTS", "EXPIRES"}}
	for _, g := range grants {
		rows = append(rows, []string{
			g.GrantId, g.GranteePrincipal, strings.Join(g.Operations, ","), constraints(g.Constraints), output.Time(g.ExpirationDate),
		})
	}
	return output.Table(rows)
}

// constraints is a grant's constraints on one line.
func constraints(c *kms.GrantConstraints) string {
	if c == nil {
		return ""
	}
	var all []string
	if c.PathPrefix != "" {
		all = append(all, "path "+c.PathPrefix)
	}
	if len(c.EncryptionContextEquals) > 0 {
		all = append(all, fmt.Sprintf("equals %q", c.EncryptionContextEquals))
	}
	if len(c.EncryptionContextSubset) > 0 {
		all = append(all, fmt.Sprintf("subset %q", c.EncryptionContextSubset))
	}
	return strings.Join(all, ", ")
}

func grantRevoke() *cobra.Command {
	var o session.Options
	c := &cobra.Command{
		Use: "revoke [OPTIONS] GRANT", Short: "Revoke a grant",
		Long: `
Ends a grant of a KMS key, by the grant's ID. Its grantee is denied from then
on.`,
		Example: `
  kmsfs grant revoke --key alias/finance GRANT-ID`,
		Args: cli.Exactly(1, "one GRANT"),
	}
	key := c.Flags().String("key", "", "`KEY` of the grant: ID, ARN or alias")
	o.CompleteKeyOption(c)
	c.PreRunE = needKey(key)
	return o.Bind(c, func(s *session.Session, args []string) error {
		arn, err := s.KeyARN(*key)
		if err != nil {
			return err
		}
		_, err = kms.RevokeGrant.Call(s.Ctx, s, s.Caller, &kms.RevokeGrantInput{KeyId: arn, GrantId: args[0]})
		return err
	})
}

func grantRetire() *cobra.Command {
	var o session.Options
	c := &cobra.Command{
		Use: "retire [OPTIONS] GRANT", Short: "Give up a grant",
		Long: `
Ends a grant. Its retiring principal may do so, and its grantee if the grant is
for RetireGrant. Without --key, GRANT is the grant's token.`,
		Example: `
  kmsfs grant retire --key alias/finance GRANT-ID
  kmsfs grant retire GRANT-TOKEN`,
		Args: cli.Exactly(1, "one GRANT"),
	}
	key := c.Flags().String("key", "", "`KEY` of the grant: ID, ARN or alias")
	o.CompleteKeyOption(c)
	return o.Bind(c, func(s *session.Session, args []string) error {
		in := &kms.RetireGrantInput{GrantToken: args[0]}
		if *key != "" {
			arn, err := s.KeyARN(*key)
			if err != nil {
				return err
			}
			in = &kms.RetireGrantInput{KeyId: arn, GrantId: args[0]}
		}
		_, err := kms.RetireGrant.Call(s.Ctx, s, s.Caller, in)
		return err
	})
}
