package fs

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/keys"
	disk "kmsfs/fs/volume"
	"kmsfs/fs/volume/backing"
)

// adoption makes what an administrator has put somewhere belong there.
type adoption struct {
	*operation
	call keys.Call
}

// adopt accepts a file or directory that lies elsewhere, or has another owner, than its header or
// record says: an administrator has put it there. What isn't authentic is still denied.
func (a adoption) adopt(in *inode, name string) error {
	if !a.isAdministrator(a.call) {
		return unix.EPERM
	}
	return a.run(changing, func() error {
		e, err := a.entry(link{in, name})
		if err != nil {
			return err
		}
		defer e.release()
		st, err := e.stat()
		if err != nil {
			return err
		}
		a.call.Path = a.seen(e.link.path())
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			return a.file(e)
		case unix.S_IFDIR:
			return a.directory(e)
		}
		return nil
	})
}

// file has the file's header name the location where the file is, as the only one if the file
// has no other links, and its owner.
func (a adoption) file(e dirEntry) error {
	storage, st, err := a.open(e)
	if err != nil {
		return err
	}
	defer unix.Close(backing.Descriptor(storage.File))
	header, err := a.sealed.ReadHeader(storage, false)
	if err != nil {
		return err
	}
	if a.sealed.LiesAt(header, e.location()) && header.OwnedBy(st.Uid) {
		return nil
	}
	if !a.disk.Allows(header.KeyARN) {
		return fmt.Errorf("header names the key %s, which is none of the volume's: %w", header.KeyARN, envelope.ErrAuthentication)
	}
	key, err := a.decrypt(a.call, a.wrapOf(header), header.WrappedKey)
	if err != nil {
		return err
	}
	defer clear(key)
	file, err := a.sealed.OpenFile(storage, header, key, envelope.FileOptions{})
	if err != nil {
		return err
	}
	event := keys.Event{
		Name: keys.EventAdopted, KeyARN: header.KeyARN, Context: header.Context(a.sealed.ID()),
		Details: places(header.Locations, e.location(), e.link.path()),
	}
	event.Details["foundOwner"] = disk.OwnerName(st.Uid)
	err = a.record(a.call.ForRecord(), event)
	if err == nil {
		err = a.settle(file, e, st)
	}
	if err == nil {
		err = file.Sync()
	}
	if err == nil {
		err = disk.SetModified(storage.File, st.Mtim)
	}
	return errors.Join(err, file.Close())
}

// settle has the file's header say where the file is, and which owner it has.
func (a adoption) settle(file *envelope.File, e dirEntry, st unix.Stat_t) error {
	h := file.Header()
	now := h
	now.Path, now.Owner, now.NextOwner = e.link.path(), st.Uid, nil
	made, err := a.reEncrypt(a.call.BySelf(), h.WrappedKey, a.wrapOf(&h), a.wrapOf(&now))
	if err != nil {
		return err
	}
	return file.ChangeHeader(func(h *envelope.Header) error {
		h.Path, h.Owner, h.NextOwner, h.WrappedKey = now.Path, now.Owner, nil, made.Wrapped
		if st.Nlink == 1 {
			h.Locations, h.LinkDigests = nil, nil
		}
		a.sealed.AddLocation(h, e.location())
		return nil
	})
}

// open opens a file that may belong nowhere, for writing. It must not be open through the
// mount.
func (a adoption) open(e dirEntry) (*disk.Storage, unix.Stat_t, error) {
	st, err := e.stat()
	if err != nil {
		return nil, st, err
	}
	if a.files.find(identityOf(&st)) != nil {
		return nil, st, unix.EBUSY
	}
	fd, err := unix.Openat(e.fd, e.name(), unix.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if errors.Is(err, unix.EACCES) {
		fd, err = openOwned(e.fd, e.name())
	}
	if err != nil {
		return nil, st, err
	}
	return disk.NewStorage(backing.FromDescriptor(fd)), st, nil
}

// directory makes the directory's record name the location where the directory is, as the only
// one, and its owner.
func (a adoption) directory(e dirEntry) error {
	fd, err := unix.Openat(e.fd, e.name(), unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	record, err := a.disk.ReadDirectory(backing.FromDescriptor(fd))
	if err != nil {
		return err
	}
	owner, err := disk.OwnerOf(backing.FromDescriptor(fd))
	if err != nil || record.LiesAt(e.location()) && record.OwnedBy(owner) {
		return err
	}
	event := keys.Event{Name: keys.EventAdopted, Details: places(record.Locations, e.location(), e.link.path())}
	event.Details["foundOwner"] = disk.OwnerName(owner)
	if err := a.record(a.call.ForRecord(), event); err != nil {
		return err
	}
	record.Locations, record.Owners = []envelope.Location{e.location()}, []uint32{owner}
	return a.disk.ReplaceDirectory(backing.FromDescriptor(fd), record)
}
