package volume

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/cmd/kmsfs/internal/filekeys"
	"kmsfs/cmd/kmsfs/internal/session"
	kmsfs "kmsfs/fs"
	"kmsfs/fs/control"
	"kmsfs/fs/keys"
	disk "kmsfs/fs/volume"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/remote"
)

const (
	// maxReason bounds what fusermount3 says, in bytes: far less than a pipe holds.
	maxReason = 4096

	// endPatience is how long a mount waits for the process of an earlier one to end: umount(8)
	// returns when nothing is mounted any more, and the process may still have to write.
	endPatience = 30 * time.Second
	// endInterval is how often it looks.
	endInterval = 20 * time.Millisecond
)

// serve mounts the volume, calls ready, and returns when the volume is unmounted and everything is
// written. SIGTERM, SIGINT and SIGHUP unmount it.
func (o mountOptions) serve(secret *session.Secret, log *slog.Logger, ready func() error) (err error) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	unix.Umask(0) // the kernel has applied the callers' umasks

	if o.KMS != "" {
		return o.serveRemote(signals, log, ready)
	}
	home, err := session.Open(o.Home, secret)
	secret.Wipe()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, home.Close()) }()
	if err := home.Serve(); err != nil {
		return err
	}
	if err := o.serveMount(home, signals, log, ready); err != nil {
		return err
	}
	return outlastUsers(home, signals, log)
}

// serveRemote does that with a remote key service.
func (o mountOptions) serveRemote(signals <-chan os.Signal, log *slog.Logger, ready func() error) error {
	cache, err := session.CacheTime(o.KMSCache)
	if err != nil {
		return err
	}
	var service *remote.Service
	if err := o.whenFree(signals, func() (err error) {
		service, err = session.OpenRemote(o.KMS, o.Home, session.VolumeJournal(o.Volume), cache)
		return err
	}); err != nil {
		return err
	}
	return errors.Join(o.serveMount(service, signals, log, ready), service.Close())
}

// readSecret returns what opens the home; nil if there is no home to open.
func (o mountOptions) readSecret() (*session.Secret, error) {
	if o.KMS != "" {
		return nil, nil
	}
	return o.Secret.Read(o.Home)
}

// serveMount mounts the volume, calls ready, and returns when it is unmounted.
func (o mountOptions) serveMount(service kms.Invoker, signals <-chan os.Signal, log *slog.Logger, ready func() error) error {
	var mounted *kmsfs.Mounted
	if err := o.whenFree(signals, func() (err error) {
		mounted, err = o.mount(filekeys.ForMount(service), log)
		return err
	}); err != nil {
		return err
	}
	if err := os.Chdir("/"); err != nil {
		return errors.Join(err, mounted.Unmount())
	}
	if err := ready(); err != nil { // the process that wanted the mount has ended
		return errors.Join(err, mounted.Unmount())
	}
	log.Info("mounted", "volume", o.Volume, "mountpoint", o.Mountpoint)
	ended := make(chan struct{})
	go func() {
		mounted.Wait()
		close(ended)
	}()
	for {
		select {
		case <-signals:
			o.stop(mounted, log)
			continue
		case <-ended:
		}
		break
	}
	log.Info("unmounted", "volume", o.Volume, "mountpoint", o.Mountpoint)
	return nil
}

// whenFree calls do. If the volume or its journal is in use, but the volume has no mountpoint, another
// process is about to end, or to fail: whenFree waits for that and calls do again.
func (o mountOptions) whenFree(signals <-chan os.Signal, do func() error) error {
	deadline := time.After(endPatience)
	for {
		err := do()
		if !errors.Is(err, disk.ErrInUse) && !errors.Is(err, unix.EWOULDBLOCK) || o.isMounted() {
			return err
		}
		select {
		case <-time.After(endInterval):
		case <-signals:
			return err
		case <-deadline:
			return err
		}
	}
}

// isMounted says whether the volume has a mountpoint, as far as this process can see.
func (o mountOptions) isMounted() bool {
	mounts, err := control.KmsfsMounts()
	return err != nil || slices.ContainsFunc(mounts, func(m control.Mount) bool { return m.Source == o.Volume })
}

// mount mounts the volume. fusermount3 says only on standard error why it fails: that becomes the
// error.
func (o mountOptions) mount(service keys.Service, log *slog.Logger) (*kmsfs.Mounted, error) {
	stderr := os.Stderr
	said, pipe, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer said.Close()
	os.Stderr = pipe
	mounted, err := kmsfs.Mount(kmsfs.MountOptions{
		Volume:     o.Volume,
		Mountpoint: o.Mountpoint,
		Keys:       service,
		AllowOther: o.AllowOther,
		ReadOnly:   o.ReadOnly,
		Shared:     o.Shared,
		Options:    o.Kernel,
		Log:        log,
	})
	os.Stderr = stderr
	pipe.Close()
	if err == nil {
		return mounted, nil
	}
	text, readErr := io.ReadAll(io.LimitReader(said, maxReason))
	if reason := strings.TrimSpace(string(text)); reason != "" {
		return nil, fmt.Errorf("mounting %s: %s", o.Mountpoint, reason)
	}
	return nil, errors.Join(err, readErr)
}

// stop unmounts the volume. If it is in use, it vanishes from sight, and is unmounted after its
// last use.
func (o mountOptions) stop(mounted *kmsfs.Mounted, log *slog.Logger) {
	err := mounted.Unmount()
	if err == nil {
		return
	}
	log.Warn("can't unmount yet: the process ends when the files are no longer in use",
		"mountpoint", o.Mountpoint, "error", err)
	if err := unmount(o.Mountpoint, true); err != nil {
		log.Error("can't unmount", "mountpoint", o.Mountpoint, "error", err)
	}
}

// outlastUsers waits until no other process uses the home through this one, or for a signal.
func outlastUsers(h *session.Home, signals <-chan os.Signal, log *slog.Logger) error {
	unused, err := h.Unused()
	if err != nil {
		return err
	}
	select {
	case <-unused:
		return nil
	case <-time.After(time.Second):
		log.Info("other processes use the key service home: it is served until they end, or to the next signal",
			"home", h.Dir)
	}
	select {
	case <-unused:
	case <-signals:
	}
	return nil
}
