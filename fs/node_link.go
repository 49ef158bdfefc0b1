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

// Link gives a file another name, or a file made with O_TMPFILE its first.
func (n *node) Link(ctx context.Context, target gofs.InodeEmbedder, name string, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	old, ok := target.(*node)
	if !ok {
		return nil, unix.EXDEV
	}
	o := n.v.operation(ctx)
	defer o.end()
	l, call := link{n.in, name}, callOf(ctx, "link")
	err := o.run(making, func() error { return o.link(call, old.in, l, &out.Attr) })
	if err != nil {
		return nil, o.errnoAt(err, "link", l)
	}
	o.attributeLife(old.in, &out.AttrValid, &out.AttrValidNsec)
	return n.newNode(ctx, old.in), 0
}

func (o *operation) link(call keys.Call, in *inode, l link, out *fuse.Attr) error {
	e, err := o.entry(l)
	if err != nil {
		return err
	}
	defer e.release()
	if _, err := e.stat(); err == nil {
		return unix.EEXIST
	}
	if in.kind != unix.S_IFREG {
		return o.linkSpecial(in, e, out)
	}
	c, err := o.prepareLink(call, in, e)
	if err != nil {
		return err
	}
	if err := errors.Join(c.linkAt(o, e), c.release()); err != nil {
		return err
	}
	in.addLink(l)
	return o.fileAttr(out, in, e)
}

func (o *operation) linkSpecial(in *inode, e dirEntry, out *fuse.Attr) error {
	known, ok := in.link()
	if !ok {
		return unix.ENOENT
	}
	old, err := o.entry(known)
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
	in.addLink(e.link)
	return o.attr(out, in, target{fd: -1, entry: e})
}

// prepareLink opens the file that is about to be linked at e. All links of a file lie under one KMS
// key. A file without a name is linked by a process that has it open already.
func (o *operation) prepareLink(call keys.Call, in *inode, e dirEntry) (*openFile, error) {
	opener := call
	known, named := in.link()
	if named {
		same, _, err := o.sameKey(known, e.link)
		if err == nil && !same {
			err = unix.EXDEV
		}
		if err != nil {
			return nil, err
		}
	} else {
		opener = call.BySelf()
	}
	c, err := o.openHeld(opener, in, true)
	if err != nil {
		return nil, err
	}
	if !named {
		if err := c.nameFirst(o, call, e); err != nil {
			return nil, errors.Join(err, c.release())
		}
	}
	return c, nil
}

// nameFirst brings a file that is about to get its first name under the KMS key that holds there, if
// it was made under another one.
func (c *openFile) nameFirst(o *operation, call keys.Call, e dirEntry) error {
	under, err := o.effective(e.in)
	if err != nil {
		return err
	}
	arn, err := o.resolveKey(under.key, e.link)
	if err != nil || arn == c.unsealed().Header().KeyARN {
		return err
	}
	next, err := c.broughtUnder(o, call, under.key, e.link.path())
	if err != nil {
		return err
	}
	return c.changeWrap(o, next)
}

// linkAt adds the location to the file's header before the link is there.
func (c *openFile) linkAt(o *operation, e dirEntry) error {
	location := e.location()
	err := c.change(o, func(h *envelope.Header) { o.sealed.AddLocation(h, location) })
	for _, full := range []error{unix.ENOSPC, unix.E2BIG, unix.EOPNOTSUPP, envelope.ErrTooLong} {
		if errors.Is(err, full) {
			return unix.EMLINK // the header's overflow has no room for another location
		}
	}
	if err != nil {
		return err
	}
	if err = e.prepareName(); err == nil {
		err = unix.Linkat(unix.AT_FDCWD, disk.ProcPath(c.storage.FD), e.fd, e.name(), unix.AT_SYMLINK_FOLLOW)
	}
	if err != nil {
		e.dropName()
		return errors.Join(err, c.change(o, func(h *envelope.Header) { o.sealed.RemoveLocation(h, location) }))
	}
	return nil
}
