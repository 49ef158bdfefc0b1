// Package policy says who a caller is, and what key policies and directory policies let it do.
package policy

import (
	"bufio"
	"os"
	"strconv"
	"strings"
)

// Caller is the process behind a request, as the kernel names it: never what the process says of itself.
type Caller struct {
	// UID and GID are the effective user and group ID of the process.
	UID, GID uint32
	// Groups holds its supplementary group IDs, where they are known: nil where they are not.
	Groups []uint32 `json:",omitzero"`
	// PID is its process ID in the service's PID namespace; 0 if it has none there.
	PID int32
}

// ProcessGroups returns the supplementary groups that a process has, as the kernel has them; nil if that can't be told.
func ProcessGroups(pid int32) []uint32 {
	_, groups := ProcessOf(pid)
	return groups
}

// ProcessOf returns the process that a thread belongs to, and the supplementary groups that the thread has, as the kernel has them. What can't be told is 0 and nil.
func ProcessOf(tid int32) (pid int32, groups []uint32) {
	if tid <= 0 {
		return 0, nil
	}
	f, err := os.Open("/proc/" + strconv.Itoa(int(tid)) + "/status")
	if err != nil {
		return 0, nil
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), ":")
		switch name {
		case "Tgid":
			if n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 32); err == nil {
				pid = int32(n)
			}
		case "Groups": // which comes after it
			return pid, ParseGroups(value)
		}
	}
	return 0, nil
}

// ParseGroups reads group IDs with white space between; nil if the text has none. What is no number is left out.
func ParseGroups(list string) []uint32 {
	var groups []uint32
	for text := range strings.FieldsSeq(list) {
		if gid, err := strconv.ParseUint(text, 10, 32); err == nil {
			groups = append(groups, uint32(gid))
		}
	}
	return groups
}
