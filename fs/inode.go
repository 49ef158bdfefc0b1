package fs

import (
	"math"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"weak"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/lock"
	disk "kmsfs/fs/volume"
)

// identity names a backing inode while it exists. Parts of a volume may lie on several file
// systems.
type identity struct{ dev, ino uint64 }

func identityOf(st *unix.Stat_t) identity { return identity{st.Dev, st.Ino} }

// inode is what is known of a backing inode. The kernel has one node for each: see inodeTable.
type inode struct {
	identity
	number uint64 // as users see it
	gen    uint64 // differs between any two inodes
	kind   uint32 // S_IFMT bits

	node     node
	announce sync.Once // makes go-fuse's part of node

	// mu guards links and orphan.
	mu lock.Mutex[lock.Links]
	// links are known names of the inode: all that were looked up and not removed since, the last
	// one found first. A directory has one; the root has none. A link is added with volume.tree
	// held for reading at least, and removed with it held for writing.
	links []link

	directory // of directories

	// orphan is a regular file after its last name is gone: the kernel may still open what it has
	// looked up. Guarded by mu.
	orphan *orphan

	// object is the file ID of a regular file, once known, that its attributes are sealed with.
	object atomic.Pointer[envelope.FileID]
}

// link is a name in a directory.
type link struct {
	parent *inode
	name   string
}

// is says whether that is the backing inode.
func (in *inode) is(st *unix.Stat_t) bool {
	return in.identity == identityOf(st) && in.kind == st.Mode&unix.S_IFMT
}

func (in *inode) addLink(l link) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.kind == unix.S_IFDIR {
		in.links = in.links[:0]
	}
	if i := slices.Index(in.links, l); i >= 0 {
		in.links = slices.Delete(in.links, i, i+1)
	}
	in.links = slices.Insert(in.links, 0, l)
}

// setLink makes l the inode's only name.
func (in *inode) setLink(l link) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.links = []link{l}
}

func (in *inode) knows(l link) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.Contains(in.links, l)
}

func (in *inode) removeLink(l link) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for i, known := range in.links {
		if known == l {
			in.links = append(in.links[:i:i], in.links[i+1:]...)
			return
		}
	}
}

// link returns one of the inode's names.
func (in *inode) link() (link, bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.links) == 0 {
		return link{}, false
	}
	return in.links[0], true
}

// names returns all that are known of the inode, the last one found first.
func (in *inode) names() []link {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.Clone(in.links)
}

// path returns the path of l within the volume, beginning with "/", as encryption contexts have it:
// text, of bounded length. The caller holds volume.tree.
func (l link) path() string {
	names := []string{l.name}
	for in := l.parent; in != nil; {
		up, ok := in.link()
		if !ok {
			break
		}
		names = append(names, up.name)
		in = up.parent
	}
	var b strings.Builder
	for i := len(names) - 1; i >= 0; i-- {
		b.WriteByte('/')
		b.WriteString(names[i])
	}
	return disk.ShortenPath(disk.TextPath(b.String()))
}

// path returns a path of the inode, for messages. The caller holds volume.tree.
func (in *inode) path() string {
	l, ok := in.link()
	if !ok {
		return "/"
	}
	return path.Clean(l.path())
}

// inodeTable has one inode for each backing inode, for as long as anything refers to it: the
// kernel (by go-fuse's tables), a request under way, an open file, or what lies beneath. The table
// itself holds inodes weakly. So there is no moment at which an inode that is in use has left the
// table, and no count of references that a request and a FORGET could disagree on.
//
// An inode leaves the table early when its last name is removed: the backing file system may then
// give its number to a new file.
type inodeTable struct {
	v    *volume
	root uint64 // device of the volume's root directory

	mu      lock.Mutex[lock.Inodes] // guards what follows
	known   map[identity]weak.Pointer[inode]
	devices []uint64 // other devices that parts of the volume lie on
	last    uint64   // the last generation given to a new inode
}

func newInodeTable(v *volume, root *unix.Stat_t) *inodeTable {
	return &inodeTable{v: v, root: root.Dev, known: map[identity]weak.Pointer[inode]{}}
}

// get returns the inode that was found in the volume.
func (t *inodeTable) get(st *unix.Stat_t) *inode {
	t.mu.Lock()
	defer t.mu.Unlock()
	if in := t.known[identityOf(st)].Value(); in != nil && in.is(st) {
		return in
	}
	return t.put(identityOf(st), st.Mode&unix.S_IFMT)
}

func (t *inodeTable) has(id identity) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.known[id].Value() != nil
}

// create returns an inode for what was just made, or is known to be new: the number may be that of
// an inode that is gone, and that the kernel hasn't forgotten yet.
func (t *inodeTable) create(st *unix.Stat_t) *inode {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.put(identityOf(st), st.Mode&unix.S_IFMT)
}

// apart returns an inode for a link that must not be taken for those known of the same file:
// opening it asks for its own place.
func (t *inodeTable) apart(in *inode) *inode {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.make(in.identity, in.kind)
}

func (t *inodeTable) put(id identity, kind uint32) *inode {
	in := t.make(id, kind)
	t.known[id] = weak.Make(in)
	runtime.AddCleanup(in, t.expire, id)
	return in
}

// make returns an inode with a generation of its own: go-fuse never takes two inodes for one.
func (t *inodeTable) make(id identity, kind uint32) *inode {
	t.last++
	in := &inode{identity: id, gen: t.last, kind: kind}
	in.number = t.number(id)
	in.fd = -1
	in.node.v, in.node.in = t.v, in
	return in
}

// number returns the inode number that users see. Those on other devices than the root's get the
// device's place in a list into their upper bits, so that programs that compare numbers hardly
// ever take two files for one.
func (t *inodeTable) number(id identity) uint64 {
	ino := id.ino
	if id.dev != t.root {
		i := slices.Index(t.devices, id.dev)
		if i < 0 {
			i = len(t.devices)
			t.devices = append(t.devices, id.dev)
		}
		ino ^= uint64(i+1) << 48
	}
	if ino == 0 || ino == math.MaxUint64 { // reserved by go-fuse
		return math.MaxUint64 - 1
	}
	return ino
}

// numberIn returns the number of an entry of a directory.
func (t *inodeTable) numberIn(dir *inode, ino uint64) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.number(identity{dir.dev, ino})
}

// expire drops the entry of an inode that nothing refers to, unless it is a newer one's by now.
func (t *inodeTable) expire(id identity) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if known, ok := t.known[id]; ok && known.Value() == nil {
		delete(t.known, id)
	}
}

// remove drops an inode whose number may come back for another file.
func (t *inodeTable) remove(in *inode) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known[in.identity].Value() == in {
		delete(t.known, in.identity)
	}
}

// orphan is a regular file without a name.
type orphan struct {
	fd    int
	place place // its directory is closed
}

func (o *orphan) drop() {
	if o != nil {
		unix.Close(o.fd)
	}
}

func (in *inode) setOrphan(o *orphan) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.orphan.drop()
	in.orphan = o
}

func (in *inode) dropOrphan() { in.setOrphan(nil) }

// dupOrphan returns another descriptor of a file without a name, and where the file has lain.
func (in *inode) dupOrphan() (int, place, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.orphan == nil {
		return -1, place{}, unix.ESTALE
	}
	fd, err := unix.FcntlInt(uintptr(in.orphan.fd), unix.F_DUPFD_CLOEXEC, 0)
	return fd, in.orphan.place, err
}
