// Package authz decides whether a caller may perform an operation of the key service: by an
// explicit Deny, then the key policy, then grants. What concerns no key goes by the service policy.
package authz

import (
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/store"
	"kmsfs/keyservice/users"
	"kmsfs/policy"
)

// FileSystemService is the value of the condition key kms:ViaService for calls of mounts.
const FileSystemService = "fs.kmsfs"

// What a verdict is based on.
const (
	ByKeyPolicy     = "KeyPolicy"
	ByServicePolicy = "ServicePolicy"
	ByGrant         = "Grant"
	ByFileSystem    = "FileSystem"
	ByDefault       = "Default"
)

// actionPrefix begins the names of AWS KMS's actions.
const actionPrefix = "kms:"

// Verdict is the answer to a question.
type Verdict struct {
	Allowed bool
	// By is one of the constants above. Statement is the policy statement that decided, and Grant
	// the grant.
	By        string
	Statement policy.Decision
	Grant     *store.Grant
}

// Resource is a KMS key as far as decisions depend on it.
type Resource struct {
	store.Key
	ARN    string
	Policy *policy.Document
	// Aliases are sorted.
	Aliases []string
	// Grants are nil if the key has none.
	Grants *Grants
}

// Authorizer decides for one home. It is safe for concurrent use.
type Authorizer struct {
	// Policies are the documents that hold for more than one key.
	Policies *Policies

	names   kms.ARNs
	owner   uint32
	users   *users.Directory
	service atomic.Pointer[policy.Document]
}

// New returns an authorizer for a home that belongs to the user.
func New(names kms.ARNs, owner uint32, users *users.Directory, servicePolicy *policy.Document) (*Authorizer, error) {
	policies, err := newPolicies(names)
	if err != nil {
		return nil, err
	}
	a := &Authorizer{Policies: policies, names: names, owner: owner, users: users}
	a.service.Store(servicePolicy)
	return a, nil
}

// SetServicePolicy replaces the service policy.
func (a *Authorizer) SetServicePolicy(document *policy.Document) { a.service.Store(document) }

// ownActions are the actions that a mount needs no permission for when it acts of itself.
var ownActions = []string{"kms:Decrypt", "kms:GenerateDataKey", "kms:ReEncryptFrom", "kms:ReEncryptTo"}

// Authorize returns an error unless the caller may perform the action on the key, in an encryption
// context if the operation has one. alias is the alias that named the key; empty for none.
func (a *Authorizer) Authorize(r *Request, action string, key *Resource, alias string, context map[string]string) error {
	r.key, r.alias, r.context = key, alias, context
	if r.caller.Own && slices.Contains(ownActions, action) {
		r.Verdict = Verdict{Allowed: true, By: ByFileSystem}
		return nil
	}
	v, err := a.Decide(r, action)
	if err != nil {
		return err
	}
	r.Verdict = v
	if v.Allowed {
		return nil
	}
	return a.denial(r, action, key.ARN, v)
}

// Decide answers in the order of AWS: an explicit Deny, then the key policy, with what it leaves to
// the service policy, then grants.
func (a *Authorizer) Decide(r *Request, action string) (Verdict, error) {
	v := a.decideByPolicies(r, action, r.key)
	if v.By != ByDefault || r.key.Grants == nil {
		return v, nil
	}
	g, err := a.allowingGrant(r, action)
	if g != nil && err == nil {
		v = Verdict{Allowed: true, By: ByGrant, Grant: g}
	}
	return v, err
}

// AllowsLater says whether policies would allow the action if the key were as proposed. Grants
// don't count.
func (a *Authorizer) AllowsLater(r *Request, action string, proposed *Resource) bool {
	was := r.key
	r.key = proposed
	defer func() { r.key = was }()
	return a.decideByPolicies(r, action, proposed).Allowed
}

func (a *Authorizer) decideByPolicies(r *Request, action string, k *Resource) Verdict {
	request := policy.Request{Subject: &r.subject, Action: action, Resource: k.ARN, Attributes: r}
	key := k.Policy.Decide(&request)
	if key.Effect == policy.Deny {
		return Verdict{By: ByKeyPolicy, Statement: key}
	}
	service := a.service.Load().Decide(&request)
	switch {
	case service.Effect == policy.Deny:
		return Verdict{By: ByServicePolicy, Statement: service}
	case key.Effect == policy.Allow:
		return Verdict{Allowed: true, By: ByKeyPolicy, Statement: key}
	case key.Effect == policy.Delegate && service.Effect == policy.Allow:
		return Verdict{Allowed: true, By: ByServicePolicy, Statement: service}
	}
	return Verdict{By: ByDefault, Statement: key}
}

// allowingGrant returns a grant that allows the action; nil if there is none.
func (a *Authorizer) allowingGrant(r *Request, action string) (*store.Grant, error) {
	var room [16]policy.Principal
	operation := strings.TrimPrefix(action, actionPrefix)
	for _, p := range r.subject.principals(room[:0]) {
		grants, err := r.key.Grants.of(p)
		if err != nil {
			return nil, err
		}
		for _, g := range grants {
			if r.allowedBy(g, operation) {
				return g, nil
			}
		}
	}
	return nil, nil
}

// AuthorizeAccount returns an error unless the caller may perform an action that concerns no key.
// resource is an alias's ARN, a user's, or "*".
func (a *Authorizer) AuthorizeAccount(r *Request, action, resource string) error {
	if r.caller.Own && action == "kmsfs:RecordEvent" {
		return nil
	}
	d := a.decideAccount(r, a.service.Load(), action, resource)
	if d.Effect == policy.Allow {
		return nil
	}
	return a.denial(r, action, resource, Verdict{By: ByServicePolicy, Statement: d})
}

// AuthorizeUser returns an error unless the caller may perform the action on a user. Users may act
// on themselves unless the service policy denies it. With an access key they may only if the policy
// allows it, so that a stolen access key doesn't make others.
func (a *Authorizer) AuthorizeUser(r *Request, action string, uid uint32) error {
	resource := a.users.User(uid, r.time).ARN
	d := a.decideAccount(r, a.service.Load(), action, resource)
	self := uid == r.caller.UID && r.caller.AccessKeyID == ""
	if d.Effect == policy.Allow || self && d.Effect != policy.Deny {
		return nil
	}
	return a.denial(r, action, resource, Verdict{By: ByServicePolicy, Statement: d})
}

// AuthorizeRetire returns an error unless the caller may retire the grant: as its retiring
// principal, as its grantee if the grant is for RetireGrant, or by the service policy.
func (a *Authorizer) AuthorizeRetire(r *Request, key *Resource, g *store.Grant) error {
	const action = "kms:RetireGrant"
	r.key, r.alias, r.context = key, "", nil
	d := a.service.Load().Decide(&policy.Request{Subject: &r.subject, Action: action, Resource: key.ARN, Attributes: r})
	if d.Effect == policy.Deny {
		return a.denial(r, action, key.ARN, Verdict{By: ByServicePolicy, Statement: d})
	}
	var room [16]policy.Principal
	for _, p := range r.subject.principals(room[:0]) {
		arn := p.ARN(a.names.Account)
		if arn == g.Retirer || arn == g.Grantee && slices.Contains(g.Operations, "RetireGrant") {
			return nil
		}
	}
	if d.Effect == policy.Allow {
		return nil
	}
	return a.denial(r, action, key.ARN, Verdict{By: ByServicePolicy, Statement: d})
}

// AllowsWith says whether a proposed service policy would allow the action, which concerns no key.
func (a *Authorizer) AllowsWith(r *Request, document *policy.Document, action string) bool {
	return a.decideAccount(r, document, action, "*").Effect == policy.Allow
}

func (a *Authorizer) decideAccount(r *Request, document *policy.Document, action, resource string) policy.Decision {
	r.key, r.alias, r.context = nil, "", nil
	return document.Decide(&policy.Request{Subject: &r.subject, Action: action, Resource: resource, Attributes: r})
}

// denial is the error that says so, in AWS's words.
func (a *Authorizer) denial(r *Request, action, resource string, v Verdict) error {
	based := "resource-based"
	if v.By == ByServicePolicy || v.Statement.Effect == policy.Delegate {
		based = "identity-based"
	}
	user := a.users.User(r.caller.UID, r.time).ARN
	if v.Statement.Effect == policy.Deny {
		return kms.Errorf(kms.CodeAccessDenied, "User: %s is not authorized to perform: %s on resource: %s with an explicit deny in a %s policy",
			user, action, resource, based)
	}
	return kms.Errorf(kms.CodeAccessDenied, "User: %s is not authorized to perform: %s on resource: %s because no %s policy allows the %s action",
		user, action, resource, based, action)
}

// IsOver says whether a time that may be zero, for never, has come.
func IsOver(end, now time.Time) bool { return !end.IsZero() && !now.Before(end) }
