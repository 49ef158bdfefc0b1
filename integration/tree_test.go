package integration

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// snapshot describes everything in a directory: types, modes, owners, sizes, times, links, contents and attributes.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		all[name], err = describe(path)
		return err
	})
	must(t, err)
	return all
}

// describe tells everything about a file that lasts.
func describe(path string) (string, error) {
	var stat unix.Stat_t
	if err := unix.Lstat(path, &stat); err != nil {
		return "", fmt.Errorf("lstat %s: %w", path, err)
	}
	text := fmt.Sprintf("mode %o owner %d:%d links %d", stat.Mode, stat.Uid, stat.Gid, stat.Nlink)
	if stat.Mode&unix.S_IFMT != unix.S_IFDIR {
		text += fmt.Sprintf(" size %d", stat.Size)
	}
	text += fmt.Sprintf(" modified %d.%09d", stat.Mtim.Sec, stat.Mtim.Nsec)
	switch stat.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrPermission) {
			break
		}
		if err != nil {
			return "", err
		}
		defer f.Close()
		hash := sha256.New()
		if _, err := io.Copy(hash, f); err != nil {
			return "", err
		}
		text += fmt.Sprintf(" content %x", hash.Sum(nil)[:8])
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		text += fmt.Sprintf(" target %q", target)
	case unix.S_IFCHR, unix.S_IFBLK:
		text += fmt.Sprintf(" device %d", stat.Rdev)
	}
	attributes, err := attributes(path)
	for _, name := range slices.Sorted(maps.Keys(attributes)) {
		text += fmt.Sprintf(" %q=%x", name, sha256.Sum256([]byte(attributes[name])))
	}
	return text, err
}

// attributes returns a file's extended attributes.
func attributes(path string) (map[string]string, error) {
	buffer := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buffer)
	if err != nil {
		return nil, fmt.Errorf("list attributes of %s: %w", path, err)
	}
	all := make(map[string]string)
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buffer[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return nil, fmt.Errorf("attribute %q of %s: %w", name, path, err)
		}
		all[name] = string(value[:n])
	}
	return all, nil
}

// compare says what differs between two snapshots.
func compare(t *testing.T, before, after map[string]string) {
	t.Helper()
	shown := 0
	complain := func(format string, args ...any) {
		if shown++; shown <= 20 {
			t.Errorf(format, args...)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(before)) {
		switch got, ok := after[name]; {
		case !ok:
			complain("%q is gone", name)
		case got != before[name]:
			complain("%q is now\n%s, was\n%s", name, got, before[name])
		}
	}
	for name := range after {
		if _, ok := before[name]; !ok {
			complain("%q has appeared", name)
		}
	}
}
