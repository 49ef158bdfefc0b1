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
	"kmsfs/policy/caller"
)

// Whoever has a file open keeps it only as long as the key service would let him open it. The watch asks for all open files several times a second.
// A handle that has lost its leave is refused at everything; the kernel drops what it caches of the file, which first writes back what was written before, and
// the mappings; from then on it asks for the file's attributes, with the handle, before each read and write from its cache, and for the handle
// that is refused. When nobody may use the file any more, its keys are wiped.

// watchInterval is how often leave is asked for: four times within the second in which it has to take hold.
const watchInterval = 250 * time.Millisecond

// sharedTime is how long the kernel may believe the attributes of a file that several processes may have open: so much later than the watch, at most, they learn that
// one of them has lost access. Twenty questions a second, for a file that is read all the time, cost next to nothing.
const sharedTime = 50 * time.Millisecond

// watch is what asks.
type watch struct {
	// locked says that the mount is locked by hand.
	locked atomic.Bool

	mu      sync.Mutex // held while leave is asked for and enforced; taken before all other locks
	failing bool       // the key service didn't answer the last time
	cancel  context.CancelFunc
	done    sync.WaitGroup
}

// handles are the open handles.
type handles struct {
	mu   sync.Mutex // guards open; no other lock is taken under it
	open map[*handle]struct{}
}

func (t *handles) add(h *handle) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open == nil {
		t.open = map[*handle]struct{}{}
	}
	t.open[h] = struct{}{}
}

func (t *handles) remove(h *handle) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, h)
}

// byContent returns the open handles of each content.
func (t *handles) byContent() map[*content][]*handle {
	t.mu.Lock()
	defer t.mu.Unlock()
	found := map[*content][]*handle{}
	for h := range t.open {
		found[h.c] = append(found[h.c], h)
	}
	return found
}

func (v *volume) startWatch() {
	ctx, cancel := context.WithCancel(context.Background())
	v.watch.cancel = cancel
	v.watch.done.Go(func() {
		for ticker := time.NewTicker(watchInterval); ; {
			select {
			case <-ctx.Done():
				ticker.Stop()
				return
			case <-ticker.C:
				v.enforce(ctx)
			}
		}
	})
}

func (v *volume) stopWatch() {
	v.watch.cancel()
	v.watch.done.Wait()
}

// asked is what one process does with one file: the same for all handles that it has opened for the same.
type asked struct {
	c *content
	keys.Use
	handles []*handle
}

// enforce asks for leave for all open files, and has it take hold.
func (v *volume) enforce(ctx context.Context) {
	v.watch.mu.Lock()
	defer v.watch.mu.Unlock()
	open := v.handles.byContent()
	for c := range open {
		if !v.contents.hold(c) { // its last handle is being closed
			delete(open, c)
		}
	}
	defer func() {
		for c := range open {
			if err := c.release(); err != nil {
				v.log.Error("closing a file", "path", c.path, "error", err)
			}
		}
	}()
	if len(open) == 0 {
		return
	}
	refused, err := v.refusedHandles(ctx, open)
	if err != nil {
		if !v.watch.failing && ctx.Err() == nil {
			v.log.Warn("can't ask the key service whether open files may still be used", "volume", v.path, "error", err)
		}
		v.watch.failing = true
		return
	}
	v.watch.failing = false
	v.enforceOn(open, refused)
}

// refusedHandles returns those handles that may not be used any more, and why.
func (v *volume) refusedHandles(ctx context.Context, open map[*content][]*handle) (map[*handle]error, error) {
	refused := map[*handle]error{}
	if v.watch.locked.Load() {
		for _, all := range open {
			for _, h := range all {
				refused[h] = errLockedByHand
			}
		}
		return refused, nil
	}
	var questions []asked
	for c, all := range open {
		questions = append(questions, c.questions(all)...)
	}
	uses := make([]keys.Use, len(questions))
	for i := range questions {
		uses[i] = questions[i].Use
	}
	answers, err := v.keys.Check(ctx, uses)
	if err != nil {
		return nil, err
	}
	for i, q := range questions {
		for _, h := range q.handles {
			if answers[i].Denied != nil && refused[h] == nil {
				refused[h] = answers[i].Denied
			}
		}
	}
	return refused, nil
}

// questions are what the holders of a content need leave for, at the place where each has it now.
func (c *content) questions(all []*handle) []asked {
	f := c.file()
	if f == nil {
		return nil // its last handle has been closed, and somebody opens it anew
	}
	h := f.Header()
	var found []asked
	add := func(holder *handle, action keys.Action, path string) {
		for i := range found {
			if q := &found[i]; q.Action == action && q.Context["kmsfs:path"] == path && sameCaller(&q.Caller, &holder.call.Caller) {
				q.handles = append(q.handles, holder)
				return
			}
		}
		at := h
		at.Path = path
		use := keys.Use{Caller: holder.call.Caller, Action: action, Wrap: keys.Wrap{Key: h.KeyARN, Context: at.Context(c.v.sealed.ID())}, Wrapped: h.WrappedKey}
		found = append(found, asked{c, use, []*handle{holder}})
	}
	for _, holder := range all {
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

// path is where the handle's file lies now: under the name by which it was opened, if it still has that.
func (h *handle) path() string {
	tree := h.c.v.tree
	tree.RLockLocal()
	defer tree.RUnlockLocal()
	if h.in.knows(h.link) {
		return h.link.path()
	}
	if l, ok := h.in.link(); ok {
		return l.path()
	}
	return h.c.path
}

// enforceOn refuses those handles that are among the refused from now on, and lets the others in. What takes longest comes last.
func (v *volume) enforceOn(open map[*content][]*handle, refused map[*handle]error) {
	lost := map[*content][]*handle{}
	for c, all := range open {
		for _, h := range all {
			if refused[h] == nil {
				c.restore(h)
			} else if h.revoke() {
				lost[c] = append(lost[c], h)
			}
		}
	}
	for c, all := range open {
		c.dropRefused(all, refused, len(lost[c]) > 0)
	}
	for c, holders := range lost {
		c.reportLost(holders, refused)
	}
}

// dropRefused has the kernel drop what it caches of a file that somebody has lost access to, just now or before, and wipes the file's keys if nobody has any.
func (c *content) dropRefused(all []*handle, refused map[*handle]error, now bool) {
	if c.revoked.Load() == 0 || c.locked.Load() {
		return
	}
	// Each time, as the mappings of those who have lost access would show what the others bring into the cache.
	c.dropCached(all[0])
	if slices.ContainsFunc(all, func(h *handle) bool { return refused[h] == nil }) {
		return
	}
	if now {
		c.dropCached(all[0]) // what others than the holders had brought into the cache meanwhile
	}
	if err := c.lock(); err != nil {
		c.v.log.Error("closing a file that nobody may use any more", "path", c.path, "error", err)
	}
}

// revoke says whether the handle could be used before.
func (h *handle) revoke() bool {
	if h.revoked.Swap(true) {
		return false
	}
	h.c.revoked.Add(1)
	return true
}

// unrevoke is the opposite, also for a handle that is closed.
func (h *handle) unrevoke() bool {
	if !h.revoked.Swap(false) {
		return false
	}
	h.c.revoked.Add(-1)
	return true
}

// dropCached has the kernel write back what it has not written yet, and forget what it knows of the file: pages, mappings, attributes.
func (c *content) dropCached(h *handle) {
	if errno := h.inode.NotifyContent(0, 0); errno != 0 && errno != unix.ENOENT {
		c.v.log.Warn("the kernel keeps pages of a file that somebody has lost access to", "path", c.path, "error", errno)
	}
}

// restore lets a handle in again that had lost its leave.
func (c *content) restore(h *handle) {
	if !h.revoked.Load() && !c.locked.Load() {
		return
	}
	if err := c.unlockFor(h); err != nil {
		if !errors.Is(err, keys.ErrDenied) {
			c.v.log.Error("can't open again", "path", c.path, "error", err)
		}
		return
	}
	if h.unrevoke() {
		c.record(keys.EventRestored, h, nil)
	}
}

// unlockFor opens the file again, on the handle's account, if it was locked.
func (c *content) unlockFor(h *handle) error {
	v := c.v
	if err := v.tree.RLock(); err != nil {
		return err
	}
	defer v.tree.RUnlock()
	call := h.call
	call.Operation = "open again"
	l, named := h.link, h.in.knows(h.link)
	if !named {
		l, named = h.in.link()
	}
	if !named {
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.locked.Load() {
			return nil
		}
		return c.unlock(call, c.lastPlace())
	}
	s, err := v.spot(l)
	if err != nil {
		return err
	}
	defer s.release()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.locked.Load() {
		return nil
	}
	return c.unlock(call, s.place())
}

// reportLost says, once for each process, who has lost access to the file.
func (c *content) reportLost(lost []*handle, refused map[*handle]error) {
	var reported []*handle
	for _, h := range lost {
		if slices.ContainsFunc(reported, func(r *handle) bool { return sameCaller(&r.call.Caller, &h.call.Caller) }) {
			continue
		}
		reported = append(reported, h)
		c.v.log.Warn("access to an open file is revoked", "path", c.path, "uid", h.call.Caller.UID, "pid", h.call.Caller.PID, "reason", refused[h])
		c.record(keys.EventRevoked, h, refused[h])
	}
}

// record writes an event about a handle into the audit log.
func (c *content) record(name string, h *handle, reason error) {
	event := keys.Event{
		Name: name, Error: reason,
		Details: map[string]string{"path": c.path, "uid": fmt.Sprint(h.call.Caller.UID), "pid": fmt.Sprint(h.call.Caller.PID)},
	}
	if f := c.file(); f != nil {
		header := f.Header()
		event.KeyARN, event.Context = header.KeyARN, header.Context(c.v.sealed.ID())
	}
	if err := c.v.keys.Record(context.Background(), keys.Self("revoke"), event); err != nil {
		c.v.log.Error("can't record a revocation", "path", c.path, "error", err)
	}
}

// errLockedByHand says that the mount is locked.
var errLockedByHand = fmt.Errorf("the mount is locked: %w", keys.ErrDenied)

// refuseIfLocked refuses to use data keys while the mount is locked by hand.
func (v *volume) refuseIfLocked() error {
	if v.watch.locked.Load() {
		return errLockedByHand
	}
	return nil
}

// lockByHand drops all data keys and refuses to use any, or ends that. It has taken hold when it returns.
func (v *volume) lockByHand(call keys.Call, lock bool) error {
	if !v.isAdministrator(call) {
		return unix.EPERM
	}
	if v.watch.locked.Swap(lock) == lock {
		return nil
	}
	v.enforce(context.Background())
	event := keys.Event{Name: keys.EventUnlocked, Details: map[string]string{"volume": v.path, "uid": fmt.Sprint(call.Caller.UID)}}
	if lock {
		event.Name = keys.EventLocked
	}
	return v.keys.Record(context.Background(), call.ForRecord(), event)
}

// attributeLife tells the kernel how long it may believe a file's attributes, if others than the mount's user may have the file open: a moment, and
// not at all once somebody has lost access.
func (v *volume) attributeLife(in *inode, valid *uint64, nanos *uint32) {
	c := v.contents.find(in.identity)
	switch {
	case c == nil:
	case c.revoked.Load() > 0:
		*valid, *nanos = 0, noLife
		c.watched.Store(true)
	case v.allowOther && c.opener.Load() != nil:
		*valid, *nanos = 0, uint32(sharedTime)
		c.watched.Store(true)
	}
}

// find returns the content of an open file; nil if it isn't open.
func (t *contents) find(id identity) *content {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.open[id]
}
