package main

import (
	"fmt"
	"os"

	"github.com/spf13/pflag"
)

func policyCommand() command {
	return command{
		name: "policy", arguments: "COMMAND", summary: "give directories KMS keys of their own",
		details: `
Commands for directory policies: which KMS key seals the files that are made in a directory and beneath, and whether they are
compressed. Files that are there already stay as they are, until kmsfs rewrap brings them under the new key. The same can be done with
setfattr and getfattr: user.kmsfs.key and user.kmsfs.compression.

Example:
  kmsfs policy set --key alias/finance ~/clear/finance`,
		commands: []command{
			{
				name: "set", arguments: "[OPTIONS] DIRECTORY", summary: "set a directory's policy",
				details: `
Sets the policy of a directory in a mountpoint: --key, --compress, or both. Only the directory's owner and root may, and they need the KMS key's leave
for kms:GenerateDataKey there. KEY is a key's ID, ARN or alias; an alias is looked up whenever a file is made.

Examples:
  kmsfs policy set --key alias/finance ~/clear/finance
  kmsfs policy set --compress zstd ~/clear/logs`,
				prepare: preparePolicySet,
			},
			{
				name: "show", arguments: "[OPTIONS] DIRECTORY", summary: "show a directory's policy",
				details: `
Shows the policy that a directory has itself; with --effective, what holds there: its own, or what it inherits.

Example:
  kmsfs policy show --effective ~/clear/finance/q3`,
				prepare: preparePolicyShow,
			},
			{
				name: "clear", arguments: "DIRECTORY", summary: "have a directory inherit again",
				details: `
Removes a directory's policy: what is made in it is governed by the directory above again.

Example:
  kmsfs policy clear ~/clear/finance`,
				prepare: func(*pflag.FlagSet) func([]string) error { return policyClear },
			},
		},
	}
}

func preparePolicySet(flags *pflag.FlagSet) func([]string) error {
	key := flags.String("key", "", "KMS `KEY` for files made beneath: ID, ARN or alias")
	compress := flags.String("compress", "", "compress files made beneath: zstd or none")
	return func(args []string) error {
		switch {
		case *key == "" && *compress == "":
			return usagef("", "give --key, --compress, or both")
		case *compress != "" && *compress != "zstd" && *compress != "none":
			return usagef("", "--compress %q: want zstd or none", *compress)
		}
		return withDirectory(args, func(dir *os.File) error {
			if *key != "" {
				if err := tell(dir, keyAttribute, []byte(*key), args[0]); err != nil {
					return err
				}
			}
			if *compress != "" {
				return tell(dir, compressionAttribute, []byte(*compress), args[0])
			}
			return nil
		})
	}
}

// withDirectory calls do with the one directory that the arguments name.
func withDirectory(args []string, do func(dir *os.File) error) error {
	if len(args) != 1 {
		return usagef("", "want one DIRECTORY, got %d arguments", len(args))
	}
	dir, err := openOnMount(args[0])
	if err != nil {
		return err
	}
	defer dir.Close()
	return do(dir)
}

func policyClear(args []string) error {
	return withDirectory(args, func(dir *os.File) error {
		if err := tell(dir, keyAttribute, nil, args[0]); err != nil {
			return err
		}
		return tell(dir, compressionAttribute, nil, args[0])
	})
}

// directoryPolicy is what the command shows. Empty is what is inherited.
type directoryPolicy struct {
	Key         string `json:"key,omitempty"`
	Compression string `json:"compression,omitempty"`
}

func preparePolicyShow(flags *pflag.FlagSet) func([]string) error {
	effective := flags.Bool("effective", false, "show what holds, inherited or not")
	asJSON := flags.Bool("json", false, "print JSON")
	return func(args []string) error {
		return withDirectory(args, func(dir *os.File) error {
			p, err := askPolicy(dir, *effective)
			if err != nil {
				return err
			}
			if *asJSON {
				return printJSON(p)
			}
			if p == (directoryPolicy{}) {
				_, err := fmt.Fprintln(os.Stdout, "no policy of its own")
				return err
			}
			return facts("key", p.Key, "compression", p.Compression)
		})
	}
}

func askPolicy(dir *os.File, effective bool) (p directoryPolicy, err error) {
	key, compression := keyAttribute, compressionAttribute
	if effective {
		key, compression = effectiveKeyAttribute, effectiveCompressionAttribute
	}
	if p.Key, err = readAttribute(dir, key); err == nil {
		p.Compression, err = readAttribute(dir, compression)
	}
	return p, err
}
