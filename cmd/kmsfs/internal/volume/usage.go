package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"kmsfs/cmd/kmsfs/internal/auditlog"
	"kmsfs/cmd/kmsfs/internal/cli"
	"kmsfs/cmd/kmsfs/internal/filekeys"
	"kmsfs/cmd/kmsfs/internal/output"
	"kmsfs/cmd/kmsfs/internal/session"
	"kmsfs/fs/control"
	"kmsfs/fs/fsck"
	"kmsfs/fs/keys"
	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/remote"
)

// errNotCounted is the error of a count that leaves something out.
var errNotCounted = errors.New("not all volumes could be looked through")

// usageJournal names the journal of "kmsfs key usage" with a remote key service.
const usageJournal = "usage.jsonl"

// Where the volumes were found.
const (
	volumesGiven   = "given"
	volumesMounted = "mounted"
	volumesLogged  = "mounted and audit log"
)

type usageOptions struct {
	keyOptions
	json bool
}

// KeyUsage is the command "kmsfs key usage".
func KeyUsage() *cobra.Command {
	var o usageOptions
	c := &cobra.Command{
		Use: "usage [OPTIONS] KEY [VOLUME...]", Short: "Count the files that depend on a KMS key",
		Long: `
Counts what can't be opened without the KMS key: files, directories whose policy
names it, and volumes whose metadata key is under it. Of those volumes, nothing
can be opened without it. No file's data key is used for the count. KEY is a
key's ID, ARN or alias.

Without a VOLUME, it looks through the mounted volumes, and those that were
mounted by this home's audit log, if they still exist. The key may have
encrypted other things: volumes elsewhere, backups, and what programs have
encrypted themselves.

With --json, it prints key; known: "given", "mounted" or "mounted and audit
log", by where the volumes were found; and volumes. Each has volume, files,
directories, metadata, newFiles (whether new files are under the key, unless a
directory says otherwise), listed (whether the volume's configuration names the
key), unknown (how many can't be read), and if it applies error.

Exit status: 0 all was counted; 1 something was left out, or the count failed;
2 called wrongly.`,
		Example: `
  kmsfs key usage alias/finance
  kmsfs key usage alias/finance ~/vault /srv/vault`,
		Args: cli.AtLeastOne("a KEY"),
		RunE: func(_ *cobra.Command, args []string) error { return o.run(args[0], args[1:]) },
	}
	c.Flags().BoolVar(&o.json, "json", false, "print JSON")
	o.declare(c.Flags())
	keys := session.Options{}
	c.ValidArgsFunction = keys.Keys(0)
	return c
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

func (o *usageOptions) run(key string, paths []string) error {
	var given []string
	for _, path := range paths {
		volume, err := findVolume(path)
		if err != nil {
			return err
		}
		given = append(given, volume)
	}
	return o.open(usageJournal, func(service kms.Invoker) error { return o.count(service, key, given) })
}

// count counts in the volumes that are given, or else in all that are known.
func (o *usageOptions) count(service kms.Invoker, key string, given []string) error {
	arn, names, err := findKey(service, key)
	if err != nil {
		return err
	}
	usage := keyUsage{Key: arn, Known: volumesGiven, Volumes: []volumeUsage{}}
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
}

// findKey returns the key's ARN and all of its names. For a key that does not exist any more, they
// are what the user has named.
func findKey(service kms.Invoker, key string) (arn string, names []string, err error) {
	switch service := service.(type) {
	case *remote.Service:
		arn, err = service.DescribeKey(context.Background(), key)
		names = []string{arn, arn[strings.LastIndexByte(arn, '/')+1:], key}
	case *session.Home:
		arn, names, err = namesOf(session.New(service), key)
	}
	if session.IsNotFound(err) && !strings.Contains(key, "alias/") {
		return key, []string{key}, nil
	}
	return arn, names, err
}

// namesOf returns a key's ARN, and all names of the key.
func namesOf(s *session.Session, key string) (arn string, names []string, err error) {
	out, err := kms.DescribeKey.Call(s.Ctx, s, s.Caller, &kms.DescribeKeyInput{KeyId: key})
	if err != nil {
		return "", nil, err
	}
	arn = out.KeyMetadata.Arn
	names = []string{arn, out.KeyMetadata.KeyId}
	err = s.EachAlias(arn, func(a kms.AliasListEntry) { names = append(names, a.AliasName, a.AliasArn) })
	return arn, names, err
}

// knownVolumes returns the volumes that are mounted, and those that the home's audit log tells of.
// known says where they were found.
func knownVolumes(service kms.Invoker) (volumes []string, known string, err error) {
	mounted, err := control.KmsfsMounts()
	if err != nil {
		return nil, "", err
	}
	for _, m := range mounted {
		volumes = append(volumes, m.Source)
	}
	known = volumesMounted
	if h, ok := service.(*session.Home); ok {
		logged, err := loggedVolumes(h)
		if err == nil {
			volumes, known = append(volumes, logged...), volumesLogged
		}
	}
	slices.Sort(volumes)
	return slices.Compact(volumes), known, nil
}

// loggedVolumes returns the volumes that the home's audit log says were mounted, and that still
// exist.
func loggedVolumes(h *session.Home) (volumes []string, err error) {
	log, err := auditlog.Read(session.New(h))
	if err != nil {
		return nil, err
	}
	err = log.Query(audit.Filter{Event: keys.EventMounted}, func(e *audit.Entry) error {
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
	ctx, stop := session.InterruptibleContext()
	defer stop()
	isKey := func(name string) bool {
		return slices.Contains(names, name) || slices.Contains(names, name[strings.LastIndexByte(name, '/')+1:])
	}
	for _, volume := range volumes {
		bar := output.StartProgress(false)
		usage, err := fsck.CountKeyUsage(ctx, fsck.UsageOptions{
			Volume: volume, Keys: filekeys.ForCommand(service), IsKey: isKey, Progress: bar.Counters(),
		})
		bar.End()
		if ctx.Err() != nil {
			return errInterrupted
		}
		if err != nil && !usage.Listed && u.Known != volumesGiven {
			continue // the volume belongs to another home
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
		show = func() error { return output.JSON(u) }
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
	if err := output.Facts("Key", u.Key, "Volumes", map[string]string{
		volumesGiven: "those given", volumesMounted: "those that are mounted",
		volumesLogged: "those that are mounted, or were by the audit log",
	}[u.Known]); err != nil {
		return err
	}
	rows := [][]string{{"VOLUME", "FILES", "DIRECTORIES", "METADATA", "NEW FILES", "UNKNOWN"}}
	var files, directories int64
	for _, v := range u.Volumes {
		files, directories = files+v.Files, directories+v.Directories
		row := []string{
			v.Volume, strconv.FormatInt(v.Files, 10), strconv.FormatInt(v.Directories, 10),
			output.YesNo(v.Metadata), output.YesNo(v.NewFiles), strconv.FormatInt(v.Unknown, 10),
		}
		if v.Error != "" {
			row[1], row[2], row[5] = "?", "?", "?"
		}
		rows = append(rows, row)
	}
	if len(u.Volumes) > 1 {
		rows = append(rows, []string{"all", strconv.FormatInt(files, 10), strconv.FormatInt(directories, 10)})
	}
	return output.Table(rows)
}
