// Package users knows the users and groups of the system, and tells the audit log who a caller is.
package users

import (
	"os"
	"os/user"
	"strconv"
	"strings"
	"sync"
	"time"

	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/kms"
	"kmsfs/policy"
	"kmsfs/policy/caller"
)

const (
	// nameLife is how long a name is believed before the system is asked again.
	nameLife = 5 * time.Minute
	// maxNames bounds the names that are remembered.
	maxNames = 10_000

	// maxOperation bounds the name of a file operation in the audit log, and maxFilePath a file's path, in bytes.
	maxOperation = 64
	maxFilePath  = 8192
)

// Directory knows who callers are, and remembers the names and groups that the system's user database has for a while. It is safe for concurrent use.
type Directory struct {
	users, groups byID[Name]
	// members has the groups of users, the primary one first.
	members byID[[]uint32]
	// arn makes a user's ARN of its name; nil for none.
	arn func(name string) string
	// PID is this process's, and own the path of its program.
	PID int32
	own string
}

// New returns a directory that knows nobody yet. arn makes a user's ARN of its name; nil for none.
func New(arn func(name string) string) *Directory {
	own, err := os.Readlink("/proc/self/exe")
	if err != nil {
		own = ""
	}
	return &Directory{arn: arn, PID: int32(os.Getpid()), own: own}
}

// Identity is the caller as audit records have it.
func (u *Directory) Identity(c *kms.Caller, now time.Time) audit.Identity {
	known := u.User(c.UID, now)
	i := audit.Identity{
		UID: c.UID, GID: c.GID, UserName: known.Shown, ARN: known.ARN, PID: c.PID, Executable: u.Executable(c),
		AccessKeyID: c.AccessKeyID, Address: c.Address,
		Operation: c.Operation[:min(len(c.Operation), maxOperation)], Path: c.Path[:min(len(c.Path), maxFilePath)],
	}
	if c.Behind != nil {
		i.Behind = &audit.Process{
			UID: c.Behind.UID, GID: c.Behind.GID, UserName: u.User(c.Behind.UID, now).Shown, PID: c.Behind.PID, Executable: u.Executable(&kms.Caller{Caller: *c.Behind}),
		}
	}
	return i
}

// byID remembers what the system says of numbers.
type byID[T any] struct {
	mu    sync.Mutex // guards known
	known map[uint32]remembered[T]
}

type remembered[T any] struct {
	value T
	until time.Time
}

// find returns what is known of an ID, asking the system by look if nothing is.
func (b *byID[T]) find(id uint32, now time.Time, look func(id uint32) T) T {
	b.mu.Lock()
	known, ok := b.known[id]
	b.mu.Unlock()
	if ok && now.Before(known.until) {
		return known.value
	}
	value := look(id)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.known == nil || len(b.known) >= maxNames {
		b.known = map[uint32]remembered[T]{}
	}
	b.known[id] = remembered[T]{value, now.Add(nameLife)}
	return value
}

// Name is what a user or a group is called.
type Name struct {
	// Name is empty if there is none.
	Name string
	// Shown is the name, or "uid:N" or "gid:N" if there is none, and arn the ARN of a user.
	Shown, ARN string
}

// User returns the name of a user.
func (u *Directory) User(uid uint32, now time.Time) Name { return u.users.find(uid, now, u.lookUser) }

// Group returns the name of a group.
func (u *Directory) Group(gid uint32, now time.Time) Name { return u.groups.find(gid, now, lookGroup) }

// Exists says whether the system has a user or a group of the principal's name now.
func (u *Directory) Exists(p policy.Principal) bool {
	var err error
	switch p.Kind {
	case policy.User:
		_, err = user.Lookup(p.Name)
	case policy.Group:
		_, err = user.LookupGroup(p.Name)
	}
	return err == nil
}

// Spellings returns a principal in each way that policies may name it: a user or a group by name, if it
// has one, and by number.
func (u *Directory) Spellings(p policy.Principal, now time.Time) []policy.Principal {
	named, numbered := p, p
	switch p.Kind {
	case policy.UID:
		named = policy.Principal{Kind: policy.User, Name: u.User(p.ID, now).Name}
	case policy.GID:
		named = policy.Principal{Kind: policy.Group, Name: u.Group(p.ID, now).Name}
	case policy.User, policy.Group:
		var err error
		if numbered, err = lookNumber(p); err != nil {
			return []policy.Principal{p}
		}
	default:
		return []policy.Principal{p}
	}
	if named.Name == "" {
		return []policy.Principal{numbered}
	}
	return []policy.Principal{named, numbered}
}

// lookNumber returns a user or a group, which is given by name, by number.
func lookNumber(p policy.Principal) (policy.Principal, error) {
	kind, number := policy.UID, ""
	if p.Kind == policy.User {
		found, err := user.Lookup(p.Name)
		if err != nil {
			return p, err
		}
		number = found.Uid
	} else {
		found, err := user.LookupGroup(p.Name)
		if err != nil {
			return p, err
		}
		kind, number = policy.GID, found.Gid
	}
	id, err := strconv.ParseUint(number, 10, 32)
	return policy.Principal{Kind: kind, ID: uint32(id)}, err
}

func (u *Directory) lookUser(uid uint32) Name {
	known := Name{Shown: "uid:" + decimal(uid)}
	if found, err := user.LookupId(decimal(uid)); err == nil {
		known.Name, known.Shown = found.Username, found.Username
	}
	if u.arn != nil {
		known.ARN = u.arn(known.Shown)
	}
	return known
}

func lookGroup(gid uint32) Name {
	known := Name{Shown: "gid:" + decimal(gid)}
	if found, err := user.LookupGroupId(decimal(gid)); err == nil {
		known.Name, known.Shown = found.Name, found.Name
	}
	return known
}

// Groups returns the groups of a user as the system's user database has them, the primary one first. A user whom it doesn't know has
// one group, of the user's own number.
func (u *Directory) Groups(uid uint32) []uint32 { return u.members.find(uid, time.Now(), lookGroups) }

func lookGroups(uid uint32) []uint32 {
	found, err := user.LookupId(decimal(uid))
	if err != nil {
		return []uint32{uid}
	}
	return append(caller.ParseGroups(found.Gid), supplementary(found)...)
}

func supplementary(u *user.User) []uint32 {
	ids, err := u.GroupIds()
	if err != nil {
		return nil
	}
	return caller.ParseGroups(strings.Join(ids, " "))
}

func decimal(id uint32) string { return strconv.FormatUint(uint64(id), 10) }

// Executable is the path of the caller's program; empty if it can't be told. Of those who didn't connect, only this process's own is remembered: any
// other can change its program at any time.
func (u *Directory) Executable(c *kms.Caller) string {
	switch {
	case c.Executable != "":
		return c.Executable
	case c.PID <= 0:
		return ""
	case c.PID == u.PID:
		return u.own
	}
	path, err := os.Readlink("/proc/" + strconv.Itoa(int(c.PID)) + "/exe")
	if err != nil {
		return ""
	}
	return path
}
