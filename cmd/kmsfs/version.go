package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/pflag"
)

func versionCommand() command {
	return command{
		name:    "version",
		summary: "show the program's version",
		details: `
Shows the version of the program, the Go release that it was built with, and the platform.

Example:
  kmsfs version`,
		prepare: func(*pflag.FlagSet) func([]string) error { return showVersion },
	}
}

func showVersion(args []string) error {
	if len(args) != 0 {
		return usagef("version", "takes no arguments")
	}
	version := "(unknown)"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		version = info.Main.Version
	}
	fmt.Printf("kmsfs %s %s %s/%s\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return nil
}
