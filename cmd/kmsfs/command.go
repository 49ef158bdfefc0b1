package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"
)

// command is one of the program's commands.
type command struct {
	name string
	// arguments is the synopsis of what follows the name, summary a phrase for the overview, details the rest of the
	// help text: what it does, then examples.
	arguments, summary, details string
	// prepare declares the options and returns what runs the command once they are parsed, with the arguments left over.
	prepare func(flags *pflag.FlagSet) (run func(args []string) error)
}

func (c command) execute(args []string) error {
	flags := pflag.NewFlagSet(c.name, pflag.ContinueOnError)
	flags.SortFlags = false
	flags.Usage = func() {}
	run := c.prepare(flags)
	help := flags.BoolP("help", "h", false, "show this text")
	if err := flags.Parse(args); err != nil {
		return usagef(c.name, "%w", err)
	}
	if *help {
		fmt.Print(c.help(flags))
		return nil
	}
	err := run(flags.Args())
	if usage, ok := errors.AsType[*usageError](err); ok {
		usage.command = c.name
	}
	return err
}

func (c command) help(flags *pflag.FlagSet) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage: %s\n\n%s\n", strings.TrimSpace("kmsfs "+c.name+" "+c.arguments), strings.TrimSpace(c.details))
	b.WriteString("\nOptions:\n")
	const note = "[=true|false]" // true of every switch, and worth saying of none
	b.WriteString(strings.ReplaceAll(flags.FlagUsages(), note, strings.Repeat(" ", len(note))))
	return b.String()
}

// usageError says that the program was called wrongly.
type usageError struct {
	// command is where the help is; empty for the program's own.
	command string
	err     error
}

func usagef(command, format string, args ...any) error {
	return &usageError{command, fmt.Errorf(format, args...)}
}

func (e *usageError) Error() string {
	if e.command == "" {
		return fmt.Sprintf("%v; see kmsfs --help", e.err)
	}
	return fmt.Sprintf("%s: %v; see kmsfs %s --help", e.command, e.err, e.command)
}

func (e *usageError) Unwrap() error { return e.err }

// exitCode reports the error, if there is one, on one line of standard error, and returns the program's exit status.
func exitCode(err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, "kmsfs: "+explain(err))
	if _, ok := errors.AsType[*usageError](err); ok {
		return 2
	}
	return 1
}
