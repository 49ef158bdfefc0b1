package memory

import (
	"io"

	"golang.org/x/sys/unix"
)

// content calls do with a regular file that is open for reading, or with write for writing.
func (h *handle) content(op Op, write bool, do func(n *node) error) error {
	return h.with(op, func(n *node) error {
		if err := h.usable(n, write); err != nil {
			return err
		}
		return do(n)
	})
}

// transfer calls do with a regular file and with what a read or write of p at off may move.
func (h *handle) transfer(op Op, p []byte, off int64, do func(n *node, p []byte) (int, error)) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	if !h.alive() {
		return 0, h.dead()
	}
	return h.f.fault(op).transfer(p, off, func(p []byte) (int, error) {
		n := h.f.live.nodes[h.use.ino]
		if err := h.usable(n, op == OpWrite); err != nil {
			return 0, err
		}
		return do(n, p)
	})
}

// usable says whether the node's content can be read, or with write be written.
func (h *handle) usable(n *node, write bool) error {
	switch {
	case h.path || write && !h.writing || !write && !h.reading:
		return unix.EBADF
	case n.kind() == unix.S_IFDIR:
		return unix.EISDIR
	}
	return nil
}

func (h *handle) ReadAt(p []byte, off int64) (int, error) {
	return h.transfer(OpRead, p, off, func(n *node, p []byte) (done int, err error) {
		end := min(off+int64(len(p)), n.size)
		for at := off; at < end; {
			from := at % pageSize
			length := min(pageSize-from, end-at)
			to := p[done : done+int(length)]
			if have := n.pages[at/pageSize]; have != nil {
				copy(to, have[from:])
			} else {
				clear(to)
			}
			done += int(length)
			at += length
		}
		if done < len(p) {
			return done, io.EOF
		}
		return done, nil
	})
}

func (h *handle) WriteAt(p []byte, off int64) (int, error) {
	return h.transfer(OpWrite, p, off, func(n *node, p []byte) (done int, err error) {
		room := h.f.room()
		for done < len(p) {
			at := off + int64(done)
			i, from := at/pageSize, int(at%pageSize)
			length := min(pageSize-from, len(p)-done)
			next := &page{}
			if have := n.pages[i]; have != nil {
				*next = *have
			} else if room--; room < 0 {
				return done, unix.ENOSPC
			}
			copy(next[from:], p[done:done+length])
			h.f.writePage(n, i, next, at+int64(length))
			done += length
		}
		return done, nil
	})
}

// writePage replaces a page, and notes that it is on its way to the disk.
func (f *FS) writePage(n *node, i int64, p *page, end int64) {
	n.pages[i] = p
	n.size = max(n.size, end)
	n.modified, n.changed = f.now(), f.now()
	f.add(event{touched: []uint64{n.ino}, index: i, content: p, end: end})
}

// resize makes a change of which pages a file has.
func (f *FS) resize(n *node, gone pageRange, do func(n *node)) {
	ino, now := n.ino, f.now()
	f.do(event{touched: []uint64{ino}, data: true, gone: gone, apply: func(t *tree) {
		if n := t.nodes[ino]; n != nil {
			do(n)
			n.modified, n.changed = now, now
		}
	}})
}

func (h *handle) Truncate(size int64) error {
	return h.content(OpTruncate, true, func(n *node) error {
		if size < 0 {
			return unix.EINVAL
		}
		var gone pageRange
		if size < n.size {
			gone = pageRange{(size + pageSize - 1) / pageSize, allPages.to}
		}
		h.f.resize(n, gone, func(n *node) { n.truncate(size) })
		return nil
	})
}

func (h *handle) Allocate(mode uint32, off, length int64) error {
	return h.content(OpAllocate, true, func(n *node) error {
		if off < 0 || length <= 0 {
			return unix.EINVAL
		}
		switch mode {
		case 0, unix.FALLOC_FL_KEEP_SIZE:
			more := int((off+length+pageSize-1)/pageSize - off/pageSize)
			if more > h.f.room() {
				return unix.ENOSPC
			}
			h.f.resize(n, pageRange{}, func(n *node) { n.allocate(off, length, mode != 0) })
		case unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE:
			gone := pageRange{off / pageSize, (off + length + pageSize - 1) / pageSize}
			h.f.resize(n, gone, func(n *node) { n.punch(off, length) })
		default:
			return unix.EOPNOTSUPP
		}
		return nil
	})
}

func (h *handle) Seek(off int64, whence int) (at int64, err error) {
	err = h.content(OpRead, false, func(n *node) error {
		if off < 0 || off >= n.size {
			return unix.ENXIO
		}
		for i := off / pageSize; i*pageSize < n.size; i++ {
			if (n.pages[i] != nil) == (whence == unix.SEEK_DATA) {
				at = max(off, i*pageSize)
				return nil
			}
		}
		if whence == unix.SEEK_DATA {
			return unix.ENXIO
		}
		at = n.size
		return nil
	})
	return at, err
}

func (h *handle) Datasync() error {
	return h.with(OpSync, func(*node) error {
		if h.path {
			return unix.EBADF
		}
		h.f.journal.sync(h.use.ino, true)
		return nil
	})
}

func (h *handle) Flock(how int) error {
	kind := map[int]int16{unix.LOCK_SH: unix.F_RDLCK, unix.LOCK_EX: unix.F_WRLCK, unix.LOCK_UN: unix.F_UNLCK}
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	if !h.alive() {
		return h.dead()
	}
	k, ok := kind[how&^unix.LOCK_NB]
	if !ok {
		return unix.EINVAL
	}
	return h.f.locks.lock(h.f.locks.whole, lockKey{use: h.use, owner: h}, k, how&unix.LOCK_NB == 0, h.alive)
}

func (h *handle) LockByte(at int64, kind int16) error {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	if !h.alive() {
		return h.dead()
	}
	if kind == unix.F_WRLCK && !h.writing || kind == unix.F_RDLCK && !h.reading {
		return unix.EBADF
	}
	return h.f.locks.lock(h.f.locks.bytes, lockKey{use: h.use, at: at, owner: h}, kind, true, h.alive)
}

func (h *handle) ByteLocked(at int64) (bool, error) {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	if !h.alive() {
		return false, h.dead()
	}
	return conflicts(h.f.locks.bytes, lockKey{use: h.use, at: at, owner: h}, unix.F_WRLCK), nil
}
