package backing

import (
	"bytes"
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"
)

// Offsets in struct linux_dirent64 (getdents64(2)), in bytes.
const (
	direntOff    = 8
	direntReclen = 16
	direntType   = 18
	direntName   = 19
)

// direntBatch is how much of a directory is read at once, in bytes. A walk has that much for each
// level that it is deep in.
const direntBatch = 32 << 10

func (h *handle) EachBatch(do func([]Entry) error) error {
	buffer := make([]byte, direntBatch)
	for {
		entries, err := readEntries(h.fd, buffer)
		if err != nil || entries == nil {
			return err
		}
		entries = slices.DeleteFunc(entries, func(e Entry) bool { return e.Name == "." || e.Name == ".." })
		if err := do(entries); err != nil {
			return err
		}
	}
}

// ReadEntries reads the next entries of an open directory by its descriptor, with "." and ".."; nil at
// the end.
func ReadEntries(dir int) ([]Entry, error) { return readEntries(dir, make([]byte, direntBatch)) }

func readEntries(dir int, buffer []byte) (entries []Entry, err error) {
	n := 0
	err = retry(func() (err error) { n, err = unix.Getdents(dir, buffer); return err })
	if err != nil || n == 0 {
		return nil, err
	}
	return parseEntries(buffer[:n])
}

func parseEntries(b []byte) ([]Entry, error) {
	entries := []Entry{}
	for len(b) > direntName {
		length := int(binary.NativeEndian.Uint16(b[direntReclen:]))
		if length <= direntName || length > len(b) {
			return nil, unix.EIO
		}
		name, _, _ := bytes.Cut(b[direntName:length], []byte{0})
		off := int64(binary.NativeEndian.Uint64(b[direntOff:]))
		entries = append(entries, Entry{string(name), binary.NativeEndian.Uint64(b), b[direntType], off})
		b = b[length:]
	}
	return entries, nil
}
