package memory

import (
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// What somebody does who can write the disk and has kept earlier copies of it (Clone, Crash): put
// parts of them back, or parts of one place into another. Paths are names joined by "/"; the root
// is "". What these change is durable at once, with all that was pending, so they are for a disk
// that no volume is mounted from. Removing, renaming and writing bytes goes by Root.

// Paths returns the paths of all entries, a directory's before those of what it has.
func (f *FS) Paths() (paths []string) {
	t := f.snapshot()
	var visit func(dir *node, at string)
	visit = func(dir *node, at string) {
		for _, name := range dir.order {
			n := t.nodes[dir.names[name]]
			paths = append(paths, at+name)
			if n.kind() == unix.S_IFDIR {
				visit(n, at+name+"/")
			}
		}
	}
	visit(t.nodes[t.root], "")
	return paths
}

// Attributes returns the names of the extended attributes of what lies at path, in order.
func (f *FS) Attributes(path string) ([]string, error) {
	n, err := f.snapshot().at(path)
	if err != nil {
		return nil, err
	}
	return slices.Sorted(maps.Keys(n.attributes)), nil
}

// PutContent makes the content of the file at path what that of the file at source is in another
// copy.
func (f *FS) PutContent(path string, from *FS, source string) error {
	return f.put(path, from, source, func(n, old *node) error {
		if n.kind() != unix.S_IFREG || old.kind() != unix.S_IFREG {
			return unix.EINVAL
		}
		n.size, n.pages = old.size, maps.Clone(old.pages)
		return nil
	})
}

// PutPage makes one page of the file at path what a page of the file at source is in another copy:
// zeros if that is a hole. Sizes stay.
func (f *FS) PutPage(path string, index int64, from *FS, source string, at int64) error {
	return f.put(path, from, source, func(n, old *node) error {
		if n.kind() != unix.S_IFREG || old.kind() != unix.S_IFREG || index*pageSize >= n.size || at*pageSize >= old.size {
			return unix.EINVAL
		}
		if p := old.pages[at]; p != nil {
			n.pages[index] = p
		} else {
			delete(n.pages, index)
		}
		return nil
	})
}

// PutAttribute makes an extended attribute of what lies at path what it is at source in another
// copy: none if it has none there.
func (f *FS) PutAttribute(path, name string, from *FS, source string) error {
	return f.put(path, from, source, func(n, old *node) error {
		delete(n.attributes, name)
		if value, ok := old.attributes[name]; ok {
			if n.attributes == nil {
				n.attributes = map[string][]byte{}
			}
			n.attributes[name] = value
		}
		return nil
	})
}

// put has do change the node at path after that at source.
func (f *FS) put(path string, from *FS, source string, do func(n, old *node) error) error {
	old, err := from.snapshot().at(source)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.live.at(path)
	if err == nil {
		err = do(n, old)
	}
	if err == nil {
		f.syncAll()
	}
	return err
}

// PutName gives the inode that lay at source in an earlier copy of this disk the name path, as it
// is now (ENOENT if it has gone). What lies at path is removed. It is for all kinds but
// directories.
func (f *FS) PutName(path string, from *FS, source string) error {
	old, err := from.snapshot().at(source)
	if err != nil {
		return err
	}
	return f.replace(path, func() (uint64, error) {
		n := f.live.nodes[old.ino]
		switch {
		case n == nil || n.generation != old.generation:
			return 0, unix.ENOENT
		case n.kind() == unix.S_IFDIR:
			return 0, unix.EISDIR
		}
		return n.ino, nil
	})
}

// PutEntry puts a copy of what lies at source in another copy of the disk at path, with all that is
// in it and of it. What lies at path is removed. Hard links come apart.
func (f *FS) PutEntry(path string, from *FS, source string) error {
	t := from.snapshot()
	old, err := t.at(source)
	if err != nil {
		return err
	}
	return f.replace(path, func() (uint64, error) { return f.graft(t, old), nil })
}

// graft makes a copy of a node of another tree, with all that is in it, and without a name.
func (f *FS) graft(t *tree, old *node) uint64 {
	n := old.clone()
	n.ino, n.generation = f.number()
	n.links = 0
	f.live.nodes[n.ino] = n
	if n.kind() == unix.S_IFDIR {
		n.names, n.order, n.links = map[string]uint64{}, nil, 2
		for _, name := range old.order {
			f.live.enter(n.ino, name, f.graft(t, t.nodes[old.names[name]]))
		}
	}
	return n.ino
}

// replace puts a node at path, in place of what is there.
func (f *FS) replace(path string, node func() (uint64, error)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	parent, name := "", path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		parent, name = path[:i], path[i+1:]
	}
	dir, err := f.live.at(parent)
	switch {
	case err != nil:
		return err
	case dir.kind() != unix.S_IFDIR:
		return unix.ENOTDIR
	case name == "":
		return unix.EINVAL
	}
	ino, err := node()
	if err != nil {
		return err
	}
	if there, ok := dir.names[name]; ok && there != ino {
		f.live.prune(dir.ino, name)
	}
	if dir.names[name] != ino {
		f.live.enter(dir.ino, name, ino)
	}
	f.syncAll()
	return nil
}

// prune takes away an entry with all that is in it.
func (t *tree) prune(dir uint64, name string) {
	n := t.nodes[t.nodes[dir].names[name]]
	for _, child := range slices.Clone(n.order) {
		t.prune(n.ino, child)
	}
	t.detach(dir, name)
	t.remove(n.ino)
}

// snapshot returns a copy of what programs see.
func (f *FS) snapshot() *tree {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.live.clone()
}

// at returns the node at a path.
func (t *tree) at(path string) (*node, error) {
	n := t.nodes[t.root]
	if path == "" {
		return n, nil
	}
	for name := range strings.SplitSeq(path, "/") {
		ino, ok := n.names[name]
		if !ok {
			return nil, unix.ENOENT
		}
		n = t.nodes[ino]
	}
	return n, nil
}
