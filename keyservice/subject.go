package keyservice

import (
	"kmsfs/policy"
)

// subject is who asks, as policies and grants see it.
type subject struct {
	users *users
	uid   uint32
	// owns says that it has the rights of the home's owner.
	owns bool
	// groups returns the IDs of all groups it belongs to. It is called only if somebody wants to know.
	groups func() []uint32
	// known are the groups once they were asked for.
	known []uint32
	asked bool
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
		return p.Name == u.users.name(u.uid)
	case policy.GID, policy.Group:
		for _, gid := range u.allGroups() {
			if p.Kind == policy.GID && p.ID == gid || p.Kind == policy.Group && p.Name == u.users.groupName(gid) {
				return true
			}
		}
	}
	return false
}

func (u *subject) allGroups() []uint32 {
	if !u.asked {
		u.known, u.asked = u.groups(), true
	}
	return u.known
}

// principals appends all principals that it is.
func (u *subject) principals(all []policy.Principal) []policy.Principal {
	all = append(all, policy.Principal{Kind: policy.UID, ID: u.uid})
	if name, ok := u.users.knownName(u.uid); ok {
		all = append(all, policy.Principal{Kind: policy.User, Name: name})
	}
	for _, gid := range u.allGroups() {
		all = append(all, policy.Principal{Kind: policy.GID, ID: gid})
		if name, ok := u.users.knownGroupName(gid); ok {
			all = append(all, policy.Principal{Kind: policy.Group, Name: name})
		}
	}
	if u.owns {
		all = append(all, policy.Principal{Kind: policy.Account})
	}
	return all
}
