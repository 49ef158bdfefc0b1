package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/keys"
)

// Allows says whether files may be wrapped under a KMS key: the configuration lists it, or has come
// to list it by another mount.
func (s *Session) Allows(keyARN string) bool {
	if s.Sealed.Allows(keyARN) {
		return true
	}
	return !s.Sharing.Alone() && s.reloadConfig() == nil && s.Sealed.Allows(keyARN)
}

// Allow adds a KMS key to those under which files may be wrapped. The key service has just used it,
// because a directory policy, or the volume's configuration, asked for it.
func (s *Session) Allow(keyARN string) error {
	if s.Allows(keyARN) {
		return nil
	}
	err := s.ChangeConfig(func(c *envelope.Config) error {
		if !slices.Contains(c.KeyARNs, keyARN) {
			c.KeyARNs = append(c.KeyARNs, keyARN)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s: adding the KMS key %s: %w", s.Path, keyARN, err)
	}
	event := keys.Event{Name: keys.EventKeyAllowed, KeyARN: keyARN, Details: map[string]string{"volume": s.Path}}
	return s.Keys.Record(context.Background(), keys.Self("policy"), event)
}

// reloadConfig takes the configuration that lies in the volume.
func (s *Session) reloadConfig() error {
	configuration, err := s.readControl(s.Root, envelope.ConfigName, 1, envelope.MaxConfigSize)
	if err != nil {
		return err
	}
	return s.Sealed.Reconfigure(configuration)
}

// ChangeConfig replaces the configuration by what edit makes of it, durably and at once.
func (s *Session) ChangeConfig(edit func(c *envelope.Config) error) error {
	s.configuring.Lock()
	defer s.configuring.Unlock()
	unlock, err := s.Sharing.lockMarkers(!s.ReadOnly) // other mounts replace it too
	if err != nil {
		return err
	}
	defer unlock()
	if !s.Sharing.Alone() { // the change of another mount stays
		if err := s.reloadConfig(); err != nil {
			return err
		}
	}
	config := s.Sealed.Config()
	if err := edit(&config); err != nil {
		return err
	}
	configuration, err := s.Sealed.MarshalConfig(&config)
	if err != nil {
		return err
	}
	if err := s.replaceConfig(configuration); err != nil {
		return err
	}
	return s.Sealed.Reconfigure(configuration)
}

// replaceConfig gives the configuration's name to a new file, which is locked before it has it:
// whoever locks that name next finds the volume in use.
func (s *Session) replaceConfig(configuration []byte) (err error) {
	root, temp := s.Root, NewTempName()
	restore, err := s.keepRootTime()
	if err != nil {
		return err
	}
	if err := WriteControl(root, temp, configuration, false); err != nil {
		return errors.Join(err, ignoreENOENT(unix.Unlinkat(root, temp, 0)))
	}
	lock, err := s.lockNew(temp)
	if err != nil {
		return errors.Join(err, unix.Unlinkat(root, temp, 0))
	}
	if err := unix.Renameat(root, temp, root, envelope.ConfigName); err != nil {
		unix.Close(lock)
		return errors.Join(err, unix.Unlinkat(root, temp, 0))
	}
	unix.Close(s.lock)
	s.lock = lock
	return errors.Join(SyncDir(root), restore())
}

// lockNew opens a configuration that is about to get its name, gives it the owner and mode of the
// present one, makes it durable, and locks it as that is.
func (s *Session) lockNew(name string) (fd int, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(s.lock, &st); err != nil {
		return -1, err
	}
	fd, err = unix.Openat(s.Root, name, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if s.UID == 0 {
		err = unix.Fchown(fd, int(st.Uid), int(st.Gid))
	}
	for _, step := range []func() error{
		func() error { return unix.Fchmod(fd, st.Mode&0o7777) },
		func() error { return unix.Fsync(fd) },
		func() error { return unix.Flock(fd, s.Sharing.configLock()|unix.LOCK_NB) },
	} {
		if err == nil {
			err = step()
		}
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func ignoreENOENT(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// ReadConfig reads a volume's configuration without authenticating it.
func ReadConfig(path string) (*envelope.Config, error) {
	root, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	var st unix.Stat_t
	if err := unix.Fstat(root, &st); err != nil {
		return nil, err
	}
	b := &Volume{Path: path, Root: root, Owner: st.Uid}
	configuration, err := b.readControl(root, envelope.ConfigName, 1, envelope.MaxConfigSize)
	if err != nil {
		return nil, err
	}
	return envelope.ParseConfig(configuration)
}
