package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// fsType is the file system type by which the kernel lists kmsfs's mounts.
const fsType = "fuse.kmsfs"

// A mount is one line of /proc/self/mountinfo.
type mount struct {
	// id is unique among the mounts there are now.
	id int
	// path is the mountpoint, source what is mounted: for kmsfs the volume.
	path, fsType, source string
}

// mounts lists what is mounted, in the order in which the kernel does: of two mounts at one path, the later one shows.
func mounts() ([]mount, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []mount
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		m, err := parseMount(lines.Text())
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, lines.Err()
}

// parseMount reads a line of mountinfo, as proc(5) describes it:
//
//	36 35 98:0 /root /mountpoint rw,noatime master:1 - fuse.kmsfs /source rw
func parseMount(line string) (mount, error) {
	front, back, ok := strings.Cut(line, " - ")
	left, right := strings.Fields(front), strings.Split(back, " ")
	if !ok || len(left) < 6 || len(right) < 2 {
		return mount{}, fmt.Errorf("mountinfo: unexpected line %q", line)
	}
	id, err := strconv.Atoi(left[0])
	if err != nil {
		return mount{}, fmt.Errorf("mountinfo: unexpected line %q", line)
	}
	return mount{id: id, path: unescape(left[4]), fsType: right[0], source: unescape(right[1])}, nil
}

// unescape undoes the kernel's escaping of a blank, tab, line feed and backslash as a backslash and three octal digits.
func unescape(s string) string {
	var b strings.Builder
	for {
		before, after, ok := strings.Cut(s, `\`)
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		if code, err := strconv.ParseUint(after[:min(3, len(after))], 8, 8); err == nil && len(after) >= 3 {
			b.WriteByte(byte(code))
			after = after[3:]
		} else {
			b.WriteByte('\\')
		}
		s = after
	}
}

// mountedAt returns what is mounted at that path, which shows its type even if nobody serves it any more.
func mountedAt(path string) (m mount, ok bool, err error) {
	all, err := mounts()
	for _, each := range all {
		if each.path == path {
			m, ok = each, true
		}
	}
	return m, ok, err
}

// ownMountAt returns the kmsfs mount whose mountpoint the user names, and the path without symlinks in any case.
func ownMountAt(named string) (path string, m mount, ok bool, err error) {
	if path, err = resolve(named, true); err != nil {
		return "", mount{}, false, err
	}
	m, ok, err = mountedAt(path)
	return path, m, ok && m.fsType == fsType, err
}

// mountAbove returns the kmsfs mount that the path lies in.
func mountAbove(path string) (m mount, ok bool, err error) {
	all, err := mounts()
	for _, each := range all {
		if within(each.path, path) && len(each.path) >= len(m.path) {
			m, ok = each, true
		}
	}
	return m, ok && m.fsType == fsType, err
}

// within says whether path is the directory or lies in it; both are absolute and clean.
func within(dir, path string) bool {
	return dir == path || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// resolve returns the absolute path without symlinks, following the last element only if follow is set. What doesn't exist
// yet, or can't be looked at as it is a mountpoint that nobody serves, is kept as it is.
func resolve(path string, follow bool) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if follow {
		target, err := filepath.EvalSymlinks(abs)
		if err == nil {
			return target, nil
		}
		if info, statErr := os.Lstat(abs); statErr == nil && info.Mode()&fs.ModeSymlink != 0 {
			return "", err
		}
	}
	if abs == "/" {
		return abs, nil
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(abs))
	if errors.Is(err, fs.ErrNotExist) {
		parent, err = resolve(filepath.Dir(abs), true)
	}
	if err != nil {
		return "", err
	}
	return filepath.Join(parent, filepath.Base(abs)), nil
}
