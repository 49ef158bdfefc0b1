package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"kmsfs/cmd/kmsfs/internal/cli"
)

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", GroupID: cli.Program, Short: "Show the program's version",
		Long: `
Shows the version of the program, the Go release that it was built with, and the
platform.`,
		Example: `
  kmsfs version`,
		Args: cli.None,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Println(version())
			return err
		},
	}
}

func version() string {
	version := "(unknown)"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		version = info.Main.Version
	}
	return fmt.Sprintf("kmsfs %s %s %s/%s", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
