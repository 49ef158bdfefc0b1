package fs

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/keys"
	disk "kmsfs/fs/volume"
)

// adopt accepts a file or directory that lies elsewhere, or has another owner, than its header or
// record says: an administrator has put it there. What isn't authentic is refused as ever.
func (o *operation) adopt(call keys.Call, in *inode, name string) error {
	if !o.isAdministrator(call) {
		return unix.EPERM
	}
	return o.run(changing, func() error {
		e, err := o.entry(link{in, name})
		if err != nil {
			return err
		}
		defer e.release()
		st, err := e.stat()
		if err != nil {
			return err
		}
		call.Path = o.seen(e.link.path())
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			return o.adoptFile(call, e)
		case unix.S_IFDIR:
			return o.adoptDirectory(call, e)
		}
		return nil
	})
}

// adoptFile has the file's header name the location where the file is, as the only one if the file
// has no other links, and its owner.
func (o *operation) adoptFile(call keys.Call, e dirEntry) error {
	storage, st, err := o.openDisowned(e)
	if err != nil {
		return err
	}
	defer unix.Close(storage.FD)
	header, err := o.sealed.ReadHeader(storage, false)
	if err != nil {
		return err
	}
	if o.sealed.LiesAt(header, e.location()) && header.OwnedBy(st.Uid) {
		return nil
	}
	if !o.disk.Allows(header.KeyARN) {
		return fmt.Errorf("header names the key %s, which is none of the volume's: %w", header.KeyARN, envelope.ErrAuthentication)
	}
	key, err := o.decrypt(call, o.wrapOf(header), header.WrappedKey)
	if err != nil {
		return err
	}
	defer clear(key)
	file, err := o.sealed.OpenFile(storage, header, key, envelope.FileOptions{})
	if err != nil {
		return err
	}
	event := keys.Event{
		Name: keys.EventAdopted, KeyARN: header.KeyARN, Context: header.Context(o.sealed.ID()),
		Details: places(header.Locations, e.location(), e.link.path()),
	}
	event.Details["foundOwner"] = disk.OwnerName(st.Uid)
	err = o.record(call.ForRecord(), event)
	if err == nil {
		err = o.settleAdopted(call, file, e, st)
	}
	if err == nil {
		err = file.Sync()
	}
	if err == nil {
		err = disk.SetModified(storage.FD, st.Mtim)
	}
	return errors.Join(err, file.Close())
}

// settleAdopted has the file's header say where the file is, and which owner it has.
func (o *operation) settleAdopted(call keys.Call, file *envelope.File, e dirEntry, st unix.Stat_t) error {
	h := file.Header()
	now := h
	now.Path, now.Owner, now.NextOwner = e.link.path(), st.Uid, nil
	made, err := o.reEncrypt(call.BySelf(), h.WrappedKey, o.wrapOf(&h), o.wrapOf(&now))
	if err != nil {
		return err
	}
	return file.ChangeHeader(func(h *envelope.Header) error {
		h.Path, h.Owner, h.NextOwner, h.WrappedKey = now.Path, now.Owner, nil, made.Wrapped
		if st.Nlink == 1 {
			h.Locations, h.LinkDigests = nil, nil
		}
		o.sealed.AddLocation(h, e.location())
		return nil
	})
}

// openDisowned opens a file that may belong nowhere, for writing. It must not be open through the
// mount.
func (o *operation) openDisowned(e dirEntry) (*disk.Storage, unix.Stat_t, error) {
	st, err := e.stat()
	if err != nil {
		return nil, st, err
	}
	if o.files.find(identityOf(&st)) != nil {
		return nil, st, unix.EBUSY
	}
	fd, err := unix.Openat(e.fd, e.name(), unix.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if errors.Is(err, unix.EACCES) {
		fd, err = disk.OpenOwned(e.fd, e.name(), unix.O_CLOEXEC)
	}
	if err != nil {
		return nil, st, err
	}
	return &disk.Storage{FD: fd}, st, nil
}

// adoptDirectory makes the directory's record name the location where the directory is, as the only
// one, and its owner.
func (o *operation) adoptDirectory(call keys.Call, e dirEntry) error {
	fd, err := unix.Openat(e.fd, e.name(), unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	record, err := o.disk.ReadDirectory(fd)
	if err != nil {
		return err
	}
	owner, err := disk.OwnerOf(fd)
	if err != nil || record.LiesAt(e.location()) && record.OwnedBy(owner) {
		return err
	}
	event := keys.Event{Name: keys.EventAdopted, Details: places(record.Locations, e.location(), e.link.path())}
	event.Details["foundOwner"] = disk.OwnerName(owner)
	if err := o.record(call.ForRecord(), event); err != nil {
		return err
	}
	record.Locations, record.Owners = []envelope.Location{e.location()}, []uint32{owner}
	return o.disk.ReplaceDirectory(fd, record)
}
