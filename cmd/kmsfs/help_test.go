package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"kmsfs/cmd/kmsfs/internal/cli"
)

// TestHelpTexts checks each command's help text: what is in it, and that it fits a terminal.
func TestHelpTexts(t *testing.T) {
	script, err := os.ReadFile("testdata/help.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range commandPaths(rootCommand(), nil) {
		name := strings.Join(append([]string{"kmsfs"}, path...), " ")
		root := rootCommand()
		var out bytes.Buffer
		root.SetOut(&out)
		if err := cli.Execute(root, append(path, "--help")); err != nil {
			t.Fatalf("%s --help: %v", name, err)
		}
		checkHelp(t, name, out.String())
		if !strings.Contains(string(script), "\n"+name+" --help\n") {
			t.Errorf("testdata/help.txtar doesn't show %s --help", name)
		}
	}
}

func commandPaths(c *cobra.Command, path []string) [][]string {
	paths := [][]string{path}
	for _, sub := range c.Commands() {
		paths = append(paths, commandPaths(sub, append(path[:len(path):len(path)], sub.Name()))...)
	}
	return paths
}

func checkHelp(t *testing.T, name, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
			t.Errorf("%s --help has a line of %d columns: %s", name, n, line)
		}
		if strings.HasSuffix(line, " \n") {
			t.Errorf("%s --help has blanks at a line's end: %q", name, line)
		}
	}
	for _, part := range []string{"Usage: " + name, "\n\nExamples:\n"} {
		if !strings.Contains(text, part) {
			t.Errorf("%s --help doesn't say %q:\n%s", name, part, text)
		}
	}
	if strings.Contains(text, "\n\n\n") {
		t.Errorf("%s --help has two empty lines:\n%s", name, text)
	}
}

// TestSummaries checks that summaries are of one form: imperative, with a capital and no full stop.
func TestSummaries(t *testing.T) {
	var check func(c *cobra.Command)
	check = func(c *cobra.Command) {
		first, _ := utf8.DecodeRuneInString(c.Short)
		word, _, _ := strings.Cut(c.Short, " ")
		if c.HasParent() && (!unicode.IsUpper(first) || strings.HasSuffix(c.Short, ".") || strings.HasSuffix(word, "s") && word != "Pass") {
			t.Errorf("%s: %q", c.CommandPath(), c.Short)
		}
		for _, sub := range c.Commands() {
			check(sub)
		}
	}
	check(rootCommand())
}

// TestManualPages checks that each command has a page.
func TestManualPages(t *testing.T) {
	dir := t.TempDir()
	if err := cli.Execute(rootCommand(), []string{"man", dir}); err != nil {
		t.Fatal(err)
	}
	var check func(c *cobra.Command)
	check = func(c *cobra.Command) {
		name := strings.ReplaceAll(c.CommandPath(), " ", "-") + ".1"
		page, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		} else if !strings.Contains(string(page), ".SH SYNOPSIS") {
			t.Errorf("%s has no synopsis", name)
		}
		for _, sub := range c.Commands() {
			if !sub.Hidden {
				check(sub)
			}
		}
	}
	check(rootCommand())
}
