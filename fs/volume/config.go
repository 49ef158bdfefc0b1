package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/keys"
	"kmsfs/fs/volume/backing"
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
		if !s.unsynced.Load() {
			return nil
		}
		return s.syncConfig()
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
	return s.replaceConfig(configuration)
}

// replaceConfig gives the configuration's name to a new file. The file is locked before it has the name, so that
// the next one to lock that name finds the volume in use. The session has the configuration that has the
// name, even where that can't be made durable; the next call of Allow tries that again.
func (s *Session) replaceConfig(configuration []byte) (err error) {
	root, temp := s.Root, NewTempName()
	restore, err := s.keepRootTime()
	if err != nil {
		return err
	}
	if err := WriteControl(root, temp, configuration, false); err != nil {
		return errors.Join(err, ignoreENOENT(root.Unlink(temp)))
	}
	lock, err := s.lockNew(temp)
	if err != nil {
		return errors.Join(err, root.Unlink(temp))
	}
	err = root.Rename(temp, root, envelope.ConfigName, 0)
	if err != nil && !hasName(root, envelope.ConfigName, lock) { // a network file system may have done it nevertheless
		lock.Close()
		return errors.Join(err, root.Unlink(temp))
	}
	s.lock.Close()
	s.lock = lock
	s.unsynced.Store(true)
	return errors.Join(s.Sealed.Reconfigure(configuration), s.syncConfig(), restore())
}

// hasName says whether that name in a directory is an open file's.
func hasName(dir backing.Dir, name string, f backing.File) bool {
	named, err := dir.StatAt(name)
	if err != nil {
		return false
	}
	open, err := f.Stat()
	return err == nil && open.Ino == named.Ino && open.Dev == named.Dev
}

// syncConfig makes the name of the configuration durable.
func (s *Session) syncConfig() error {
	if err := SyncDir(s.Root); err != nil {
		return err
	}
	s.unsynced.Store(false)
	return nil
}

// lockNew opens a configuration that is about to get its name, gives it the owner and mode of the
// present one, makes it durable, and locks it as that is.
func (s *Session) lockNew(name string) (backing.File, error) {
	st, err := s.lock.Stat()
	if err != nil {
		return nil, err
	}
	f, err := s.Root.OpenFile(name, unix.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	if s.UID == 0 {
		err = f.Chown(int(st.Uid), int(st.Gid))
	}
	for _, step := range []func() error{
		func() error { return f.Chmod(st.Mode & 0o7777) },
		f.Sync,
		func() error { return f.Flock(s.Sharing.configLock() | unix.LOCK_NB) },
	} {
		if err == nil {
			err = step()
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func ignoreENOENT(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// ReadConfig reads a volume's configuration without authenticating it.
func ReadConfig(path string) (*envelope.Config, error) {
	root, err := backing.Open(path)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	st, err := root.Stat()
	if err != nil {
		return nil, err
	}
	b := &Volume{Path: path, Root: root, Owner: st.Uid}
	configuration, err := b.readControl(root, envelope.ConfigName, 1, envelope.MaxConfigSize)
	if err != nil {
		return nil, err
	}
	return envelope.ParseConfig(configuration)
}
