// Package fs is the file system: it maps POSIX operations, as FUSE brings them, to sealed files in
// a volume.
//
//   - mount.go, volume.go: a mount's life, and a mounted volume's parts
//   - inode.go, directory.go, entry.go: inodes, pinned directories and the names in them
//   - open_file.go, open.go, wrap.go, fresh_key.go, times.go: open files and their data keys
//   - operation.go, questions.go: how an operation asks the key service without a lock
//   - holders.go, revocation.go: taking access from open files
//   - node.go and what begins with node_, adopt.go, raw.go: the operations
//   - handle.go: reading and writing
//   - recover.go, reports.go: the search for what an unclean end left behind
//
// docs/locking.md has the locks and their order, and the lifetime of inodes.
package fs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"kmsfs/fs/keys"
	"kmsfs/fs/volume/backing"
)

// MountOptions say what to mount, where and how.
type MountOptions struct {
	// Volume and Mountpoint are directories; the mountpoint must be empty.
	Volume, Mountpoint string
	// Keys is the key service that wraps the volume's keys.
	Keys keys.Service
	// AllowOther lets other users in, with the kernel checking mode bits.
	AllowOther bool
	// ReadOnly mounts for reading: nothing in the volume is changed.
	ReadOnly bool
	// Shared says that other mounts, also in other hosts, may change the volume at the same time,
	// all of them so mounted.
	Shared bool
	// Options are further mount options for the kernel, such as "noexec" or "suid".
	Options []string
	// Log takes one line for each fault found in the volume.
	Log *slog.Logger
}

const (
	// cacheTime is how long the kernel keeps names and attributes of a volume that is changed
	// through this mount only.
	cacheTime = time.Minute
	// maxRequest is the largest read or write request, in bytes: FUSE_MAX_MAX_PAGES of the kernel.
	maxRequest = 1 << 20
	// maxBackground is how many requests of its own (readahead, writeback) the kernel keeps under
	// way.
	maxBackground = 64
)

// Mounted is a mounted volume.
type Mounted struct {
	server   server
	volume   *volume
	recovery *recovery
	log      *slog.Logger
	finished chan struct{}
}

// server passes the kernel's requests on: a *fuse.Server.
type server interface {
	// Serve returns when the volume has been unmounted.
	Serve()
	WaitMount() error
	Unmount() error
}

// Mount mounts a volume and serves it, until it is unmounted. It returns when the mount is ready
// for use.
func Mount(o MountOptions) (*Mounted, error) {
	if err := checkMountpoint(o.Mountpoint); err != nil {
		return nil, err
	}
	v, err := openVolume(o)
	if err != nil {
		return nil, err
	}
	server, err := v.newServer(o)
	if err != nil {
		return nil, errors.Join(err, v.end(v.tolerance.Since.IsZero()))
	}
	m := v.serve(server)
	if err := m.wait(); err != nil {
		return nil, fmt.Errorf("mounting %s: %w", o.Mountpoint, err)
	}
	event := keys.Event{Name: keys.EventMounted, Details: map[string]string{"volume": v.path, "mountpoint": o.Mountpoint}}
	if err := v.keys.Record(context.Background(), keys.Self("mount"), event); err != nil {
		return nil, errors.Join(err, m.Unmount())
	}
	return m, nil
}

// requests returns what answers the kernel's requests, and how it is mounted.
func (v *volume) requests(o MountOptions) (fuse.RawFileSystem, *fuse.MountOptions) {
	root := &v.root.node
	stable := root.stable()
	timeout := cacheTime
	if o.Shared {
		timeout = 0
	}
	options := &gofs.Options{
		MountOptions:    mountOptions(o, v.path),
		EntryTimeout:    &timeout,
		AttrTimeout:     &timeout,
		NegativeTimeout: &timeout,
		NullPermissions: true,
		RootStableAttr:  &stable,
	}
	var requests fuse.RawFileSystem = &raw{RawFileSystem: gofs.NewNodeFS(root, options)}
	if o.Shared {
		requests = &appending{requests}
	}
	return requests, &options.MountOptions
}

func (v *volume) newServer(o MountOptions) (*fuse.Server, error) {
	requests, options := v.requests(o)
	server, err := fuse.NewServer(requests, o.Mountpoint, options)
	if err != nil {
		if _, missing := exec.LookPath("fusermount3"); missing != nil && !v.multiUser {
			err = ErrNoFusermount
		}
		return nil, fmt.Errorf("mounting %s: %w", o.Mountpoint, err)
	}
	return server, nil
}

// serve begins to answer the kernel. From then on, the volume ends when serving ends.
func (v *volume) serve(s server) *Mounted {
	m := &Mounted{server: s, volume: v, log: v.log, finished: make(chan struct{})}
	m.recovery = v.startRecovery()
	v.revocation.start()
	go m.serve()
	return m
}

// wait waits until the mount is ready for use, or takes it away.
func (m *Mounted) wait() error {
	err := m.server.WaitMount()
	if err == nil {
		return nil
	}
	return errors.Join(err, m.Unmount())
}

func mountOptions(o MountOptions, volume string) fuse.MountOptions {
	m := fuse.MountOptions{
		AllowOther:           o.AllowOther,
		FsName:               absolute(volume),
		Name:                 "kmsfs",
		MaxBackground:        maxBackground,
		MaxWrite:             maxRequest,
		MaxReadAhead:         maxRequest,
		EnableSymlinkCaching: !o.Shared,
		EnableAcl:            true,
		Logger:               log.New(io.Discard, "", 0),
		ExtraCapabilities:    fuse.CAP_DONT_MASK | fuse.CAP_HANDLE_KILLPRIV_V2,
		Options:              []string{"default_permissions"},
		DirectMountFlags:     unix.MS_NOSUID | unix.MS_NODEV,
	}
	if o.Shared {
		m.ExtraCapabilities |= fuse.CAP_DIRECT_IO_ALLOW_MMAP
	} else {
		m.ExtraCapabilities |= fuse.CAP_WRITEBACK_CACHE | fuse.CAP_READDIRPLUS_AUTO
	}
	m.DirectMountStrict = unix.Geteuid() == 0
	options := o.Options
	if o.ReadOnly {
		options = append(options[:len(options):len(options)], "ro")
	}
	for _, option := range options {
		if m.DirectMountStrict {
			m.DirectMountFlags = applyFlag(m.DirectMountFlags, option)
		} else {
			m.Options = append(m.Options, option)
		}
	}
	return m
}

// applyFlag adds a mount option to, or takes it from, the flags of mount(2).
func applyFlag(flags uintptr, option string) uintptr {
	set := map[string]uintptr{
		"ro": unix.MS_RDONLY, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC, "sync": unix.MS_SYNCHRONOUS,
		"dirsync": unix.MS_DIRSYNC, "noatime": unix.MS_NOATIME, "nodiratime": unix.MS_NODIRATIME, "relatime": unix.MS_RELATIME,
		"strictatime": unix.MS_STRICTATIME, "lazytime": unix.MS_LAZYTIME,
	}
	if flag, ok := set[option]; ok {
		return flags | flag
	}
	opposites := map[string]string{"rw": "ro", "async": "sync"}
	opposite, ok := opposites[option]
	if !ok {
		opposite = "no" + option
	}
	if flag, ok := set[opposite]; ok {
		return flags &^ flag
	}
	if positive, negated := strings.CutPrefix(option, "no"); negated {
		return flags &^ set[positive]
	}
	return flags
}

func absolute(path string) string {
	if a, err := filepath.Abs(path); err == nil {
		return a
	}
	return path
}

// checkMountpoint denies a directory that has something in it or on it.
func checkMountpoint(path string) error {
	dir, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("mountpoint %s: %w", path, err)
	}
	defer unix.Close(dir)
	entries, err := backing.Entries(backing.FromDescriptor(dir))
	if err != nil {
		return fmt.Errorf("mountpoint %s: %w", path, err)
	}
	var here, above unix.Stat_t
	if err := errors.Join(unix.Fstat(dir, &here), unix.Fstatat(dir, "..", &above, 0)); err != nil {
		return fmt.Errorf("mountpoint %s: %w", path, err)
	}
	mounted, err := isFUSE(dir)
	if err != nil {
		return fmt.Errorf("mountpoint %s: %w", path, err)
	}
	if len(entries) > 0 || mounted && here.Dev != above.Dev {
		return fmt.Errorf("%s: %w", path, ErrMountpointInUse)
	}
	return nil
}

// isFUSE says whether a directory lies on a FUSE file system.
func isFUSE(dir int) (bool, error) {
	const fuseMagic = 0x65735546 // FUSE_SUPER_MAGIC of the kernel
	var st unix.Statfs_t
	err := unix.Fstatfs(dir, &st)
	return st.Type == fuseMagic, err
}

// serve answers the kernel until the volume is unmounted, and closes the volume.
func (m *Mounted) serve() {
	defer close(m.finished)
	m.server.Serve()
	m.volume.revocation.stop()
	whole := m.recovery.stop()
	if err := m.volume.end(whole); err != nil {
		m.log.Error("the volume is not marked clean", "volume", m.volume.path, "error", err)
	}
}

// Wait returns when the volume has been unmounted and everything is written.
func (m *Mounted) Wait() { <-m.finished }

// Unmount unmounts the volume. It returns EBUSY, wrapped, if the volume is in use.
func (m *Mounted) Unmount() error {
	if err := m.server.Unmount(); err != nil {
		return fmt.Errorf("unmounting: %w", err)
	}
	m.Wait()
	return nil
}
