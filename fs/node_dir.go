package fs

import (
	"context"
	"sync"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	disk "kmsfs/fs/volume"
)

var (
	_ gofs.NodeOpendirHandler = (*node)(nil)
	_ gofs.FileReaddirenter   = (*listing)(nil)
	_ gofs.FileSeekdirer      = (*listing)(nil)
	_ gofs.FileFsyncdirer     = (*listing)(nil)
	_ gofs.FileReleasedirer   = (*listing)(nil)
)

// listing is an open directory. It shows the entries that were there when it was opened or rewound.
type listing struct {
	n *node

	mu      sync.Mutex // guards what follows; volume.tree is taken under it
	entries []fuse.DirEntry
	next    int
}

// OpendirHandle opens a directory for reading.
func (n *node) OpendirHandle(context.Context, uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	l := &listing{n: n}
	if err := l.open(); err != nil {
		return nil, 0, n.v.errno(err, "read directory", n.describe())
	}
	return l, 0, 0
}

// open keeps the directory in use while it is open, so that it is there for fstat(2) when it is removed.
func (l *listing) open() error {
	v := l.n.v
	if err := v.tree.RLock(); err != nil {
		return err
	}
	u, err := v.use(l.n.in)
	v.tree.RUnlock()
	if err != nil {
		return err
	}
	if err := l.load(); err != nil {
		u.release()
		return err
	}
	return nil
}

// Releasedir ends the use of the directory.
func (l *listing) Releasedir(context.Context, uint32) { l.n.v.release(l.n.in) }

func (l *listing) load() error {
	v := l.n.v
	if err := v.tree.RLock(); err != nil {
		return err
	}
	defer v.tree.RUnlock()
	u, err := v.use(l.n.in)
	if err != nil {
		return err
	}
	defer u.release()
	dir, err := unix.Openat(u.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	entries, err := disk.ListEntries(dir)
	if err != nil {
		return err
	}
	parent := l.n.in
	if up, ok := parent.link(); ok {
		parent = up.parent
	}
	shown := make([]fuse.DirEntry, 0, len(entries)+2)
	shown = append(shown, fuse.DirEntry{Name: ".", Mode: unix.S_IFDIR, Ino: l.n.in.number}, fuse.DirEntry{Name: "..", Mode: unix.S_IFDIR, Ino: parent.number})
	for _, e := range entries {
		name, ok := v.nameOf(u.fd, u.id, e, l.n.in)
		if ok {
			shown = append(shown, fuse.DirEntry{Name: name, Mode: uint32(e.Kind) << 12, Ino: v.inodes.numberIn(l.n.in, e.Ino)}) // S_IFMT is DT_ << 12
		}
	}
	for i := range shown {
		shown[i].Off = uint64(i) + 1
	}
	l.entries, l.next = shown, 0
	return nil
}

// nameOf returns the name that users see for a backing entry; none if it isn't theirs, or doesn't open.
func (v *volume) nameOf(dir int, id envelope.DirectoryID, e disk.Entry, in *inode) (string, bool) {
	if v.disk.IsControl(e.Name) {
		return "", false
	}
	name, err := v.disk.NameOf(dir, id, e)
	if err != nil {
		v.log.Error("an entry's name doesn't open: it is not shown", "directory", in.path(), "entry", e.Name, "error", err)
		return "", false
	}
	return name, true
}

// Readdirent returns the next entry, nil at the end.
func (l *listing) Readdirent(context.Context) (*fuse.DirEntry, syscall.Errno) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next >= len(l.entries) {
		return nil, 0
	}
	e := &l.entries[l.next]
	l.next++
	return e, 0
}

// Seekdir goes on behind the entry whose Off that is; 0 rewinds, and reads the directory anew.
func (l *listing) Seekdir(_ context.Context, off uint64) syscall.Errno {
	l.mu.Lock()
	defer l.mu.Unlock()
	if off == 0 {
		return l.n.v.errno(l.load(), "read directory", l.n.describe())
	}
	l.next = int(min(off, uint64(len(l.entries))))
	return 0
}

// Fsyncdir is fsync(2) of a directory.
func (l *listing) Fsyncdir(context.Context, uint32) syscall.Errno {
	v := l.n.v
	if err := v.tree.RLock(); err != nil {
		return v.errno(err, "sync directory", l.n.describe())
	}
	defer v.tree.RUnlock()
	return v.errno(v.syncDirectory(l.n.in), "sync directory", l.n.in.path())
}
