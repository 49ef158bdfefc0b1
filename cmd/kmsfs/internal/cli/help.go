package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// width is that of help texts, in columns.
const width = 80

// showHelp prints the help text of a command.
func showHelp(c *cobra.Command, _ []string) {
	_, _ = fmt.Fprint(c.OutOrStdout(), helpText(c)) // what can't be shown can't be reported either
}

// helpName is the command that shows help texts.
const helpName = "help"

// Help is the command "help": it shows the help text of the command that its arguments name.
func Help() *cobra.Command {
	return &cobra.Command{
		Use: helpName + " [COMMAND...]", Hidden: true, Short: "Show a help text",
		Example: `
  kmsfs help key create`,
		ValidArgsFunction: func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			above, _, err := c.Root().Find(args)
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var names []string
			for _, sub := range above.Commands() {
				names = append(names, sub.Name())
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error { return helpFor(c.Root(), args) },
	}
}

// helpFor shows the help text of the command below c that the names lead to.
func helpFor(c *cobra.Command, names []string) error {
	for _, name := range names {
		found, rest, err := c.Find([]string{name})
		if err != nil || len(rest) > 0 || found == c {
			return Usagef("unknown command %q%s", name, suggestion(c, name, ""))
		}
		c = found
	}
	return c.Help()
}

// helpText is: the synopsis, the summary and the description, the commands below, the options, and
// examples.
func helpText(c *cobra.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage: %s\n\n", c.UseLine())
	if c.HasParent() {
		fmt.Fprintf(&b, "%s.\n\n", c.Short)
	}
	if c.Long != "" {
		fmt.Fprintf(&b, "%s\n\n", strings.TrimSpace(c.Long))
	}
	for _, group := range c.Groups() {
		writeCommands(&b, c, group.ID, group.Title)
	}
	writeCommands(&b, c, "", "Commands:")
	if c.HasParent() && !c.HasSubCommands() {
		fmt.Fprintf(&b, "Options:\n%s\n", options(c))
	}
	if c.Example != "" {
		fmt.Fprintf(&b, "Examples:\n%s\n", strings.Trim(c.Example, "\n"))
	}
	text := strings.TrimRight(b.String(), "\n") + "\n"
	if c.HasSubCommands() {
		text += fmt.Sprintf("\n\"%s COMMAND --help\" says more.\n", c.CommandPath())
	}
	return text
}

// writeCommands lists the commands of a group.
func writeCommands(b *strings.Builder, c *cobra.Command, group, title string) {
	found := false
	for _, sub := range c.Commands() {
		if sub.GroupID != group || !sub.IsAvailableCommand() {
			continue
		}
		if !found {
			fmt.Fprintln(b, title)
		}
		found = true
		fmt.Fprintf(b, "  %-*s  %s\n", sub.NamePadding(), sub.Name(), sub.Short)
	}
	if found {
		b.WriteByte('\n')
	}
}

// options lists the options, each with what it does.
func options(c *cobra.Command) string {
	var names, usages []string
	left := 0
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		name := "      --" + f.Name
		if f.Shorthand != "" {
			name = "  -" + f.Shorthand + ", --" + f.Name
		}
		if value != "" && f.Value.Type() != "bool" {
			name += " " + value
		}
		if hasDefault(f) {
			usage += " (default " + f.DefValue + ")"
		}
		names, usages, left = append(names, name), append(usages, usage), max(left, len(name))
	})
	var b strings.Builder
	for i, name := range names {
		fmt.Fprintf(&b, "%-*s  %s\n", left, name, strings.TrimLeft(Wrap(usages[i], left+2), " "))
	}
	return b.String()
}

// hasDefault says whether an option's default is worth telling.
func hasDefault(f *pflag.Flag) bool {
	switch f.DefValue {
	case "", "0", "0s", "[]", "false":
		return false
	}
	return true
}

// Wrap breaks a text into lines of a help text, indented by so many columns.
func Wrap(text string, indent int) string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && indent+len(line)+1+len(word) > width {
			lines, line = append(lines, line), ""
		}
		line = strings.TrimPrefix(line+" "+word, " ")
	}
	margin := strings.Repeat(" ", indent)
	return margin + strings.Join(append(lines, line), "\n"+margin)
}
