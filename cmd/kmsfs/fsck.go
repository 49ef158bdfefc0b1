package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"kmsfs/fs/fsck"
	"kmsfs/keyservice/kms"
)

// errFaults is the exit status of a volume with faults.
var errFaults = errors.New("the volume has faults")

// fsckJournal names the journal of "kmsfs fsck" with a key service elsewhere.
const fsckJournal = "fsck.jsonl"

func fsckCommand() command {
	return command{
		name:      "fsck",
		arguments: "[OPTIONS] VOLUME",
		summary:   "check a volume, and repair it",
		details: `
Checks a volume, mounted or not: all names, directory records, headers, places, owners, sizes, links, symlinks, extended attributes, and
that each file's last block opens; with --read-data that all blocks do. What is just being changed is looked at again before it
is called a fault. Each file's data key is asked for, which the audit log records. Files whose keys the key service refuses
are not checked, and that is no fault.

With --repair, faults are repaired, which nobody may have the volume mounted for; the audit log tells of each repair. Nothing is thrown
away: what can't be repaired in its place is moved to the directory lost+found in the volume, where what is genuine can be
opened again. What still doesn't open there is no fault.

A fault is a line: its class, the path as users see it ("?" for a name that doesn't open), what was found, what --repair does or did, and
the path in the volume. With --json, each fault is a line with an object: class, path, backing, detail, remedy, and what applies of bad (offset
and length of what doesn't open) and repaired; and the last line is one with the member summary.

Classes:
` + faultClasses() + `
Exit status: 0 no faults, or all repaired; 1 faults, or the check failed; 2 called wrongly.

Examples:
  kmsfs fsck ~/vault
  kmsfs fsck --read-data --json ~/vault > faults
  kmsfs umount ~/clear && kmsfs fsck --repair --read-data ~/vault`,
		prepare: func(flags *pflag.FlagSet) func([]string) error {
			var o fsckOptions
			flags.BoolVar(&o.repair, "repair", false, "repair what is found")
			flags.BoolVar(&o.readData, "read-data", false, "open all blocks, and not only each file's last")
			flags.BoolVar(&o.json, "json", false, "print JSON, an object a line")
			o.declare(flags)
			return o.run
		},
	}
}

// faultClasses is the part of the help text on classes.
func faultClasses() string {
	var b strings.Builder
	for _, m := range fsck.Meanings() {
		fmt.Fprintf(&b, "  %-16s %s\n%19s--repair %s\n", m.Class, m.Means, "", m.Remedy)
	}
	return b.String()
}

type fsckOptions struct {
	volumeOptions
	repair, readData, json bool
}

func (o *fsckOptions) run(args []string) error {
	if len(args) != 1 {
		return usagef("fsck", "want one VOLUME, got %d arguments", len(args))
	}
	volume, err := findVolume(args[0])
	if err != nil {
		return err
	}
	return o.open(fsckJournal, func(service kms.Invoker) error { return o.check(service, volume) })
}

func (o *fsckOptions) check(service kms.Invoker, volume string) error {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	bar := startProgress(false)
	var failed error
	summary, err := fsck.Check(ctx, fsck.Options{
		Volume: volume, Keys: keyAdapter{api: service}, ReadData: o.readData, Repair: o.repair, Progress: bar.counters(),
		Report: func(f fsck.Fault) { failed = errors.Join(failed, bar.above(func() error { return o.show(f) })) },
	})
	bar.end()
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

func (o *fsckOptions) show(f fsck.Fault) error {
	if o.json {
		return json.NewEncoder(os.Stdout).Encode(f)
	}
	remedy := "--repair " + f.Remedy
	if f.Repaired != nil {
		remedy = f.Remedy
	}
	_, err := fmt.Printf("%s: %s: %s; %s (in the volume %s)\n", f.Class, printable(f.Path), printable(f.Detail), printable(remedy), printable(f.Backing))
	return err
}

func (o *fsckOptions) conclude(s fsck.Summary) error {
	if o.json {
		return json.NewEncoder(os.Stdout).Encode(struct {
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
	return facts(
		"Checked", fmt.Sprintf("%d files (%s), %d directories, %d others", s.Files, byteSize(s.Bytes), s.Directories, s.Others),
		"Not checked", joinTexts(
			number(s.Refused, "files whose keys the key service refuses"), number(s.Denied, "that this user may not read"),
			number(s.Changing, "that changed all the while")),
		"lost+found", number(s.Lost, "entries that don't open"),
		"Unclean end", unclean,
		"Faults", strconv.FormatInt(s.Faults, 10), "Repaired", number(s.Repaired, "of them"))
}

// joinTexts puts commas between texts, without the empty ones.
func joinTexts(texts ...string) string {
	var all []string
	for _, t := range texts {
		if t != "" {
			all = append(all, t)
		}
	}
	return strings.Join(all, ", ")
}

// printable is a text that a terminal can't take for commands: quoted if need be.
func printable(s string) string {
	for _, r := range s {
		if !strconv.IsPrint(r) {
			return strconv.Quote(s)
		}
	}
	return s
}
