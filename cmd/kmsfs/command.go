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
	// commands are those that the name stands before; a command has either them or prepare.
	commands []command
}

// execute runs the command, or the one of its own that the arguments name.
func (c command) execute(args []string) error {
	if c.commands == nil {
		return c.run(args)
	}
	switch {
	case len(args) == 0:
		return usagef(c.name, "no command given")
	case args[0] == "-h" || args[0] == "--help" || args[0] == "help":
		fmt.Print(c.overview())
		return nil
	}
	for _, sub := range c.commands {
		if sub.name == args[0] {
			sub.name = c.name + " " + sub.name
			return sub.execute(args[1:])
		}
	}
	return usagef(c.name, "unknown command %q", args[0])
}

// overview is the help text of a command that has others.
func (c command) overview() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage: kmsfs %s COMMAND [OPTIONS] [ARGUMENTS]\n\n%s\n\nCommands:\n", c.name, strings.TrimSpace(c.details))
	for _, sub := range c.commands {
		fmt.Fprintf(&b, "  %-18s %s\n", sub.name, sub.summary)
	}
	fmt.Fprintf(&b, "\n\"kmsfs %s COMMAND --help\" says more.\n", c.name)
	return b.String()
}

func (c command) run(args []string) error {
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
