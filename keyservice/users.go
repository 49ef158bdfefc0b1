package keyservice

import (
	"bufio"
	"os"
	"os/user"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// nameLife is how long a name is believed before the system is asked again.
	nameLife = 5 * time.Minute
	// maxNames bounds the names that are remembered.
	maxNames = 10_000
)

// users remembers the names of users and groups.
type users struct {
	users, groups names32
	// members has the groups of users.
	members names32
	// arn makes a user's ARN of its name.
	arn func(name string) string
	// pid is this process's, and own the path of its program.
	pid int32
	own string
}

func newUsers() users {
	own, err := os.Readlink("/proc/self/exe")
	if err != nil {
		own = ""
	}
	return users{pid: int32(os.Getpid()), own: own}
}

// names32 remembers the names of numbers.
type names32 struct {
	mu    sync.Mutex // guards known
	known map[uint32]knownName
}

type knownName struct {
	// name is empty if there is none.
	name  string
	until time.Time
	// shown is the name, or "uid:N" or "gid:N" if there is none, and arn the ARN of a user.
	shown, arn string
	// groups are those of a user, of whom nothing else is said then: the primary one first.
	groups []uint32
}

// find returns the name of an ID, asking the system by look if it is not known.
func (n *names32) find(id uint32, now time.Time, look func(id uint32) knownName) knownName {
	n.mu.Lock()
	known, ok := n.known[id]
	n.mu.Unlock()
	if ok && now.Before(known.until) {
		return known
	}
	known = look(id)
	known.until = now.Add(nameLife)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.known == nil || len(n.known) >= maxNames {
		n.known = map[uint32]knownName{}
	}
	n.known[id] = known
	return known
}

func (u *users) user(uid uint32, now time.Time) knownName { return u.users.find(uid, now, u.lookUser) }

func (u *users) group(gid uint32, now time.Time) knownName { return u.groups.find(gid, now, lookGroup) }

func (u *users) lookUser(uid uint32) knownName {
	known := knownName{shown: "uid:" + decimal(uid)}
	if found, err := user.LookupId(decimal(uid)); err == nil {
		known.name, known.shown = found.Username, found.Username
	}
	known.arn = u.arn(known.shown)
	return known
}

func lookGroup(gid uint32) knownName {
	known := knownName{shown: "gid:" + decimal(gid)}
	if found, err := user.LookupGroupId(decimal(gid)); err == nil {
		known.name, known.shown = found.Name, found.Name
	}
	return known
}

// membership returns the groups of a user as the system's user database has them, the primary one first. A user whom it doesn't know has
// one group, of the user's own number.
func (u *users) membership(uid uint32) []uint32 {
	return u.members.find(uid, time.Now(), func(uid uint32) knownName {
		known := knownName{groups: []uint32{uid}}
		if found, err := user.LookupId(decimal(uid)); err == nil {
			known.groups = append(parseGroups(found.Gid), listedUser(uid).groups()...)
		}
		return known
	}).groups
}

func decimal(id uint32) string { return strconv.FormatUint(uint64(id), 10) }

func decimal64(n int64) string { return strconv.FormatInt(n, 10) }

// executable is the path of the process's program; empty if it can't be told. Only this process's own is remembered: any other can
// change its program at any time.
func (u *users) executable(pid int32) string {
	switch {
	case pid <= 0:
		return ""
	case pid == u.pid:
		return u.own
	}
	path, err := os.Readlink("/proc/" + strconv.Itoa(int(pid)) + "/exe")
	if err != nil {
		return ""
	}
	return path
}

// processGroups returns the supplementary groups of a process as the kernel has them; none if it can't be told.
func processGroups(pid int32) []uint32 {
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
			return parseGroups(list)
		}
	}
	return nil
}

func parseGroups(list string) []uint32 {
	var groups []uint32
	for text := range strings.FieldsSeq(list) {
		if gid, err := strconv.ParseUint(text, 10, 32); err == nil {
			groups = append(groups, uint32(gid))
		}
	}
	return groups
}
