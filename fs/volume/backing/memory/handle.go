package memory

import (
	"errors"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"kmsfs/fs/volume/backing"
)

// handle is an open node.
type handle struct {
	f   *FS
	use use
	era int
	// path says that it serves for metadata only (O_PATH); reading and writing what else it serves
	// for.
	path, reading, writing bool
	closed                 bool
	listed                 bool // the entries have been read
}

var (
	_ backing.Dir  = (*handle)(nil)
	_ backing.File = (*handle)(nil)
)

// open makes a handle. f.mu is held.
func (f *FS) open(n *node, path bool) *handle {
	h := &handle{f: f, use: use{n.ino, n.generation}, era: f.era, path: path, reading: !path}
	f.uses[h.use]++
	return h
}

// with calls do with the node, with f.mu held.
func (h *handle) with(op Op, do func(n *node) error) error {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	if !h.alive() {
		return h.dead()
	}
	return h.f.fault(op).call(func() error { return do(h.f.live.nodes[h.use.ino]) })
}

func (h *handle) alive() bool { return !h.closed && !h.f.gone && h.era == h.f.era }

func (h *handle) dead() error {
	if h.closed {
		return unix.EBADF
	}
	return unix.EIO
}

func (h *handle) Close() error {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	if h.closed {
		return unix.EBADF
	}
	h.closed = true
	if h.era != h.f.era {
		return nil
	}
	h.f.locks.drop(h)
	if h.f.uses[h.use]--; h.f.uses[h.use] == 0 {
		delete(h.f.uses, h.use)
		h.f.live.drop(h.use.ino)
		if h.f.live.nodes[h.use.ino] == nil {
			h.f.free = append(h.f.free, h.use.ino)
		}
	}
	return nil
}

func (h *handle) Stat() (st unix.Stat_t, err error) {
	err = h.with(OpStat, func(n *node) error { st = h.f.stat(n); return nil })
	return st, err
}

func (f *FS) stat(n *node) unix.Stat_t {
	st := unix.Stat_t{
		Dev: f.options.Device, Ino: n.ino, Mode: n.mode, Nlink: uint64(n.links), Uid: n.uid, Gid: n.gid, Rdev: n.device,
		Size: n.size, Blksize: pageSize, Blocks: int64(len(n.pages)) * pageSize / 512,
		Atim: n.accessed, Mtim: n.modified, Ctim: n.changed,
	}
	switch n.kind() {
	case unix.S_IFLNK:
		st.Size = int64(len(n.target))
	case unix.S_IFDIR:
		st.Size = pageSize
	}
	return st
}

// change makes a change of a node's metadata.
func (f *FS) change(n *node, do func(n *node)) {
	ino, now := n.ino, f.now()
	f.do(event{touched: []uint64{ino}, apply: func(t *tree) {
		if n := t.nodes[ino]; n != nil {
			do(n)
			n.changed = now
		}
	}})
}

func (h *handle) Chmod(mode uint32) error {
	return h.with(OpChange, func(n *node) error {
		if n.kind() == unix.S_IFLNK {
			return unix.EOPNOTSUPP
		}
		h.f.change(n, func(n *node) { n.mode = n.kind() | mode&0o7777 })
		return nil
	})
}

func (h *handle) Chown(uid, gid int) error {
	return h.with(OpChange, func(n *node) error { h.f.chown(n, uid, gid); return nil })
}

func (f *FS) chown(n *node, uid, gid int) {
	f.change(n, func(n *node) {
		if uid >= 0 {
			n.uid = uint32(uid)
		}
		if gid >= 0 {
			n.gid = uint32(gid)
		}
		if n.kind() == unix.S_IFREG { // as chown(2) does for files that may be executed
			n.mode &^= unix.S_ISUID
			if n.mode&0o010 != 0 {
				n.mode &^= unix.S_ISGID
			}
		}
	})
}

func (h *handle) SetTimes(access, modification unix.Timespec) error {
	return h.with(OpChange, func(n *node) error { h.f.setTimes(n, access, modification); return nil })
}

func (f *FS) setTimes(n *node, access, modification unix.Timespec) {
	now := f.now()
	set := func(to *unix.Timespec, t unix.Timespec) {
		switch t.Nsec {
		case unix.UTIME_OMIT:
		case unix.UTIME_NOW:
			*to = now
		default:
			*to = t
		}
	}
	f.change(n, func(n *node) {
		set(&n.accessed, access)
		set(&n.modified, modification)
	})
}

// attributeRoom is how many bytes a node's attributes have, with what ext4 needs besides for each.
func attributeRoom(attributes map[string][]byte) (n int) {
	const entry = 16 // ext4's struct ext4_xattr_entry, in bytes
	for name, value := range attributes {
		n += entry + len(name) + len(value)
	}
	return n
}

// mayHave says whether nodes of that kind may have that attribute.
func mayHave(n *node, name string) error {
	switch {
	case len(name) > 255:
		return unix.ERANGE
	case strings.HasPrefix(name, "user."):
		if k := n.kind(); k != unix.S_IFREG && k != unix.S_IFDIR {
			return unix.EPERM
		}
	case !strings.HasPrefix(name, "trusted.") && !strings.HasPrefix(name, "security."):
		return unix.EOPNOTSUPP
	}
	return nil
}

func (h *handle) Getxattr(name string, value []byte) (size int, err error) {
	err = h.with(OpList, func(n *node) error {
		if err := mayHave(n, name); err != nil && !errors.Is(err, unix.EPERM) {
			return err
		}
		have, ok := n.attributes[name]
		if !ok {
			return unix.ENODATA
		}
		size, err = give(value, have)
		return err
	})
	return size, err
}

// give copies what a call returns to the caller's buffer, if that is there.
func give(buffer, have []byte) (int, error) {
	if len(buffer) > 0 && len(buffer) < len(have) {
		return 0, unix.ERANGE
	}
	copy(buffer, have)
	return len(have), nil
}

func (h *handle) Setxattr(name string, value []byte, flags int) error {
	const largest = 64 << 10 // XATTR_SIZE_MAX of the kernel
	return h.with(OpAttribute, func(n *node) error {
		if err := mayHave(n, name); err != nil {
			return err
		}
		have, ok := n.attributes[name]
		switch {
		case len(value) > largest:
			return unix.E2BIG
		case flags == unix.XATTR_CREATE && ok:
			return unix.EEXIST
		case flags == unix.XATTR_REPLACE && !ok:
			return unix.ENODATA
		}
		used := attributeRoom(n.attributes) + attributeRoom(map[string][]byte{name: value})
		if ok {
			used -= attributeRoom(map[string][]byte{name: have})
		}
		if used > h.f.options.AttributeRoom {
			return unix.ENOSPC
		}
		value = slices.Clone(value)
		h.f.change(n, func(n *node) {
			if n.attributes == nil {
				n.attributes = map[string][]byte{}
			}
			n.attributes[name] = value
		})
		return nil
	})
}

func (h *handle) Removexattr(name string) error {
	return h.with(OpAttribute, func(n *node) error {
		if err := mayHave(n, name); err != nil {
			return err
		}
		if _, ok := n.attributes[name]; !ok {
			return unix.ENODATA
		}
		h.f.change(n, func(n *node) { delete(n.attributes, name) })
		return nil
	})
}

func (h *handle) Listxattr(list []byte) (size int, err error) {
	err = h.with(OpList, func(n *node) error {
		var names []string
		for name := range n.attributes {
			names = append(names, name)
		}
		slices.Sort(names)
		var all []byte
		for _, name := range names {
			all = append(append(all, name...), 0)
		}
		size, err = give(list, all)
		return err
	})
	return size, err
}

func (h *handle) Sync() error {
	return h.with(OpSync, func(*node) error {
		if h.path {
			return unix.EBADF
		}
		h.f.journal.sync(h.use.ino, false)
		return nil
	})
}
