package volume

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"kmsfs/cmd/kmsfs/internal/cli"
	"kmsfs/cmd/kmsfs/internal/filekeys"
	"kmsfs/cmd/kmsfs/internal/output"
	"kmsfs/cmd/kmsfs/internal/session"
	"kmsfs/fs/control"
	disk "kmsfs/fs/volume"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/material"
	"kmsfs/keyservice/printable"
)

var errNotInVolume = errors.New("lies neither in a mountpoint of kmsfs nor in a volume")

// inspectJournal names the journal of "kmsfs inspect" with a remote key service.
const inspectJournal = "inspect.jsonl"

type inspectOptions struct {
	keyOptions
	json bool
}

// Inspect is the command "kmsfs inspect".
func Inspect() *cobra.Command {
	var o inspectOptions
	c := &cobra.Command{
		Use: "inspect [OPTIONS] FILE...", GroupID: cli.Volumes, Short: "Show what a file's header says",
		Long: `
Shows the headers of files, directories and symlinks: format version, ID, KMS
key, encryption context, locations and flags. A FILE lies in a mountpoint, or in
a volume, where its name is encrypted. To check that the header is authentic,
its data key is asked for: the audit log records that, and the key service may
deny it. If the header is not authentic, the exit status is 1.

With --json, each FILE is an object on a line, with path, type, formatVersion,
fileId or directoryId, keyArn, keyMaterialId, encryptionContext, locations
(directoryId, name), flags, plaintextSize, authentic, and if they apply
digestedLocations, directoryKey, refusal, fault.`,
		Example: `
  kmsfs inspect ~/clear/report.pdf
  kmsfs inspect --json ~/vault/* | jq -r .keyArn | sort | uniq -c`,
		Args: cli.AtLeastOne("at least one FILE"),
		RunE: func(_ *cobra.Command, args []string) error { return o.run(args) },
	}
	c.Flags().BoolVar(&o.json, "json", false, "print a JSON object for each FILE")
	o.declare(c.Flags())
	return c
}

// inspection is what the command shows of a file: the file system's report, and what only the key
// service can tell.
type inspection struct {
	*disk.Report
	KeyMaterialID string `json:"keyMaterialId"`
}

func (o *inspectOptions) run(paths []string) (err error) {
	places := make([]place, len(paths))
	for i, path := range paths {
		if places[i], err = findPlace(path); err != nil {
			return err
		}
	}
	return o.open(inspectJournal, func(service kms.Invoker) error { return o.inspect(service, paths, places) })
}

// inspect shows what lies at the places, which the arguments name.
func (o *inspectOptions) inspect(service kms.Invoker, args []string, places []place) (err error) {
	inspectors := map[string]*disk.Inspector{}
	defer func() {
		for _, inspector := range inspectors {
			inspector.Close()
		}
	}()
	var faults []error
	for i, p := range places {
		inspector := inspectors[p.volume]
		if inspector == nil {
			if inspector, err = disk.NewInspector(filekeys.ForCommand(service), p.volume); err != nil {
				return err
			}
			inspectors[p.volume] = inspector
		}
		report, err := p.inspect(inspector)
		if err != nil {
			return err
		}
		report.Path = args[i]
		if err := o.show(report); err != nil {
			return err
		}
		if report.Fault != "" {
			faults = append(faults, fmt.Errorf("%s: %s", printable.Text(args[i]), report.Fault))
		}
	}
	return errors.Join(faults...)
}

// show prints a report.
func (o *inspectOptions) show(report *disk.Report) error {
	shown := inspection{Report: report}
	if blob, err := material.ParseBlob(report.WrappedKey); err == nil {
		shown.KeyMaterialID = blob.Material.String()
	}
	if o.json {
		return output.JSONLine(shown)
	}
	_, err := os.Stdout.WriteString(shown.String())
	return err
}

// place is where a path lies.
type place struct {
	volume string
	// path is relative to the volume's root. sealed says that its names are encrypted ones.
	path   string
	sealed bool
}

// findPlace returns the mountpoint or volume in which a path lies.
func findPlace(path string) (place, error) {
	abs, err := control.Resolve(path, false)
	if err != nil {
		return place{}, err
	}
	if _, err := os.Lstat(abs); err != nil {
		return place{}, session.PathError(err)
	}
	m, ok, err := control.Above(abs)
	if err != nil {
		return place{}, err
	}
	if ok {
		rel, err := filepath.Rel(m.Path, abs)
		return place{m.Source, rel, false}, err
	}
	for dir := abs; ; dir = filepath.Dir(dir) {
		if _, err := os.Lstat(filepath.Join(dir, volumeFile)); err == nil {
			rel, err := filepath.Rel(dir, abs)
			return place{dir, rel, true}, err
		}
		if dir == "/" {
			return place{}, fmt.Errorf("%s: %w", path, errNotInVolume)
		}
	}
}

func (p place) inspect(inspector *disk.Inspector) (*disk.Report, error) {
	if p.sealed {
		return inspector.InspectSealed(p.path)
	}
	return inspector.Inspect(p.path)
}

// String is a table for people.
func (i inspection) String() string {
	var b strings.Builder
	fmt.Fprintln(&b, printable.Text(i.Path))
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "  %-15s %s\n", name, printable.Text(value))
		}
	}
	row("type", i.Type)
	if i.FormatVersion != 0 {
		row("format version", strconv.Itoa(i.FormatVersion))
	}
	row("file ID", i.FileID)
	row("directory ID", i.DirectoryID)
	row("KMS key", i.KeyARN)
	row("key beneath", i.DirectoryKey)
	row("key material", i.KeyMaterialID)
	for _, name := range slices.Sorted(maps.Keys(i.EncryptionContext)) {
		row("context", fmt.Sprintf("%s = %s", name, strconv.Quote(i.EncryptionContext[name])))
	}
	for _, l := range i.Locations {
		row("location", fmt.Sprintf("%q in directory %s", l.Name, l.DirectoryID))
	}
	if i.DigestedLocations > 0 {
		row("locations", fmt.Sprintf("%d, as digests", i.DigestedLocations))
	}
	row("flags", strings.Join(i.Flags, ", "))
	if i.PlaintextSize != nil {
		row("plaintext size", strconv.FormatInt(*i.PlaintextSize, 10))
	}
	switch {
	case i.Authentic:
		row("authentic", "yes")
	case i.Refusal != "":
		row("authentic", "unknown: "+i.Refusal)
	case i.Fault != "":
		row("authentic", "no: "+i.Fault)
	}
	return b.String()
}
