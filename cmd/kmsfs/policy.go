package main

import (
	"fmt"
	"os"

	"github.com/spf13/pflag"

	"kmsfs/fs/control"
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
		return withDirectory(args, func(dir *control.Directory) error {
			if *key != "" {
				if err := dir.Set(control.Key, *key); err != nil {
					return err
				}
			}
			if *compress != "" {
				return dir.Set(control.Compression, *compress)
			}
			return nil
		})
	}
}

// withDirectory calls do with the one directory that the arguments name.
func withDirectory(args []string, do func(dir *control.Directory) error) error {
	if len(args) != 1 {
		return usagef("", "want one DIRECTORY, got %d arguments", len(args))
	}
	dir, err := control.Open(args[0])
	if err != nil {
		return err
	}
	defer dir.Close()
	return do(dir)
}

func policyClear(args []string) error {
	return withDirectory(args, func(dir *control.Directory) error {
		if err := dir.Remove(control.Key); err != nil {
			return err
		}
		return dir.Remove(control.Compression)
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
		return withDirectory(args, func(dir *control.Directory) error {
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

func askPolicy(dir *control.Directory, effective bool) (p directoryPolicy, err error) {
	key, compression := control.Key, control.Compression
	if effective {
		key, compression = control.EffectiveKey, control.EffectiveCompression
	}
	if p.Key, err = dir.Get(key); err == nil {
		p.Compression, err = dir.Get(compression)
	}
	return p, err
}
