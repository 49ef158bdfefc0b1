package keyservice

import (
	"os"
	"os/user"
	"strconv"
	"sync"
	"time"
)

// userLife is how long a user's name is believed before the system is asked again.
const userLife = 5 * time.Minute

// users remembers the names of users.
type users struct {
	mu    sync.Mutex
	known map[uint32]knownUser
}

type knownUser struct {
	name  string
	until time.Time
}

// name is what the system calls the user, or "uid:N" if it doesn't know.
func (u *users) name(uid uint32) string {
	now := time.Now()
	u.mu.Lock()
	known, ok := u.known[uid]
	u.mu.Unlock()
	if ok && now.Before(known.until) {
		return known.name
	}
	name := "uid:" + strconv.FormatUint(uint64(uid), 10)
	if found, err := user.LookupId(strconv.FormatUint(uint64(uid), 10)); err == nil {
		name = found.Username
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.known == nil || len(u.known) > 10_000 {
		u.known = map[uint32]knownUser{}
	}
	u.known[uid] = knownUser{name, now.Add(userLife)}
	return name
}

// executable is the path of the process's program; empty if it can't be told. It is not remembered: a process can change its
// program at any time.
func executable(pid int32) string {
	if pid <= 0 {
		return ""
	}
	path, err := os.Readlink("/proc/" + strconv.Itoa(int(pid)) + "/exe")
	if err != nil {
		return ""
	}
	return path
}
