package fs

import (
	"strconv"

	disk "kmsfs/fs/volume"
	"kmsfs/fs/volume/backing"
)

// procPath names an open file for system calls that take no descriptor. It leads to that very file,
// whatever happens to its name.
func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// openOwned opens a file for writing whose mode keeps its own owner out.
func openOwned(dir int, entry string) (int, error) {
	f, err := disk.OpenOwned(backing.FromDescriptor(dir), entry)
	if err != nil {
		return -1, err
	}
	return backing.Descriptor(f), nil
}
