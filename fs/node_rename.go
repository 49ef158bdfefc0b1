package fs

import (
	"context"
	"errors"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"golang.org/x/sys/unix"

	"kmsfs/envelope"
)

var (
	_ gofs.NodeRenamer = (*node)(nil)
	_ gofs.NodeLinker  = (*node)(nil)
)

// Rename is renameat2(2).
func (n *node) Rename(_ context.Context, name string, newParent gofs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	v := n.v
	to, ok := newParent.(*node)
	if !ok {
		return unix.EXDEV
	}
	if err := v.tree.Lock(); err != nil {
		return v.errno(err, "rename", name)
	}
	defer v.tree.Unlock()
	from := link{n.in, name}
	return v.errno(v.rename(from, link{to.in, newName}, flags), "rename", from.path())
}

func (v *volume) rename(from, to link, flags uint32) error {
	if flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0 {
		return unix.EINVAL
	}
	a, err := v.spot(from)
	if err != nil {
		return err
	}
	defer a.release()
	b, err := v.spot(to)
	if err != nil {
		return err
	}
	defer b.release()
	source, err := a.stat()
	if err != nil {
		return err
	}
	target, err := b.stat()
	exists := err == nil
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	if exists && flags&unix.RENAME_NOREPLACE != 0 {
		return unix.EEXIST
	}
	if !exists && flags&unix.RENAME_EXCHANGE != 0 {
		return unix.ENOENT
	}
	if flags&unix.RENAME_EXCHANGE != 0 {
		return v.exchange(a, b, source, target)
	}
	if exists && target.Mode&unix.S_IFMT == unix.S_IFDIR {
		if source.Mode&unix.S_IFMT != unix.S_IFDIR {
			return unix.EISDIR
		}
		if err := v.removeDirectory(to); err != nil {
			return err
		}
		exists = false
	}
	return v.move(a, b, source, target, exists, flags)
}

// move renames a to b. exists says that b is there, as target, and no directory.
func (v *volume) move(a, b spot, source, target unix.Stat_t, exists bool, flags uint32) error {
	m, err := v.announce(a, b, source)
	if err != nil {
		return err
	}
	var keep *orphan
	if exists {
		keep = v.orphan(b, target)
	}
	err = b.prepareName()
	if err == nil {
		err = unix.Renameat2(a.fd, a.entry(), b.fd, b.entry(), uint(flags))
	}
	if err != nil {
		keep.drop()
		return errors.Join(err, m.settle(a.location(), b.location()))
	}
	if a.backing.Entry != b.backing.Entry || a.fd != b.fd {
		a.dropName()
	}
	if exists {
		v.unlinked(b.link, target, keep)
	}
	m.in.removeLink(a.link)
	m.in.addLink(b.link)
	v.logUnsettled(m.settle(b.location(), a.location()), b)
	return nil
}

// exchange swaps a and b.
func (v *volume) exchange(a, b spot, source, target unix.Stat_t) error {
	m, err := v.announce(a, b, source)
	if err != nil {
		return err
	}
	o, err := v.announce(b, a, target)
	if err != nil {
		return errors.Join(err, m.settle(a.location(), b.location()))
	}
	if err := unix.Renameat2(a.fd, a.entry(), b.fd, b.entry(), unix.RENAME_EXCHANGE); err != nil {
		return errors.Join(err, m.settle(a.location(), b.location()), o.settle(b.location(), a.location()))
	}
	m.in.removeLink(a.link)
	o.in.removeLink(b.link)
	m.in.addLink(b.link)
	o.in.addLink(a.link)
	v.logUnsettled(m.settle(b.location(), a.location()), b)
	v.logUnsettled(o.settle(a.location(), b.location()), a)
	return nil
}

func (v *volume) logUnsettled(err error, s spot) {
	if err != nil {
		v.log.Warn("a former place stays in the header or record", "path", s.link.path(), "error", err)
	}
}

// moving is what is about to be renamed, once its header or record names both places.
type moving struct {
	v  *volume
	in *inode
	// c is a regular file's content; record and dir are a directory's. What else is renamed names no place.
	c      *content
	dir    use
	record *envelope.Directory
}

// announce adds the new place of what lies at a to its header or record.
func (v *volume) announce(a, b spot, st unix.Stat_t) (moving, error) {
	m := moving{v: v, in: v.inodes.get(st.Ino, st.Mode)}
	m.in.addLink(a.link)
	switch m.in.kind {
	case unix.S_IFREG:
		c, err := v.open(self("rename"), m.in, a.place(), true)
		if err != nil {
			return m, err
		}
		if err := c.change(func(h *envelope.Header) { v.sealed.AddLocation(h, b.location()) }); err != nil {
			return m, errors.Join(err, c.release())
		}
		m.c = c
	case unix.S_IFDIR:
		if v.shared() {
			m.in.dropRecord()
		}
		dir, err := v.use(m.in)
		if err != nil {
			return m, err
		}
		m.dir, m.record = dir, m.in.record
		if err := m.place(a.location(), b.location()); err != nil {
			dir.release()
			return m, err
		}
	}
	return m, nil
}

// place makes these a directory's locations.
func (m *moving) place(locations ...envelope.Location) error {
	m.in.dirMu.Lock()
	defer m.in.dirMu.Unlock()
	next := *m.record
	next.Locations = locations
	if err := m.v.writeDirectory(m.dir.fd, &next, true); err != nil {
		return err
	}
	m.in.record, m.record = &next, &next
	m.in.unsynced = true
	return nil
}

// settle drops the place that isn't the right one any more, and ends the use of what was renamed.
func (m *moving) settle(right, wrong envelope.Location) error {
	switch {
	case m.c != nil:
		err := m.c.change(func(h *envelope.Header) { m.v.sealed.RemoveLocation(h, wrong) })
		return errors.Join(err, m.c.release())
	case m.record != nil:
		err := m.place(right)
		m.dir.release()
		return err
	}
	return nil
}
