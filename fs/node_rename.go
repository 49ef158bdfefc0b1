package fs

import (
	"context"
	"errors"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/keys"
)

var (
	_ gofs.NodeRenamer = (*node)(nil)
	_ gofs.NodeLinker  = (*node)(nil)
)

// Rename is renameat2(2).
func (n *node) Rename(ctx context.Context, name string, newParent gofs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
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
	return v.errno(v.rename(v.callOf(ctx, "rename"), from, link{to.in, newName}, flags), "rename", from.path())
}

func (v *volume) rename(call keys.Call, from, to link, flags uint32) error {
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
	in := v.found(a, source)
	if err := v.mayMove(call, in, a, b, source); err != nil {
		return err
	}
	if flags&unix.RENAME_EXCHANGE != 0 {
		other := v.found(b, target)
		if err := v.mayMove(call, other, b, a, target); err != nil {
			return err
		}
		return v.exchange(call, in, other, a, b)
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
	return v.move(call, in, a, b, target, exists)
}

// move renames in, which is at a, to b. exists says that b is there, as target, and no directory.
func (v *volume) move(call keys.Call, in *inode, a, b spot, target unix.Stat_t, exists bool) error {
	m, err := v.announce(call, in, a, b)
	if err != nil {
		return err
	}
	var keep *orphan
	if exists {
		keep = v.orphan(b, target)
	}
	err = b.prepareName()
	if err == nil {
		err = unix.Renameat(a.fd, a.entry(), b.fd, b.entry())
	}
	if err != nil {
		keep.drop()
		return errors.Join(err, m.stay(call, a, b))
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

// exchange swaps in, which is at a, and other, which is at b.
func (v *volume) exchange(call keys.Call, in, other *inode, a, b spot) error {
	m, err := v.announce(call, in, a, b)
	if err != nil {
		return err
	}
	o, err := v.announce(call, other, b, a)
	if err != nil {
		return errors.Join(err, m.stay(call, a, b))
	}
	if err := unix.Renameat2(a.fd, a.entry(), b.fd, b.entry(), unix.RENAME_EXCHANGE); err != nil {
		return errors.Join(err, m.stay(call, a, b), o.stay(call, b, a))
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
	// former is the KMS key of a file that has been wrapped under another one on the way; empty if it hasn't.
	former string
}

// mayMove refuses to move a directory from a to b where that would bring what is beneath under another KMS key, as programs copy then; and a caller who may not
// use what is beneath: by its new path, he might. What is deeper may be under any of the volume's keys; where one of them would let him have more by
// the new path, programs copy too. Of files, each is asked for when it is opened to be moved.
func (v *volume) mayMove(call keys.Call, in *inode, a, b spot, st unix.Stat_t) error {
	if in.kind != unix.S_IFDIR {
		return nil
	}
	record, err := v.record(in)
	if err != nil {
		return err
	}
	if record.Key == "" {
		if same, _, err := v.sameKey(a.link, b.link); err != nil || !same {
			return errors.Join(err, unix.EXDEV)
		}
	}
	if !v.allowOther {
		return nil
	}
	under, err := v.governing(in)
	if err != nil {
		return err
	}
	at := func(key string, place spot) keys.Use {
		beneath := envelope.Header{Path: place.link.path() + "/", Owner: st.Uid}
		return keys.Use{Caller: call.Caller, Action: keys.ActionDecrypt, Wrap: keys.Wrap{Key: key, Context: beneath.Context(v.sealed.ID())}}
	}
	uses := []keys.Use{at(under.key, a)}
	for _, key := range v.sealed.Config().KeyARNs {
		uses = append(uses, at(key, a), at(key, b))
	}
	answers, err := v.keys.Check(context.Background(), uses)
	if err != nil {
		return err
	}
	if refusal := answers[0].Denied; refusal != nil {
		event := keys.Event{Name: keys.EventRenameRefused, Context: uses[0].Context, Error: refusal}
		return errors.Join(refusal, v.keys.Record(context.Background(), call.ForRecord(), event))
	}
	for pair := answers[1:]; len(pair) > 0; pair = pair[2:] {
		if pair[0].Denied != nil && pair[1].Denied == nil {
			return unix.EXDEV
		}
	}
	return nil
}

// announce adds the new place of in, which lies at a, to its header or record.
func (v *volume) announce(call keys.Call, in *inode, a, b spot) (moving, error) {
	m := moving{v: v, in: in}
	switch m.in.kind {
	case unix.S_IFREG:
		c, err := v.open(call, m.in, a.place(), true)
		if err != nil {
			return m, err
		}
		m.c = c
		if err := m.changeKey(call, a, b); err != nil {
			return m, errors.Join(err, c.release())
		}
		if err := c.change(func(h *envelope.Header) { v.sealed.AddLocation(h, b.location()) }); err != nil {
			return m, errors.Join(err, c.release())
		}
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

// changeKey wraps a file's data key under the KMS key of the directory that it is about to lie in, if that is another one. A file with other links
// stays under the key that it has there: programs copy it then.
func (m *moving) changeKey(call keys.Call, a, b spot) error {
	same, under, err := m.v.sameKey(a.link, b.link)
	if err != nil || same {
		return err
	}
	if st, err := a.stat(); err != nil || st.Nlink > 1 {
		return errors.Join(err, unix.EXDEV)
	}
	former := m.c.file().Header().KeyARN
	if err := m.c.bringUnder(call, under.key, b.link.path()); err != nil {
		return err
	}
	m.former = former
	return nil
}

// bringUnder wraps the data key under the KMS key of the directory where the file is about to lie. The caller needs leave to make files there.
func (c *content) bringUnder(call keys.Call, key, path string) error {
	h := c.file().Header()
	h.Path = path
	if err := c.v.mayGenerate(call, keys.Wrap{Key: key, Context: h.Context(c.v.sealed.ID())}); err != nil {
		return err
	}
	return c.wrapUnder(call, key, path)
}

// wrapUnder wraps the data key anew.
func (c *content) wrapUnder(call keys.Call, key, path string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.writable {
		return unix.EACCES
	}
	return c.use(true, func(f *envelope.File) error {
		_, err := c.rewrap(call, key, path, f.Header().Owner, true)
		return err
	})
}

// stay undoes announce: what was to be moved from a to b has stayed.
func (m *moving) stay(call keys.Call, a, b spot) error {
	var err error
	if m.former != "" {
		err = m.c.wrapUnder(call, m.former, a.link.path())
	}
	return errors.Join(err, m.settle(a.location(), b.location()))
}

// place makes these a directory's locations.
func (m *moving) place(locations ...envelope.Location) error {
	m.in.dirMu.Lock()
	defer m.in.dirMu.Unlock()
	next := *m.record
	next.Locations = locations
	if err := m.v.disk.WriteDirectory(m.dir.fd, &next, true); err != nil {
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
