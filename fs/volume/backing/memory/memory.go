package memory

import (
	"math"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/fs/volume/backing"
)

// Options say what kind of disk it is.
type Options struct {
	// SingleSync has fsync make one node durable, with what it depends on, and not all metadata
	// before.
	SingleSync bool
	// SizeFirst has the end of a file reach the disk before its pages, at times.
	SizeFirst bool
	// Durable has every change be durable at once: a crash loses nothing, and no history is kept.
	Durable bool
	// Capacity is how many pages files may have in all; 0: any number.
	Capacity int
	// AttributeRoom is how many bytes the names and values of a node's attributes may have
	// together; 0: 3900, about what ext4 has in one block of 4096.
	AttributeRoom int
	// Device is the device number that nodes have.
	Device uint64
	// Now is the time; nil: the real one.
	Now func() time.Time
}

// defaultAttributeRoom is Options.AttributeRoom's default, in bytes.
const defaultAttributeRoom = 3900

// FS is a file system in memory. It is safe for concurrent use.
type FS struct {
	options Options

	mu      sync.Mutex // guards all that follows
	live    *tree
	journal journal
	uses    map[use]int // open nodes
	locks   locks
	faults  []*Fault
	gone    bool // the disk is unplugged
	// era counts how often the disk has gone: what was opened before is dead.
	era        int
	lastIno    uint64
	free       []uint64 // inode numbers to be used again, the last one first
	generation uint64
}

// use is a node that is open: the number alone may be another node's by now.
type use struct{ ino, generation uint64 }

// New returns an empty file system.
func New(o Options) *FS {
	if o.AttributeRoom == 0 {
		o.AttributeRoom = defaultAttributeRoom
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	const rootIno = 2 // as on ext4
	f := &FS{options: o, lastIno: 10}
	f.live = &tree{nodes: map[uint64]*node{}, root: rootIno}
	root := &node{ino: rootIno, mode: unix.S_IFDIR | 0o755, links: 2, names: map[string]uint64{}, parent: rootIno}
	f.touch(root)
	f.live.nodes[rootIno] = root
	f.attach()
	return f
}

// attach makes live the tree that programs see, and what is on the disk.
func (f *FS) attach() {
	f.uses = map[use]int{}
	f.locks = newLocks(&f.mu)
	f.live.open = f.inUse
	f.journal = journal{single: f.options.SingleSync}
	f.syncAll()
}

func (f *FS) inUse(ino uint64) bool {
	n := f.live.nodes[ino]
	return n != nil && f.uses[use{ino, n.generation}] > 0
}

// Root opens the root directory.
func (f *FS) Root() backing.Dir {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.open(f.live.nodes[f.live.root], false)
}

// now is the time as nodes have it.
func (f *FS) now() unix.Timespec { return unix.NsecToTimespec(f.options.Now().UnixNano()) }

func (f *FS) touch(n *node) { n.accessed, n.modified, n.changed = f.now(), f.now(), f.now() }

// number gives out an inode number: one that was in use before, if there is one, as file systems
// do.
func (f *FS) number() (ino, generation uint64) {
	f.generation++
	for len(f.free) > 0 {
		ino = f.free[len(f.free)-1]
		f.free = f.free[:len(f.free)-1]
		if f.live.nodes[ino] == nil {
			return ino, f.generation
		}
	}
	f.lastIno++
	return f.lastIno, f.generation
}

// do makes a change of metadata, now and on its way to the disk.
func (f *FS) do(e event) {
	e.apply(f.live)
	f.add(e)
	for _, ino := range e.touched {
		if f.live.nodes[ino] == nil {
			f.free = append(f.free, ino)
		}
	}
}

// add notes a change that is on its way to the disk.
func (f *FS) add(e event) {
	if !f.options.Durable {
		f.journal.add(e)
	}
}

// room is how many pages more files may have.
func (f *FS) room() int {
	if f.options.Capacity == 0 {
		return math.MaxInt
	}
	n := f.options.Capacity
	for _, node := range f.live.nodes {
		n -= len(node.pages)
	}
	return n
}

// Sync makes everything durable.
func (f *FS) Sync() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.syncAll()
}

func (f *FS) syncAll() {
	if !f.options.Durable {
		f.journal.syncAll(f.live)
	}
}

// Clone returns a copy of what programs see: what a kill of the process leaves, and what an
// attacker who copies the disk has. All of it is durable in the copy, and nothing is open.
func (f *FS) Clone() *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.with(f.live.clone())
}

func (f *FS) with(t *tree) *FS {
	c := &FS{options: f.options, live: t, lastIno: f.lastIno, generation: f.generation}
	t.dropOrphans()
	c.attach()
	return c
}

// Points is how many prefixes of the changes of metadata a crash may leave now: Crash takes 0 to
// Points().
func (f *FS) Points() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.journal.metadata()
}

// Crash returns what the disk holds if the power fails now and the first so many changes of
// metadata that are not durable have reached it. seed chooses the pages. The file system itself
// goes on.
func (f *FS) Crash(point int, seed uint64) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.options.Durable {
		return f.with(f.live.clone())
	}
	return f.with(f.journal.crash(newChooser(point, seed, f.options.SizeFirst)))
}

// Unplug takes the disk away: all calls fail with EIO. What is on the disk is as after a crash at
// point.
func (f *FS) Unplug(point int, seed uint64) {
	disk := f.Crash(point, seed)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.live, f.lastIno, f.generation = disk.live, disk.lastIno, disk.generation
	f.attach()
	f.gone, f.era = true, f.era+1
	f.locks.wake()
}

// Replug brings the disk back. What was open stays dead.
func (f *FS) Replug() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gone = false
}
