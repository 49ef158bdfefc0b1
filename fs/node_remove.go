package fs

import (
	"context"
	"errors"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/keys"
	disk "kmsfs/fs/volume"
)

var (
	_ gofs.NodeUnlinker = (*node)(nil)
	_ gofs.NodeRmdirer  = (*node)(nil)
)

// Unlink removes a name of what is no directory.
func (n *node) Unlink(ctx context.Context, name string) syscall.Errno {
	v := n.v
	if err := v.tree.Lock(); err != nil {
		return v.errno(err, "remove", name)
	}
	defer v.tree.Unlock()
	l := link{n.in, name}
	return v.errno(v.unlink(v.callOf(ctx, "unlink").BySelf(), l), "remove", l.path())
}

func (v *volume) unlink(call keys.Call, l link) error {
	s, err := v.spot(l)
	if err != nil {
		return err
	}
	defer s.release()
	st, err := s.stat()
	if err != nil {
		return err
	}
	var c *content
	if st.Mode&unix.S_IFMT == unix.S_IFREG && st.Nlink > 1 {
		c = v.openForRemoval(call, s, st)
	}
	keep := v.orphan(s, st)
	if err := unix.Unlinkat(s.fd, s.entry(), 0); err != nil {
		keep.drop()
		if c != nil {
			err = errors.Join(err, c.release())
		}
		return err
	}
	s.dropName()
	v.unlinked(l, st, keep)
	if c == nil {
		return nil
	}
	// The file goes on elsewhere; that its header still names this place would only let it be moved back.
	err = c.change(func(h *envelope.Header) { v.sealed.RemoveLocation(h, s.location()) })
	if err = errors.Join(err, c.release()); err != nil {
		v.log.Warn("a removed link stays among the header's locations", "path", l.path(), "error", err)
	}
	return nil
}

// openForRemoval opens a file with several links, one of which goes. A file that can't be opened can still be removed.
func (v *volume) openForRemoval(call keys.Call, s spot, st unix.Stat_t) *content {
	c, err := v.open(call, v.inodes.get(&st), s.place(), true)
	if err != nil {
		v.log.Warn("a link is removed of a file that can't be opened", "path", s.link.path(), "error", err)
		return nil
	}
	return c
}

// orphan opens a regular file that is about to lose its last name, if the kernel knows it.
func (v *volume) orphan(s spot, st unix.Stat_t) *orphan {
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink > 1 || !v.inodes.has(identityOf(&st)) {
		return nil
	}
	flags := unix.O_RDWR
	if v.readOnly {
		flags = unix.O_RDONLY
	}
	fd, err := unix.Openat(s.fd, s.entry(), flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	return &orphan{fd: fd, place: s.place()}
}

func (o *orphan) drop() {
	if o != nil {
		unix.Close(o.fd)
	}
}

// unlinked notes that a name is gone, and with the last one the inode; keep is its descriptor then.
func (v *volume) unlinked(l link, st unix.Stat_t, keep *orphan) {
	in := v.inodes.get(&st)
	in.removeLink(l)
	if keep != nil {
		in.setOrphan(keep)
	}
	if st.Nlink <= 1 || in.kind == unix.S_IFDIR {
		v.inodes.remove(in) // its number may come back for another file
	}
}

// Rmdir removes an empty directory: it leaves its place at once, and is then taken apart.
func (n *node) Rmdir(_ context.Context, name string) syscall.Errno {
	v := n.v
	if err := v.tree.Lock(); err != nil {
		return v.errno(err, "remove directory", name)
	}
	defer v.tree.Unlock()
	l := link{n.in, name}
	return v.errno(v.removeDirectory(l), "remove directory", l.path())
}

func (v *volume) removeDirectory(l link) error {
	s, err := v.spot(l)
	if err != nil {
		return err
	}
	defer s.release()
	st, err := s.stat()
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return unix.ENOTDIR
	}
	// A mode that keeps the owner out of the directory doesn't keep him from removing it.
	closed := !v.multiUser && st.Mode&0o700 != 0o700
	if closed {
		if err := unix.Fchmodat(s.fd, s.entry(), st.Mode&0o7777|0o700, 0); err != nil {
			return err
		}
	}
	if err := v.checkEmpty(s); err != nil {
		if closed {
			err = errors.Join(err, unix.Fchmodat(s.fd, s.entry(), st.Mode&0o7777, 0))
		}
		return err
	}
	temp := disk.NewTempName()
	if err := unix.Renameat(s.fd, s.entry(), s.fd, temp); err != nil {
		return err
	}
	s.dropName()
	v.unlinked(l, st, nil)
	if err := v.disk.Dismantle(s.fd, temp); err != nil {
		v.log.Warn("a removed directory's remains stay in the volume", "path", l.path(), "error", err)
	}
	return nil
}

// checkEmpty returns ENOTEMPTY if a directory holds anything of users.
func (v *volume) checkEmpty(s spot) error {
	dir, err := unix.Openat(s.fd, s.entry(), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	entries, err := disk.ListEntries(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !v.disk.IsControl(e.Name) {
			return unix.ENOTEMPTY
		}
	}
	return nil
}
