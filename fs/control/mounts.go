package control

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

// FSType is the file system type by which the kernel lists mounts of kmsfs.
const FSType = "fuse.kmsfs"

// A Mount is one line of /proc/self/mountinfo.
type Mount struct {
	// ID is unique among the present mounts.
	ID int
	// Path is the mountpoint. Source is what is mounted: for kmsfs, the volume.
	Path, FSType, Source string
}

// IsKmsfs says whether the mount is one of kmsfs.
func (m Mount) IsKmsfs() bool { return m.FSType == FSType }

// Mounts lists all mounts in the kernel's order: of two mounts at one path, the later one is
// visible.
func Mounts() ([]Mount, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []Mount
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

// KmsfsMounts lists the mounts of kmsfs.
func KmsfsMounts() ([]Mount, error) {
	all, err := Mounts()
	var own []Mount
	for _, m := range all {
		if m.IsKmsfs() {
			own = append(own, m)
		}
	}
	return own, err
}

// parseMount reads a line of mountinfo, as proc(5) describes it:
//
//	36 35 98:0 /root /mountpoint rw,noatime master:1 - fuse.kmsfs /source rw
func parseMount(line string) (Mount, error) {
	front, back, ok := strings.Cut(line, " - ")
	left, right := strings.Fields(front), strings.Split(back, " ")
	if !ok || len(left) < 6 || len(right) < 2 {
		return Mount{}, fmt.Errorf("mountinfo: unexpected line %q", line)
	}
	id, err := strconv.Atoi(left[0])
	if err != nil {
		return Mount{}, fmt.Errorf("mountinfo: unexpected line %q", line)
	}
	return Mount{ID: id, Path: unescape(left[4]), FSType: right[0], Source: unescape(right[1])}, nil
}

// unescape undoes the kernel's escaping: a blank, tab, line feed or backslash is a backslash and
// three octal digits.
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

// At returns the mount of kmsfs at a mountpoint, whose path is absolute and clean. It finds one
// whose process has died too.
func At(mountpoint string) (m Mount, ok bool, err error) {
	all, err := Mounts()
	for _, each := range all {
		if each.Path == mountpoint {
			m, ok = each, true
		}
	}
	return m, ok && m.IsKmsfs(), err
}

// Find returns the mount of kmsfs whose mountpoint a user names, and in any case the path without
// symlinks.
func Find(named string) (path string, m Mount, ok bool, err error) {
	if path, err = Resolve(named, true); err != nil {
		return "", Mount{}, false, err
	}
	m, ok, err = At(path)
	return path, m, ok, err
}

// Above returns the mount of kmsfs on which a path lies. The path is absolute and clean.
func Above(path string) (m Mount, ok bool, err error) {
	all, err := Mounts()
	for _, each := range all {
		if Within(each.Path, path) && len(each.Path) >= len(m.Path) {
			m, ok = each, true
		}
	}
	return m, ok && m.IsKmsfs(), err
}

// Within says whether a path is the directory or lies in it. Both are absolute and clean.
func Within(dir, path string) bool {
	return dir == path || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// Resolve returns a path as absolute and without symlinks. It follows the last element only if
// follow is set. It keeps elements that don't exist, and the mountpoint of a mount whose process
// has died.
func Resolve(path string, follow bool) (string, error) {
	resolved, err := resolve(path, follow)
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return "", fmt.Errorf("%s: %w", e.Path, e.Err)
	}
	return resolved, err
}

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
