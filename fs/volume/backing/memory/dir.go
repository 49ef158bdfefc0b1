package memory

import (
	"errors"

	"golang.org/x/sys/unix"

	"kmsfs/fs/volume/backing"
)

// longestName is NAME_MAX, in bytes.
const longestName = 255

// directory calls do with the directory, which is still there.
func (h *handle) directory(op Op, do func(n *node) error) error {
	return h.with(op, func(n *node) error {
		if n.kind() != unix.S_IFDIR {
			return unix.ENOTDIR
		}
		return do(n)
	})
}

// find returns the node of a name; "." is the directory's own.
func (f *FS) find(dir *node, name string) (*node, error) {
	if len(name) > longestName {
		return nil, unix.ENAMETOOLONG
	}
	if name == "." {
		return dir, nil
	}
	ino, ok := dir.names[name]
	if !ok {
		return nil, unix.ENOENT
	}
	return f.live.nodes[ino], nil
}

// vacant says whether a node can be made under a name.
func (f *FS) vacant(dir *node, name string) error {
	switch _, err := f.find(dir, name); {
	case err == nil:
		return unix.EEXIST
	case !errors.Is(err, unix.ENOENT):
		return err
	case dir.links == 0: // it has been removed
		return unix.ENOENT
	case name == "":
		return unix.ENOENT
	}
	return nil
}

func (h *handle) EachBatch(do func([]backing.Entry) error) error {
	var entries []backing.Entry
	err := h.directory(OpList, func(dir *node) error {
		if h.path {
			return unix.EBADF
		}
		if h.listed {
			return nil
		}
		h.listed = true
		for _, name := range dir.order {
			n := h.f.live.nodes[dir.names[name]]
			entries = append(entries, backing.Entry{Name: name, Ino: n.ino, Kind: uint8(n.kind() >> 12)})
		}
		return nil
	})
	if err != nil || len(entries) == 0 {
		return err
	}
	return do(entries)
}

func (h *handle) StatAt(name string) (st unix.Stat_t, err error) {
	err = h.directory(OpStat, func(dir *node) error {
		n, err := h.f.find(dir, name)
		if err == nil {
			st = h.f.stat(n)
		}
		return err
	})
	return st, err
}

func (h *handle) Lookup(name string) (found backing.Node, err error) {
	err = h.opened(name, func(n *node) error { found = h.f.open(n, true); return nil })
	return found, err
}

// opened calls do with what has a name.
func (h *handle) opened(name string, do func(n *node) error) error {
	return h.directory(OpOpen, func(dir *node) error {
		n, err := h.f.find(dir, name)
		if err != nil {
			return err
		}
		return do(n)
	})
}

func (h *handle) OpenDir(name string) (d backing.Dir, err error) {
	err = h.opened(name, func(n *node) error {
		if n.kind() != unix.S_IFDIR {
			return unix.ENOTDIR
		}
		d = h.f.open(n, false)
		return nil
	})
	return d, err
}

func (h *handle) OpenFile(name string, flags int, mode uint32) (file backing.File, err error) {
	if flags&unix.O_TMPFILE == unix.O_TMPFILE {
		return h.temporary(flags, mode)
	}
	if flags&unix.O_CREAT != 0 {
		err = h.directory(OpCreate, func(dir *node) error {
			if err := h.f.vacant(dir, name); err != nil {
				return err
			}
			n := h.f.make(dir, name, &node{mode: unix.S_IFREG | mode&0o7777, pages: map[int64]*page{}})
			file = h.f.openFile(n, flags)
			return nil
		})
		if !errors.Is(err, unix.EEXIST) || flags&unix.O_EXCL != 0 {
			return file, err
		}
	}
	err = h.opened(name, func(n *node) error {
		switch n.kind() {
		case unix.S_IFLNK:
			return unix.ELOOP
		case unix.S_IFSOCK:
			return unix.ENXIO
		case unix.S_IFDIR:
			if flags&(unix.O_ACCMODE|unix.O_CREAT) != unix.O_RDONLY {
				return unix.EISDIR
			}
		}
		file = h.f.openFile(n, flags)
		if flags&unix.O_TRUNC != 0 && n.kind() == unix.S_IFREG && n.size > 0 {
			h.f.resize(n, allPages, func(n *node) { n.truncate(0) })
		}
		return nil
	})
	return file, err
}

func (f *FS) openFile(n *node, flags int) *handle {
	h := f.open(n, false)
	h.reading = flags&unix.O_ACCMODE != unix.O_WRONLY
	h.writing = flags&unix.O_ACCMODE != unix.O_RDONLY
	return h
}

// temporary makes a file without a name.
func (h *handle) temporary(flags int, mode uint32) (file backing.File, err error) {
	err = h.directory(OpCreate, func(*node) error {
		n := &node{mode: unix.S_IFREG | mode&0o7777, pages: map[int64]*page{}}
		n.ino, n.generation = h.f.number()
		h.f.touch(n)
		first := n.clone()
		ino := n.ino
		h.f.do(event{touched: []uint64{ino}, data: true, gone: allPages, apply: func(t *tree) { t.nodes[ino] = first.clone() }})
		file = h.f.openFile(h.f.live.nodes[ino], flags)
		return nil
	})
	return file, err
}

// make makes a node with a name.
func (f *FS) make(dir *node, name string, n *node) *node {
	n.ino, n.generation = f.number()
	f.touch(n)
	if n.kind() == unix.S_IFDIR {
		n.links = 2
	}
	first, parent, ino, now := n.clone(), dir.ino, n.ino, f.now()
	f.do(event{touched: []uint64{ino, parent}, data: true, gone: allPages, apply: func(t *tree) {
		d := t.nodes[parent]
		if d == nil {
			return
		}
		t.nodes[ino] = first.clone()
		t.enter(parent, name, ino)
		d.modified, d.changed = now, now
	}})
	return f.live.nodes[ino]
}

func (h *handle) create(name string, n *node) error {
	return h.directory(OpCreate, func(dir *node) error {
		if err := h.f.vacant(dir, name); err != nil {
			return err
		}
		h.f.make(dir, name, n)
		return nil
	})
}

func (h *handle) Mkdir(name string, mode uint32) error {
	return h.create(name, &node{mode: unix.S_IFDIR | mode&0o7777, names: map[string]uint64{}})
}

func (h *handle) Mknod(name string, mode uint32, device uint64) error {
	n := &node{mode: mode, device: device}
	switch n.kind() {
	case 0, unix.S_IFREG:
		n.mode = unix.S_IFREG | mode&0o7777
		n.pages = map[int64]*page{}
	case unix.S_IFIFO, unix.S_IFSOCK:
		n.device = 0
	case unix.S_IFCHR, unix.S_IFBLK:
	default:
		return unix.EINVAL
	}
	return h.create(name, n)
}

func (h *handle) Symlink(target, name string) error {
	switch {
	case target == "":
		return unix.ENOENT
	case len(target) >= unix.PathMax:
		return unix.ENAMETOOLONG
	}
	return h.create(name, &node{mode: unix.S_IFLNK | 0o777, target: target})
}

func (h *handle) Readlink(name string) (target string, err error) {
	err = h.opened(name, func(n *node) error {
		if n.kind() != unix.S_IFLNK {
			return unix.EINVAL
		}
		target = n.target
		return nil
	})
	return target, err
}

// link gives a node another name.
func (f *FS) link(n, dir *node, name string) {
	ino, parent, now := n.ino, dir.ino, f.now()
	f.do(event{touched: []uint64{ino, parent}, apply: func(t *tree) {
		n, d := t.nodes[ino], t.nodes[parent]
		if n == nil || d == nil {
			return
		}
		t.enter(parent, name, ino)
		n.changed, d.modified, d.changed = now, now, now
	}})
}

func (h *handle) Link(name string, to backing.Dir, as string) error {
	other := to.(*handle)
	return h.directory(OpLink, func(dir *node) error {
		n, err := h.f.find(dir, name)
		if err != nil {
			return err
		}
		target := h.f.live.nodes[other.use.ino]
		if err := h.f.vacant(target, as); err != nil {
			return err
		}
		if n.kind() == unix.S_IFDIR {
			return unix.EPERM
		}
		h.f.link(n, target, as)
		return nil
	})
}

func (h *handle) LinkFile(file backing.File, as string) error {
	open := file.(*handle)
	return h.directory(OpLink, func(dir *node) error {
		if err := h.f.vacant(dir, as); err != nil {
			return err
		}
		h.f.link(h.f.live.nodes[open.use.ino], dir, as)
		return nil
	})
}

// unlink takes a name away.
func (f *FS) unlink(dir *node, name string) {
	parent, ino, now := dir.ino, dir.names[name], f.now()
	f.do(event{touched: []uint64{ino, parent}, apply: func(t *tree) {
		d := t.nodes[parent]
		if d == nil || d.names[name] != ino {
			return
		}
		t.nodes[ino].changed = now
		t.detach(parent, name)
		t.remove(ino)
		d.modified, d.changed = now, now
	}})
}

func (h *handle) Unlink(name string) error {
	return h.directory(OpUnlink, func(dir *node) error {
		n, err := h.f.find(dir, name)
		switch {
		case err != nil:
			return err
		case n.kind() == unix.S_IFDIR:
			return unix.EISDIR
		}
		h.f.unlink(dir, name)
		return nil
	})
}

func (h *handle) Rmdir(name string) error {
	return h.directory(OpUnlink, func(dir *node) error {
		n, err := h.f.find(dir, name)
		switch {
		case err != nil:
			return err
		case name == ".":
			return unix.EINVAL
		case n.kind() != unix.S_IFDIR:
			return unix.ENOTDIR
		case len(n.names) > 0:
			return unix.ENOTEMPTY
		}
		h.f.unlink(dir, name)
		return nil
	})
}

func (h *handle) Rename(name string, to backing.Dir, as string, flags uint) error {
	other := to.(*handle)
	return h.directory(OpRename, func(dir *node) error {
		target := h.f.live.nodes[other.use.ino]
		if target == nil || target.kind() != unix.S_IFDIR {
			return unix.ENOTDIR
		}
		return h.f.rename(dir, name, target, as, flags)
	})
}

func (f *FS) rename(dir *node, name string, target *node, as string, flags uint) error {
	n, err := f.find(dir, name)
	if err != nil {
		return err
	}
	there, err := f.find(target, as)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	switch {
	case flags == unix.RENAME_NOREPLACE && there != nil:
		return unix.EEXIST
	case flags == unix.RENAME_EXCHANGE && there == nil:
		return unix.ENOENT
	case f.beneath(target, n), flags == unix.RENAME_EXCHANGE && f.beneath(dir, there):
		return unix.EINVAL
	case there == n:
		return nil
	case there != nil && flags == 0:
		if err := mayReplace(n, there, f.beneath(dir, there)); err != nil {
			return err
		}
	case there == nil && target.links == 0:
		return unix.ENOENT
	}
	f.move(dir.ino, name, target.ino, as, flags == unix.RENAME_EXCHANGE, n, there)
	return nil
}

// beneath says whether a directory is another one or lies in it.
func (f *FS) beneath(dir, top *node) bool {
	for n := dir; n != nil; n = f.live.nodes[n.parent] {
		if n == top {
			return true
		}
		if n.ino == f.live.root {
			return false
		}
	}
	return false
}

func mayReplace(n, there *node, within bool) error {
	isDir, wasDir := n.kind() == unix.S_IFDIR, there.kind() == unix.S_IFDIR
	switch {
	case within:
		return unix.ENOTEMPTY
	case isDir && !wasDir:
		return unix.ENOTDIR
	case !isDir && wasDir:
		return unix.EISDIR
	case wasDir && len(there.names) > 0:
		return unix.ENOTEMPTY
	}
	return nil
}

// move renames, replaces or exchanges, as one change.
func (f *FS) move(from uint64, name string, to uint64, as string, exchange bool, n, there *node) {
	ino, now, touched := n.ino, f.now(), []uint64{n.ino, from, to}
	var other uint64
	if there != nil {
		other = there.ino
		touched = append(touched, other)
	}
	f.do(event{touched: touched, apply: func(t *tree) {
		a, b := t.nodes[from], t.nodes[to]
		if a == nil || b == nil || a.names[name] != ino {
			return
		}
		t.nodes[ino].changed = now
		t.detach(from, name)
		if other != 0 {
			t.nodes[other].changed = now
			t.detach(to, as)
		}
		t.enter(to, as, ino)
		if exchange {
			t.enter(from, name, other)
		} else if other != 0 {
			t.remove(other)
		}
		a.modified, a.changed, b.modified, b.changed = now, now, now, now
	}})
}

func (h *handle) ChownAt(name string, uid, gid int) error {
	return h.entry(name, func(n *node) { h.f.chown(n, uid, gid) })
}

func (h *handle) SetTimesAt(name string, access, modification unix.Timespec) error {
	return h.entry(name, func(n *node) { h.f.setTimes(n, access, modification) })
}

func (h *handle) entry(name string, do func(n *node)) error {
	return h.directory(OpChange, func(dir *node) error {
		n, err := h.f.find(dir, name)
		if err == nil {
			do(n)
		}
		return err
	})
}

func (h *handle) Statfs() (st unix.Statfs_t, err error) {
	err = h.with(OpStat, func(*node) error {
		st.Type, st.Bsize, st.Frsize, st.Namelen = unix.TMPFS_MAGIC, pageSize, pageSize, longestName
		if c := h.f.options.Capacity; c > 0 {
			st.Blocks = uint64(c)
			st.Bfree = uint64(max(h.f.room(), 0))
			st.Bavail = st.Bfree
		}
		return nil
	})
	return st, err
}

func (h *handle) Syncfs() error {
	return h.with(OpSync, func(*node) error { h.f.syncAll(); return nil })
}
