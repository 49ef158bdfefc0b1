package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"kmsfs/fs/control"
	"kmsfs/fs/fsck"
	"kmsfs/fs/keys"
	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/remote"
)

// errNotCounted is the exit status of a count that leaves something out.
var errNotCounted = errors.New("not all volumes could be looked through")

// usageJournal names the journal of "kmsfs key usage" with a key service elsewhere.
const usageJournal = "usage.jsonl"

func keyUsageCommand() command {
	return command{
		name: "usage", arguments: "[OPTIONS] KEY [VOLUME...]", summary: "count the files that depend on a KMS key",
		details: `
Counts what can't be opened any more without a KMS key: files, directories that name it for what is made in them, and volumes whose metadata key
is under it: of those, nothing can be opened without it. No file's data key is used for that. KEY is a key's ID, ARN or
alias.

Without a VOLUME, it looks through the volumes that are mounted, and those that were, by this home's audit log, as far as they are still there and not another home's. The
key may have encrypted other things, of which nobody knows: volumes that are elsewhere, backups, and what programs encrypt themselves.

With --json, it prints key, known ("given", "mounted" or "mounted and audit log": where the volumes were found), and volumes, each with volume, files,
directories, metadata, newFiles (whether files are made under it where no directory says otherwise), listed (whether the volume's configuration names the key),
unknown (how many can't be read), and what applies of error.

Exit status: 0 all was counted; 1 something was left out, or the count failed; 2 called wrongly.

Examples:
  kmsfs key usage alias/finance
  kmsfs key usage alias/finance ~/vault /srv/vault`,
		prepare: func(flags *pflag.FlagSet) func([]string) error {
			var o usageOptions
			flags.BoolVar(&o.json, "json", false, "print JSON")
			o.declare(flags)
			return o.run
		},
	}
}

type usageOptions struct {
	volumeOptions
	json bool
}

// keyUsage is what the command shows.
type keyUsage struct {
	Key     string        `json:"key"`
	Known   string        `json:"known"`
	Volumes []volumeUsage `json:"volumes"`
}

type volumeUsage struct {
	fsck.KeyUsage
	Error string `json:"error,omitempty"`
}

func (o *usageOptions) run(args []string) error {
	if len(args) == 0 {
		return usagef("key usage", "want a KEY")
	}
	var given []string
	for _, path := range args[1:] {
		volume, err := findVolume(path)
		if err != nil {
			return err
		}
		given = append(given, volume)
	}
	return o.open(usageJournal, func(service kms.Invoker) error {
		arn, names, err := findKey(service, args[0])
		if err != nil {
			return err
		}
		usage := keyUsage{Key: arn, Known: "given", Volumes: []volumeUsage{}}
		volumes := given
		if len(given) == 0 {
			if volumes, usage.Known, err = knownVolumes(service); err != nil {
				return err
			}
		}
		if err := usage.count(service, names, volumes); err != nil {
			return err
		}
		return o.show(&usage)
	})
}

// findKey returns the key's ARN and all of its names. A key that is gone has those that it is called by.
func findKey(service kms.Invoker, key string) (arn string, names []string, err error) {
	switch service := service.(type) {
	case *remote.Service:
		arn, err = service.DescribeKey(context.Background(), key)
		names = []string{arn, arn[strings.LastIndexByte(arn, '/')+1:], key}
	case *home:
		s := &session{service, context.Background(), kms.Caller{Caller: self()}}
		arn, names, err = s.namesOf(key)
	}
	if e, ok := errors.AsType[*kms.Error](err); ok && e.Code == kms.CodeNotFound && !strings.Contains(key, "alias/") {
		return key, []string{key}, nil
	}
	return arn, names, err
}

// namesOf returns a key's ARN, and that with all other names of the key.
func (s *session) namesOf(key string) (arn string, names []string, err error) {
	out, err := kms.DescribeKey.Call(s.ctx, s, s.caller, &kms.DescribeKeyInput{KeyId: key})
	if err != nil {
		return "", nil, err
	}
	arn = out.KeyMetadata.Arn
	names = []string{arn, out.KeyMetadata.KeyId}
	err = s.eachAlias(arn, func(a kms.AliasListEntry) { names = append(names, a.AliasName, a.AliasArn) })
	return arn, names, err
}

// knownVolumes returns the volumes that are mounted, and those that the home's audit log tells of, and says where it has looked.
func knownVolumes(service kms.Invoker) (volumes []string, known string, err error) {
	mounted, err := control.KmsfsMounts()
	if err != nil {
		return nil, "", err
	}
	for _, m := range mounted {
		volumes = append(volumes, m.Source)
	}
	known = "mounted"
	if h, ok := service.(*home); ok {
		logged, err := h.loggedVolumes()
		if err == nil {
			volumes, known = append(volumes, logged...), "mounted and audit log"
		}
	}
	slices.Sort(volumes)
	return slices.Compact(volumes), known, nil
}

// loggedVolumes returns the volumes that were mounted by the audit log, and are still there.
func (h *home) loggedVolumes() (volumes []string, err error) {
	log, err := readAuditLog(&session{h, context.Background(), kms.Caller{Caller: self()}})
	if err != nil {
		return nil, err
	}
	err = audit.Query(log.files, log.open, audit.Filter{Event: keys.EventMounted}, func(e *audit.Entry) error {
		volume, ok := e.ServiceEventDetails["volume"].(string)
		if !ok || slices.Contains(volumes, volume) {
			return nil
		}
		if _, err := os.Lstat(filepath.Join(volume, volumeFile)); err == nil {
			volumes = append(volumes, volume)
		}
		return nil
	})
	return volumes, err
}

// count counts in all volumes.
func (u *keyUsage) count(service kms.Invoker, names, volumes []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	isKey := func(name string) bool {
		return slices.Contains(names, name) || slices.Contains(names, name[strings.LastIndexByte(name, '/')+1:])
	}
	for _, volume := range volumes {
		bar := startProgress(false)
		usage, err := fsck.CountKeyUsage(ctx, fsck.UsageOptions{Volume: volume, Keys: keyAdapter{api: service}, IsKey: isKey, Progress: bar.counters()})
		bar.end()
		if ctx.Err() != nil {
			return errInterrupted
		}
		if err != nil && !usage.Listed && u.Known != "given" {
			continue // another home's
		}
		counted := volumeUsage{KeyUsage: usage}
		if err != nil {
			counted.Error = err.Error()
		}
		u.Volumes = append(u.Volumes, counted)
	}
	return nil
}

func (o *usageOptions) show(u *keyUsage) error {
	show := u.print
	if o.json {
		show = func() error { return printJSON(u) }
	}
	if err := show(); err != nil {
		return err
	}
	for _, v := range u.Volumes {
		if v.Error != "" {
			return fmt.Errorf("%w: %s", errNotCounted, v.Error)
		}
	}
	return nil
}

// print prints a table for people.
func (u *keyUsage) print() error {
	if err := facts("Key", u.Key, "Volumes", map[string]string{
		"given": "those given", "mounted": "those that are mounted", "mounted and audit log": "those that are mounted, or were by the audit log",
	}[u.Known]); err != nil {
		return err
	}
	rows := [][]string{{"VOLUME", "FILES", "DIRECTORIES", "METADATA", "NEW FILES", "UNKNOWN"}}
	var files, directories int64
	for _, v := range u.Volumes {
		files, directories = files+v.Files, directories+v.Directories
		row := []string{printable(v.Volume), strconv.FormatInt(v.Files, 10), strconv.FormatInt(v.Directories, 10), yesNo(v.Metadata), yesNo(v.NewFiles), strconv.FormatInt(v.Unknown, 10)}
		if v.Error != "" {
			row[1], row[2], row[5] = "?", "?", "?"
		}
		rows = append(rows, row)
	}
	if len(u.Volumes) > 1 {
		rows = append(rows, []string{"all", strconv.FormatInt(files, 10), strconv.FormatInt(directories, 10)})
	}
	return table(rows)
}

func yesNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}
