package main

import (
	"fmt"

	"github.com/spf13/pflag"

	"kmsfs/keyservice/kms"
)

func homeCommand() command {
	return command{
		name: "home", arguments: "COMMAND", summary: "back up the key service's home, change its secret or its policy",
		details: "Commands for the key service's home: the keys, policies and grants that its owner's volumes need.",
		commands: []command{homeBackupCommand(), homeRestoreCommand(), homePasswdCommand(), {
			name: "policy", arguments: "COMMAND", summary: "show and change the service policy",
			details: "Commands for the service policy. It governs what concerns no key, such as making one, and what key policies leave to the account.",
			commands: []command{
				serviceCommand(command{
					name: "get", arguments: "[OPTIONS]", summary: "print the service policy",
					details: "Prints the service policy, as it was given.",
				}, func(_ *serviceOptions, _ *pflag.FlagSet) func(*session, []string) error {
					return func(s *session, _ []string) error {
						out, err := kms.GetServicePolicy.Call(s.ctx, s, s.caller, &kms.GetServicePolicyInput{})
						if err != nil {
							return err
						}
						_, err = fmt.Println(out.Policy)
						return err
					}
				}),
				serviceCommand(command{
					name: "put", arguments: "[OPTIONS] FILE", summary: "change the service policy",
					details: "Makes the document in FILE the service policy; - stands for standard input. One that would not let you change it again is refused.",
				}, func(_ *serviceOptions, _ *pflag.FlagSet) func(*session, []string) error {
					return func(s *session, args []string) error {
						document, err := readPolicy(args[0])
						if err != nil {
							return err
						}
						_, err = kms.PutServicePolicy.Call(s.ctx, s, s.caller, &kms.PutServicePolicyInput{Policy: document})
						return err
					}
				}),
			},
		}},
	}
}
