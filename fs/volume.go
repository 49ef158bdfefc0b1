package fs

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/keys"
	"kmsfs/fs/lock"
	disk "kmsfs/fs/volume"
	"kmsfs/fs/volume/backing"
)

// volume is a volume while it is mounted. Its parts have their state and their locks: see
// docs/locking.md.
type volume struct {
	disk   *disk.Session
	sealed *envelope.Volume
	keys   keys.Service
	// path is the volume's directory as the caller gave it, mountpoint an absolute path.
	path, mountpoint string
	readOnly         bool
	// multiUser says that this process may give files to their creators: it is root.
	multiUser bool
	// allowOther says that other users than the mount's own may come.
	allowOther bool
	log        *slog.Logger

	// tolerance is that of an unclean end before this mount.
	tolerance disk.Tolerance
	started   time.Time

	// tree guards the names of inodes against the names in the volume. It comes before all other
	// locks.
	tree disk.Sharing

	root       *inode
	inodes     *inodeTable
	dirs       *directoryCache
	files      *openFiles
	revocation *revocation
	reports    reports
}

// openVolume opens a volume for mounting, locks it and marks it as being changed.
func openVolume(o MountOptions) (*volume, error) {
	b, err := disk.Open(o.Volume, o.Keys, "mount")
	if err != nil {
		return nil, err
	}
	session, err := b.Begin(disk.SessionOptions{ReadOnly: o.ReadOnly, Shared: o.Shared})
	if err != nil {
		b.Close()
		return nil, err
	}
	v := &volume{
		disk: session, sealed: b.Sealed, keys: o.Keys, path: o.Volume, mountpoint: absolute(o.Mountpoint), readOnly: o.ReadOnly,
		multiUser: b.UID == 0, log: o.Log, tolerance: session.Tolerance, started: time.Now(), tree: session.Sharing, allowOther: o.AllowOther,
		files: newOpenFiles(),
	}
	v.revocation, v.reports.v = newRevocation(v), v
	if err := v.start(); err != nil {
		return nil, errors.Join(err, session.End(v.tolerance.Since.IsZero()))
	}
	return v, nil
}

// shared says that other mounts may change the volume at the same time.
func (v *volume) shared() bool { return !v.tree.Alone() }

// seen is a path within the volume as processes see it.
func (v *volume) seen(path string) string { return filepath.Join(v.mountpoint, path) }

// isAdministrator says whether a caller may do to the volume what no other may: it is root, or the
// user that the mount belongs to.
func (v *volume) isAdministrator(call keys.Call) bool {
	return call.Caller.UID == 0 || call.Caller.UID == v.disk.UID
}

// start makes the root's inode, and records an unclean end.
func (v *volume) start() error {
	var st unix.Stat_t
	if err := unix.Fstat(backing.Descriptor(v.disk.Root), &st); err != nil {
		return err
	}
	v.inodes = newInodeTable(v, &st)
	v.root = v.inodes.get(&st)
	v.root.setRecord(v.disk.RootRecord, false)
	v.dirs = newDirectoryCache(v.root, backing.Descriptor(v.disk.Root))
	if v.tolerance.Since.IsZero() {
		return nil
	}
	v.log.Warn("the volume was not unmounted cleanly; files changed since then are checked when they are opened", "volume", v.path, "since", v.tolerance.Since)
	event := keys.Event{Name: keys.EventUncleanShutdown, Details: map[string]string{"volume": v.path, "since": v.tolerance.Since.UTC().String()}}
	return v.keys.Record(context.Background(), keys.Self("mount"), event)
}

// end closes everything. With whole, every file is known to need no tolerance, and the volume is
// marked clean.
func (v *volume) end(whole bool) error {
	err := v.files.close()
	v.dirs.close()
	v.reports.wait()
	lock.Finish()
	return errors.Join(err, v.disk.End(whole && err == nil))
}

// node is an inode as the kernel knows it, by go-fuse's table: a part of inode.
type node struct {
	gofs.Inode
	v  *volume
	in *inode
}

func (n *node) stable() gofs.StableAttr {
	return gofs.StableAttr{Mode: n.in.kind, Ino: n.in.number, Gen: n.in.gen}
}

// newNode returns go-fuse's part of an inode, which is made once. What the kernel has forgotten, it
// may come to know again by the same node.
func (n *node) newNode(ctx context.Context, in *inode) *gofs.Inode {
	in.announce.Do(func() { n.NewInode(ctx, &in.node, in.node.stable()) })
	return &in.node.Inode
}

// OnForget drops what was kept for the kernel. go-fuse calls it without a lock, so the kernel may
// know the inode again by now: nothing may depend on that it doesn't. A descriptor of a directory
// is opened again when it is needed; a file without a name can't be looked up again.
func (n *node) OnForget() {
	if n.in == n.v.root {
		return
	}
	n.in.dropOrphan()
	if n.in.kind == unix.S_IFDIR {
		n.v.dirs.forget(n.in)
	}
}
