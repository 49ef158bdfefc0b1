package main

import (
	"io"

	"github.com/spf13/cobra"

	"kmsfs/cmd/kmsfs/internal/cli"
)

// completionCommand prints what shells load to complete commands, options, keys and mountpoints.
func completionCommand(root *cobra.Command) *cobra.Command {
	shells := map[string]func(io.Writer) error{
		"bash": func(w io.Writer) error { return root.GenBashCompletionV2(w, true) },
		"zsh":  root.GenZshCompletion,
		"fish": func(w io.Writer) error { return root.GenFishCompletion(w, true) },
	}
	return &cobra.Command{
		Use: "completion SHELL", GroupID: cli.Program, Short: "Print completion code for bash, zsh or fish",
		Long: `
The shell completes commands, options and their values, mountpoints, and, while
a process serves the key service home, keys.`,
		Example: `
  source <(kmsfs completion bash)
  kmsfs completion zsh > "${fpath[1]}/_kmsfs"
  kmsfs completion fish > ~/.config/fish/completions/kmsfs.fish`,
		Args: cli.Exactly(1, "one SHELL"), ValidArgs: []string{"bash", "zsh", "fish"},
		RunE: func(c *cobra.Command, args []string) error {
			generate, ok := shells[args[0]]
			if !ok {
				return cli.Usagef("no completion for %q: want bash, zsh or fish", args[0])
			}
			return generate(c.OutOrStdout())
		},
	}
}
