package backing

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Offsets in struct linux_dirent64 (getdents64(2)), in bytes.
const (
	direntReclen = 16
	direntType   = 18
	direntName   = 19
)

// direntBatch is how much of a directory is read at once, in bytes.
const direntBatch = 32 << 10

func (h *handle) EachBatch(do func([]Entry) error) error {
	buffer := make([]byte, direntBatch)
	for {
		n := 0
		err := retry(func() (err error) { n, err = unix.Getdents(h.fd, buffer); return err })
		if err != nil || n == 0 {
			return err
		}
		entries, err := parseEntries(buffer[:n])
		if err == nil {
			err = do(entries)
		}
		if err != nil {
			return err
		}
	}
}

func parseEntries(b []byte) (entries []Entry, err error) {
	for len(b) > direntName {
		length := int(binary.NativeEndian.Uint16(b[direntReclen:]))
		if length <= direntName || length > len(b) {
			return nil, unix.EIO
		}
		name, _, _ := bytes.Cut(b[direntName:length], []byte{0})
		if s := string(name); s != "." && s != ".." {
			entries = append(entries, Entry{s, binary.NativeEndian.Uint64(b), b[direntType]})
		}
		b = b[length:]
	}
	return entries, nil
}
