// Package backing is the directory in which a volume lies, as the volume sees it: open directories,
// files and other nodes, with the operations of POSIX relative to them. Package backing has the
// real implementation, by system calls; package memory has one in memory, which can fail and crash
// on demand.
//
// Names are single components: no "/", and no ".." ("." is the directory itself where a method says
// so). Links are never followed. Errors are values of syscall.Errno. Methods retry what a signal
// interrupts.
package backing

import (
	"io"

	"golang.org/x/sys/unix"
)

// Node is an open node of any kind. One that Dir.Lookup opened serves for its metadata only.
type Node interface {
	// Stat is fstat(2).
	Stat() (unix.Stat_t, error)
	// Chmod sets the permission bits. Symlinks have none (EOPNOTSUPP).
	Chmod(mode uint32) error
	// Chown sets owner and group; -1 leaves one as it is.
	Chown(uid, gid int) error
	// SetTimes sets the times of access and modification; UTIME_OMIT and UTIME_NOW are as of
	// utimensat(2).
	SetTimes(access, modification unix.Timespec) error
	// Getxattr returns the value's size, and the value in value if that is not empty (ERANGE if it
	// is too short).
	Getxattr(name string, value []byte) (int, error)
	// Setxattr sets an attribute; flags are 0, XATTR_CREATE or XATTR_REPLACE.
	Setxattr(name string, value []byte, flags int) error
	// Removexattr removes an attribute (ENODATA if it is not there).
	Removexattr(name string) error
	// Listxattr returns the size of the list of names, each with a zero behind it, and the list in
	// list if that is not empty (ERANGE if it is too short).
	Listxattr(list []byte) (int, error)
	// Sync is fsync(2): the node's content and metadata, and the names that it has, are durable.
	Sync() error
	// Close ends the use of the node.
	Close() error
}

// File is an open regular file.
type File interface {
	Node
	// ReadAt and WriteAt are io's: what is short has an error, which is io.EOF at the file's end.
	io.ReaderAt
	io.WriterAt
	// Truncate cuts or extends the file to size bytes.
	Truncate(size int64) error
	// Allocate is fallocate(2); mode is FALLOC_FL_KEEP_SIZE,
	// FALLOC_FL_PUNCH_HOLE|FALLOC_FL_KEEP_SIZE or 0.
	Allocate(mode uint32, off, n int64) error
	// Seek finds data (whence SEEK_DATA) or a hole (SEEK_HOLE) at off or behind it (ENXIO if there
	// is none).
	Seek(off int64, whence int) (int64, error)
	// Datasync is fdatasync(2): content and size are durable; owner, mode and attributes need not
	// be.
	Datasync() error
	// Flock is flock(2). With LOCK_NB it returns EWOULDBLOCK where it would wait.
	Flock(how int) error
	// LockByte locks one byte for this open file (F_OFD_SETLKW of fcntl(2)): kind is F_RDLCK,
	// F_WRLCK or F_UNLCK.
	LockByte(at int64, kind int16) error
	// ByteLocked says whether another open file has a lock on that byte.
	ByteLocked(at int64) (bool, error)
}

// Dir is an open directory.
type Dir interface {
	Node
	// EachBatch calls do with the directory's entries, some at a time, without "." and "..", from
	// where the last call on this open directory has ended. An error of do ends it.
	EachBatch(do func([]Entry) error) error
	// StatAt is fstatat(2), of "." too.
	StatAt(name string) (unix.Stat_t, error)
	// Lookup opens a node of any kind for its metadata (O_PATH).
	Lookup(name string) (Node, error)
	// OpenDir opens a directory, "." too (ENOTDIR if it is something else).
	OpenDir(name string) (Dir, error)
	// OpenFile opens a file, and makes it with O_CREAT. Opening never waits; what is no regular
	// file may be opened (a FIFO) or not (ENXIO, ELOOP, EISDIR): callers look at Stat. O_TMPFILE
	// with the name "." makes a file without a name.
	OpenFile(name string, flags int, mode uint32) (File, error)
	Mkdir(name string, mode uint32) error
	Mknod(name string, mode uint32, device uint64) error
	Symlink(target, name string) error
	// Readlink returns a symlink's target (EINVAL if it is something else).
	Readlink(name string) (string, error)
	// Link gives the entry name another name in directory to.
	Link(name string, to Dir, as string) error
	// LinkFile gives an open file a name; it may have none (O_TMPFILE).
	LinkFile(f File, as string) error
	Unlink(name string) error
	Rmdir(name string) error
	// Rename is renameat2(2); flags are 0, RENAME_NOREPLACE or RENAME_EXCHANGE.
	Rename(name string, to Dir, as string, flags uint) error
	// ChownAt is fchownat(2) of the entry itself.
	ChownAt(name string, uid, gid int) error
	// SetTimesAt is utimensat(2) of the entry itself.
	SetTimesAt(name string, access, modification unix.Timespec) error
	// Statfs is fstatfs(2).
	Statfs() (unix.Statfs_t, error)
	// Syncfs makes everything on the file system durable.
	Syncfs() error
}

// Entry is a name in a directory.
type Entry struct {
	Name string
	Ino  uint64
	// Kind is a DT constant, DT_UNKNOWN where the file system doesn't tell.
	Kind uint8
	// Off is where the directory goes on behind the entry, for lseek(2); 0 in memory.
	Off int64
}

// Entries returns all entries of a directory that has just been opened.
func Entries(d Dir) (all []Entry, err error) {
	err = d.EachBatch(func(entries []Entry) error {
		all = append(all, entries...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}
