package backing

import (
	"errors"
	"io"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// openFlags are those of every open: nothing is followed, waited for, inherited or made a terminal.
const openFlags = unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC | unix.O_NOCTTY

// Open opens the directory at path, which may be a link.
func Open(path string) (Dir, error) {
	fd, err := open(unix.AT_FDCWD, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return &handle{fd: fd}, nil
}

// handle is a descriptor.
type handle struct {
	fd int
	// path says that it was opened with O_PATH, so that calls on its metadata go by /proc.
	path bool
}

var (
	_ Dir  = (*handle)(nil)
	_ File = (*handle)(nil)
)

// Descriptor returns the descriptor behind a node of this package.
func Descriptor(n Node) int { return n.(*handle).fd }

// proc is a path that leads to the node itself, also where its descriptor is of no use for a call.
func (h *handle) proc() string { return "/proc/self/fd/" + strconv.Itoa(h.fd) }

func open(dir int, name string, flags int, mode uint32) (fd int, err error) {
	err = retry(func() error { fd, err = unix.Openat(dir, name, flags, mode); return err })
	return fd, err
}

// retry repeats a call as long as a signal interrupts it.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func (h *handle) Close() error { return unix.Close(h.fd) }

func (h *handle) Stat() (st unix.Stat_t, err error) {
	err = unix.Fstat(h.fd, &st)
	return st, err
}

func (h *handle) Chmod(mode uint32) error {
	if h.path {
		return unix.Chmod(h.proc(), mode)
	}
	return unix.Fchmod(h.fd, mode)
}

func (h *handle) Chown(uid, gid int) error {
	return unix.Fchownat(h.fd, "", uid, gid, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW)
}

func (h *handle) SetTimes(access, modification unix.Timespec) error {
	times := []unix.Timespec{access, modification}
	if h.path {
		return unix.UtimesNanoAt(h.fd, "", times, unix.AT_EMPTY_PATH)
	}
	return futimens(h.fd, times)
}

// futimens is utimensat(2) with a null path, which unix.UtimesNanoAt can't pass.
func futimens(fd int, times []unix.Timespec) error {
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&times[0])), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func (h *handle) Getxattr(name string, value []byte) (int, error) {
	if h.path {
		return unix.Getxattr(h.proc(), name, value)
	}
	return unix.Fgetxattr(h.fd, name, value)
}

func (h *handle) Setxattr(name string, value []byte, flags int) error {
	if h.path {
		return unix.Setxattr(h.proc(), name, value, flags)
	}
	return unix.Fsetxattr(h.fd, name, value, flags)
}

func (h *handle) Removexattr(name string) error {
	if h.path {
		return unix.Removexattr(h.proc(), name)
	}
	return unix.Fremovexattr(h.fd, name)
}

func (h *handle) Listxattr(list []byte) (int, error) {
	if h.path {
		return unix.Listxattr(h.proc(), list)
	}
	return unix.Flistxattr(h.fd, list)
}

func (h *handle) Sync() error     { return retry(func() error { return unix.Fsync(h.fd) }) }
func (h *handle) Datasync() error { return retry(func() error { return unix.Fdatasync(h.fd) }) }
func (h *handle) Syncfs() error   { return retry(func() error { return unix.Syncfs(h.fd) }) }

func (h *handle) ReadAt(p []byte, off int64) (int, error) {
	return transfer(p, off, io.EOF, func(p []byte, off int64) (int, error) { return unix.Pread(h.fd, p, off) })
}

func (h *handle) WriteAt(p []byte, off int64) (int, error) {
	return transfer(p, off, unix.EIO, func(p []byte, off int64) (int, error) { return unix.Pwrite(h.fd, p, off) })
}

// transfer repeats a call until it has moved all of p. A call that moves nothing ends it with the
// error end.
func transfer(p []byte, off int64, end error, call func(p []byte, off int64) (int, error)) (done int, err error) {
	for done < len(p) {
		n, err := call(p[done:], off+int64(done))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return done, err
		case n == 0:
			return done, end
		}
		done += n
	}
	return done, nil
}

func (h *handle) Truncate(size int64) error {
	return retry(func() error { return unix.Ftruncate(h.fd, size) })
}

func (h *handle) Allocate(mode uint32, off, n int64) error {
	return retry(func() error { return unix.Fallocate(h.fd, mode, off, n) })
}

func (h *handle) Seek(off int64, whence int) (int64, error) { return unix.Seek(h.fd, off, whence) }

func (h *handle) Flock(how int) error {
	return retry(func() error { return unix.Flock(h.fd, how) })
}

func (h *handle) LockByte(at int64, kind int16) error {
	lock := unix.Flock_t{Type: kind, Start: at, Len: 1}
	return retry(func() error { return unix.FcntlFlock(uintptr(h.fd), unix.F_OFD_SETLKW, &lock) })
}

func (h *handle) ByteLocked(at int64) (bool, error) {
	lock := unix.Flock_t{Type: unix.F_WRLCK, Start: at, Len: 1}
	err := unix.FcntlFlock(uintptr(h.fd), unix.F_OFD_GETLK, &lock)
	return err == nil && lock.Type != unix.F_UNLCK, err
}

func (h *handle) StatAt(name string) (st unix.Stat_t, err error) {
	err = unix.Fstatat(h.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return st, err
}

func (h *handle) Lookup(name string) (Node, error) {
	fd, err := open(h.fd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return &handle{fd: fd, path: true}, nil
}

func (h *handle) OpenDir(name string) (Dir, error) {
	fd, err := open(h.fd, name, unix.O_RDONLY|unix.O_DIRECTORY|openFlags, 0)
	if err != nil {
		return nil, err
	}
	return &handle{fd: fd}, nil
}

func (h *handle) OpenFile(name string, flags int, mode uint32) (File, error) {
	fd, err := open(h.fd, name, flags|openFlags, mode)
	if err != nil {
		return nil, err
	}
	return &handle{fd: fd}, nil
}

func (h *handle) Mkdir(name string, mode uint32) error { return unix.Mkdirat(h.fd, name, mode) }

func (h *handle) Mknod(name string, mode uint32, device uint64) error {
	return unix.Mknodat(h.fd, name, mode, int(device))
}

func (h *handle) Symlink(target, name string) error { return unix.Symlinkat(target, h.fd, name) }

func (h *handle) Readlink(name string) (string, error) {
	target := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(h.fd, name, target)
	if err != nil {
		return "", err
	}
	return string(target[:n]), nil
}

func (h *handle) Link(name string, to Dir, as string) error {
	return unix.Linkat(h.fd, name, Descriptor(to), as, 0)
}

func (h *handle) LinkFile(f File, as string) error {
	return unix.Linkat(unix.AT_FDCWD, f.(*handle).proc(), h.fd, as, unix.AT_SYMLINK_FOLLOW)
}

func (h *handle) Unlink(name string) error { return unix.Unlinkat(h.fd, name, 0) }
func (h *handle) Rmdir(name string) error  { return unix.Unlinkat(h.fd, name, unix.AT_REMOVEDIR) }

func (h *handle) Rename(name string, to Dir, as string, flags uint) error {
	err := unix.Renameat2(h.fd, name, Descriptor(to), as, flags)
	if flags == 0 && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS)) { // network file systems
		return unix.Renameat(h.fd, name, Descriptor(to), as)
	}
	return err
}

func (h *handle) ChownAt(name string, uid, gid int) error {
	return unix.Fchownat(h.fd, name, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
}

func (h *handle) SetTimesAt(name string, access, modification unix.Timespec) error {
	return unix.UtimesNanoAt(h.fd, name, []unix.Timespec{access, modification}, unix.AT_SYMLINK_NOFOLLOW)
}

func (h *handle) Statfs() (st unix.Statfs_t, err error) {
	err = retry(func() error { return unix.Fstatfs(h.fd, &st) })
	return st, err
}

// FromDescriptor returns the node behind a descriptor, which the caller closes.
func FromDescriptor(fd int) interface {
	Dir
	File
} {
	return &handle{fd: fd}
}
