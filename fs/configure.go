package fs

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
)

// allows says whether files may be wrapped under a KMS key: the configuration lists it, or has come to list it by another mount.
func (v *volume) allows(keyARN string) bool {
	if v.sealed.Allows(keyARN) {
		return true
	}
	if v.tree.hosts == nil {
		return false
	}
	return v.reloadConfig() == nil && v.sealed.Allows(keyARN)
}

// allow adds a KMS key to those under which files may be wrapped. The key service has just used it, because a directory policy, or the volume's
// configuration, asked for it.
func (v *volume) allow(keyARN string) error {
	if v.allows(keyARN) {
		return nil
	}
	err := v.changeConfig(func(c *envelope.Config) error {
		if !slices.Contains(c.KeyARNs, keyARN) {
			c.KeyARNs = append(c.KeyARNs, keyARN)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s: adding the KMS key %s: %w", v.path, keyARN, err)
	}
	event := Event{Name: EventKeyAllowed, KeyARN: keyARN, Details: map[string]string{"volume": v.path}}
	return v.keys.Record(context.Background(), self("policy"), event)
}

// reloadConfig takes the configuration that lies in the volume.
func (v *volume) reloadConfig() error {
	configuration, err := v.readControl(v.backing.root, envelope.ConfigName, 1, envelope.MaxConfigSize)
	if err != nil {
		return err
	}
	return v.sealed.Reconfigure(configuration)
}

// changeConfig replaces the configuration by what edit makes of it, durably and at once.
func (v *volume) changeConfig(edit func(c *envelope.Config) error) error {
	v.configuring.Lock()
	defer v.configuring.Unlock()
	unlock, err := v.lockMarks() // other mounts replace it too
	if err != nil {
		return err
	}
	defer unlock()
	if v.shared() { // nobody else's change is taken for one
		if err := v.reloadConfig(); err != nil {
			return err
		}
	}
	config := v.sealed.Config()
	if err := edit(&config); err != nil {
		return err
	}
	configuration, err := v.sealed.MarshalConfig(&config)
	if err != nil {
		return err
	}
	if err := v.replaceConfig(configuration); err != nil {
		return err
	}
	return v.sealed.Reconfigure(configuration)
}

// replaceConfig gives the configuration's name to a new file, which is locked before it has it: whoever locks that name next finds the volume in use.
func (v *volume) replaceConfig(configuration []byte) (err error) {
	root, temp := v.backing.root, newTempName()
	restore, err := v.keepRootTime()
	if err != nil {
		return err
	}
	if err := writeControl(root, temp, configuration, false); err != nil {
		return errors.Join(err, ignoreENOENT(unix.Unlinkat(root, temp, 0)))
	}
	lock, err := v.lockNew(temp)
	if err != nil {
		return errors.Join(err, unix.Unlinkat(root, temp, 0))
	}
	if err := unix.Renameat(root, temp, root, envelope.ConfigName); err != nil {
		unix.Close(lock)
		return errors.Join(err, unix.Unlinkat(root, temp, 0))
	}
	unix.Close(v.lock)
	v.lock = lock
	return errors.Join(syncDir(root), restore())
}

// lockNew opens a configuration that is about to get its name, gives it the owner and mode of the present one, makes it durable, and locks it as that is.
func (v *volume) lockNew(name string) (fd int, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(v.lock, &st); err != nil {
		return -1, err
	}
	fd, err = unix.Openat(v.backing.root, name, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	how := unix.LOCK_EX
	if v.shared() {
		how = unix.LOCK_SH
	}
	if v.multiUser {
		err = unix.Fchown(fd, int(st.Uid), int(st.Gid))
	}
	for _, step := range []func() error{
		func() error { return unix.Fchmod(fd, st.Mode&0o7777) },
		func() error { return unix.Fsync(fd) },
		func() error { return unix.Flock(fd, how|unix.LOCK_NB) },
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
