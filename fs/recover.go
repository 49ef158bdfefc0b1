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
	"kmsfs/fs/volume/backing"
)

// recovery goes through a volume that was not unmounted cleanly and opens every file that may be
// one step behind, so that each is repaired, and none needs tolerance once the volume is marked
// clean.
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
		r.whole = r.search(ctx)
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

// search goes through the volume. It says whether all of it was seen. The inodes that it makes last
// as long as it needs them.
func (r *recovery) search(ctx context.Context) bool {
	whole := true
	for waiting := []*inode{r.v.root}; len(waiting) > 0; {
		last := len(waiting) - 1
		dir := waiting[last]
		waiting = waiting[:last]
		children, all := r.children(ctx, dir)
		whole = whole && all
		for _, child := range children {
			switch {
			case ctx.Err() != nil:
				return false
			case child.in.kind == unix.S_IFDIR:
				waiting = append(waiting, child.in)
			case !r.file(ctx, child):
				whole = false
			}
		}
	}
	return whole
}

// child is a directory, or a regular file that may be one step behind its header.
type child struct {
	in   *inode
	link link
}

// children returns what is to be looked at in a directory, and whether that is all.
func (r *recovery) children(ctx context.Context, in *inode) (found []child, whole bool) {
	o := r.v.operation(ctx)
	defer o.end()
	err := o.run(resolving, func() (err error) {
		found, err = r.list(o, in)
		return err
	})
	return found, err == nil || r.gone(err, "look through", in)
}

func (r *recovery) list(o *operation, in *inode) (found []child, err error) {
	ref, err := o.pin(in)
	if err != nil {
		return nil, err
	}
	defer ref.release()
	dir, err := unix.Openat(ref.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	err = backing.FromDescriptor(dir).EachBatch(func(entries []backing.Entry) error {
		for _, e := range entries {
			var st unix.Stat_t
			if unix.Fstatat(ref.fd, e.Name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || !r.concerns(st) {
				continue
			}
			if name, ok := o.nameOf(ref, e); ok {
				l := link{in, name}
				at := dirEntry{ref, l, envelope.BackingName{Entry: e.Name}}
				found = append(found, child{in: o.found(at, st), link: l})
			}
		}
		return nil
	})
	return found, err
}

// concerns says whether something is a directory, or a file that may be one step behind its header.
func (r *recovery) concerns(st unix.Stat_t) bool {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return true
	case unix.S_IFREG:
		return r.v.tolerance.Covers(st.Ctim) && time.Unix(st.Ctim.Unix()).Before(r.before)
	}
	return false
}

// gone says whether an error only means that something was removed or moved meanwhile.
func (r *recovery) gone(err error, op string, in *inode) bool {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESTALE) {
		return true
	}
	_ = r.v.errnoOf(err, op, in)
	// What is not authentic stays so with tolerance or without.
	return errors.Is(err, envelope.ErrAuthentication) || errors.Is(err, envelope.ErrFormat) || errors.Is(err, disk.ErrMismatch)
}

// file opens and reads a file, which repairs it.
func (r *recovery) file(ctx context.Context, c child) bool {
	o := r.v.operation(ctx)
	defer o.end()
	var open *openFile
	err := o.run(resolving, func() (err error) {
		open, _, err = o.openKnown(keys.Self("repair"), c.in, false, false)
		return err
	})
	if err == nil {
		err = errors.Join(open.do(ctx, open.writable, (*envelope.File).Check), open.release())
	}
	return err == nil || r.gone(err, "check", c.in)
}
