package memory

import (
	"maps"
	"slices"

	"golang.org/x/sys/unix"
)

// pageSize is the unit that a disk and the page cache replace at once, in bytes.
const pageSize = 4096

// page is the content of a page. It is not changed once it is in a tree.
type page [pageSize]byte

// node is an inode.
type node struct {
	ino, generation uint64
	mode            uint32 // with S_IFMT
	uid, gid        uint32
	device          uint64 // of device files
	links           uint32

	accessed, modified, changed unix.Timespec

	attributes map[string][]byte
	target     string            // of symlinks
	names      map[string]uint64 // of directories
	order      []string          // of directories: the names as they were made
	parent     uint64            // of directories

	size  int64
	pages map[int64]*page // of regular files; what is not there is a hole
}

func (n *node) kind() uint32 { return n.mode & unix.S_IFMT }

func (n *node) clone() *node {
	c := *n
	c.attributes, c.names, c.pages = maps.Clone(n.attributes), maps.Clone(n.names), maps.Clone(n.pages)
	c.order = slices.Clone(n.order)
	return &c
}

// tree is the state of a file system: on the disk, or as programs see it.
type tree struct {
	nodes map[uint64]*node
	root  uint64
	// open says that a node without a name is in use; nil if all are, as on a disk before its
	// recovery.
	open func(ino uint64) bool
}

func (t *tree) clone() *tree {
	c := &tree{nodes: make(map[uint64]*node, len(t.nodes)), root: t.root}
	for ino, n := range t.nodes {
		c.nodes[ino] = n.clone()
	}
	return c
}

// enter makes a name for a node.
func (t *tree) enter(dir uint64, name string, ino uint64) {
	d, n := t.nodes[dir], t.nodes[ino]
	d.names[name] = ino
	d.order = append(d.order, name)
	if n.kind() == unix.S_IFDIR {
		n.parent = dir
		d.links++
	} else {
		n.links++
	}
}

// detach takes a name away from a node.
func (t *tree) detach(dir uint64, name string) {
	d := t.nodes[dir]
	n := t.nodes[d.names[name]]
	delete(d.names, name)
	d.order = slices.DeleteFunc(d.order, func(s string) bool { return s == name })
	if n.kind() == unix.S_IFDIR {
		d.links--
	} else {
		n.links--
	}
}

// remove frees a node from which its name was taken, if that was its last one.
func (t *tree) remove(ino uint64) {
	if n := t.nodes[ino]; n.kind() == unix.S_IFDIR {
		n.links = 0
	}
	t.drop(ino)
}

// drop frees a node that has no name and that nobody uses.
func (t *tree) drop(ino uint64) {
	n := t.nodes[ino]
	if n != nil && n.links == 0 && ino != t.root && t.open != nil && !t.open(ino) {
		delete(t.nodes, ino)
	}
}

// truncate sets a file's size. What is cut off is zeros if the file grows again.
func (n *node) truncate(size int64) {
	if size < n.size {
		for i := range n.pages {
			if i*pageSize >= size {
				delete(n.pages, i)
			}
		}
		if rest := size % pageSize; rest != 0 {
			if old := n.pages[size/pageSize]; old != nil {
				last := *old
				clear(last[rest:])
				n.pages[size/pageSize] = &last
			}
		}
	}
	n.size = size
}

// punch makes bytes zeros, and whole pages holes.
func (n *node) punch(off, length int64) {
	end := off + length
	for i := off / pageSize; i*pageSize < end; i++ {
		from, to := max(off-i*pageSize, 0), min(end-i*pageSize, pageSize)
		old := n.pages[i]
		switch {
		case old == nil:
		case from == 0 && to == pageSize:
			delete(n.pages, i)
		default:
			p := *old
			clear(p[from:to])
			n.pages[i] = &p
		}
	}
}

// allocate gives pages of zeros to what has none, up to the end of the range.
func (n *node) allocate(off, length int64, keepSize bool) {
	for i := off / pageSize; i*pageSize < off+length; i++ {
		if n.pages[i] == nil && (!keepSize || i*pageSize < n.size) {
			n.pages[i] = &page{}
		}
	}
	if !keepSize {
		n.size = max(n.size, off+length)
	}
}
