package fs

import (
	"context"
	"errors"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/keys"
	disk "kmsfs/fs/volume"
)

// Link gives a file another name; a file made with O_TMPFILE its first.
func (n *node) Link(ctx context.Context, target gofs.InodeEmbedder, name string, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	v := n.v
	old, ok := target.(*node)
	if !ok {
		return nil, unix.EXDEV
	}
	if err := v.tree.LockToMake(); err != nil {
		return nil, v.errno(err, "link", name)
	}
	defer v.tree.UnlockMade()
	l := link{n.in, name}
	err := v.link(v.callOf(ctx, "link"), old.in, l, &out.Attr)
	if err != nil {
		return nil, v.errno(err, "link", l.path())
	}
	v.attributeLife(old.in, &out.AttrValid, &out.AttrValidNsec)
	return n.newNode(ctx, old.in), 0
}

func (v *volume) link(call keys.Call, in *inode, l link, out *fuse.Attr) error {
	s, err := v.spot(l)
	if err != nil {
		return err
	}
	defer s.release()
	if _, err := s.stat(); err == nil {
		return unix.EEXIST
	}
	if err := s.prepareName(); err != nil {
		return err
	}
	if in.kind == unix.S_IFREG {
		err = v.linkFile(call, in, s)
	} else {
		err = v.linkSpecial(in, s)
	}
	if err != nil {
		s.dropName()
		return err
	}
	in.addLink(l)
	if in.kind == unix.S_IFREG {
		return v.fileAttr(out, in, s)
	}
	return v.attr(out, in, target{fd: -1, spot: s})
}

func (v *volume) linkSpecial(in *inode, s spot) error {
	known, ok := in.link()
	if !ok {
		return unix.ENOENT
	}
	old, err := v.spot(known)
	if err != nil {
		return err
	}
	defer old.release()
	return unix.Linkat(old.fd, old.entry(), s.fd, s.entry(), 0)
}

// linkFile adds the place to the file's header before the link is there. All of a file's links lie under one KMS key. A file without a name is linked by
// who has it open already.
func (v *volume) linkFile(call keys.Call, in *inode, s spot) error {
	opener := call
	known, named := in.link()
	if !named {
		opener = call.BySelf()
	} else if same, _, err := v.sameKey(known, s.link); err != nil || !same {
		return errors.Join(err, unix.EXDEV)
	}
	c, err := v.openHeld(opener, in, true)
	if err != nil {
		return err
	}
	if !named {
		if err := v.nameFirst(call, c, s); err != nil {
			return errors.Join(err, c.release())
		}
	}
	location := s.location()
	err = c.change(func(h *envelope.Header) { v.sealed.AddLocation(h, location) })
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.E2BIG), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, envelope.ErrTooLong):
		err = errors.Join(unix.EMLINK, c.release()) // attributes have no room for another
		return err
	case err != nil:
		return errors.Join(err, c.release())
	}
	if err = unix.Linkat(unix.AT_FDCWD, disk.ProcPath(c.storage.FD), s.fd, s.entry(), unix.AT_SYMLINK_FOLLOW); err != nil {
		err = errors.Join(err, c.change(func(h *envelope.Header) { v.sealed.RemoveLocation(h, location) }))
	}
	return errors.Join(err, c.release())
}

// nameFirst brings a file that is about to get its first name under the KMS key that holds there, if it was made under another one.
func (v *volume) nameFirst(call keys.Call, c *content, s spot) error {
	under, err := v.governing(s.in)
	if err != nil {
		return err
	}
	arn, err := v.resolve(under.key, s.link)
	if err != nil || arn == c.file().Header().KeyARN {
		return err
	}
	return c.bringUnder(call, under.key, s.link.path())
}

// openKnown opens a file by that of its known names by which the caller may use it, which it returns, or as it is open already: the kernel doesn't say which name
// was used. With encrypt, the caller needs leave to write. The caller holds volume.tree.
func (v *volume) openKnown(call keys.Call, in *inode, write, encrypt bool) (c *content, by link, err error) {
	names := in.names()
	if len(names) == 0 {
		c, err = v.openAgain(call, in, write)
		if err == nil && encrypt {
			err = c.allowWrite(call, c.file().Header().Path)
		}
		return c, link{}, err
	}
	for _, by = range names {
		if c, err = v.openBy(call, in, by, write, encrypt); !errors.Is(err, keys.ErrDenied) {
			break
		}
	}
	return c, by, err
}

// openBy is openKnown for one name.
func (v *volume) openBy(call keys.Call, in *inode, by link, write, encrypt bool) (*content, error) {
	s, err := v.spot(by)
	if err != nil {
		return nil, err
	}
	defer s.release()
	if v.shared() {
		if err := s.leadsTo(in); err != nil {
			return nil, err
		}
	}
	c, err := v.open(call, in, s.place(), write)
	if err == nil && encrypt {
		err = c.allowWrite(call, by.path())
	}
	return c, err
}

// openHeld is openKnown for what the file system does by itself, which in a shared volume goes on with a file that is open when another mount has
// renamed or removed it.
func (v *volume) openHeld(call keys.Call, in *inode, write bool) (*content, error) {
	c, _, err := v.openKnown(call, in, write, false)
	if errors.Is(err, unix.ESTALE) && v.shared() {
		return v.openAgain(call, in, write)
	}
	return c, err
}
