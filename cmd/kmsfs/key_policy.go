package main

import (
	"fmt"

	"github.com/spf13/pflag"

	"kmsfs/keyservice/kms"
)

// maxPolicyFile bounds policy documents in bytes; the key service takes fewer.
const maxPolicyFile = 1 << 20

func readPolicy(path string) (string, error) {
	document, err := readInput(path, maxPolicyFile)
	return string(document), err
}

func keyPolicyCommand() command {
	return command{
		name: "policy", arguments: "COMMAND", summary: "show, change and explain key policies",
		details: "Commands for the policy of a KMS key: a document in AWS's policy language that says who may do what with the key.",
		commands: []command{
			serviceCommand(command{
				name: "get", arguments: "[OPTIONS] KEY", summary: "print a key policy",
				details: "Prints a key's policy, as it was given.\n\nExample:\n  kmsfs key policy get alias/finance > policy.json",
			}, func(o *serviceOptions, flags *pflag.FlagSet) func(*session, []string) error {
				o.declareJSON(flags)
				return func(s *session, args []string) error {
					arn, err := s.keyARN(args[0])
					if err != nil {
						return err
					}
					out, err := kms.GetKeyPolicy.Call(s.ctx, s, s.caller, &kms.GetKeyPolicyInput{KeyId: arn})
					if err != nil {
						return err
					}
					if o.json {
						return printJSON(out)
					}
					_, err = fmt.Println(out.Policy)
					return err
				}
			}),
			serviceCommand(command{
				name: "put", arguments: "[OPTIONS] KEY FILE", summary: "give a key another policy",
				details: `
Gives a key the policy in FILE; - stands for standard input. A policy that would not let you change it again is refused.

Example:
  kmsfs key policy put alias/finance policy.json`,
			}, func(_ *serviceOptions, flags *pflag.FlagSet) func(*session, []string) error {
				bypass := flags.Bool("bypass-lockout-check", false, "accept a policy that doesn't let you change it again")
				return func(s *session, args []string) error {
					document, err := readPolicy(args[1])
					if err != nil {
						return err
					}
					arn, err := s.keyARN(args[0])
					if err != nil {
						return err
					}
					_, err = kms.PutKeyPolicy.Call(s.ctx, s, s.caller, &kms.PutKeyPolicyInput{
						KeyId: arn, Policy: document, BypassPolicyLockoutSafetyCheck: *bypass,
					})
					return err
				}
			}),
			explainCommand(),
		},
	}
}

func explainCommand() command {
	return serviceCommand(command{
		name: "explain", arguments: "[OPTIONS] KEY", summary: "say whether somebody may do something, and why",
		details: `
Says "allow" or "deny", and which statement or grant decides.

Examples:
  kmsfs key policy explain --principal user:bob --action Decrypt alias/finance
  kmsfs key policy explain --principal uid:1000 --action kms:Decrypt --context kmsfs:path=/finance/q3/report alias/finance`,
	}, func(o *serviceOptions, flags *pflag.FlagSet) func(*session, []string) error {
		var in kms.ExplainAccessInput
		var pairs []string
		flags.StringVar(&in.Principal, "principal", "", "`PRINCIPAL` that asks: user:NAME, uid:N or an ARN")
		flags.StringVar(&in.Action, "action", "", "`ACTION`, such as kms:Decrypt")
		flags.StringArrayVar(&pairs, "context", nil, "pair of the encryption context, `NAME=VALUE`")
		flags.StringVar(&in.ViaService, "via", "", "`SERVICE` that calls for the principal, such as fs.kmsfs")
		o.declareJSON(flags)
		return func(s *session, args []string) (err error) {
			if in.Principal == "" || in.Action == "" {
				return usagef("", "--principal and --action are needed")
			}
			if in.EncryptionContext, err = parsePairs("context", pairs); err != nil {
				return err
			}
			in.KeyId = args[0]
			out, err := kms.ExplainAccess.Call(s.ctx, s, s.caller, &in)
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(out)
			}
			word := "deny"
			if out.Allowed {
				word = "allow"
			}
			_, err = fmt.Printf("%s: %s\n", word, out.Reason)
			return err
		}
	})
}
