package volume

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// OpenOwned opens a file whose mode keeps its own owner out: a header changes when a read-only file
// is renamed, and the kernel has asked the mode already whether the caller may read or write. The
// mode is put back at once. Until then it lets in the owner only, who could change it anyway: a
// process that is killed in between gives nobody else access.
func OpenOwned(dir int, entry string, flags int) (int, error) {
	handle, err := unix.Openat(dir, entry, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(handle)
	var st unix.Stat_t
	if err := unix.Fstat(handle, &st); err != nil {
		return -1, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return -1, unix.EACCES
	}
	if err := unix.Chmod(ProcPath(handle), 0o600); err != nil {
		return -1, err
	}
	fd, err := unix.Open(ProcPath(handle), unix.O_RDWR|flags&^unix.O_NOFOLLOW, 0)
	if back := unix.Chmod(ProcPath(handle), st.Mode&0o7777); back != nil && err == nil {
		unix.Close(fd)
		err = back
	}
	return fd, err
}

// SetModified sets the modification time of an open file or directory.
func SetModified(fd int, at unix.Timespec) error {
	return unix.UtimesNanoAt(unix.AT_FDCWD, ProcPath(fd), []unix.Timespec{{Nsec: unix.UTIME_OMIT}, at}, 0)
}

// ProcPath names an open file for system calls that take no descriptor. It leads to that very file,
// whatever happens to its name.
func ProcPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }
