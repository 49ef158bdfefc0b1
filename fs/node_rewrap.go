package fs

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/keys"
	disk "kmsfs/fs/volume"
)

// rewrap wraps the data key of the file of that name in the directory anew: under the KMS key that holds there, its current material, and the path where the
// file is. What is wrapped so already is left alone, and directories have no data key. "" on the root is the volume's metadata key.
func (n *node) rewrap(call keys.Call, name string) error {
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

func (c *content) rewrapUnder(call keys.Call, key, path string) error {
	v := c.v
	call.Path = v.seen(path)
	h := c.file().Header()
	wanted := h
	wanted.Path = path
	to := keys.Wrap{Key: key, Context: wanted.Context(v.sealed.ID())}
	if h.Path == path {
		use := keys.Use{Caller: call.Caller, Action: keys.ActionDecrypt, Wrap: to, Wrapped: h.WrappedKey}
		if answers, err := v.keys.Check(context.Background(), []keys.Use{use}); err != nil || answers[0].Current {
			return err
		}
	}
	if err := v.mayGenerate(call, to); err != nil {
		return err
	}
	return c.wrapUnder(call, key, path)
}

// rewrapMetadata wraps the volume's metadata key under the KMS key that holds in the root, which is from then on the one of the volume.
func (v *volume) rewrapMetadata(call keys.Call, in *inode) error {
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
	to := keys.Wrap{Key: under.key, Context: config.Context()}
	if err := v.mayGenerate(call, to); err != nil {
		return err
	}
	made, err := v.keys.ReEncrypt(context.Background(), call.BySelf(), config.MetadataKey, keys.Wrap{Key: config.MetadataKeyARN, Context: config.Context()}, to)
	if err != nil {
		return err
	}
	if err := v.disk.Allow(made.KeyARN); err != nil {
		return err
	}
	return v.disk.ChangeConfig(func(c *envelope.Config) error {
		c.KeyARN, c.MetadataKeyARN, c.MetadataKey = made.KeyARN, made.KeyARN, made.Wrapped
		return nil
	})
}

// adopt accepts a file or directory that lies elsewhere, or belongs to somebody else, than its header or record says: an administrator has put it there. What
// isn't authentic is refused as ever.
func (n *node) adopt(call keys.Call, name string) error {
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
func (v *volume) adoptFile(call keys.Call, s spot) error {
	c, st, err := v.openDisowned(s)
	if err != nil {
		return err
	}
	defer unix.Close(c.FD)
	header, err := v.sealed.ReadHeader(c, false)
	if err != nil {
		return err
	}
	if v.sealed.LiesAt(header, s.location()) && header.OwnedBy(st.Uid) {
		return nil
	}
	if !v.disk.Allows(header.KeyARN) {
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
	event := keys.Event{
		Name: keys.EventAdopted, KeyARN: header.KeyARN, Context: header.Context(v.sealed.ID()),
		Details: places(header.Locations, s.location(), s.link.path()),
	}
	event.Details["foundOwner"] = disk.OwnerName(st.Uid)
	err = v.keys.Record(context.Background(), call.ForRecord(), event)
	if err == nil {
		err = v.settleAdopted(call, file, s, st)
	}
	if err == nil {
		err = errors.Join(file.Sync(), disk.SetModified(c.FD, st.Mtim))
	}
	return errors.Join(err, file.Close())
}

// settleAdopted has the file's header say where and whose it is.
func (v *volume) settleAdopted(call keys.Call, file *envelope.File, s spot, st unix.Stat_t) error {
	h := file.Header()
	now := h
	now.Path, now.Owner, now.NextOwner = s.link.path(), st.Uid, nil
	made, err := v.keys.ReEncrypt(context.Background(), call.BySelf(), h.WrappedKey,
		keys.Wrap{Key: h.KeyARN, Context: h.Context(v.sealed.ID())}, keys.Wrap{Key: h.KeyARN, Context: now.Context(v.sealed.ID())})
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
func (v *volume) openDisowned(s spot) (*disk.Storage, unix.Stat_t, error) {
	st, err := s.stat()
	if err != nil {
		return nil, st, err
	}
	if c := v.contents.find(identityOf(&st)); c != nil {
		return nil, st, unix.EBUSY
	}
	fd, err := unix.Openat(s.fd, s.entry(), unix.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if errors.Is(err, unix.EACCES) {
		fd, err = disk.OpenOwned(s.fd, s.entry(), unix.O_CLOEXEC)
	}
	if err != nil {
		return nil, st, err
	}
	return &disk.Storage{FD: fd}, st, nil
}

// adoptDirectory makes the place where the directory is its only one, and its owner the one that the record names.
func (v *volume) adoptDirectory(call keys.Call, s spot) error {
	fd, err := unix.Openat(s.fd, s.entry(), unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	record, err := v.disk.ReadDirectory(fd)
	if err != nil {
		return err
	}
	owner, err := disk.OwnerOf(fd)
	if err != nil || record.LiesAt(s.location()) && record.OwnedBy(owner) {
		return err
	}
	event := keys.Event{Name: keys.EventAdopted, Details: places(record.Locations, s.location(), s.link.path())}
	event.Details["foundOwner"] = disk.OwnerName(owner)
	if err := v.keys.Record(context.Background(), call.ForRecord(), event); err != nil {
		return err
	}
	record.Locations, record.Owners = []envelope.Location{s.location()}, []uint32{owner}
	if err := v.disk.WriteDirectory(fd, record, true); err != nil {
		return err
	}
	return disk.SyncControl(fd, envelope.DirectoryName)
}
