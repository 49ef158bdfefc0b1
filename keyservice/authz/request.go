package authz

import (
	"strconv"
	"time"

	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/users"
	"kmsfs/policy"
	"kmsfs/policy/caller"
)

// Request is a request as decisions see it: the caller, and the values of condition keys.
type Request struct {
	// Verdict is the answer to the last question about a key.
	Verdict Verdict

	authorizer *Authorizer
	// caller is who calls; with an empty PID, a user whom a caller asks about.
	caller  *kms.Caller
	subject subject
	time    time.Time
	// via is the service that calls for the subject; empty for none.
	via string
	// values are those that the operation knows. Their room lies in the request.
	values []value
	room   [4]value

	// key is nil for what concerns none, alias the alias that named it, and context the encryption
	// context of an operation that has one.
	key     *Resource
	alias   string
	context map[string]string
}

// value is the value, or the values, of a condition key. The key is in lower case.
type value struct {
	key, text string
	texts     []string
}

// Begin makes r a caller's request.
func (a *Authorizer) Begin(r *Request, c *kms.Caller, now time.Time) {
	r.authorizer, r.caller, r.time = a, c, now
	r.subject = subject{users: a.users, time: now, uid: c.UID, owns: c.UID == a.owner, caller: c}
	r.values = r.room[:0]
	if c.ViaFileSystem {
		r.via = FileSystemService
	}
}

// Ask returns a request as a user would make it, in the groups of the system's user database.
func (a *Authorizer) Ask(uid uint32, via string, now time.Time) *Request {
	r := &Request{authorizer: a, caller: &kms.Caller{Caller: caller.Caller{UID: uid}}, time: now, via: via}
	r.subject = subject{users: a.users, time: now, uid: uid, owns: uid == a.owner, listed: true}
	return r
}

// On sets the key that the next question is about, which an alias may have named, and the
// encryption context.
func (r *Request) On(key *Resource, alias string, context map[string]string) {
	r.key, r.alias, r.context = key, alias, context
}

// groupsOf are all groups of a caller, as the system has them if the caller doesn't say.
func groupsOf(c *kms.Caller) []uint32 {
	groups := []uint32{c.GID}
	if c.Groups == nil {
		return append(groups, caller.Groups(c.PID)...)
	}
	return append(groups, c.Groups...)
}

// Set gives a condition key, which is in lower case, a value in place of the one that it had.
func (r *Request) Set(key, text string) { r.set(value{key: key, text: text}) }

// SetBool is Set for a truth value.
func (r *Request) SetBool(key string, b bool) { r.Set(key, strconv.FormatBool(b)) }

// SetNumber is Set for a number.
func (r *Request) SetNumber(key string, n int64) { r.Set(key, strconv.FormatInt(n, 10)) }

// SetList gives a condition key that may have several values all of them.
func (r *Request) SetList(key string, texts []string) { r.set(value{key: key, texts: texts}) }

// SetPrincipal gives a condition key a principal, which is given by its ARN, in each of its
// spellings. An empty ARN is none.
func (r *Request) SetPrincipal(key, arn string) {
	p, err := policy.ParsePrincipal(arn, r.authorizer.names.Account)
	if err != nil {
		r.Set(key, arn)
		return
	}
	r.SetList(key, r.authorizer.spellings(p, r.time))
}

// spellings are the ARNs of a principal: by name if there is one, and by number.
func (a *Authorizer) spellings(p policy.Principal, now time.Time) (arns []string) {
	for _, p := range a.users.Spellings(p, now) {
		arns = append(arns, p.ARN(a.names.Account))
	}
	return arns
}

func (r *Request) set(v value) {
	for i := range r.values {
		if r.values[i].key == v.key {
			r.values[i] = v
			return
		}
	}
	r.values = append(r.values, v)
}

// subject is the caller as policies and grants see it.
type subject struct {
	users *users.Directory
	time  time.Time
	uid   uint32
	// owns says that the subject has the rights of the home's owner.
	owns bool
	// caller has the groups of the subject, unless they are those listed in the user database.
	caller *kms.Caller
	listed bool
	// known are the groups once they were asked for: if a policy or a grant depends on them.
	known []uint32
	asked bool
	// user has the names of uid once they were asked for.
	user  users.Name
	named bool
}

var _ policy.Subject = (*subject)(nil)

// IsRoot says that the subject is the account's root principal.
func (u *subject) IsRoot() bool { return u.owns }

// Is says whether a policy that names the principal means the subject.
func (u *subject) Is(p policy.Principal) bool {
	switch p.Kind {
	case policy.UID:
		return p.ID == u.uid
	case policy.User:
		return p.Name == u.names().Shown
	case policy.GID, policy.Group:
		for _, gid := range u.allGroups() {
			if p.Kind == policy.GID && p.ID == gid || p.Kind == policy.Group && p.Name == u.users.Group(gid, u.time).Shown {
				return true
			}
		}
	}
	return false
}

func (u *subject) allGroups() []uint32 {
	switch {
	case u.asked:
	case u.listed:
		u.known = u.users.Groups(u.uid)
	default:
		u.known = groupsOf(u.caller)
	}
	u.asked = true
	return u.known
}

// names are those of the subject's user.
func (u *subject) names() *users.Name {
	if !u.named {
		u.user, u.named = u.users.User(u.uid, u.time), true
	}
	return &u.user
}

// principals appends all principals that the subject is.
func (u *subject) principals(all []policy.Principal) []policy.Principal {
	all = append(all, policy.Principal{Kind: policy.UID, ID: u.uid})
	if name := u.names().Name; name != "" {
		all = append(all, policy.Principal{Kind: policy.User, Name: name})
	}
	for _, gid := range u.allGroups() {
		all = append(all, policy.Principal{Kind: policy.GID, ID: gid})
		if name := u.users.Group(gid, u.time).Name; name != "" {
			all = append(all, policy.Principal{Kind: policy.Group, Name: name})
		}
	}
	if u.owns {
		all = append(all, policy.Principal{Kind: policy.Account})
	}
	return all
}
