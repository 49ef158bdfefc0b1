package volume

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"kmsfs/cmd/kmsfs/internal/cli"
	"kmsfs/cmd/kmsfs/internal/filekeys"
	"kmsfs/cmd/kmsfs/internal/output"
	"kmsfs/cmd/kmsfs/internal/session"
	"kmsfs/fs/fsck"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/printable"
)

// errFaults is the error of a volume with faults.
var errFaults = errors.New("the volume has faults")

// fsckJournal names the journal of "kmsfs fsck" with a remote key service.
const fsckJournal = "fsck.jsonl"

type fsckOptions struct {
	keyOptions
	repair, readData, json bool
}

// Fsck is the command "kmsfs fsck".
func Fsck() *cobra.Command {
	var o fsckOptions
	c := &cobra.Command{
		Use: "fsck [OPTIONS] VOLUME", GroupID: cli.Volumes, Short: "Check a volume and repair it",
		Long: `
Checks a volume, mounted or not: names, directory records, headers, places,
owners, sizes, links, symlinks, extended attributes, and that the last block of
each file opens. Each file's data key is asked for, and the audit log records
that. Files whose keys the key service denies are not checked: that is no
fault. What changes during the check is looked at again.

With --repair, faults are repaired. The volume must not be mounted. The audit
log records each repair. Nothing is thrown away: what can't be repaired in its
place is moved to the directory lost+found in the volume.

A fault is a line: its class, the path as users see it ("?" for a name that does
not open), what was found, what --repair does or did, and the path in the
volume. With --json, a fault is an object with class, path, backing, detail,
remedy, and if they apply bad (offset and length of what does not open) and
repaired. The last line is an object with the member summary.

Classes:

` + faultClasses() + `
Exit status: 0 no faults, or all repaired; 1 faults, or the check failed;
2 called wrongly.`,
		Example: `
  kmsfs fsck ~/vault
  kmsfs fsck --read-data --json ~/vault > faults
  kmsfs umount ~/clear && kmsfs fsck --repair --read-data ~/vault`,
		Args: cli.Exactly(1, "one VOLUME"), ValidArgsFunction: cli.Directories(1),
		RunE: func(_ *cobra.Command, args []string) error { return o.run(args[0]) },
	}
	c.Flags().BoolVar(&o.repair, "repair", false, "repair faults")
	c.Flags().BoolVar(&o.readData, "read-data", false, "open all blocks, not only the last one of each file")
	c.Flags().BoolVar(&o.json, "json", false, "print JSON, an object a line")
	o.declare(c.Flags())
	return c
}

// faultClasses is the part of the help text on classes.
func faultClasses() string {
	var b strings.Builder
	for _, m := range fsck.Meanings() {
		fmt.Fprintf(&b, "    %s\n%s\n%s\n", m.Class, cli.Wrap(m.Means, 8), cli.Wrap("--repair "+m.Remedy, 8))
	}
	return b.String()
}

func (o *fsckOptions) run(named string) error {
	volume, err := findVolume(named)
	if err != nil {
		return err
	}
	return o.open(fsckJournal, func(service kms.Invoker) error { return o.check(service, volume) })
}

func (o *fsckOptions) check(service kms.Invoker, volume string) error {
	ctx, stop := session.InterruptibleContext()
	defer stop()
	bar := output.StartProgress(false)
	var failed error
	summary, err := fsck.Check(ctx, fsck.Options{
		Volume: volume, Keys: filekeys.ForCommand(service), ReadData: o.readData, Repair: o.repair, Progress: bar.Counters(),
		Report: func(f fsck.Fault) { failed = errors.Join(failed, bar.Above(func() error { return o.show(f) })) },
	})
	bar.End()
	if ctx.Err() != nil {
		return errInterrupted
	}
	if err := errors.Join(err, failed); err != nil {
		return err
	}
	if err := o.conclude(summary); err != nil {
		return err
	}
	switch left := summary.Faults - summary.Repaired; {
	case left == 0:
		return nil
	case o.repair:
		return fmt.Errorf("%s: %w: %d, of which %d are repaired", volume, errFaults, summary.Faults, summary.Repaired)
	}
	return fmt.Errorf("%s: %w: %d", volume, errFaults, summary.Faults)
}

// show prints a fault.
func (o *fsckOptions) show(f fsck.Fault) error {
	if o.json {
		return output.JSONLine(f)
	}
	remedy := "--repair " + f.Remedy
	if f.Repaired != nil {
		remedy = f.Remedy
	}
	text := printable.Text
	_, err := fmt.Printf("%s: %s: %s; %s (in the volume %s)\n", f.Class, text(f.Path), text(f.Detail), text(remedy), text(f.Backing))
	return err
}

// conclude prints what was looked at and found.
func (o *fsckOptions) conclude(s fsck.Summary) error {
	if o.json {
		return output.JSONLine(struct {
			Summary fsck.Summary `json:"summary"`
		}{s})
	}
	number := func(n int64, what string) string {
		if n == 0 {
			return ""
		}
		return strconv.FormatInt(n, 10) + " " + what
	}
	unclean := ""
	if s.UncleanEnd {
		unclean = "the volume was not unmounted cleanly; the next mount looks through it"
	}
	return output.Facts(
		"Checked", fmt.Sprintf("%d files (%s), %d directories, %d others", s.Files, output.Bytes(s.Bytes), s.Directories, s.Others),
		"Not checked", joinTexts(
			number(s.Refused, "files whose keys the key service refuses"), number(s.Denied, "that this user may not read"),
			number(s.Changing, "that changed all the while")),
		"lost+found", number(s.Lost, "entries that don't open"),
		"Unclean end", unclean,
		"Faults", strconv.FormatInt(s.Faults, 10), "Repaired", number(s.Repaired, "of them"))
}

// joinTexts joins texts with commas, without the empty ones.
func joinTexts(texts ...string) string {
	var all []string
	for _, t := range texts {
		if t != "" {
			all = append(all, t)
		}
	}
	return strings.Join(all, ", ")
}
