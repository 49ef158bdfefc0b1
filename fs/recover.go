package fs

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/keys"
	disk "kmsfs/fs/volume"
)

// recovery goes through a volume that was not unmounted cleanly and opens every file that may be one step behind, so that
// each is repaired, and none needs tolerance once the volume is marked clean.
type recovery struct {
	v      *volume
	before time.Time // files changed later were changed by this mount
	cancel context.CancelFunc
	done   sync.WaitGroup
	whole  bool // guarded by done: set before it ends
}

// startRecovery begins the search in the background, if there is need.
func (v *volume) startRecovery() *recovery {
	ctx, cancel := context.WithCancel(context.Background())
	r := &recovery{v: v, before: time.Now(), cancel: cancel}
	if v.tolerance.Since.IsZero() || v.readOnly {
		r.whole = true
		return r
	}
	r.done.Go(func() {
		r.whole = r.directory(ctx, v.root)
		if r.whole {
			v.log.Info("all files that an unclean end may have left behind are checked", "volume", v.path)
		}
	})
	return r
}

// stop ends the search and says whether it had come to its end without leaving anything out.
func (r *recovery) stop() bool {
	r.cancel()
	r.done.Wait()
	return r.whole
}

// directory goes through a directory and what is beneath. It says whether all of it was seen.
func (r *recovery) directory(ctx context.Context, in *inode) bool {
	children, whole := r.children(in)
	for _, child := range children {
		if ctx.Err() != nil {
			return false
		}
		if child.in.kind == unix.S_IFDIR {
			whole = r.directory(ctx, child.in) && whole
		} else if !r.file(child) {
			whole = false
		}
	}
	return whole
}

// child is a directory, or a regular file that may be one step behind, which holds its own inode: not the kernel's.
type child struct {
	in   *inode
	link link
}

// children returns what is to be looked at in a directory.
func (r *recovery) children(in *inode) (found []child, whole bool) {
	v := r.v
	if err := v.tree.RLock(); err != nil {
		return nil, v.gone(err, "look through", "/")
	}
	defer v.tree.RUnlock()
	u, err := v.use(in)
	if err != nil {
		return nil, v.gone(err, "look through", in.path())
	}
	defer u.release()
	dir, err := unix.Openat(u.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, v.gone(err, "look through", in.path())
	}
	defer unix.Close(dir)
	entries, err := disk.ListEntries(dir)
	if err != nil {
		return nil, v.gone(err, "look through", in.path())
	}
	for _, e := range entries {
		var st unix.Stat_t
		if unix.Fstatat(u.fd, e.Name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
			continue
		}
		kind := st.Mode & unix.S_IFMT
		changed := kind == unix.S_IFREG && v.tolerance.Covers(st.Ctim) && time.Unix(st.Ctim.Unix()).Before(r.before)
		if kind != unix.S_IFDIR && !changed {
			continue
		}
		if name, ok := v.nameOf(u.fd, u.id, e, in); ok {
			l := link{in, name}
			at := spot{u, l, envelope.BackingName{Entry: e.Name}}
			found = append(found, child{in: v.found(at, st), link: l})
		}
	}
	return found, true
}

// gone says whether an error only means that something was removed or moved meanwhile.
func (v *volume) gone(err error, op, path string) bool {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESTALE) {
		return true
	}
	_ = v.errno(err, op, path)
	// What is not authentic stays so with tolerance or without.
	return errors.Is(err, envelope.ErrAuthentication) || errors.Is(err, envelope.ErrFormat) || errors.Is(err, disk.ErrMismatch)
}

// file opens and reads a file, which repairs it.
func (r *recovery) file(c child) bool {
	v := r.v
	if err := v.tree.RLock(); err != nil {
		return v.gone(err, "check", c.link.name)
	}
	content, _, err := v.openKnown(keys.Self("repair"), c.in, false, false)
	path := c.link.path()
	v.tree.RUnlock()
	if err != nil {
		return v.gone(err, "check", path)
	}
	err = errors.Join(content.use(content.writable, (*envelope.File).Check), content.release())
	return err == nil || v.gone(err, "check", path)
}
