package fs

import (
	"context"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"kmsfs/fs/volume/backing"
)

var (
	_ gofs.NodeOpendirHandler = (*node)(nil)
	_ gofs.FileReaddirenter   = (*listing)(nil)
	_ gofs.FileSeekdirer      = (*listing)(nil)
	_ gofs.FileFsyncdirer     = (*listing)(nil)
	_ gofs.FileReleasedirer   = (*listing)(nil)
)

// listing is an open directory. It holds a batch of entries at a time. go-fuse calls its methods
// one after another.
type listing struct {
	n       *node
	dir     int // a descriptor of its own
	entries []fuse.DirEntry
}

// OpendirHandle opens a directory for reading. The directory stays pinned while it is open, so that
// it is there for fstat(2) when it is removed.
func (n *node) OpendirHandle(ctx context.Context, _ uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	o := n.v.operation(ctx)
	defer o.end()
	l := &listing{n: n}
	err := o.run(resolving, func() error {
		ref, err := o.pin(n.in)
		if err != nil {
			return err
		}
		l.dir, err = unix.Openat(ref.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			ref.release()
		}
		return err
	})
	if err != nil {
		return nil, 0, o.errnoOf(err, "read directory", n.in)
	}
	return l, 0, 0
}

// Releasedir ends the use of the directory.
func (l *listing) Releasedir(context.Context, uint32) {
	unix.Close(l.dir)
	l.n.v.dirs.unpin(l.n.in)
}

// Readdirent returns the next entry, nil at the end.
func (l *listing) Readdirent(ctx context.Context) (*fuse.DirEntry, syscall.Errno) {
	o := l.n.v.operation(ctx)
	defer o.end()
	for len(l.entries) == 0 {
		var end bool
		err := o.run(resolving, func() (err error) {
			end, err = l.read(o)
			return err
		})
		if err != nil || end {
			return nil, o.errnoOf(err, "read directory", l.n.in)
		}
	}
	e := &l.entries[0]
	l.entries = l.entries[1:]
	return e, 0
}

// read reads the next batch. A batch may have nothing to show. The caller holds volume.tree, so
// that no name goes before its file is read.
func (l *listing) read(o *operation) (end bool, err error) {
	in := l.n.in
	ref, err := o.pin(in)
	if err != nil {
		return false, err
	}
	defer ref.release()
	entries, err := backing.ReadEntries(l.dir)
	if err != nil || len(entries) == 0 {
		return true, err
	}
	parent := in
	if up, ok := in.link(); ok {
		parent = up.parent
	}
	l.entries = make([]fuse.DirEntry, 0, len(entries))
	for _, e := range entries {
		shown := fuse.DirEntry{Name: e.Name, Mode: uint32(e.Kind) << 12, Off: uint64(e.Off)} // S_IFMT is DT_ << 12
		switch e.Name {
		case ".":
			shown.Ino = in.number
		case "..":
			shown.Ino = parent.number
		default:
			name, ok := o.nameOf(ref, e)
			if !ok {
				continue
			}
			shown.Name, shown.Ino = name, o.inodes.numberIn(in, e.Ino)
		}
		l.entries = append(l.entries, shown)
	}
	return false, nil
}

// nameOf returns the name that users see for a backing entry; none if it isn't theirs, or doesn't
// open.
func (o *resolver) nameOf(dir dirRef, e backing.Entry) (string, bool) {
	if o.disk.IsControl(e.Name) {
		return "", false
	}
	name, err := o.disk.NameOf(backing.FromDescriptor(dir.fd), dir.id(), e)
	if err != nil {
		o.log.Error("an entry's name doesn't open: it is not shown", "directory", dir.in.path(), "entry", e.Name, "error", err)
		return "", false
	}
	return name, true
}

// Seekdir goes on behind the entry that has that Off; 0 rewinds.
func (l *listing) Seekdir(_ context.Context, off uint64) syscall.Errno {
	l.entries = nil
	_, err := unix.Seek(l.dir, int64(off), unix.SEEK_SET)
	return l.n.v.errnoOf(err, "read directory", l.n.in)
}

// Fsyncdir is fsync(2) of a directory.
func (l *listing) Fsyncdir(ctx context.Context, _ uint32) syscall.Errno {
	o := l.n.v.operation(ctx)
	defer o.end()
	return o.errnoOf(o.run(resolving, func() error { return o.syncDirectory(l.n.in) }), "sync directory", l.n.in)
}
