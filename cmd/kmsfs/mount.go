package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	kmsfs "kmsfs/fs"
	"kmsfs/fs/control"
	disk "kmsfs/fs/volume"
	"kmsfs/keyservice"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/remote"
)

var (
	errInsideVolume = errors.New("lies inside the volume")
	errNoVolume     = errors.New("no such volume")
	errNoDirectory  = errors.New("no such directory")
)

// maxReason bounds what fusermount3 says, in bytes: far less than a pipe holds.
const maxReason = 4096

func mountCommand() command {
	return command{
		name:      "mount",
		arguments: "[OPTIONS] VOLUME MOUNTPOINT",
		summary:   "mount a volume",
		details: `
Mounts a volume on an empty directory and returns when it is ready; a process of its own serves it from then on.

With --kms, the volume's keys are at a key service elsewhere: AWS KMS or what speaks its protocol, with AWS's usual
settings and credentials, or, on a Unix socket, none. No key service home is needed then; a journal of all uses of keys is
kept in the directory HOME-remote, HOME being the place of a home. Files' data keys are then wrapped here, under branch keys:
data keys of the service, for which it is asked anew after the time in --kms-cache. So what it forbids takes hold within that
time. With --kms-cache none it is asked at each open.

With --shared, several processes or hosts may have the volume mounted at a time, all of them with --shared. Each sees what
the others have changed, and no cache spares it a look. The file system that the volume lies on must pass on locks; README
says what holds then, and what doesn't.

Mount options (-o): ro, rw, shared, allow_other, home=DIR, kms=URL,
kms_cache=TIME, passphrase_file=FILE, key_file=FILE, [no]suid, [no]dev, [no]exec,
[no]atime, [no]diratime, [no]relatime, [no]strictatime, [no]lazytime, sync, async, dirsync.
With the program linked as /sbin/mount.fuse.kmsfs, mount(8) and /etc/fstab know the type fuse.kmsfs.

What opens the key service home is taken from the first of these that is given: the options; $KMSFS_PASSPHRASE_FILE or
$KMSFS_KEY_FILE; the systemd credential "kmsfs"; the terminal. None is needed while another process has the home open.

Examples:
  kmsfs mount ~/vault ~/clear
  kmsfs mount --key-file /etc/kmsfs.key --allow-other /srv/vault /srv/clear
  kmsfs mount --foreground --read-only ~/vault ~/clear
  kmsfs mount --kms aws:eu-central-1 ~/vault ~/clear
  kmsfs mount --shared --kms https://keys.example.com:8443 /net/vault /srv/clear
  mount -t fuse.kmsfs /srv/vault /srv/clear -o key_file=/etc/kmsfs.key,noexec`,
		prepare: func(flags *pflag.FlagSet) func([]string) error {
			var o mountOptions
			foreground := flags.Bool("foreground", false, "serve the mount in this process, logging to standard error")
			flags.BoolVar(&o.AllowOther, "allow-other", false, "let other users in, as far as modes and key policies do")
			flags.BoolVar(&o.ReadOnly, "read-only", false, "change nothing in the volume")
			flags.BoolVar(&o.Shared, "shared", false, "let other mounts, also on other hosts, change the volume meanwhile")
			lists := flags.StringArrayP("options", "o", nil, "mount `OPTIONS`, with commas between")
			o.Secret.declare(flags)
			declareHome(flags, &o.Home)
			declareKMS(flags, &o.KMS)
			flags.StringVar(&o.KMSCache, "kms-cache", "", "with --kms, use branch keys for a `TIME`; none for a call at each open (default "+defaultCache+")")
			daemon := flags.Bool("daemon", false, "")
			flags.Lookup("daemon").Hidden = true
			return func(args []string) error {
				if *daemon {
					return runDaemon()
				}
				for _, list := range *lists {
					if err := o.apply(list, false); err != nil {
						return err
					}
				}
				if err := o.complete(args); err != nil {
					return err
				}
				if !*foreground {
					return startDaemon(o)
				}
				secret, err := o.readSecret()
				if err != nil {
					return err
				}
				return o.serve(secret, foregroundLog(), func() error { return nil })
			}
		},
	}
}

// complete adds the arguments and what the environment says to the options, and refuses what can't be mounted at a glance:
// before anybody is asked for a passphrase.
func (o *mountOptions) complete(args []string) error {
	if len(args) != 2 {
		return usagef("mount", "want VOLUME and MOUNTPOINT, got %d arguments", len(args))
	}
	o.Volume, o.Mountpoint = args[0], args[1]
	if err := o.Secret.complete(); err != nil {
		return err
	}
	var err error
	if o.Home, err = homeDir(o.Home); err != nil {
		return err
	}
	if err := o.absolute(); err != nil {
		return err
	}
	if o.KMS != "" {
		if err := remote.CheckURL(o.KMS); err != nil {
			return err
		}
		if _, err := cacheTime(o.KMSCache); err != nil {
			return err
		}
	}
	if err := checkDirectory(o.Volume, errNoVolume); err != nil {
		return err
	}
	if err := checkDirectory(o.Mountpoint, errNoDirectory); err != nil {
		return err
	}
	if _, err := os.Lstat(filepath.Join(o.Volume, volumeFile)); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", o.Volume, disk.ErrNotVolume)
	}
	if control.Within(o.Volume, o.Mountpoint) {
		return fmt.Errorf("mountpoint %s: %w", o.Mountpoint, errInsideVolume)
	}
	return nil
}

// checkDirectory returns an error that wraps missing if there is nothing at that path.
func checkDirectory(path string, missing error) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: %w", path, missing)
	case err != nil:
		return pathError(err)
	case !info.IsDir():
		return fmt.Errorf("%s: %w", path, unix.ENOTDIR)
	}
	return nil
}

// serve mounts the volume, calls ready, and returns when the volume is unmounted and everything is written. SIGTERM, SIGINT
// and SIGHUP unmount it.
func (o mountOptions) serve(secret *secret, log *slog.Logger, ready func() error) (err error) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	unix.Umask(0) // modes are those that the callers ask for, less the umask of theirs that the kernel took off

	if o.KMS != "" {
		cache, err := cacheTime(o.KMSCache)
		if err != nil {
			return err
		}
		service, err := openRemote(o.KMS, o.Home, volumeJournal(o.Volume), cache)
		if err != nil {
			return err
		}
		return errors.Join(o.serveMount(service, signals, log, ready), service.Close())
	}
	home, err := openHome(o.Home, secret)
	secret.wipe()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, home.close()) }()
	if err := home.serve(); err != nil {
		return err
	}
	if err := o.serveMount(home, signals, log, ready); err != nil {
		return err
	}
	return home.outlastUsers(signals, log)
}

// readSecret returns what opens the home; nil if none is needed.
func (o mountOptions) readSecret() (*secret, error) {
	if o.KMS != "" {
		return nil, nil
	}
	return o.Secret.read(o.Home)
}

// serveMount mounts the volume, calls ready, and returns when it is unmounted.
func (o mountOptions) serveMount(service kms.Invoker, signals <-chan os.Signal, log *slog.Logger, ready func() error) error {
	mounted, err := o.mount(keyAdapter{api: service, mounted: true}, log)
	if err != nil {
		return err
	}
	if err := os.Chdir("/"); err != nil {
		return errors.Join(err, mounted.Unmount())
	}
	if err := ready(); err != nil { // whoever wanted the mount has gone
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

// mount mounts the volume. Why fusermount3 fails, it says on standard error only: that becomes the error.
func (o mountOptions) mount(keys keyAdapter, log *slog.Logger) (*kmsfs.Mounted, error) {
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
		Keys:       keys,
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

// stop unmounts the volume: at once, or, if it is in use, from sight at once and for good when it no longer is.
func (o mountOptions) stop(mounted *kmsfs.Mounted, log *slog.Logger) {
	err := mounted.Unmount()
	if err == nil {
		return
	}
	log.Warn("can't unmount yet: the process ends when nobody uses the files any more", "mountpoint", o.Mountpoint, "error", err)
	if err := unmount(o.Mountpoint, true); err != nil {
		log.Error("can't unmount", "mountpoint", o.Mountpoint, "error", err)
	}
}

// outlastUsers waits until no other process uses the home through this one, or for a signal.
func (h *home) outlastUsers(signals <-chan os.Signal, log *slog.Logger) error {
	unused, err := h.unused()
	if err != nil {
		return err
	}
	select {
	case <-unused:
		return nil
	case <-time.After(time.Second):
		log.Info("others still use the key service home: it is served until they have ended, or to the next signal", "home", h.dir)
	}
	select {
	case <-unused:
	case <-signals:
	}
	return nil
}

// pathError says which path an error is about, without the system call's name.
func pathError(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("%s: %w", e.Path, e.Err)
	}
	return err
}

// harden is called before a secret enters the process.
func harden() error {
	if err := keyservice.Harden(); err != nil {
		return fmt.Errorf("keep secrets out of core dumps: %w", err)
	}
	return nil
}
