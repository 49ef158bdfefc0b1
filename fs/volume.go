package fs

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"golang.org/x/sys/unix"

	"kmsfs/envelope"
)

// volume is a volume while it is mounted.
type volume struct {
	*backing
	readOnly bool
	// mountpoint is an absolute path.
	mountpoint string
	// multiUser says that this process may give files to their creators: it is root.
	multiUser bool
	log       *slog.Logger

	// tolerance is that of an unclean end before this mount.
	tolerance tolerance
	started   time.Time

	tree  tree
	marks marks

	root     *inode
	inodes   inodes
	dirs     directories
	contents contents

	lock int // descriptor that holds the volume's lock: of the configuration's file
	// configuring is held while the configuration is replaced, and with it lock. It is taken after all other locks but those in the volume.
	configuring sync.Mutex

	// allowOther says that other users than the mount's own may come.
	allowOther bool
	handles    handles
	watch      watch
}

// openVolume opens a volume for mounting, locks it and marks it as being changed.
func openVolume(o MountOptions) (*volume, error) {
	b, err := openBacking(o.Volume, o.Keys, "mount")
	if err != nil {
		return nil, err
	}
	v := &volume{
		backing: b, readOnly: o.ReadOnly, mountpoint: absolute(o.Mountpoint), multiUser: b.uid == 0, allowOther: o.AllowOther, log: o.Log, lock: -1,
		started: time.Now(),
	}
	v.inodes.known = map[uint64]*inode{}
	v.contents.open = map[uint64]*content{}
	v.dirs.idle, v.dirs.most = list.New(), mostDescriptors()
	if err := v.begin(o.Shared); err != nil {
		v.unlock()
		b.close()
		return nil, err
	}
	return v, nil
}

// mostDescriptors is how many directories may be kept open: half of what the process may have open at all.
func mostDescriptors() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 256
	}
	return int(min(limit.Cur/2, 16384))
}

// seen is a path within the volume as processes see it.
func (v *volume) seen(path string) string { return filepath.Join(v.mountpoint, path) }

func (v *volume) begin(shared bool) error {
	lock := v.takeLock
	if shared {
		lock = v.join
	}
	if err := lock(); err != nil {
		return err
	}
	if err := v.reloadConfig(); err != nil { // it may have been replaced before it was locked
		return fmt.Errorf("%s: %w: %w", v.path, ErrVolumeDamaged, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(v.backing.root, &st); err != nil {
		return err
	}
	v.root = v.inodes.get(st.Ino, st.Mode)
	v.root.fd, v.root.uses = v.backing.root, 1 // never closed, as it is always in use
	v.dirs.open = 1
	var err error
	if v.root.record, err = v.readDirectory(v.backing.root); err != nil {
		return fmt.Errorf("%s: %w: the root directory: %w", v.path, ErrVolumeDamaged, err)
	}
	v.root.dirID = v.root.record.ID
	if !v.root.record.LiesAt(envelope.Location{}) {
		return fmt.Errorf("%s: %w: its root directory is that of another place", v.path, ErrVolumeDamaged)
	}
	if !v.root.record.OwnedBy(st.Uid) {
		return fmt.Errorf("%s: %w: it belongs to uid %d, and was uid %d's", v.path, ErrVolumeDamaged, st.Uid, v.root.record.Owners[0])
	}
	if v.tolerance, err = v.takeMarks(); err != nil {
		return err
	}
	if !v.tolerance.since.IsZero() {
		v.log.Warn("the volume was not unmounted cleanly; files changed since then are checked when they are opened", "volume", v.path, "since", v.tolerance.since)
		event := Event{Name: EventUncleanShutdown, Details: map[string]string{"volume": v.path, "since": v.tolerance.since.UTC().String()}}
		return v.keys.Record(context.Background(), self("mount"), event)
	}
	return nil
}

// takeLock makes sure that nobody else has the volume mounted while this process may write to it.
func (v *volume) takeLock() error {
	if err := v.openLock(); err != nil {
		return err
	}
	how := unix.LOCK_EX
	if v.readOnly {
		how = unix.LOCK_SH
	}
	if err := v.flock(how); err != nil {
		return err
	}
	// Of mounts that share a volume not all have a lock on a configuration that one of them has replaced.
	shared, err := v.isShared()
	if err == nil && shared {
		err = fmt.Errorf("%s: %w", v.path, ErrVolumeInUse)
	}
	return err
}

func (v *volume) openLock() error {
	flags := unix.O_RDWR // without which a network file system gives no exclusive lock
	if v.readOnly {
		flags = unix.O_RDONLY
	}
	var err error
	v.lock, err = unix.Openat(v.backing.root, envelope.ConfigName, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		v.lock = -1
		return fmt.Errorf("locking %s: %w", v.path, err)
	}
	return nil
}

// flock locks the configuration's file: the one that has its name once it is locked, as it may be replaced.
func (v *volume) flock(how int) error {
	for {
		err := unix.Flock(v.lock, how|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("%s: %w", v.path, ErrVolumeInUse)
		}
		var locked, named unix.Stat_t
		if err == nil {
			err = errors.Join(unix.Fstat(v.lock, &locked), unix.Fstatat(v.backing.root, envelope.ConfigName, &named, unix.AT_SYMLINK_NOFOLLOW))
		}
		if err != nil {
			return fmt.Errorf("locking %s: %w", v.path, err)
		}
		if locked.Ino == named.Ino && locked.Dev == named.Dev {
			return nil
		}
		unix.Close(v.lock)
		if err := v.openLock(); err != nil {
			return err
		}
	}
}

func (v *volume) unlock() {
	if v.lock >= 0 {
		unix.Close(v.lock)
	}
	if v.tree.hosts != nil {
		v.tree.hosts.close()
	}
	v.marks.close()
}

// end closes everything. With whole, every file is known to need no tolerance, and the volume is marked clean.
func (v *volume) end(whole bool) error {
	var err error
	for _, c := range v.contents.open {
		c.mu.Lock()
		err = errors.Join(err, c.close())
		c.mu.Unlock()
	}
	if !v.readOnly && whole && err == nil {
		err = v.clearMarks()
	}
	event := Event{Name: EventUnmounted, Details: map[string]string{"volume": v.path}}
	err = errors.Join(err, v.keys.Record(context.Background(), self("umount"), event))
	v.dirs.mu.Lock()
	for v.dirs.idle.Len() > 0 {
		v.dirs.drop(v.dirs.idle.Front().Value.(*inode))
	}
	v.dirs.mu.Unlock()
	v.unlock()
	v.close()
	return err
}

// node is a node of the file system as the kernel knows it.
type node struct {
	gofs.Inode
	v  *volume
	in *inode
}

func (n *node) stable() gofs.StableAttr {
	return gofs.StableAttr{Mode: n.in.kind, Ino: n.in.ino, Gen: n.in.gen}
}

// newNode makes the kernel's node for an inode; go-fuse takes the one that it has already, if it has one.
func (n *node) newNode(ctx context.Context, in *inode) *gofs.Inode {
	child := &node{v: n.v, in: in}
	return n.NewInode(ctx, child, child.stable())
}

// OnForget drops what was kept for the kernel.
func (n *node) OnForget() {
	if n.in == n.v.root {
		return
	}
	n.v.inodes.forget(n.in)
	if o := n.in.takeOrphan(); o != nil {
		unix.Close(o.fd)
	}
	if n.in.kind == unix.S_IFDIR {
		n.v.dirs.forget(n.in)
	}
}
