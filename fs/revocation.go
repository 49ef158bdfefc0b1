package fs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/fs/keys"
	"kmsfs/fs/lock"
	"kmsfs/policy/caller"
)

// An open file can be used only as long as the key service would let it be opened. The revocation
// asks for all open files several times a second. A handle whose caller has lost access is denied
// everything; the kernel drops what it caches of the file, and the mappings, after it has written
// back what was written before. From then on, the kernel asks for the file's attributes, by the
// handle, before each read and write from its cache, and is denied by a revoked handle. When nobody
// may use the file any more, its keys are wiped.

// watchInterval is how often the key service is asked: four times within the second in which a
// revocation must take effect.
const watchInterval = 250 * time.Millisecond

// sharedTime is how long the kernel may believe the attributes of a file that several processes may
// have open: that much later than the revocation, at most, they learn that one of them has lost
// access. Twenty questions a second, for a file that is read all the time, cost next to nothing.
const sharedTime = 50 * time.Millisecond

// revocation takes access from open files. One goroutine does all rounds, one after another, and
// holds no lock while it asks the key service or notifies the kernel.
type revocation struct {
	v *volume
	// locked says that the mount is locked by hand.
	locked atomic.Bool
	// rounds asks the goroutine for a round at once; the channel in it is closed when it is done.
	rounds chan chan struct{}
	ctx    context.Context // ends with the goroutine
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu      lock.Mutex[lock.Round] // guards what follows
	current context.CancelFunc     // ends the question of the round under way

	failing bool // the key service didn't answer the last time; only the goroutine uses it
}

func newRevocation(v *volume) *revocation {
	ctx, cancel := context.WithCancel(context.Background())
	return &revocation{v: v, rounds: make(chan chan struct{}), ctx: ctx, cancel: cancel}
}

func (r *revocation) start() { r.done.Go(func() { r.watch(r.ctx) }) }

func (r *revocation) stop() {
	r.cancel()
	r.done.Wait()
}

func (r *revocation) watch(ctx context.Context) {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			r.round(ctx)
		case done := <-r.rounds:
			r.round(ctx)
			close(done)
		}
	}
}

// roundNow has a round done, without waiting for the answer to a question that is under way.
func (r *revocation) roundNow() {
	r.mu.Lock()
	if r.current != nil {
		r.current()
	}
	r.mu.Unlock()
	done := make(chan struct{})
	select {
	case r.rounds <- done:
		<-done
	case <-r.ctx.Done():
	}
}

// round asks about all open files, and enforces the answers.
func (r *revocation) round(ctx context.Context) {
	files := r.v.files.acquireAll()
	defer func() {
		for _, c := range files {
			if err := c.release(); err != nil {
				r.v.log.Error("closing a file", "path", c.path, "error", err)
			}
		}
	}()
	open := map[*openFile][]*handle{}
	for _, c := range files {
		if all := c.holders.all(); len(all) > 0 {
			open[c] = all
		}
	}
	if len(open) == 0 {
		return
	}
	denied, err := r.denied(ctx, open)
	if errors.Is(err, context.Canceled) {
		return
	}
	if err != nil {
		if !r.failing {
			r.v.log.Warn("can't ask the key service whether open files may still be used", "volume", r.v.path, "error", err)
		}
		r.failing = true
		return
	}
	r.failing = false
	r.enforce(ctx, open, denied)
}

// denied returns the handles that may not be used any more, and why.
func (r *revocation) denied(ctx context.Context, open map[*openFile][]*handle) (map[*handle]error, error) {
	denied := map[*handle]error{}
	if !r.locked.Load() {
		questions := questionsAbout(open)
		answers, err := r.ask(ctx, questions)
		switch {
		case err == nil:
			for i, q := range questions {
				for _, h := range q.handles {
					if answers[i].Denied != nil && denied[h] == nil {
						denied[h] = answers[i].Denied
					}
				}
			}
			return denied, nil
		case !r.locked.Load():
			return nil, err
		}
	}
	for _, all := range open {
		for _, h := range all {
			denied[h] = errLockedByHand
		}
	}
	return denied, nil
}

// ask asks the key service, until roundNow wants the next round.
func (r *revocation) ask(ctx context.Context, questions []question) ([]keys.Answer, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r.mu.Lock()
	r.current = cancel
	r.mu.Unlock()
	uses := make([]keys.Use, len(questions))
	for i := range questions {
		uses[i] = questions[i].Use
	}
	type result struct {
		answers []keys.Answer
		err     error
	}
	lock.AssertNone("the key service")
	answered := make(chan result, 1)
	go func() { // which a service that doesn't look at ctx keeps waiting, but not the mount
		answers, err := r.v.keys.Check(ctx, uses)
		answered <- result{answers, err}
	}()
	select {
	case a := <-answered:
		return a.answers, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// question is whether one process may use one file: the same for all handles that it has opened for
// the same.
type question struct {
	keys.Use
	handles []*handle
}

func questionsAbout(open map[*openFile][]*handle) (all []question) {
	for c, handles := range open {
		all = append(all, c.questions(handles)...)
	}
	return all
}

// questions are about what the handles of a file need, at the path that each has now.
func (c *openFile) questions(handles []*handle) (found []question) {
	f := c.unsealed()
	if f == nil {
		return nil // its last handle has been closed, and it is being opened anew
	}
	h := f.Header()
	add := func(holder *handle, action keys.Action, path string) {
		for i := range found {
			if q := &found[i]; q.Action == action && q.Context["kmsfs:path"] == path && sameCaller(&q.Caller, &holder.call.Caller) {
				q.handles = append(q.handles, holder)
				return
			}
		}
		at := h
		at.Path = path
		use := keys.Use{Caller: holder.call.Caller, Action: action, Wrap: c.v.wrapOf(&at), Wrapped: h.WrappedKey}
		found = append(found, question{use, []*handle{holder}})
	}
	for _, holder := range handles {
		path := holder.path()
		add(holder, keys.ActionDecrypt, path)
		if holder.write {
			add(holder, keys.ActionGenerateDataKey, path)
		}
	}
	return found
}

func sameCaller(a, b *caller.Caller) bool {
	return a.UID == b.UID && a.GID == b.GID && a.PID == b.PID && slices.Equal(a.Groups, b.Groups)
}

// path is where the handle's file is now: under the name by which it was opened, if it still has
// that.
func (h *handle) path() string {
	h.c.v.tree.RLockLocal()
	defer h.c.v.tree.RUnlockLocal()
	if h.in.knows(h.link) {
		return h.link.path()
	}
	if l, ok := h.in.link(); ok {
		return l.path()
	}
	return h.c.path
}

// enforce denies the denied handles everything from now on, and restores the others. What takes
// longest comes last.
func (r *revocation) enforce(ctx context.Context, open map[*openFile][]*handle, denied map[*handle]error) {
	lost := map[*openFile][]*handle{}
	for c, all := range open {
		for _, h := range all {
			if denied[h] == nil {
				r.restore(ctx, h)
			} else if c.holders.revoke(h) {
				lost[c] = append(lost[c], h)
			}
		}
	}
	for c, all := range open {
		c.dropDenied(all, denied, len(lost[c]) > 0)
	}
	for c, holders := range lost {
		r.report(ctx, c, holders, denied)
	}
}

// dropDenied has the kernel drop what it caches of a file that a caller has lost access to, now or
// before, and wipes the file's keys if no caller has access.
func (c *openFile) dropDenied(all []*handle, denied map[*handle]error, now bool) {
	if _, revoked := c.holders.count(); revoked == 0 || c.wiped.Load() {
		return
	}
	// Each time: the mappings of those that have lost access would show what the others bring into
	// the cache.
	c.dropCached(all[0])
	if slices.ContainsFunc(all, func(h *handle) bool { return denied[h] == nil }) {
		return
	}
	if now {
		c.dropCached(all[0]) // what other processes than the holders have brought into the cache
	}
	if err := c.wipe(); err != nil {
		c.v.log.Error("closing a file that nobody may use any more", "path", c.path, "error", err)
	}
}

// dropCached has the kernel write back what it has not written yet, and forget what it knows of the
// file: pages, mappings, attributes.
func (c *openFile) dropCached(h *handle) {
	lock.AssertNone("the kernel")
	if errno := h.inode.NotifyContent(0, 0); errno != 0 && errno != unix.ENOENT {
		c.v.log.Warn("the kernel keeps pages of a file that a caller has lost access to", "path", c.path, "error", errno)
	}
}

// restore lets a handle be used again that was revoked.
func (r *revocation) restore(ctx context.Context, h *handle) {
	if !h.revoked.Load() && !h.c.wiped.Load() {
		return
	}
	if err := h.openAgain(ctx); err != nil {
		if !errors.Is(err, keys.ErrDenied) {
			r.v.log.Error("can't open again", "path", h.c.path, "error", err)
		}
		return
	}
	if h.c.holders.restore(h) {
		r.record(ctx, keys.EventRestored, h, nil)
	}
}

// openAgain opens the file again for the handle's caller, if its keys were wiped.
func (h *handle) openAgain(ctx context.Context) error {
	o := h.c.v.operation(ctx)
	defer o.end()
	call := h.call
	call.Operation = "open again"
	return o.run(resolving, func() error {
		l, named := h.link, h.in.knows(h.link)
		if !named {
			l, named = h.in.link()
		}
		if !named {
			return h.c.openIfWiped(o, call, h.c.lastPlace)
		}
		e, err := o.entry(l)
		if err != nil {
			return err
		}
		defer e.release()
		return h.c.openIfWiped(o, call, e.place)
	})
}

func (c *openFile) openIfWiped(o *operation, call keys.Call, at func() place) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.wiped.Load() {
		return nil
	}
	n := &opening{c, o, call, at()}
	return n.openWiped()
}

// report logs and records, once for each process, that it has lost access to the file.
func (r *revocation) report(ctx context.Context, c *openFile, lost []*handle, denied map[*handle]error) {
	var reported []*handle
	for _, h := range lost {
		if slices.ContainsFunc(reported, func(other *handle) bool { return sameCaller(&other.call.Caller, &h.call.Caller) }) {
			continue
		}
		reported = append(reported, h)
		r.v.log.Warn("access to an open file is revoked", "path", c.path, "uid", h.call.Caller.UID, "pid", h.call.Caller.PID, "reason", denied[h])
		r.record(ctx, keys.EventRevoked, h, denied[h])
	}
}

// record writes an event about a handle into the audit log.
func (r *revocation) record(ctx context.Context, name string, h *handle, reason error) {
	c := h.c
	event := keys.Event{
		Name: name, Error: reason,
		Details: map[string]string{"path": c.path, "uid": fmt.Sprint(h.call.Caller.UID), "pid": fmt.Sprint(h.call.Caller.PID)},
	}
	if f := c.unsealed(); f != nil {
		header := f.Header()
		event.KeyARN, event.Context = header.KeyARN, header.Context(r.v.sealed.ID())
	}
	lock.AssertNone("the key service")
	if err := r.v.keys.Record(ctx, keys.Self("revoke"), event); err != nil {
		r.v.log.Error("can't record a revocation", "path", c.path, "error", err)
	}
}

// errLockedByHand says that the mount is locked.
var errLockedByHand = fmt.Errorf("the mount is locked: %w", keys.ErrDenied)

// denyIfLocked denies the use of data keys while the mount is locked by hand.
func (v *volume) denyIfLocked() error {
	if v.revocation.locked.Load() {
		return errLockedByHand
	}
	return nil
}

// lockByHand wipes all data keys and denies the use of any, or ends that. It has taken effect when
// it returns: a file that is being opened sees that the mount is locked, or its handle is among
// those that the round revokes.
func (r *revocation) lockByHand(ctx context.Context, call keys.Call, lock bool) error {
	if !r.v.isAdministrator(call) {
		return unix.EPERM
	}
	if r.locked.Swap(lock) == lock {
		return nil
	}
	r.roundNow()
	event := keys.Event{Name: keys.EventUnlocked, Details: map[string]string{"volume": r.v.path, "uid": fmt.Sprint(call.Caller.UID)}}
	if lock {
		event.Name = keys.EventLocked
	}
	return r.v.keys.Record(ctx, call.ForRecord(), event)
}

// attributeLife tells the kernel how long it may believe a file's attributes, if others than the
// mount's user may have the file open: a moment, and not at all once a caller has lost access.
func (v *volume) attributeLife(in *inode, valid *uint64, nanos *uint32) {
	c := v.files.find(in.identity)
	if c == nil {
		return
	}
	if _, revoked := c.holders.count(); revoked > 0 {
		*valid, *nanos = 0, noLife
		c.watched.Store(true)
	} else if v.allowOther && c.opener.Load() != nil {
		*valid, *nanos = 0, uint32(sharedTime)
		c.watched.Store(true)
	}
}
