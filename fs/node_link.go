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
	"kmsfs/fs/volume/backing"
)

// Link gives a file another name, or a file made with O_TMPFILE its first.
func (n *node) Link(ctx context.Context, target gofs.InodeEmbedder, name string, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	old, ok := target.(*node)
	if !ok {
		return nil, unix.EXDEV
	}
	o := n.v.operation(ctx)
	defer o.end()
	l, call := link{n.in, name}, callOf(ctx, "link")
	err := o.run(making, func() error { return linking{o, call, old.in}.make(l, &out.Attr) })
	if err != nil {
		return nil, o.errnoAt(err, "link", l)
	}
	o.attributeLife(old.in, &out.AttrValid, &out.AttrValidNsec)
	return n.newNode(ctx, old.in), 0
}

// linking gives an inode another name.
type linking struct {
	*operation
	call keys.Call
	in   *inode
}

func (n linking) make(l link, out *fuse.Attr) error {
	e, err := n.entry(l)
	if err != nil {
		return err
	}
	defer e.release()
	if _, err := e.stat(); err == nil {
		return unix.EEXIST
	}
	if n.in.kind != unix.S_IFREG {
		return n.special(e, out)
	}
	c, err := n.prepare(e)
	if err != nil {
		return err
	}
	if err := errors.Join(n.add(c, e), c.release()); err != nil {
		return err
	}
	n.in.addLink(l)
	return n.fileAttr(out, n.in, e)
}

func (n linking) special(e dirEntry, out *fuse.Attr) error {
	known, ok := n.in.link()
	if !ok {
		return unix.ENOENT
	}
	old, err := n.entry(known)
	if err != nil {
		return err
	}
	defer old.release()
	if err := e.prepareName(); err != nil {
		return err
	}
	if err := unix.Linkat(old.fd, old.name(), e.fd, e.name(), 0); err != nil {
		e.dropName()
		return err
	}
	n.in.addLink(e.link)
	return n.attr(out, n.in, target{fd: -1, entry: e})
}

// prepare opens the file that is about to be linked at e. All links of a file lie under one KMS
// key. A file without a name is linked by a process that has it open already.
func (n linking) prepare(e dirEntry) (*openFile, error) {
	opener := n.call
	known, named := n.in.link()
	if named {
		same, _, err := n.sameKey(known, e.link)
		if err == nil && !same {
			err = unix.EXDEV
		}
		if err != nil {
			return nil, err
		}
	} else {
		opener = n.call.BySelf()
	}
	c, err := n.openHeld(opener, n.in, true)
	if err != nil {
		return nil, err
	}
	if !named {
		if err := n.nameFirst(c, e); err != nil {
			return nil, errors.Join(err, c.release())
		}
	}
	return c, nil
}

// nameFirst brings a file that is about to get its first name under the KMS key that holds there,
// if it was made under another one.
func (n linking) nameFirst(c *openFile, e dirEntry) error {
	under, err := n.effective(e.in)
	if err != nil {
		return err
	}
	arn, err := n.resolveKey(under.key, e.link)
	if err != nil || arn == c.unsealed().Header().KeyARN {
		return err
	}
	next, err := c.broughtUnder(n.operation, n.call, under.key, e.link.path())
	if err != nil {
		return err
	}
	return c.changeWrap(n.operation, next)
}

// add adds the location to the file's header before the link is there.
func (n linking) add(c *openFile, e dirEntry) error {
	location := e.location()
	err := c.change(n.operation, func(h *envelope.Header) { n.sealed.AddLocation(h, location) })
	for _, full := range []error{unix.ENOSPC, unix.E2BIG, unix.EOPNOTSUPP, envelope.ErrTooLong} {
		if errors.Is(err, full) {
			return unix.EMLINK // the header's overflow has no room for another location
		}
	}
	if err != nil {
		return err
	}
	if err = e.prepareName(); err == nil {
		err = unix.Linkat(unix.AT_FDCWD, procPath(backing.Descriptor(c.storage.File)), e.fd, e.name(), unix.AT_SYMLINK_FOLLOW)
	}
	if err != nil {
		e.dropName()
		return errors.Join(err, c.change(n.operation, func(h *envelope.Header) { n.sealed.RemoveLocation(h, location) }))
	}
	return nil
}
