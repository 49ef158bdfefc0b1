package key

import (
	"fmt"

	"github.com/spf13/cobra"

	"kmsfs/cmd/kmsfs/internal/cli"
	"kmsfs/cmd/kmsfs/internal/output"
	"kmsfs/cmd/kmsfs/internal/session"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/printable"
)

// maxPolicyFile bounds policy documents in bytes. The key service takes fewer.
const maxPolicyFile = 1 << 20

// ReadPolicy reads a policy document from a file, or from standard input for "-".
func ReadPolicy(path string) (string, error) {
	document, err := readInput(path, maxPolicyFile)
	return string(document), err
}

func policyCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "policy COMMAND", Short: "Show, change and explain key policies",
		Long: `
A key policy is a document in AWS's policy language. It says who may do what
with the key.`,
		Example: `
  kmsfs key policy get alias/finance > policy.json`,
	}
	c.AddCommand(policyGetCommand(), policyPutCommand(), explainCommand())
	return c
}

func policyGetCommand() *cobra.Command {
	var o session.Options
	c := &cobra.Command{
		Use: "get [OPTIONS] KEY", Short: "Print a key policy",
		Example: `
  kmsfs key policy get alias/finance > policy.json`,
	}
	o.DeclareJSON(c.Flags())
	return ofKey(c, &o, func(s *session.Session, arn string) error {
		out, err := kms.GetKeyPolicy.Call(s.Ctx, s, s.Caller, &kms.GetKeyPolicyInput{KeyId: arn})
		if err != nil {
			return err
		}
		if o.JSON {
			return output.JSON(out)
		}
		return output.Document(out.Policy)
	})
}

func policyPutCommand() *cobra.Command {
	var o session.Options
	c := &cobra.Command{
		Use: "put [OPTIONS] KEY FILE", Short: "Give a key another policy",
		Long: `
Gives a key the policy in FILE; - stands for standard input. A policy that would
not let you change it again is rejected.`,
		Example: `
  kmsfs key policy put alias/finance policy.json`,
		Args: cli.Exactly(2, "KEY and FILE"), ValidArgsFunction: o.Keys(0),
	}
	bypass := c.Flags().Bool("bypass-lockout-check", false, "accept a policy that does not let you change it again")
	return o.Bind(c, func(s *session.Session, args []string) error {
		document, err := ReadPolicy(args[1])
		if err != nil {
			return err
		}
		arn, err := s.KeyARN(args[0])
		if err != nil {
			return err
		}
		_, err = kms.PutKeyPolicy.Call(s.Ctx, s, s.Caller, &kms.PutKeyPolicyInput{
			KeyId: arn, Policy: document, BypassPolicyLockoutSafetyCheck: *bypass,
		})
		return err
	})
}

type explainOptions struct {
	session.Options
	in    kms.ExplainAccessInput
	pairs []string
}

func explainCommand() *cobra.Command {
	var o explainOptions
	c := &cobra.Command{
		Use: "explain [OPTIONS] KEY", Short: "Say whether a principal may do something, and why",
		Long: `
Says "allow" or "deny", and which statement or grant decides.`,
		Example: `
  kmsfs key policy explain --principal user:bob --action Decrypt alias/finance
  kmsfs key policy explain --principal uid:1000 --action kms:Decrypt \
    --context kmsfs:path=/finance/q3/report alias/finance`,
		Args: cli.Exactly(1, "one KEY"), ValidArgsFunction: o.Keys(0),
	}
	flags := c.Flags()
	flags.StringVar(&o.in.Principal, "principal", "", "`PRINCIPAL` that asks: user:NAME, uid:N or an ARN")
	flags.StringVar(&o.in.Action, "action", "", "`ACTION`, such as kms:Decrypt")
	flags.StringArrayVar(&o.pairs, "context", nil, "pair of the encryption context, `NAME=VALUE`")
	flags.StringVar(&o.in.ViaService, "via", "", "`SERVICE` that calls for the principal, such as fs.kmsfs")
	o.DeclareJSON(flags)
	c.PreRunE = func(*cobra.Command, []string) (err error) {
		if o.in.Principal == "" || o.in.Action == "" {
			return cli.Usagef("--principal and --action are needed")
		}
		o.in.EncryptionContext, err = cli.Pairs("context", o.pairs)
		return err
	}
	return o.Bind(c, func(s *session.Session, args []string) error { return o.run(s, args[0]) })
}

func (o *explainOptions) run(s *session.Session, key string) error {
	o.in.KeyId = key
	out, err := kms.ExplainAccess.Call(s.Ctx, s, s.Caller, &o.in)
	if err != nil {
		return err
	}
	if o.JSON {
		return output.JSON(out)
	}
	word := "deny"
	if out.Allowed {
		word = "allow"
	}
	_, err = fmt.Printf("%s: %s\n", word, printable.Text(out.Reason))
	return err
}
