package cli

import (
	"github.com/spf13/cobra"

	"kmsfs/fs/control"
)

// Mountpoints completes an argument with the mountpoints of kmsfs.
func Mountpoints(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	mounts, err := control.KmsfsMounts()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var paths []string
	for _, m := range mounts {
		paths = append(paths, m.Path)
	}
	return paths, cobra.ShellCompDirectiveNoFileComp
}

// Directories completes up to n arguments with directories.
func Directories(n int) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= n {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return nil, cobra.ShellCompDirectiveFilterDirs
	}
}

// CompleteOption completes the value of an option. The option exists.
func CompleteOption(c *cobra.Command, option string, complete cobra.CompletionFunc) {
	if err := c.RegisterFlagCompletionFunc(option, complete); err != nil {
		panic(err) // a mistake in the program, which each call of it would show
	}
}

// Values completes the value of an option with one of these.
func Values(c *cobra.Command, option string, values ...string) {
	CompleteOption(c, option, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}
