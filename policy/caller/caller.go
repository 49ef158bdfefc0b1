// Package caller describes the process behind a request, as the kernel reports it.
package caller

import (
	"bufio"
	"io"
	"os"
	"strconv"
	"strings"
)

// Caller is the process behind a request. Its values come from the kernel, never from the process.
type Caller struct {
	// UID and GID are the effective user and group ID of the process.
	UID, GID uint32
	// Groups holds the supplementary group IDs; nil if they are not known.
	Groups []uint32 `json:",omitzero"`
	// PID is the process ID in the service's PID namespace; 0 if the process has none there.
	PID int32
}

// Groups returns the supplementary groups of a process; nil if they can't be read.
func Groups(pid int32) []uint32 {
	_, groups := Process(pid)
	return groups
}

// Process returns the process that a thread belongs to and the thread's supplementary groups, from
// /proc. It returns 0 and nil if they can't be read.
func Process(tid int32) (pid int32, groups []uint32) {
	if tid <= 0 {
		return 0, nil
	}
	f, err := os.Open("/proc/" + strconv.Itoa(int(tid)) + "/status")
	if err != nil {
		return 0, nil
	}
	defer f.Close()
	return readStatus(f)
}

// readStatus reads the lines Tgid and Groups of proc_pid_status(5). Groups comes after Tgid.
func readStatus(status io.Reader) (pid int32, groups []uint32) {
	for lines := bufio.NewScanner(status); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), ":")
		switch name {
		case "Tgid":
			if n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 32); err == nil {
				pid = int32(n)
			}
		case "Groups":
			return pid, ParseGroups(value)
		}
	}
	return 0, nil
}

// ParseGroups reads group IDs separated by white space. It leaves out what is not a number, and
// returns nil if nothing remains.
func ParseGroups(list string) []uint32 {
	var groups []uint32
	for text := range strings.FieldsSeq(list) {
		if gid, err := strconv.ParseUint(text, 10, 32); err == nil {
			groups = append(groups, uint32(gid))
		}
	}
	return groups
}
