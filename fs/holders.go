package fs

import "kmsfs/fs/lock"

// holders are the handles of an open file.
type holders struct {
	mu      lock.Mutex[lock.Holders] // guards what follows, and handle.revoked against changes
	handles map[*handle]struct{}
	revoked int // handles that may not be used any more
	writers int // handles that are open for writing
}

func (t *holders) add(h *handle) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.handles == nil {
		t.handles = map[*handle]struct{}{}
	}
	t.handles[h] = struct{}{}
	if h.write {
		t.writers++
	}
}

func (t *holders) remove(h *handle) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.handles, h)
	if h.write {
		t.writers--
	}
	if h.revoked.Swap(false) {
		t.revoked--
	}
}

// all returns the handles that are open now.
func (t *holders) all() []*handle {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]*handle, 0, len(t.handles))
	for h := range t.handles {
		all = append(all, h)
	}
	return all
}

func (t *holders) count() (handles, revoked int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.handles), t.revoked
}

func (t *holders) written() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.writers > 0
}

// revoke says whether the handle could be used before. One that has been released stays as it is.
func (t *holders) revoke(h *handle) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, open := t.handles[h]; !open || h.revoked.Swap(true) {
		return false
	}
	t.revoked++
	return true
}

// restore is the opposite of revoke.
func (t *holders) restore(h *handle) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !h.revoked.Swap(false) {
		return false
	}
	t.revoked--
	return true
}
