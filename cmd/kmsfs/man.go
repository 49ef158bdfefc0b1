package main

import (
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"kmsfs/cmd/kmsfs/internal/cli"
)

// manCommand writes manual pages, for those who make packages.
func manCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use: "man DIRECTORY", Hidden: true, Short: "Write manual pages into a directory",
		Long: `
Writes a page of section 1 for each command. Their date is now, or that of
$SOURCE_DATE_EPOCH, in seconds.`,
		Example: `
  kmsfs man /usr/local/share/man/man1`,
		Args: cli.Exactly(1, "one DIRECTORY"), ValidArgsFunction: cli.Directories(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "kmsfs"}, args[0])
		},
	}
}
