package fs

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
)

// rewrap wraps the data key of the file of that name in the directory anew: under the KMS key that holds there, its current material, and the path where the
// file is. What is wrapped so already is left alone, and directories have no data key. "" on the root is the volume's metadata key.
func (n *node) rewrap(call Call, name string) error {
	v := n.v
	if err := v.tree.RLock(); err != nil {
		return err
	}
	defer v.tree.RUnlock()
	if name == "" {
		return v.rewrapMetadata(call, n.in)
	}
	under, err := v.governing(n.in)
	if err != nil {
		return err
	}
	s, err := v.spot(link{n.in, name})
	if err != nil {
		return err
	}
	defer s.release()
	st, err := s.stat()
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return err
	}
	if call.Caller.UID != st.Uid && call.Caller.UID != 0 {
		return unix.EPERM
	}
	c, err := v.open(call, v.found(s, st), s.place(), true)
	if err != nil {
		return err
	}
	return errors.Join(c.rewrapUnder(call, under.key, s.link.path()), c.release())
}

func (c *content) rewrapUnder(call Call, key, path string) error {
	v := c.v
	call.Path = v.seen(path)
	h := c.file().Header()
	wanted := h
	wanted.Path = path
	to := Wrap{key, wanted.Context(v.sealed.ID())}
	if h.Path == path {
		use := Use{Caller: call.Caller, Action: ActionDecrypt, Wrap: to, Wrapped: h.WrappedKey}
		if answers, err := v.keys.Check(context.Background(), []Use{use}); err != nil || answers[0].Current {
			return err
		}
	}
	if err := v.mayGenerate(call, to); err != nil {
		return err
	}
	return c.wrapUnder(call, key, path)
}

// rewrapMetadata wraps the volume's metadata key under the KMS key that holds in the root, which is from then on the one of the volume.
func (v *volume) rewrapMetadata(call Call, in *inode) error {
	if in != v.root {
		return unix.EINVAL
	}
	if !v.isAdministrator(call) {
		return unix.EPERM
	}
	under, err := v.governing(in)
	if err != nil {
		return err
	}
	config := v.sealed.Config()
	to := Wrap{under.key, config.Context()}
	if err := v.mayGenerate(call, to); err != nil {
		return err
	}
	made, err := v.keys.ReEncrypt(context.Background(), call.bySelf(), config.MetadataKey, Wrap{config.MetadataKeyARN, config.Context()}, to)
	if err != nil {
		return err
	}
	if err := v.allow(made.KeyARN); err != nil {
		return err
	}
	return v.changeConfig(func(c *envelope.Config) error {
		c.KeyARN, c.MetadataKeyARN, c.MetadataKey = made.KeyARN, made.KeyARN, made.Wrapped
		return nil
	})
}

// adopt accepts a file or directory that lies elsewhere, or belongs to somebody else, than its header or record says: an administrator has put it there. What
// isn't authentic is refused as ever.
func (n *node) adopt(call Call, name string) error {
	v := n.v
	if !v.isAdministrator(call) {
		return unix.EPERM
	}
	if err := v.tree.Lock(); err != nil {
		return err
	}
	defer v.tree.Unlock()
	s, err := v.spot(link{n.in, name})
	if err != nil {
		return err
	}
	defer s.release()
	call.Path = v.seen(s.link.path())
	st, err := s.stat()
	if err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return v.adoptFile(call, s)
	case unix.S_IFDIR:
		return v.adoptDirectory(call, s)
	}
	return nil
}

// adoptFile makes the place where the file is its own, the only one if it has no other links, and its owner the one that the header names.
func (v *volume) adoptFile(call Call, s spot) error {
	c, st, err := v.openDisowned(s)
	if err != nil {
		return err
	}
	defer unix.Close(c.fd)
	header, err := v.sealed.ReadHeader(c, false)
	if err != nil {
		return err
	}
	if v.sealed.LiesAt(header, s.location()) && header.OwnedBy(st.Uid) {
		return nil
	}
	if !v.allows(header.KeyARN) {
		return fmt.Errorf("header names the key %s, which is none of the volume's: %w", header.KeyARN, envelope.ErrAuthentication)
	}
	key, err := v.keys.Decrypt(context.Background(), call, header.KeyARN, header.WrappedKey, header.Context(v.sealed.ID()))
	if err != nil {
		return err
	}
	defer clear(key)
	file, err := v.sealed.OpenFile(c, header, key, envelope.FileOptions{})
	if err != nil {
		return err
	}
	event := Event{
		Name: EventAdopted, KeyARN: header.KeyARN, Context: header.Context(v.sealed.ID()),
		Details: places(header.Locations, s.location(), s.link.path()),
	}
	event.Details["foundOwner"] = ownerName(st.Uid)
	err = v.keys.Record(context.Background(), call.own(), event)
	if err == nil {
		err = v.settleAdopted(call, file, s, st)
	}
	if err == nil {
		err = errors.Join(file.Sync(), setModified(c.fd, st.Mtim))
	}
	return errors.Join(err, file.Close())
}

// settleAdopted has the file's header say where and whose it is.
func (v *volume) settleAdopted(call Call, file *envelope.File, s spot, st unix.Stat_t) error {
	h := file.Header()
	now := h
	now.Path, now.Owner, now.NextOwner = s.link.path(), st.Uid, nil
	made, err := v.keys.ReEncrypt(context.Background(), call.bySelf(), h.WrappedKey,
		Wrap{h.KeyARN, h.Context(v.sealed.ID())}, Wrap{h.KeyARN, now.Context(v.sealed.ID())})
	if err != nil {
		return err
	}
	return file.ChangeHeader(func(h *envelope.Header) error {
		h.Path, h.Owner, h.NextOwner, h.WrappedKey = now.Path, now.Owner, nil, made.Wrapped
		if st.Nlink == 1 {
			h.Locations, h.LinkDigests = nil, nil
		}
		v.sealed.AddLocation(h, s.location())
		return nil
	})
}

// openDisowned opens a file that may be nobody's, for writing. Nobody may have it open through the mount.
func (v *volume) openDisowned(s spot) (*storage, unix.Stat_t, error) {
	st, err := s.stat()
	if err != nil {
		return nil, st, err
	}
	if c := v.contents.find(&inode{ino: st.Ino}); c != nil {
		return nil, st, unix.EBUSY
	}
	fd, err := unix.Openat(s.fd, s.entry(), unix.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if errors.Is(err, unix.EACCES) {
		fd, err = openOwned(s.place(), unix.O_CLOEXEC)
	}
	if err != nil {
		return nil, st, err
	}
	return &storage{fd: fd}, st, nil
}

// adoptDirectory makes the place where the directory is its only one, and its owner the one that the record names.
func (v *volume) adoptDirectory(call Call, s spot) error {
	fd, err := unix.Openat(s.fd, s.entry(), unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	record, err := v.readDirectory(fd)
	if err != nil {
		return err
	}
	owner, err := ownerOf(fd)
	if err != nil || record.LiesAt(s.location()) && record.OwnedBy(owner) {
		return err
	}
	event := Event{Name: EventAdopted, Details: places(record.Locations, s.location(), s.link.path())}
	event.Details["foundOwner"] = ownerName(owner)
	if err := v.keys.Record(context.Background(), call.own(), event); err != nil {
		return err
	}
	record.Locations, record.Owners = []envelope.Location{s.location()}, []uint32{owner}
	if err := v.writeDirectory(fd, record, true); err != nil {
		return err
	}
	return syncControl(fd, envelope.DirectoryName)
}
