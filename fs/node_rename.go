package fs

import (
	"context"
	"errors"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/keys"
	"kmsfs/fs/volume/backing"
)

var (
	_ gofs.NodeRenamer = (*node)(nil)
	_ gofs.NodeLinker  = (*node)(nil)
)

// Rename is renameat2(2).
func (n *node) Rename(ctx context.Context, name string, newParent gofs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	to, ok := newParent.(*node)
	if !ok || flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0 {
		return unix.EINVAL
	}
	o := n.v.operation(ctx)
	defer o.end()
	from, call := link{n.in, name}, callOf(ctx, "rename")
	return o.errnoAt(o.run(changing, func() error { return o.rename(call, from, link{to.in, newName}, flags) }), "rename", from)
}

func (o *operation) rename(call keys.Call, from, to link, flags uint32) error {
	a, err := o.entry(from)
	if err != nil {
		return err
	}
	defer a.release()
	b, err := o.entry(to)
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
	switch {
	case err != nil && !errors.Is(err, unix.ENOENT):
		return err
	case exists && flags&unix.RENAME_NOREPLACE != 0:
		return unix.EEXIST
	case !exists && flags&unix.RENAME_EXCHANGE != 0:
		return unix.ENOENT
	}
	r := renaming{operation: o, call: call, a: a, b: b}
	if flags&unix.RENAME_EXCHANGE != 0 {
		return r.exchange(source, target)
	}
	if exists {
		r.target = &target
	}
	return r.move(source)
}

// renaming is a rename of what is at a to b.
type renaming struct {
	*operation
	call   keys.Call
	a, b   dirEntry
	target *unix.Stat_t // what is at b; nil if nothing is
}

// move renames what is at a, and takes the place of what is at b.
func (r *renaming) move(source unix.Stat_t) error {
	m, err := r.prepare(r.a, r.b, source)
	if err != nil {
		return err
	}
	replaced, err := r.prepareReplaced(source)
	if err != nil {
		return errors.Join(err, m.release())
	}
	if err := m.announce(); err != nil {
		return errors.Join(err, m.release(), replaced.release())
	}
	var keep *orphan
	if replaced.file {
		keep = removal{r.operation}.openOrphan(r.b, *r.target)
	}
	err = r.b.prepareName()
	if err == nil {
		err = unix.Renameat(r.a.fd, r.a.name(), r.b.fd, r.b.name())
	}
	if err != nil {
		keep.drop()
		return errors.Join(err, m.stay(), replaced.release())
	}
	if r.a.name() != r.b.name() || r.a.in != r.b.in {
		r.a.dropName()
	}
	if replaced.file {
		removal{r.operation}.unlinked(r.b.link, *r.target, keep)
	}
	m.in.removeLink(r.a.link)
	m.in.addLink(r.b.link)
	r.logStale(m.settle(), r.b)
	r.logStale(replaced.settle(), r.b)
	return nil
}

// exchange swaps what is at a and at b.
func (r *renaming) exchange(source, target unix.Stat_t) error {
	m, err := r.prepare(r.a, r.b, source)
	if err != nil {
		return err
	}
	n, err := r.prepare(r.b, r.a, target)
	if err != nil {
		return errors.Join(err, m.release())
	}
	if err := m.announce(); err != nil {
		return errors.Join(err, m.release(), n.release())
	}
	if err := n.announce(); err != nil {
		return errors.Join(err, n.release(), m.stay())
	}
	if err := unix.Renameat2(r.a.fd, r.a.name(), r.b.fd, r.b.name(), unix.RENAME_EXCHANGE); err != nil {
		return errors.Join(err, m.stay(), n.stay())
	}
	m.in.removeLink(r.a.link)
	n.in.removeLink(r.b.link)
	m.in.addLink(r.b.link)
	n.in.addLink(r.a.link)
	r.logStale(m.settle(), r.b)
	r.logStale(n.settle(), r.a)
	return nil
}

func (r *renaming) logStale(err error, e dirEntry) {
	if err != nil {
		r.log.Warn("a former location stays in a header or record", "path", e.link.path(), "error", err)
	}
}

// replaced is what a rename takes the place of.
type replaced struct {
	r    *renaming
	file bool      // it is no directory, and goes with the rename
	c    *openFile // a file with other links, whose header still names this location
}

// prepareReplaced opens a file whose location is to go from its header, and removes a directory.
func (r *renaming) prepareReplaced(source unix.Stat_t) (replaced, error) {
	gone := replaced{r: r}
	switch {
	case r.target == nil:
		return gone, nil
	case r.target.Mode&unix.S_IFMT == unix.S_IFDIR:
		if source.Mode&unix.S_IFMT != unix.S_IFDIR {
			return gone, unix.EISDIR
		}
		return gone, removal{r.operation}.directory(r.b.link)
	}
	gone.file = true
	var err error
	if r.target.Mode&unix.S_IFMT == unix.S_IFREG && r.target.Nlink > 1 && identityOf(r.target) != identityOf(&source) {
		gone.c, err = removal{r.operation}.open(r.call.BySelf(), r.b, *r.target)
	}
	return gone, err
}

func (g replaced) settle() error {
	if g.c == nil {
		return nil
	}
	err := g.c.change(g.r.operation, func(h *envelope.Header) { g.r.sealed.RemoveLocation(h, g.r.b.location()) })
	return errors.Join(err, g.c.release())
}

func (g replaced) release() error {
	if g.c == nil {
		return nil
	}
	return g.c.release()
}

// moving is an inode that is about to be renamed from a to b. Until prepare returns, all questions
// to the key service are answered, and nothing is changed. Between announce and settle or stay, its
// header or record names both locations.
type moving struct {
	*operation
	in   *inode
	a, b dirEntry
	// c is a regular file; dir is a directory. What else is renamed names no location.
	c   *openFile
	dir dirRef
	// wrapping is that of a file that comes under another KMS key; former is its header before.
	wrapping *wrapping
	former   envelope.Header
}

// prepare opens and authorizes what is at a to be moved to b.
func (r *renaming) prepare(a, b dirEntry, st unix.Stat_t) (*moving, error) {
	m := &moving{operation: r.operation, in: r.found(a, st), a: a, b: b}
	switch m.in.kind {
	case unix.S_IFREG:
		return m, m.prepareFile(r.call, st)
	case unix.S_IFDIR:
		if err := r.mayMove(m.in, a, b, st); err != nil {
			return nil, err
		}
		if r.shared() {
			m.in.dropRecord()
		}
		var err error
		m.dir, err = r.pin(m.in)
		return m, err
	}
	return m, nil
}

// prepareFile opens a file, and asks for its data key to be wrapped under the KMS key of the
// directory that it is about to lie in, if that is another one. A file with other links stays under
// the key that it has there: programs copy it then.
func (m *moving) prepareFile(call keys.Call, st unix.Stat_t) error {
	c, err := m.open(call, m.in, m.a.place(), true)
	if err != nil {
		return err
	}
	same, under, err := m.sameKey(m.a.link, m.b.link)
	if err == nil && !same {
		err = unix.EXDEV
		if st.Nlink == 1 {
			m.former = c.unsealed().Header()
			var w wrapping
			w, err = c.broughtUnder(m.operation, call, under.key, m.b.link.path())
			m.wrapping = &w
		}
	}
	if err != nil {
		return errors.Join(err, c.release())
	}
	m.c = c
	return nil
}

// announce adds the new location to the header or record.
func (m *moving) announce() error {
	switch {
	case m.c != nil:
		if m.wrapping != nil {
			if err := m.c.changeWrap(m.operation, *m.wrapping); err != nil {
				return err
			}
		}
		err := m.c.change(m.operation, func(h *envelope.Header) { m.sealed.AddLocation(h, m.b.location()) })
		if err != nil {
			err = errors.Join(err, m.unwrap())
		}
		return err
	case m.in.kind == unix.S_IFDIR:
		return m.place(m.a.location(), m.b.location())
	}
	return nil
}

// unwrap gives a file the wrapped data key back that it had before announce.
func (m *moving) unwrap() error {
	if m.wrapping == nil {
		return nil
	}
	return m.c.changeWrap(m.operation, wrapping{m.former, m.wrapping.header.WrappedKey})
}

// place makes these a directory's locations.
func (m *moving) place(locations ...envelope.Location) error {
	m.in.recordMu.Lock()
	defer m.in.recordMu.Unlock()
	next := *m.dir.record
	next.Locations = locations
	if err := m.disk.WriteDirectory(backing.FromDescriptor(m.dir.fd), &next, true); err != nil {
		return err
	}
	m.in.record, m.dir.record = &next, &next
	m.in.unsynced = true
	return nil
}

// settle drops the former location after the rename.
func (m *moving) settle() error { return m.drop(m.b.location(), m.a.location()) }

// stay undoes announce: the rename has failed.
func (m *moving) stay() error {
	var err error
	if m.c != nil {
		err = m.unwrap()
	}
	return errors.Join(err, m.drop(m.a.location(), m.b.location()))
}

// drop drops the location that isn't the right one, and ends the use of what was renamed.
func (m *moving) drop(right, wrong envelope.Location) error {
	var err error
	switch {
	case m.c != nil:
		err = m.c.change(m.operation, func(h *envelope.Header) { m.sealed.RemoveLocation(h, wrong) })
	case m.in.kind == unix.S_IFDIR:
		err = m.place(right)
	}
	return errors.Join(err, m.release())
}

// release ends the use of what was to be renamed.
func (m *moving) release() error {
	if m.c != nil {
		return m.c.release()
	}
	if m.in.kind == unix.S_IFDIR {
		m.dir.release()
	}
	return nil
}

// mayMove denies to move a directory from a to b where that would bring what is beneath under
// another KMS key: programs copy then. It also denies a caller that may not use what is beneath, as
// the new path might allow it. What is deeper may be under any of the volume's keys; where one of
// them would allow the caller more by the new path, programs copy too. Files are authorized one by
// one, when they are opened to be moved.
func (r *renaming) mayMove(in *inode, a, b dirEntry, st unix.Stat_t) error {
	record, err := r.directoryRecord(in)
	if err != nil {
		return err
	}
	if record.Key == "" {
		same, _, err := r.sameKey(a.link, b.link)
		if err == nil && !same {
			err = unix.EXDEV
		}
		if err != nil {
			return err
		}
	}
	if !r.allowOther {
		return nil
	}
	under, err := r.effective(in)
	if err != nil {
		return err
	}
	return r.mayMoveBeneath(under.key, a, b, st.Uid)
}

func (r *renaming) mayMoveBeneath(key string, a, b dirEntry, owner uint32) error {
	at := func(key string, e dirEntry) keys.Use {
		beneath := envelope.Header{Path: e.link.path() + "/", Owner: owner}
		return keys.Use{Caller: r.call.Caller, Action: keys.ActionDecrypt, Wrap: keys.Wrap{Key: key, Context: beneath.Context(r.sealed.ID())}}
	}
	uses := []keys.Use{at(key, a)}
	for _, key := range r.sealed.Config().KeyARNs {
		uses = append(uses, at(key, a), at(key, b))
	}
	answers, err := r.check(uses)
	if err != nil {
		return err
	}
	if denied := answers[0].Denied; denied != nil {
		event := keys.Event{Name: keys.EventRenameRefused, Context: uses[0].Context, Error: denied}
		return errors.Join(denied, r.record(r.call.ForRecord(), event))
	}
	for pair := answers[1:]; len(pair) > 0; pair = pair[2:] {
		if pair[0].Denied != nil && pair[1].Denied == nil {
			return unix.EXDEV
		}
	}
	return nil
}
