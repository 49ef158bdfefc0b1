package volume

import (
	"golang.org/x/sys/unix"

	"kmsfs/fs/volume/backing"
)

// OpenOwned opens a file whose mode keeps its own owner out. A header changes when a read-only file
// is renamed, and the kernel has asked the mode already whether the caller may read or write. The
// mode is put back at once. Until then it lets in the owner only, who could change it anyway: a
// process that is killed in between gives nobody else access.
func OpenOwned(dir backing.Dir, entry string) (backing.File, error) {
	node, err := dir.Lookup(entry)
	if err != nil {
		return nil, err
	}
	defer node.Close()
	st, err := node.Stat()
	if err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, unix.EACCES
	}
	if err := node.Chmod(0o600); err != nil {
		return nil, err
	}
	f, err := openSame(dir, entry, &st)
	if back := node.Chmod(st.Mode & 0o7777); back != nil && err == nil {
		f.Close()
		err = back
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

// openSame opens a file for writing, if it is still the one that st is of.
func openSame(dir backing.Dir, entry string, st *unix.Stat_t) (backing.File, error) {
	f, err := dir.OpenFile(entry, unix.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	opened, err := f.Stat()
	if err == nil && (opened.Ino != st.Ino || opened.Dev != st.Dev) {
		err = unix.ESTALE
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// SetModified sets the modification time of an open file or directory.
func SetModified(n backing.Node, at unix.Timespec) error {
	return n.SetTimes(unix.Timespec{Nsec: unix.UTIME_OMIT}, at)
}
