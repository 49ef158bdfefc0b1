package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"kmsfs/keyservice/kms"
)

func grantCommand() command {
	return command{
		name: "grant", arguments: "COMMAND", summary: "lend the use of KMS keys, and take it back",
		details: `
Commands for grants: each lets one principal perform some operations with one key. A principal is user:NAME, uid:N, group:NAME, gid:N or an ARN.

Examples:
  kmsfs grant create --key alias/finance --grantee user:bob --operations Decrypt --path /finance/q3 --expires 24h
  kmsfs grant list --key alias/finance
  kmsfs grant revoke --key alias/finance GRANT-ID`,
		commands: []command{grantCreateCommand(), grantListCommand(), grantRevokeCommand(), grantRetireCommand()},
	}
}

// grantOptions are what grant create is told.
type grantOptions struct {
	in             kms.CreateGrantInput
	equals, subset []string
	path           string
	life           time.Duration
}

func (g *grantOptions) declare(flags *pflag.FlagSet) {
	flags.StringVar(&g.in.KeyId, "key", "", "`KEY` to grant: ID, ARN or alias")
	flags.StringVar(&g.in.GranteePrincipal, "grantee", "", "`PRINCIPAL` who may use it")
	flags.StringSliceVar(&g.in.Operations, "operations", nil, "`OPERATIONS` with commas between, such as Decrypt,GenerateDataKey")
	flags.StringArrayVar(&g.equals, "context-equals", nil, "pair of the whole encryption context, `NAME=VALUE`")
	flags.StringArrayVar(&g.subset, "context-subset", nil, "pair that the encryption context must have, `NAME=VALUE`")
	flags.StringVar(&g.path, "path", "", "`PREFIX`: only for files at this path of the volume, or beneath it")
	flags.StringVar(&g.in.RetiringPrincipal, "retiring", "", "`PRINCIPAL` who may end the grant, besides those who may revoke it")
	flags.StringVar(&g.in.Name, "name", "", "`NAME`: a second call with all the same gives the same grant")
	flags.DurationVar(&g.life, "expires", 0, "have the grant end by itself after this `DURATION`, such as 24h")
}

// complete makes the input of what was parsed.
func (g *grantOptions) complete() error {
	if g.in.KeyId == "" || g.in.GranteePrincipal == "" || len(g.in.Operations) == 0 {
		return usagef("", "--key, --grantee and --operations are needed")
	}
	equals, err := parsePairs("context-equals", g.equals)
	if err != nil {
		return err
	}
	subset, err := parsePairs("context-subset", g.subset)
	if err != nil {
		return err
	}
	if len(equals) > 0 || len(subset) > 0 || g.path != "" {
		g.in.Constraints = &kms.GrantConstraints{EncryptionContextEquals: equals, EncryptionContextSubset: subset, PathPrefix: pathPrefix(g.path)}
	}
	if g.life != 0 {
		g.in.ExpirationDate = &kms.Timestamp{Time: time.Now().Add(g.life)}
	}
	return nil
}

// pathPrefix takes /a/b/ and /a/b/* for what they mean: /a/b, and what lies beneath.
func pathPrefix(path string) string {
	trimmed := strings.TrimRight(strings.TrimSuffix(path, "/*"), "/")
	if trimmed == "" && path != "" {
		return "/"
	}
	return trimmed
}

func grantCreateCommand() command {
	return serviceCommand(command{
		name: "create", arguments: "[OPTIONS]", summary: "let a principal use a KMS key",
		details: `
Lets a principal perform operations with a KMS key, and prints the grant's ID.

Example:
  kmsfs grant create --key alias/finance --grantee user:bob --operations Decrypt --path /finance/q3 --expires 24h`,
	}, func(o *serviceOptions, flags *pflag.FlagSet) func(*session, []string) error {
		var g grantOptions
		g.declare(flags)
		o.declareJSON(flags)
		return func(s *session, _ []string) (err error) {
			if err := g.complete(); err != nil {
				return err
			}
			if g.in.KeyId, err = s.keyARN(g.in.KeyId); err != nil {
				return err
			}
			out, err := kms.CreateGrant.Call(s.ctx, s, s.caller, &g.in)
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(out)
			}
			_, err = fmt.Println(out.GrantId)
			return err
		}
	})
}

func grantListCommand() command {
	return serviceCommand(command{
		name: "list", arguments: "[OPTIONS]", summary: "list a KMS key's grants, or those that a principal may retire",
		details: `
Lists the grants of a KMS key, with --grantee only those of one principal, or with --retirable-by those of all keys that a principal may retire. With --json,
in the form of ListGrants.

Examples:
  kmsfs grant list --key alias/finance
  kmsfs grant list --retirable-by user:bob`,
	}, func(o *serviceOptions, flags *pflag.FlagSet) func(*session, []string) error {
		var in kms.ListGrantsInput
		flags.StringVar(&in.KeyId, "key", "", "`KEY` whose grants are listed: ID, ARN or alias")
		flags.StringVar(&in.GranteePrincipal, "grantee", "", "only those of this `PRINCIPAL`")
		retirer := flags.String("retirable-by", "", "those that this `PRINCIPAL` may retire")
		o.declareJSON(flags)
		return func(s *session, _ []string) (err error) {
			if (in.KeyId == "") == (*retirer == "") {
				return usagef("", "want either --key or --retirable-by")
			}
			if in.KeyId, err = s.keyARN(in.KeyId); err != nil {
				return err
			}
			all := kms.ListGrantsOutput{Grants: []kms.GrantListEntry{}}
			if err := each(func(marker string) (string, error) {
				in.Marker = marker
				grants, next, err := s.grants(&in, *retirer)
				all.Grants = append(all.Grants, grants...)
				return next, err
			}); err != nil {
				return err
			}
			if o.json {
				return printJSON(all)
			}
			return showGrants(all.Grants)
		}
	})
}

// grants is a page of grants: a key's, or those that the retirer may retire.
func (s *session) grants(in *kms.ListGrantsInput, retirer string) ([]kms.GrantListEntry, string, error) {
	if retirer != "" {
		out, err := kms.ListRetirableGrants.Call(s.ctx, s, s.caller, &kms.ListRetirableGrantsInput{RetiringPrincipal: retirer, Marker: in.Marker})
		if err != nil {
			return nil, "", err
		}
		return out.Grants, out.NextMarker, nil
	}
	out, err := kms.ListGrants.Call(s.ctx, s, s.caller, in)
	if err != nil {
		return nil, "", err
	}
	return out.Grants, out.NextMarker, nil
}

func showGrants(grants []kms.GrantListEntry) error {
	rows := [][]string{{"GRANT", "GRANTEE", "OPERATIONS", "CONSTRAINTS", "EXPIRES"}}
	for _, g := range grants {
		rows = append(rows, []string{g.GrantId, g.GranteePrincipal, strings.Join(g.Operations, ","), constraints(g.Constraints), when(g.ExpirationDate)})
	}
	return table(rows)
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

func grantRevokeCommand() command {
	return serviceCommand(command{
		name: "revoke", arguments: "[OPTIONS] GRANT", summary: "take a grant back",
		details: "Ends a grant of a KMS key, by the grant's ID: its grantee is refused from then on.\n\nExample:\n  kmsfs grant revoke --key alias/finance GRANT-ID",
	}, func(_ *serviceOptions, flags *pflag.FlagSet) func(*session, []string) error {
		key := flags.String("key", "", "`KEY` that was granted: ID, ARN or alias")
		return func(s *session, args []string) error {
			if *key == "" {
				return usagef("", "--key is needed")
			}
			arn, err := s.keyARN(*key)
			if err != nil {
				return err
			}
			_, err = kms.RevokeGrant.Call(s.ctx, s, s.caller, &kms.RevokeGrantInput{KeyId: arn, GrantId: args[0]})
			return err
		}
	})
}

func grantRetireCommand() command {
	return serviceCommand(command{
		name: "retire", arguments: "[OPTIONS] GRANT", summary: "give a grant up",
		details: `
Ends a grant, for its retiring principal, or for its grantee if it is for RetireGrant. Without --key, GRANT is the grant's token.

Examples:
  kmsfs grant retire --key alias/finance GRANT-ID
  kmsfs grant retire GRANT-TOKEN`,
	}, func(_ *serviceOptions, flags *pflag.FlagSet) func(*session, []string) error {
		key := flags.String("key", "", "`KEY` that was granted: ID, ARN or alias")
		return func(s *session, args []string) error {
			in := &kms.RetireGrantInput{GrantToken: args[0]}
			if *key != "" {
				arn, err := s.keyARN(*key)
				if err != nil {
					return err
				}
				in = &kms.RetireGrantInput{KeyId: arn, GrantId: args[0]}
			}
			_, err := kms.RetireGrant.Call(s.ctx, s, s.caller, in)
			return err
		}
	})
}
