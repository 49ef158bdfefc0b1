// Package fsck checks a volume, mounted or not, and repairs it.
//
//   - check.go: the check, its options and summary, and the classes of faults
//   - directory.go, file.go, linked.go: what is wrong with an entry; claims.go: what it says of itself
//   - recheck.go: what changes while it is looked at
//   - repair.go and what begins with repair_: what is done about faults
//   - survey.go: what a repair has to know of the whole volume
//   - lostfound.go: the directory that repair moves things to
//   - usage.go: what depends on a KMS key
package fsck

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"sync"
	"sync/atomic"

	"kmsfs/envelope"
	"kmsfs/fs/keys"
	"kmsfs/fs/volume"
	"kmsfs/fs/volume/backing"
)

// ErrMounted says that the volume is mounted, so that it can't be repaired.
var ErrMounted = errors.New("the volume is mounted: unmount it to repair it")

// Options say what to check, and how.
type Options struct {
	Volume string
	Keys   keys.Service
	// ReadData has all blocks opened, and not only each file's last.
	ReadData bool
	// Repair has faults repaired, for which nobody may have the volume mounted.
	Repair bool
	// Report is called with each fault, one at a time; in the case of repair after it was tried.
	Report func(Fault)
	// Progress, if not nil, is kept up to date.
	Progress *volume.Progress
}

// Fault is something in a volume that is not as it was sealed or left. Its JSON names are stable.
type Fault struct {
	Class Class `json:"class"`
	// Path is where users see it, as far as that can be known: "?" stands for names that don't
	// open. Backing is where it lies in the volume. Both begin with "/".
	Path    string `json:"path"`
	Backing string `json:"backing"`
	Detail  string `json:"detail"`
	// Bad are the parts of a file's content that don't open, in bytes.
	Bad []envelope.Span `json:"bad,omitempty"`
	// Remedy is what repair does about it; once that was tried, what it has done, or why it could
	// not.
	Remedy string `json:"remedy"`
	// Repaired says how that ended; nil if it was not tried.
	Repaired *bool `json:"repaired,omitempty"`
}

// Class names a kind of fault. The words are stable.
type Class string

// The classes of faults.
const (
	FaultRecord         Class = "record"
	FaultForeignRecord  Class = "foreign-record"
	FaultName           Class = "name"
	FaultLongName       Class = "long-name"
	FaultOrphanName     Class = "orphan-name"
	FaultLeftover       Class = "leftover"
	FaultUnknownControl Class = "unknown-control"
	FaultMark           Class = "mark"
	FaultHeader         Class = "header"
	FaultOverflow       Class = "overflow"
	FaultStaleOverflow  Class = "stale-overflow"
	FaultForeignKey     Class = "foreign-key"
	FaultDataKey        Class = "data-key"
	FaultSize           Class = "size"
	FaultBlock          Class = "block"
	FaultMisplaced      Class = "misplaced"
	FaultPlantedLink    Class = "planted-link"
	FaultOwner          Class = "owner"
	FaultStaleLocation  Class = "stale-location"
	FaultStaleOwner     Class = "stale-owner"
	FaultAttribute      Class = "attribute"
	FaultSymlinkTarget  Class = "symlink-target"
	FaultUncleanEnd     Class = "unclean-end"
	FaultUnreadable     Class = "unreadable"
)

// Meaning says, for people, what faults of a class are, and what repair does about them.
type Meaning struct {
	Class          Class
	Means, Remedy  string
	reachesNothing bool // what has the fault doesn't open: expected of what lies in lost+found
}

// Meanings lists all classes.
func Meanings() []Meaning {
	return []Meaning{
		{FaultRecord, "a directory's record is missing, damaged, or not to be trusted", "moves what can be identified in it to a new directory in lost+found, and the rest as it is", true},
		{FaultForeignRecord, "a directory has the record of another one", "moves what can be identified in it to a new directory in lost+found, and the rest as it is", true},
		{FaultName, "an entry's name doesn't open", "moves it to lost+found", false},
		{FaultLongName, "the file that holds an entry's long name is missing or damaged", "writes it anew if header or record tell the name, else moves the entry to lost+found", false},
		{FaultOrphanName, "a file that holds a long name has no entry", "removes it", false},
		{FaultLeftover, "a directory that a crash left half made or half removed", "removes it, or, if there are files in it, moves it to lost+found", false},
		{FaultUnknownControl, "an entry that begins with kmsfs. and is none of kmsfs's", "moves it to lost+found", false},
		{FaultMark, "the mark of an unclean end is damaged", "moves it to lost+found: what the unclean end left behind is then no longer told from damage", false},
		{FaultHeader, "a file's header is damaged", "moves the file to lost+found", true},
		{FaultOverflow, "a file's overflow attribute is missing or damaged", "moves the file to lost+found", true},
		{FaultStaleOverflow, "a file has an overflow attribute that its header knows nothing of", "removes the attribute, which means nothing", false},
		{FaultForeignKey, "a file's KMS key is none of the volume's", "moves the file to lost+found", true},
		{FaultDataKey, "a file's data key doesn't open", "moves the file to lost+found", true},
		{FaultSize, "a file has a size that no sealed file has, or that its header doesn't fit", "moves it to lost+found; only if an unclean end may have left it so, cuts it back to the last whole block", true},
		{FaultBlock, "blocks of a file don't open", "if an unclean end may have left it so, accepts a torn last block; else makes a copy with zeros in place of the bad blocks, in lost+found, and moves the file there too", true},
		{FaultMisplaced, "a file or directory lies where it was not put", "moves it to lost+found, where it opens again; but not what is a copy of something in its place", true},
		{FaultPlantedLink, "a link that the file's header doesn't list", "moves the link to lost+found", true},
		{FaultOwner, "a file or directory belongs to somebody else than its header or record says", "gives it back", true},
		{FaultStaleLocation, "a header or record lists a place where the file or directory doesn't lie", "drops it from the header or record", false},
		{FaultStaleOwner, "a header or record names an owner to come, who has not come", "drops it", false},
		{FaultAttribute, "an extended attribute doesn't open", "moves it into a file in lost+found", false},
		{FaultSymlinkTarget, "a symlink's target doesn't open", "moves the symlink to lost+found", true},
		{FaultUncleanEnd, "an unclean end left a file one step behind", "repairs it, as the next mount would", false},
		{FaultUnreadable, "the system can't read it", "does nothing", false},
	}
}

func meaning(class Class) Meaning {
	all := Meanings()
	return all[slices.IndexFunc(all, func(m Meaning) bool { return m.Class == class })]
}

// Summary is what was seen in a volume. Its JSON names are stable.
type Summary struct {
	Files       int64 `json:"files"`
	Directories int64 `json:"directories"`
	// Others are symlinks, FIFOs, sockets and devices.
	Others int64 `json:"others"`
	// Bytes is the ciphertext of the files that were checked.
	Bytes int64 `json:"bytes"`
	// Refused are files that were not checked, since the key service lets nobody, or not this
	// caller, use their keys; Denied those that the system's permissions keep the caller from;
	// Changing those that changed all the while.
	Refused  int64 `json:"refused"`
	Denied   int64 `json:"denied"`
	Changing int64 `json:"changing"`
	// Lost is how many entries of lost+found don't open: that is no fault.
	Lost     int64 `json:"lost"`
	Faults   int64 `json:"faults"`
	Repaired int64 `json:"repaired"`
	// UncleanEnd says that the volume was not unmounted cleanly, and is not mounted.
	UncleanEnd bool `json:"uncleanEnd"`
}

// check is a check of a volume.
type check struct {
	claims
	options Options
	ctx     context.Context
	stop    context.CancelCauseFunc
	tally
	inodes linkedInodes

	// tolerance is that of an unclean end; none while somebody has the volume mounted.
	tolerance volume.Tolerance

	mu       sync.Mutex // guards what follows, and calls of Report
	suspects []suspect  // what is to be repaired
	faults   Summary
	later    []postponed // what is to be looked at again
}

// tally counts what a check sees.
type tally struct {
	files, directories, others, bytes, refused, denied, changing, lost atomic.Int64
}

// suspect is an entry with faults.
type suspect struct {
	// dirs are the backing names of the directories that lead to it; entry is empty for the root
	// itself.
	dirs  []string
	entry backing.Entry
	path  string
	found []finding
}

// finding is a fault, without its place.
type finding struct {
	class  Class
	detail string
	bad    []envelope.Span
}

// inVolume is where the suspect lies in the volume.
func (s suspect) inVolume() string {
	return "/" + path.Join(path.Join(s.dirs...), s.entry.Name)
}

// Check examines a volume, mounted or not, and reports its faults. It returns an error if it can't
// be examined to its end. If nobody else has it mounted, and the options ask for it, it repairs
// what it finds.
func Check(ctx context.Context, o Options) (Summary, error) {
	v, err := volume.Open(o.Volume, o.Keys, "fsck")
	if err != nil {
		return Summary{}, err
	}
	defer v.Close()
	return CheckVolume(ctx, v, o)
}

// CheckVolume is Check for a volume that is open.
func CheckVolume(ctx context.Context, v *volume.Volume, o Options) (summary Summary, err error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	c := &check{claims: claims{v}, options: o, ctx: ctx, stop: stop, inodes: newLinkedInodes()}
	if o.Repair {
		unlock, err := v.LockAlone()
		if errors.Is(err, volume.ErrInUse) {
			return Summary{}, fmt.Errorf("%s: %w", v.Path, ErrMounted)
		}
		if err != nil {
			return Summary{}, err
		}
		defer unlock()
	}
	if c.tolerance, err = v.UncleanEnd(o.Repair); err != nil {
		return Summary{}, err
	}
	var counting sync.WaitGroup
	defer counting.Wait()
	defer stop(nil)
	if o.Progress != nil {
		o.Progress.Count(ctx, v.Root, &counting)
	}
	if err := c.root(); err != nil {
		return Summary{}, err
	}
	if o.Repair {
		err = c.repair()
	}
	return c.summary(), err
}

// root checks the root directory and all beneath.
func (c *check) root() error {
	d := &checkedDirectory{c: c, dir: c.Root}
	record, err := c.ReadDirectory(d.dir)
	switch {
	case isFault(err):
		c.report(suspect{path: "/", found: []finding{{class: FaultRecord, detail: err.Error()}}})
		return nil
	case err != nil:
		return fmt.Errorf("%s: %w", c.Path, err)
	case !record.LiesAt(envelope.Location{}):
		c.report(suspect{path: "/", found: []finding{{class: FaultForeignRecord, detail: "the record is that of another directory"}}})
		return nil
	case !record.OwnedBy(c.Owner):
		c.report(suspect{path: "/", found: []finding{{
			class: FaultOwner, detail: fmt.Sprintf("the volume's directory belongs to %s, and by its record to %s: chown it", volume.OwnerName(c.Owner), volume.OwnerName(record.Owners[0])),
		}}})
		return nil
	}
	d.id = record.ID
	c.directories.Add(1)
	return c.through(d)
}

// through checks what is in a directory. It returns why that could not be done to its end.
func (c *check) through(d *checkedDirectory) error {
	volume.Walk(c.ctx, d.dir, d)
	c.lookAgain()
	return context.Cause(c.ctx)
}

// report has a suspect reported, or kept to be repaired.
func (c *check) report(s suspect) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.options.Repair {
		c.suspects = append(c.suspects, s)
		return
	}
	for _, f := range s.found {
		c.tell(s, f, meaning(f.class).Remedy, nil)
	}
}

// tell has one fault reported. mu is held, or the check has no other goroutines by then.
func (c *check) tell(s suspect, f finding, remedy string, repaired *bool) {
	c.faults.Faults++
	if repaired != nil && *repaired {
		c.faults.Repaired++
	}
	c.options.Report(Fault{Class: f.class, Path: s.path, Backing: s.inVolume(), Detail: f.detail, Bad: f.bad, Remedy: remedy, Repaired: repaired})
}

func (c *check) summary() Summary {
	s := c.faults
	s.Files, s.Directories, s.Others, s.Bytes = c.files.Load(), c.directories.Load(), c.others.Load(), c.bytes.Load()
	s.Refused, s.Denied, s.Changing, s.Lost = c.refused.Load(), c.denied.Load(), c.changing.Load(), c.lost.Load()
	s.UncleanEnd = !c.tolerance.Since.IsZero()
	return s
}

// isFault says whether an error means that something is not what was sealed.
func isFault(err error) bool {
	return errors.Is(err, envelope.ErrAuthentication) || errors.Is(err, envelope.ErrFormat)
}
