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
	"kmsfs/fs/volume/backing"
)

var (
	_ gofs.NodeUnlinker = (*node)(nil)
	_ gofs.NodeRmdirer  = (*node)(nil)
)

// removal removes names.
type removal struct{ *operation }

// Unlink removes a name of what is no directory.
func (n *node) Unlink(ctx context.Context, name string) syscall.Errno {
	o := n.v.operation(ctx)
	defer o.end()
	l, call := link{n.in, name}, callOf(ctx, "unlink").BySelf()
	return o.errnoAt(o.run(changing, func() error { return removal{o}.unlink(call, l) }), "remove", l)
}

func (r removal) unlink(call keys.Call, l link) error {
	e, err := r.entry(l)
	if err != nil {
		return err
	}
	defer e.release()
	st, err := e.stat()
	if err != nil {
		return err
	}
	var c *openFile
	if st.Mode&unix.S_IFMT == unix.S_IFREG && st.Nlink > 1 {
		if c, err = r.open(call, e, st); err != nil {
			return err
		}
	}
	err = r.unlinkEntry(e, st)
	if c == nil {
		return err
	}
	if err != nil {
		return errors.Join(err, c.release())
	}
	// The file stays at its other links. Its header must not name this location any more, or it
	// could be moved back.
	err = c.change(r.operation, func(h *envelope.Header) { r.sealed.RemoveLocation(h, e.location()) })
	if err = errors.Join(err, c.release()); err != nil {
		r.log.Warn("a removed link stays among the header's locations", "path", l.path(), "error", err)
	}
	return nil
}

func (r removal) unlinkEntry(e dirEntry, st unix.Stat_t) error {
	keep := r.openOrphan(e, st)
	if err := unix.Unlinkat(e.fd, e.name(), 0); err != nil {
		keep.drop()
		return err
	}
	e.dropName()
	r.unlinked(e.link, st, keep)
	return nil
}

// openForRemoval opens a file with several links, one of which goes. A file that can't be opened
// can still be removed: there is no openFile then.
func (r removal) open(call keys.Call, e dirEntry, st unix.Stat_t) (*openFile, error) {
	c, err := r.operation.open(call, r.inodes.get(&st), e.place(), true)
	if isUnanswered(err) || errors.Is(err, errAgain) {
		return nil, err
	}
	if err != nil {
		r.log.Warn("a link is removed of a file that can't be opened", "path", e.link.path(), "error", err)
		return nil, nil
	}
	return c, nil
}

// openOrphan opens a regular file that is about to lose its last name, if the kernel knows it.
func (r removal) openOrphan(e dirEntry, st unix.Stat_t) *orphan {
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink > 1 || !r.inodes.has(identityOf(&st)) {
		return nil
	}
	flags := unix.O_RDWR
	if r.readOnly {
		flags = unix.O_RDONLY
	}
	fd, err := unix.Openat(e.fd, e.name(), flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	return &orphan{fd: fd, place: e.place()}
}

// unlinked notes that a name is gone, and with the last one the inode; keep is its descriptor then.
func (r removal) unlinked(l link, st unix.Stat_t, keep *orphan) {
	in := r.inodes.get(&st)
	in.removeLink(l)
	if keep != nil {
		in.setOrphan(keep)
	}
	if st.Nlink <= 1 || in.kind == unix.S_IFDIR {
		r.inodes.remove(in) // its number may come back for another file
	}
}

// Rmdir removes an empty directory: it leaves its place at once, and is then taken apart.
func (n *node) Rmdir(ctx context.Context, name string) syscall.Errno {
	o := n.v.operation(ctx)
	defer o.end()
	l := link{n.in, name}
	return o.errnoAt(o.run(changing, func() error { return removal{o}.directory(l) }), "remove directory", l)
}

func (r removal) directory(l link) error {
	e, err := r.entry(l)
	if err != nil {
		return err
	}
	defer e.release()
	st, err := e.stat()
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return unix.ENOTDIR
	}
	// A mode that keeps the owner out of the directory doesn't keep the owner from removing it.
	closed := !r.multiUser && st.Mode&0o700 != 0o700
	if closed {
		if err := unix.Fchmodat(e.fd, e.name(), st.Mode&0o7777|0o700, 0); err != nil {
			return err
		}
	}
	if err := r.checkEmpty(e); err != nil {
		if closed {
			err = errors.Join(err, unix.Fchmodat(e.fd, e.name(), st.Mode&0o7777, 0))
		}
		return err
	}
	temp := disk.NewTempName()
	if err := unix.Renameat(e.fd, e.name(), e.fd, temp); err != nil {
		return err
	}
	e.dropName()
	r.unlinked(l, st, nil)
	if err := r.disk.Dismantle(backing.FromDescriptor(e.fd), temp); err != nil {
		r.log.Warn("a removed directory's remains stay in the volume", "path", l.path(), "error", err)
	}
	return nil
}

// checkEmpty returns ENOTEMPTY if a directory holds anything of users.
func (r removal) checkEmpty(e dirEntry) error {
	dir, err := unix.Openat(e.fd, e.name(), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	entries, err := backing.Entries(backing.FromDescriptor(dir))
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !r.disk.IsControl(entry.Name) {
			return unix.ENOTEMPTY
		}
	}
	return nil
}
