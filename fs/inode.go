package fs

import (
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	disk "kmsfs/fs/volume"
)

// inode is what is known of a backing inode: shared by all nodes that the kernel has for it.
type inode struct {
	ino  uint64
	gen  uint64 // tells a new file from an old one with the same number
	kind uint32 // S_IFMT bits

	// mu guards links. It is taken after volume.tree and no other lock is taken under it.
	mu sync.Mutex
	// links are known names of the inode: all that were looked up and not removed since, the last one found first. A directory has
	// one; the root has none. They change with volume.tree held: for reading where one is added, for writing where one goes.
	links []link

	directory // of directories

	// orphan is a regular file's last place, open, after its last name is gone: the kernel may still open what it has looked
	// up. Guarded by mu.
	orphan *orphan

	// object is the file ID of a regular file, once known, that its attributes are sealed with.
	object atomic.Pointer[envelope.FileID]
}

// link is a name in a directory.
type link struct {
	parent *inode
	name   string
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

// path returns the path of l within the volume, beginning with "/", as encryption contexts have it: text, of bounded length. The
// caller holds volume.tree.
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

// inodes are the inodes that the kernel knows.
type inodes struct {
	mu    sync.Mutex // guards what follows; no other lock is taken under it
	known map[uint64]*inode
	last  uint64 // the last generation given to a new inode
}

// get returns the inode with that number, which was found in the volume.
func (t *inodes) get(ino uint64, mode uint32) *inode {
	t.mu.Lock()
	defer t.mu.Unlock()
	kind := mode & unix.S_IFMT
	if in, ok := t.known[ino]; ok && in.kind == kind {
		return in
	}
	return t.put(ino, kind, 0)
}

func (t *inodes) has(ino uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.known[ino]
	return ok
}

// create returns an inode for what was just made: the number may be that of one that is gone, and that the kernel
// hasn't forgotten yet.
func (t *inodes) create(ino uint64, mode uint32) *inode {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last++
	return t.put(ino, mode&unix.S_IFMT, t.last)
}

// apart returns an inode for a link that must not be taken for those known of the same file: opening it asks for its own place.
func (t *inodes) apart(in *inode) *inode {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last++
	other := &inode{ino: in.ino, gen: t.last, kind: in.kind}
	other.fd = -1
	return other
}

func (t *inodes) put(ino uint64, kind uint32, gen uint64) *inode {
	in := &inode{ino: ino, gen: gen, kind: kind}
	in.fd = -1
	t.known[ino] = in
	return in
}

// forget drops what the kernel has no reference to any more.
func (t *inodes) forget(in *inode) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known[in.ino] == in {
		delete(t.known, in.ino)
	}
}

// orphan is a file without a name.
type orphan struct {
	fd    int
	place place // its dir is closed
}

func (in *inode) setOrphan(o *orphan) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.orphan = o
}

// takeOrphan hands over the descriptor of a file without a name.
func (in *inode) takeOrphan() *orphan {
	in.mu.Lock()
	defer in.mu.Unlock()
	o := in.orphan
	in.orphan = nil
	return o
}
