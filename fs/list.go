package fs

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// entry is one entry of a backing directory.
type entry struct {
	name string
	ino  uint64
	kind uint8 // a DT_ constant
}

// Offsets in struct linux_dirent64 (getdents64(2)), in bytes.
const (
	direntReclen = 16
	direntType   = 18
	direntName   = 19
)

// listEntries reads a directory from where its descriptor stands, without "." and "..".
func listEntries(dir int) ([]entry, error) {
	var entries []entry
	buffer := make([]byte, 64<<10)
	for {
		n, err := retry(func() (int, error) { return unix.Getdents(dir, buffer) })
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return entries, nil
		}
		for b := buffer[:n]; len(b) > direntName; {
			length := int(binary.NativeEndian.Uint16(b[direntReclen:]))
			if length <= direntName || length > len(b) {
				return nil, unix.EIO
			}
			name, _, _ := bytes.Cut(b[direntName:length], []byte{0})
			if s := string(name); s != "." && s != ".." {
				entries = append(entries, entry{s, binary.NativeEndian.Uint64(b), b[direntType]})
			}
			b = b[length:]
		}
	}
}
