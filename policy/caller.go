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
	Groups []uint32 `json:",omitempty"`
	// PID is its process ID in the service's PID namespace; 0 if it has none there.
	PID int32
}

// ProcessGroups returns the supplementary groups that a process has, as the kernel has them; nil if that can't be told.
func ProcessGroups(pid int32) []uint32 {
	if pid <= 0 {
		return nil
	}
	f, err := os.Open("/proc/" + strconv.Itoa(int(pid)) + "/status")
	if err != nil {
		return nil
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if list, ok := strings.CutPrefix(lines.Text(), "Groups:"); ok {
			return ParseGroups(list)
		}
	}
	return nil
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
