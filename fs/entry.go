package fs

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/keys"
	disk "kmsfs/fs/volume"
	"kmsfs/fs/volume/backing"
)

// dirEntry is a name in a pinned directory: as users see it, and as the volume has it.
type dirEntry struct {
	dirRef
	link    link
	backing envelope.BackingName
}

// entry resolves a name. The caller holds volume.tree, and releases the dirEntry.
func (o *resolver) entry(l link) (dirEntry, error) {
	dir, err := o.pin(l.parent)
	if err != nil {
		return dirEntry{}, err
	}
	name, err := o.sealed.EncryptName(dir.id(), l.name)
	if err != nil {
		dir.release()
		return dirEntry{}, err
	}
	return dirEntry{dir, l, name}, nil
}

func (e dirEntry) name() string { return e.backing.Entry }

func (e dirEntry) location() envelope.Location {
	return envelope.Location{Directory: e.id(), Name: e.link.name}
}

func (e dirEntry) stat() (st unix.Stat_t, err error) {
	err = unix.Fstatat(e.fd, e.name(), &st, unix.AT_SYMLINK_NOFOLLOW)
	return st, err
}

// leadsTo returns ESTALE if the name is another inode's by now, or no inode's.
func (e dirEntry) leadsTo(in *inode) error {
	st, err := e.stat()
	if errors.Is(err, unix.ENOENT) || err == nil && !in.is(&st) {
		return unix.ESTALE
	}
	return err
}

// place is where a regular file is opened.
func (e dirEntry) place() place {
	return place{dir: e.fd, entry: e.name(), location: e.location(), path: e.link.path()}
}

// procPath names the entry for system calls that take a path and don't follow links.
func (e dirEntry) procPath() string { return procPath(e.fd) + "/" + e.name() }

func (e dirEntry) chown(uid, gid int) error {
	return unix.Fchownat(e.fd, e.name(), uid, gid, unix.AT_SYMLINK_NOFOLLOW)
}

// prepareName writes the file that holds a long name. It comes before the entry.
func (e dirEntry) prepareName() error {
	if e.backing.Long == "" {
		return nil
	}
	return disk.WriteControl(backing.FromDescriptor(e.fd), envelope.LongFile(e.name()), []byte(e.backing.Long), true)
}

// dropName removes the file of a long name after its entry is gone. One that stays has no meaning.
func (e dirEntry) dropName() {
	if e.backing.Long != "" {
		_ = unix.Unlinkat(e.fd, envelope.LongFile(e.name()), 0)
	}
}

// found returns the inode of what was found at e. What doesn't belong there is not taken for the
// inode that is known elsewhere.
func (o *operation) found(e dirEntry, st unix.Stat_t) *inode {
	in := o.inodes.get(&st)
	if o.shared() && o.isGone(in) {
		in = o.inodes.create(&st)
	}
	switch {
	case in.kind == unix.S_IFDIR:
		in = o.foundDirectory(in, e, st)
	case o.planted(in, e, st):
		in = o.inodes.apart(in)
	}
	if o.shared() && st.Nlink == 1 {
		in.setLink(e.link) // its other names, other mounts have removed
	} else {
		in.addLink(e.link)
	}
	return in
}

// foundDirectory returns the inode of the directory that was found at e. It is in, which has its
// number, if in is known by no other name, or if the directory's record has the same ID and names
// this location and the owner. What is known beneath it then has a new path.
func (o *operation) foundDirectory(in *inode, e dirEntry, st unix.Stat_t) *inode {
	if _, known := in.link(); in == o.root || !known || in.knows(e.link) && !o.shared() {
		return in
	}
	fd, err := unix.Openat(e.fd, e.name(), unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return o.inodes.apart(in)
	}
	defer unix.Close(fd)
	record, err := o.disk.ReadDirectory(backing.FromDescriptor(fd))
	if err != nil {
		return o.inodes.apart(in)
	}
	owner, err := disk.OwnerOf(backing.FromDescriptor(fd))
	switch {
	case err != nil || !record.LiesAt(e.location()) || !record.OwnedBy(owner):
		return o.inodes.apart(in)
	case !in.mayBe(record.ID):
		return o.inodes.create(&st)
	}
	in.dropRecord() // another mount has moved it, or it was adopted
	return in
}

// planted says whether another link to a file is one that the file's header doesn't name. The
// kernel doesn't say by which of its names a file is opened, so each is checked when it is found.
func (o *operation) planted(in *inode, e dirEntry, st unix.Stat_t) bool {
	if in.kind != unix.S_IFREG || st.Nlink < 2 || in.knows(e.link) && !o.shared() {
		return false
	}
	fd, err := unix.Openat(e.fd, e.name(), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EACCES) {
		fd, err = openOwned(e.fd, e.name())
	}
	if err != nil {
		return true
	}
	defer unix.Close(fd)
	h, err := o.sealed.ReadHeader(disk.NewStorage(backing.FromDescriptor(fd)), false)
	return err != nil || !o.sealed.LiesAt(h, e.location())
}

// settle opens a file that an unclean end may have left behind its header, which repairs it, before
// its size is told.
func (o *operation) settle(in *inode, e dirEntry, st unix.Stat_t) error {
	if in.kind != unix.S_IFREG || o.readOnly || !o.tolerance.Covers(st.Ctim) || !time.Unix(st.Ctim.Unix()).Before(o.started) {
		return nil
	}
	c, err := o.open(keys.Self("repair"), in, e.place(), false)
	if err == nil {
		err = c.release()
	}
	if isUnanswered(err) {
		return err
	}
	return nil // an open of the file reports what is wrong with it
}
