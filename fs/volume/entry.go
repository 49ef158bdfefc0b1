package volume

import (
	"bytes"
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"
)

// Entry is one entry of a backing directory.
type Entry struct {
	Name string
	Ino  uint64
	Kind uint8 // a DT_ constant
	Off  int64 // where the directory goes on behind the entry, for lseek(2)
}

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

// ListEntries reads a directory from where its descriptor stands, without "." and "..".
func ListEntries(dir int) (all []Entry, err error) {
	err = EachBatch(dir, func(entries []Entry) error {
		all = append(all, entries...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// EachBatch calls do with the entries of a directory, some at a time, from where its descriptor
// stands, without "." and "..". An error of do ends it.
func EachBatch(dir int, do func([]Entry) error) error {
	buffer := make([]byte, direntBatch)
	for {
		entries, err := readBatch(dir, buffer)
		if err == nil && entries != nil {
			err = do(entries)
		}
		if err != nil || entries == nil {
			return err
		}
	}
}

// readBatch reads the next entries of a directory, without "." and "..", so that there may be none;
// nil at the end.
func readBatch(dir int, buffer []byte) ([]Entry, error) {
	entries, err := readEntries(dir, buffer)
	return slices.DeleteFunc(entries, func(e Entry) bool { return e.Name == "." || e.Name == ".." }), err
}

// ReadEntries reads the next entries of a directory, with "." and ".."; nil at the end.
func ReadEntries(dir int) ([]Entry, error) { return readEntries(dir, make([]byte, direntBatch)) }

func readEntries(dir int, buffer []byte) ([]Entry, error) {
	n, err := retry(func() (int, error) { return unix.Getdents(dir, buffer) })
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
