package caller_test

import (
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/policy/caller"
)

// A thread's process and groups are those that the kernel reports for it.
func TestProcess(t *testing.T) {
	want, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	pid, groups := caller.Process(int32(unix.Gettid()))
	if int(pid) != os.Getpid() {
		t.Errorf("process %d, want %d", pid, os.Getpid())
	}
	if got := toInts(groups); !slices.Equal(got, sorted(want)) {
		t.Errorf("groups %v, want %v", got, want)
	}
	for _, tid := range []int32{0, -1, 1<<31 - 1} { // the last is above the kernel's largest
		if pid, groups := caller.Process(tid); pid != 0 || groups != nil {
			t.Errorf("thread %d: process %d with groups %v", tid, pid, groups)
		}
	}
}

func sorted(groups []int) []int {
	slices.Sort(groups)
	return groups
}

func toInts(groups []uint32) (all []int) {
	for _, gid := range groups {
		all = append(all, int(gid))
	}
	return sorted(all)
}

func TestParseGroups(t *testing.T) {
	for text, want := range map[string][]uint32{
		"": nil, " \t": nil, "0": {0}, "4 24\t4294967295 ": {4, 24, 4294967295}, "x 5 -1 4294967296": {5},
	} {
		if got := caller.ParseGroups(text); !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}
