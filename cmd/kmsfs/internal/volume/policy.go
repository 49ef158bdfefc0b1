package volume

import (
	"github.com/spf13/cobra"

	"kmsfs/cmd/kmsfs/internal/cli"
	"kmsfs/cmd/kmsfs/internal/output"
	"kmsfs/cmd/kmsfs/internal/session"
	"kmsfs/fs/control"
)

// The values of --compress.
const (
	compressZstd = "zstd"
	compressNone = "none"
)

// Policy is the command "kmsfs policy".
func Policy() *cobra.Command {
	c := &cobra.Command{
		Use: "policy COMMAND", GroupID: cli.Mounts, Short: "Give directories KMS keys of their own",
		Long: `
A directory's policy says which KMS key seals the files that are made in it and
beneath, and whether they are compressed. Files that exist keep their key until
"kmsfs rewrap". setfattr and getfattr set and show policies too: the attributes
` + control.Key + ` and ` + control.Compression + `.`,
		Example: `
  kmsfs policy set --key alias/finance ~/clear/finance`,
	}
	c.AddCommand(policySet(), policyShow(), policyClear())
	return c
}

func policySet() *cobra.Command {
	var key, compress string
	c := &cobra.Command{
		Use: "set [OPTIONS] DIRECTORY", Short: "Set a directory's policy",
		Long: `
DIRECTORY lies on a mount. Give --key, --compress, or both. Only the directory's
owner and root may set its policy. They also need kms:GenerateDataKey on the
key. An alias is looked up whenever a file is made.`,
		Example: `
  kmsfs policy set --key alias/finance ~/clear/finance
  kmsfs policy set --compress zstd ~/clear/logs`,
		RunE: func(_ *cobra.Command, args []string) error {
			switch {
			case key == "" && compress == "":
				return cli.Usagef("give --key, --compress, or both")
			case compress != "" && compress != compressZstd && compress != compressNone:
				return cli.Usagef("--compress %q: want zstd or none", compress)
			}
			return onDirectory(args[0], func(dir *control.Directory) error { return setPolicy(dir, key, compress) })
		},
	}
	ofDirectory(c)
	c.Flags().StringVar(&key, "key", "", "seal files made beneath under a KMS `KEY`: ID, ARN or alias")
	c.Flags().StringVar(&compress, "compress", "", "compress files made beneath by a `METHOD`: zstd or none")
	cli.Values(c, "compress", compressZstd, compressNone)
	keys := session.Options{}
	keys.CompleteKeyOption(c)
	return c
}

func setPolicy(dir *control.Directory, key, compress string) error {
	if key != "" {
		if err := dir.Set(control.Key, key); err != nil {
			return err
		}
	}
	if compress != "" {
		return dir.Set(control.Compression, compress)
	}
	return nil
}

// ofDirectory makes a command take one directory.
func ofDirectory(c *cobra.Command) {
	c.Args, c.ValidArgsFunction = cli.Exactly(1, "one DIRECTORY"), cli.Directories(1)
}

// onDirectory calls do with a directory on a mount.
func onDirectory(path string, do func(dir *control.Directory) error) error {
	dir, err := control.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return do(dir)
}

func policyClear() *cobra.Command {
	c := &cobra.Command{
		Use: "clear DIRECTORY", Short: "Remove a directory's policy",
		Long: `
The policy of the directory above applies again to files made in it.`,
		Example: `
  kmsfs policy clear ~/clear/finance`,
		RunE: func(_ *cobra.Command, args []string) error {
			return onDirectory(args[0], func(dir *control.Directory) error {
				if err := dir.Remove(control.Key); err != nil {
					return err
				}
				return dir.Remove(control.Compression)
			})
		},
	}
	ofDirectory(c)
	return c
}

// directoryPolicy is what "kmsfs policy show" shows. What is empty is inherited.
type directoryPolicy struct {
	Key         string `json:"key,omitempty"`
	Compression string `json:"compression,omitempty"`
}

func policyShow() *cobra.Command {
	var effective, asJSON bool
	c := &cobra.Command{
		Use: "show [OPTIONS] DIRECTORY", Short: "Show a directory's policy",
		Long: `
Shows the directory's own policy, or with --effective the policy that applies
there: its own, or the inherited one.`,
		Example: `
  kmsfs policy show --effective ~/clear/finance/q3`,
		RunE: func(_ *cobra.Command, args []string) error {
			return onDirectory(args[0], func(dir *control.Directory) error { return showPolicy(dir, effective, asJSON) })
		},
	}
	ofDirectory(c)
	c.Flags().BoolVar(&effective, "effective", false, "show what applies, inherited or not")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func showPolicy(dir *control.Directory, effective, asJSON bool) error {
	p, err := readPolicy(dir, effective)
	switch {
	case err != nil:
		return err
	case asJSON:
		return output.JSON(p)
	case p == directoryPolicy{}:
		return output.Line("no policy of its own")
	}
	return output.Facts("key", p.Key, "compression", p.Compression)
}

func readPolicy(dir *control.Directory, effective bool) (p directoryPolicy, err error) {
	key, compression := control.Key, control.Compression
	if effective {
		key, compression = control.EffectiveKey, control.EffectiveCompression
	}
	if p.Key, err = dir.Get(key); err == nil {
		p.Compression, err = dir.Get(compression)
	}
	return p, err
}
