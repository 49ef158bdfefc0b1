package volume

import (
	"errors"
	"fmt"
	"sync"

	"github.com/spf13/cobra"

	"kmsfs/cmd/kmsfs/internal/cli"
	"kmsfs/cmd/kmsfs/internal/output"
	"kmsfs/fs/control"
	"kmsfs/keyservice/printable"
)

// Rewrap is the command "kmsfs rewrap".
func Rewrap() *cobra.Command {
	walk := &control.Walk{Attribute: control.Rewrap}
	c := &cobra.Command{
		Use: "rewrap [OPTIONS] PATH...", GroupID: cli.Mounts, Short: "Bring files under the KMS key that applies to them",
		Long: `
Wraps the data keys of files anew: under the KMS key that the policy of their
directory names, its current key material, and their present path. Use it after
a policy was set, a key was rotated, or a directory was renamed. Contents are
not touched, and the files can be used meanwhile. Files that need nothing are
skipped: after an interruption, run it again.

With --recursive on the mountpoint, the volume's metadata key, which encrypts
all names, is wrapped anew too. After a policy that gives the mountpoint another
KMS key, nothing in the volume needs the old one.

Only the owner of the files and root may do this. They need kms:Decrypt and
kms:GenerateDataKey on the KMS keys.`,
		Example: `
  kmsfs rewrap --recursive ~/clear/finance
  kmsfs policy set --key alias/new ~/clear && kmsfs rewrap --recursive ~/clear`,
		Args: cli.AtLeastOne("at least one PATH"),
		RunE: func(_ *cobra.Command, args []string) error {
			walk.Volume = walk.Recursive
			return runWalk(walk, args, "rewrapped")
		},
	}
	c.Flags().BoolVar(&walk.Recursive, "recursive", false, "rewrap all files in directories and beneath")
	return c
}

// Adopt is the command "kmsfs adopt".
func Adopt() *cobra.Command {
	walk := &control.Walk{Attribute: control.Adopt, Directories: true}
	c := &cobra.Command{
		Use: "adopt [OPTIONS] PATH...", GroupID: cli.Mounts, Short: "Accept files that were restored or moved in the volume",
		Long: `
Accepts files and directories at another place in the volume, or of another
owner, than is sealed in them. After a restoration to another place, or by
another owner, they can't be used otherwise. What is not authentic is never
accepted. Only root and the user who mounted the volume may do this. The audit
log records it with both places.`,
		Example: `
  kmsfs adopt --recursive /srv/clear/restored`,
		Args: cli.AtLeastOne("at least one PATH"),
		RunE: func(_ *cobra.Command, args []string) error { return runWalk(walk, args, "adopted") },
	}
	c.Flags().BoolVar(&walk.Recursive, "recursive", false, "adopt all in directories and beneath")
	return c
}

// errSome says that some files failed. Their errors have been printed.
var errSome = errors.New("not all could be done")

// runWalk runs a walk and shows its progress. verb says what is done, for people.
func runWalk(w *control.Walk, paths []string, verb string) error {
	var bar *output.Progress
	if w.Recursive {
		bar = output.StartProgress(true)
	}
	counting := countFor(bar, w, paths)
	var done, failed int
	w.Report = func(path string, err error) {
		if p := bar.Counters(); p != nil {
			p.Files.Add(1)
		}
		if err == nil {
			done++
			return
		}
		failed++
		_ = bar.Above(func() error { // the failure is counted, whether it can be shown or not
			cli.Warn("%s: %s", printable.Text(path), cli.Explain(err))
			return nil
		})
	}
	err := w.Run(paths)
	counting.Wait()
	bar.End()
	switch {
	case err != nil:
		return err
	case failed > 0:
		return fmt.Errorf("%w: %d of %d failed", errSome, failed, failed+done)
	case w.Recursive:
		fmt.Printf("%d files %s\n", done, verb)
	}
	return nil
}

// countFor counts what there is to do, if there is a progress bar.
func countFor(bar *output.Progress, w *control.Walk, paths []string) *sync.WaitGroup {
	var counting sync.WaitGroup
	if p := bar.Counters(); p != nil {
		counting.Go(func() {
			w.Count(paths, func() { p.AllFiles.Add(1) })
			p.Counted.Store(true)
		})
	}
	return &counting
}
