// Package cli is what all commands of kmsfs have in common: how they are called, what their help
// looks like, and how they fail.
//
//   - command.go: calling a command, its arguments, and exit statuses
//   - help.go: help texts
//   - hint.go: what to do about errors
//   - suggest.go: what a misspelled command or option may have meant
//   - option.go: options with a syntax of their own
//   - complete.go: what shells complete
package cli

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"kmsfs/keyservice/printable"
)

// The exit statuses. Zero is success.
const (
	statusFailed = 1
	statusUsage  = 2
)

// usageError says that the program was called wrongly.
type usageError struct {
	// help is the command whose help says more.
	help string
	err  error
}

// Usagef is the error of a command that is called wrongly.
func Usagef(format string, args ...any) error {
	return &usageError{err: fmt.Errorf(format, args...)}
}

func (e *usageError) Error() string { return fmt.Sprintf("%v; see %s --help", e.err, e.help) }

func (e *usageError) Unwrap() error { return e.err }

// Execute runs the command that the arguments ask for.
func Execute(root *cobra.Command, args []string) error {
	root.SetArgs(args)
	prepare(root)
	if len(args) > 0 && args[0] == cobra.ShellCompRequestCmd {
		unquoteOptions(root)
	}
	called, err := root.ExecuteC()
	if usage, ok := errors.AsType[*usageError](err); ok && usage.help == "" {
		usage.help = called.CommandPath()
		if called != root {
			usage.err = fmt.Errorf("%s: %w", called.CommandPath()[len(root.Name())+1:], usage.err)
		}
	}
	return err
}

// prepare gives a command, and all below it, what they have in common.
func prepare(c *cobra.Command) {
	c.SilenceErrors, c.SilenceUsage, c.DisableFlagsInUseLine = true, true, true
	c.CompletionOptions.DisableDefaultCmd = true
	c.Flags().SortFlags = false
	c.Flags().BoolP("help", "h", false, "show this text")
	c.SetHelpFunc(showHelp)
	c.SetFlagErrorFunc(explainFlag)
	if c.HasSubCommands() {
		c.Args, c.RunE = cobra.ArbitraryArgs, refuse
		// With an unknown command before them, the command is the mistake.
		c.FParseErrWhitelist.UnknownFlags = c.HasParent()
	}
	for _, sub := range c.Commands() {
		prepare(sub)
	}
}

// unquoteOptions takes the quotes from the help of options, which mark their values: shells show
// them.
func unquoteOptions(c *cobra.Command) {
	c.Flags().VisitAll(func(f *pflag.Flag) { _, f.Usage = pflag.UnquoteUsage(f) })
	for _, sub := range c.Commands() {
		unquoteOptions(sub)
	}
}

// refuse is what a command does that has others, where none of them is named.
func refuse(c *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return Usagef("no command given")
	case args[0] == helpName:
		return helpFor(c, args[1:])
	}
	return Usagef("unknown command %q%s", args[0], suggestion(c, args[0], ""))
}

// explainFlag is the error of options that can't be parsed.
func explainFlag(c *cobra.Command, err error) error {
	if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok && unknown.GetSpecifiedShortnames() == "" {
		return Usagef("%w%s", err, suggestFlag(c, unknown.GetSpecifiedName()))
	}
	return Usagef("%w", err)
}

// Exactly wants as many arguments as that.
func Exactly(n int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != n {
			return Usagef("want %s, got %d arguments", what, len(args))
		}
		return nil
	}
}

// AtLeastOne wants one argument or more.
func AtLeastOne(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return Usagef("want %s", what)
		}
		return nil
	}
}

// None wants no arguments.
func None(_ *cobra.Command, args []string) error {
	if len(args) != 0 {
		return Usagef("want no arguments, got %d", len(args))
	}
	return nil
}

// Report reports an error, if there is one, on one line of standard error. It returns the exit
// status.
func Report(err error) int {
	if err == nil {
		return 0
	}
	Warn("%s", Explain(err))
	if _, ok := errors.AsType[*usageError](err); ok {
		return statusUsage
	}
	return statusFailed
}

// Warn prints a line on standard error.
func Warn(format string, args ...any) {
	fmt.Fprintln(os.Stderr, "kmsfs: "+printable.Line(fmt.Sprintf(format, args...)))
}

// IsDirectory says whether there is a directory at a path.
func IsDirectory(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// The groups in which the program's help lists commands.
const (
	Volumes    = "volumes"
	Mounts     = "mounts"
	Keys       = "keys"
	KeyService = "key service"
	Program    = "program"
)
