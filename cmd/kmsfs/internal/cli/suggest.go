package cli

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// suggestion says which commands below c a misspelled name may have meant; empty if none is like
// it.
func suggestion(c *cobra.Command, name, prefix string) string {
	c.SuggestionsMinimumDistance = 2 // letters that may be wrong
	likely := c.SuggestionsFor(name)
	if len(likely) == 0 {
		return ""
	}
	return " (did you mean " + prefix + strings.Join(likely, " or "+prefix) + "?)"
}

// suggestFlag says the same of an option. It lets cobra compare names, as commands, by its own
// measure.
func suggestFlag(c *cobra.Command, name string) string {
	var names cobra.Command
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names.AddCommand(&cobra.Command{Use: f.Name, Run: func(*cobra.Command, []string) {}})
		}
	})
	return suggestion(&names, name, "--")
}
