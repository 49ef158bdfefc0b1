package keyservice

import (
	"time"

	"kmsfs/policy"
)

// subject is who asks, as policies and grants see it.
type subject struct {
	users *Users
	time  time.Time
	uid   uint32
	// owns says that it has the rights of the home's owner.
	owns bool
	// groups knows the IDs of all groups it belongs to. It is asked only if somebody wants to know.
	groups interface{ groups() []uint32 }
	// known are the groups once they were asked for.
	known []uint32
	asked bool
	// user has the names of uid once somebody wanted to know.
	user  knownName
	named bool
}

var _ policy.Subject = (*subject)(nil)

// IsRoot says that it is the account's root principal.
func (u *subject) IsRoot() bool { return u.owns }

// Is says whether a policy that names the principal means it.
func (u *subject) Is(p policy.Principal) bool {
	switch p.Kind {
	case policy.UID:
		return p.ID == u.uid
	case policy.User:
		return p.Name == u.names().shown
	case policy.GID, policy.Group:
		for _, gid := range u.allGroups() {
			if p.Kind == policy.GID && p.ID == gid || p.Kind == policy.Group && p.Name == u.users.group(gid, u.time).shown {
				return true
			}
		}
	}
	return false
}

func (u *subject) allGroups() []uint32 {
	if !u.asked {
		u.known, u.asked = u.groups.groups(), true
	}
	return u.known
}

// names are those of the subject's user.
func (u *subject) names() *knownName {
	if !u.named {
		u.user, u.named = u.users.user(u.uid, u.time), true
	}
	return &u.user
}

// principals appends all principals that it is.
func (u *subject) principals(all []policy.Principal) []policy.Principal {
	all = append(all, policy.Principal{Kind: policy.UID, ID: u.uid})
	if name := u.names().name; name != "" {
		all = append(all, policy.Principal{Kind: policy.User, Name: name})
	}
	for _, gid := range u.allGroups() {
		all = append(all, policy.Principal{Kind: policy.GID, ID: gid})
		if name := u.users.group(gid, u.time).name; name != "" {
			all = append(all, policy.Principal{Kind: policy.Group, Name: name})
		}
	}
	if u.owns {
		all = append(all, policy.Principal{Kind: policy.Account})
	}
	return all
}
