package memory

import (
	"errors"
	"io"

	"golang.org/x/sys/unix"
)

// Op is a kind of call.
type Op string

// The kinds of calls that can fail.
const (
	OpRead      Op = "read"
	OpWrite     Op = "write"
	OpTruncate  Op = "truncate"
	OpAllocate  Op = "allocate" // holes too
	OpSync      Op = "sync"     // fsync, fdatasync, syncfs
	OpOpen      Op = "open"     // of what is there
	OpCreate    Op = "create"   // files, directories, devices, symlinks
	OpLink      Op = "link"
	OpUnlink    Op = "unlink" // rmdir too
	OpRename    Op = "rename"
	OpStat      Op = "stat"
	OpAttribute Op = "attribute" // extended attributes: set, removed
	OpChange    Op = "change"    // chmod, chown, utimensat
	OpList      Op = "list"      // entries, names of attributes, values
)

// Fault makes calls fail.
type Fault struct {
	// On are the kinds of calls concerned; all if it is empty.
	On []Op
	// After is how many of them pass before; Times how many fail then, 0: all. Calls on a handle
	// that is closed, or whose disk has gone, are not counted.
	After, Times int
	// Err is what they return.
	Err unix.Errno
	// Done has them do what they were asked for, and return Err all the same, as network file
	// systems may.
	Done bool
	// Short has reads and writes do half of what they were asked for, up to where a page begins,
	// before they return Err.
	Short bool

	seen, met int
}

// Inject makes calls fail from now on. Heal ends all faults. met tells how many calls have failed.
func (f *FS) Inject(fault Fault) (met func() int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fault.seen, fault.met = 0, 0
	f.faults = append(f.faults, &fault)
	return func() int {
		f.mu.Lock()
		defer f.mu.Unlock()
		return fault.met
	}
}

// Heal ends all faults.
func (f *FS) Heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = nil
}

func (f *Fault) concerns(op Op) bool {
	for _, o := range f.On {
		if o == op {
			return true
		}
	}
	return len(f.On) == 0
}

// fault counts a call and returns the fault that it meets, if any. It is asked once for each call.
// Calls that a fault makes fail don't count for those that were injected after it.
func (f *FS) fault(op Op) *Fault {
	for _, fault := range f.faults {
		if !fault.concerns(op) {
			continue
		}
		fault.seen++
		if fault.seen > fault.After && (fault.Times == 0 || fault.seen <= fault.After+fault.Times) {
			fault.met++
			return fault
		}
	}
	return nil
}

// call makes a call of which the outcome is an error only, unless a fault (nil: none) keeps it from
// that.
func (f *Fault) call(do func() error) error {
	if f == nil {
		return do()
	}
	if f.Done {
		if err := do(); err != nil {
			return err
		}
	}
	return f.Err
}

// transfer makes a call that moves p at off, or as much of it as a fault (nil: none) lets it.
func (f *Fault) transfer(p []byte, off int64, do func(p []byte) (int, error)) (int, error) {
	switch {
	case f == nil:
		return do(p)
	case f.Short:
		half := int64(len(p) / 2)
		p = p[:max(half-(off+half)%pageSize, 0)]
	case !f.Done:
		return 0, f.Err
	}
	done, err := do(p)
	if err == nil || errors.Is(err, io.EOF) {
		err = f.Err
	}
	return done, err
}
