package main

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/spf13/pflag"

	"kmsfs/fs/control"
)

func rewrapCommand() command {
	return command{
		name: "rewrap", arguments: "[OPTIONS] PATH...", summary: "bring files under the KMS key, and the path, that hold where they are",
		details: `
Wraps the data keys of files anew: under the KMS key that the policy of their directory names, its current material, and the path where they lie now. So
it brings files under a policy that was set later, moves them to a rotated key, and refreshes the paths in contexts after a directory was renamed. Contents
are not touched; the files can be used all the time. What is as it should be already is passed over: after an interruption, run it again.

With --recursive on the mountpoint itself, the volume's own key, which all names are encrypted with, is wrapped anew too: after a policy for the mountpoint that
names another KMS key, nothing in the volume needs the old one any more.

It takes the owner of the files or root, and the KMS keys' leave for kms:Decrypt and kms:GenerateDataKey.

Examples:
  kmsfs rewrap --recursive ~/clear/finance
  kmsfs policy set --key alias/new ~/clear && kmsfs rewrap --recursive ~/clear`,
		prepare: func(flags *pflag.FlagSet) func([]string) error {
			recursive := flags.Bool("recursive", false, "wrap anew all that lies in directories")
			return func(args []string) error {
				if len(args) == 0 {
					return usagef("rewrap", "want at least one PATH")
				}
				return runWalk(&control.Walk{Attribute: control.Rewrap, Recursive: *recursive, Volume: *recursive}, args, "rewrapped")
			}
		},
	}
}

// errSome says that some files failed. Their errors have been printed.
var errSome = errors.New("not all could be done")

// runWalk runs a walk and shows how far it is. verb says what is done, for people.
func runWalk(w *control.Walk, paths []string, verb string) error {
	var bar *progressBar
	if w.Recursive {
		bar = startProgress(true)
	}
	counting := countFor(bar, w, paths)
	var done, failed int
	w.Report = func(path string, err error) {
		if p := bar.counters(); p != nil {
			p.Files.Add(1)
		}
		if err == nil {
			done++
			return
		}
		failed++
		_ = bar.above(func() error { // what can't be shown is counted
			_, err := fmt.Fprintln(os.Stderr, "kmsfs: "+printable(path)+": "+explain(err))
			return err
		})
	}
	err := w.Run(paths)
	counting.Wait()
	bar.end()
	switch {
	case err != nil:
		return err
	case failed > 0:
		return fmt.Errorf("%w: %d of %d", errSome, failed, failed+done)
	case w.Recursive:
		fmt.Printf("%d files %s\n", done, verb)
	}
	return nil
}

// countFor counts what there is to do, if there is a progress bar.
func countFor(bar *progressBar, w *control.Walk, paths []string) *sync.WaitGroup {
	var counting sync.WaitGroup
	if p := bar.counters(); p != nil {
		counting.Go(func() {
			w.Count(paths, func() { p.AllFiles.Add(1) })
			p.Counted.Store(true)
		})
	}
	return &counting
}
