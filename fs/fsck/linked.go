package fsck

import (
	"sync"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
)

// linkedInodes are files with several links: their content is read at one of them.
type linkedInodes struct {
	mu   sync.Mutex // guards what follows
	seen map[uint64]*linkedInode
}

// linkedInode is what is known of such a file.
type linkedInode struct {
	left uint64        // links that were not come by yet; guarded by linkedInodes.mu
	done chan struct{} // closed when who came first has read the content
	mine bool          // of the copy that the first has
	bad  *[]envelope.Span
}

// mostLinkedInodes bounds that memory: if there are more at a time, some are read more than once.
const mostLinkedInodes = 1 << 20

func newLinkedInodes() linkedInodes { return linkedInodes{seen: map[uint64]*linkedInode{}} }

// visit is called at each link. Who comes first gets one that is his, reads the content and leaves
// it.
func (l *linkedInodes) visit(st unix.Stat_t) *linkedInode {
	l.mu.Lock()
	defer l.mu.Unlock()
	if known := l.seen[st.Ino]; known != nil {
		if known.left--; known.left == 0 {
			delete(l.seen, st.Ino)
		}
		return known
	}
	first := linkedInode{left: uint64(st.Nlink) - 1, done: make(chan struct{}), bad: new([]envelope.Span)}
	if len(l.seen) < mostLinkedInodes {
		l.seen[st.Ino] = &first
	}
	mine := first
	mine.mine = true
	return &mine
}

// parts are what is to be read: everything for who comes first, and what did not open then for all
// others.
func (l *linkedInode) parts() []envelope.Span {
	if l.mine {
		return []envelope.Span{envelope.Everything()}
	}
	<-l.done
	return *l.bad
}

// found notes what did not open.
func (l *linkedInode) found(bad []envelope.Span) {
	if l != nil && l.mine {
		*l.bad = bad
	}
}

// leave lets the others go on.
func (l *linkedInode) leave() {
	if l.mine {
		close(l.done)
	}
}
