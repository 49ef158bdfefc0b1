package keyservice

import (
	"slices"
	"strings"
	"time"

	"kmsfs/keyservice/authz"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/store"
	"kmsfs/policy"
	"kmsfs/policy/caller"
)

// policies are the documents that hold for more than one key.
type policies struct {
	// standard is the key policy of keys that were given none, and standardText what GetKeyPolicy shows of it; managed and managedText are those of
	// the keys that the file system manages.
	standard, managed         *policy.Document
	standardText, managedText string
}

// newPolicies makes a home's own policies.
func newPolicies(n kms.ARNs) (*policies, error) {
	root := n.Root()
	p := &policies{
		// AWS's default key policy.
		standardText: `{"Version":"2012-10-17","Id":"key-default-1","Statement":[{"Sid":"Enable IAM User Permissions","Effect":"Allow",` +
			`"Principal":{"AWS":"` + root + `"},"Action":"kms:*","Resource":"*"}]}`,
		// AWS's policy of the keys that its services manage.
		managedText: `{"Version":"2012-10-17","Id":"auto-fs-1","Statement":[` +
			`{"Sid":"Allow access through the file system","Effect":"Allow","Principal":{"AWS":"*"},` +
			`"Action":["kms:Encrypt","kms:Decrypt","kms:ReEncrypt*","kms:GenerateDataKey*","kms:CreateGrant","kms:DescribeKey"],"Resource":"*",` +
			`"Condition":{"StringEquals":{"kms:CallerAccount":"` + n.Account + `","kms:ViaService":"` + fileSystemService + `"}}},` +
			`{"Sid":"Allow direct access to key metadata to the account","Effect":"Allow","Principal":{"AWS":"` + root + `"},` +
			`"Action":["kms:Describe*","kms:Get*","kms:List*","kms:RevokeGrant"],"Resource":"*"}]}`,
	}
	var err error
	if p.standard, err = authz.Scope(n, nil).Parse(p.standardText); err != nil {
		return nil, err
	}
	p.managed, err = authz.Scope(n, nil).Parse(p.managedText)
	return p, err
}

// standardServicePolicy lets the home's owner do everything, and nobody else anything.
func standardServicePolicy(n kms.ARNs) string {
	return `{"Version":"2012-10-17","Id":"service-default-1","Statement":[{"Sid":"Allow everything to the owner","Effect":"Allow",` +
		`"Principal":{"AWS":"` + n.Root() + `"},"Action":"*","Resource":"*"}]}`
}

// What decides on a request.
const (
	byKeyPolicy     = "KeyPolicy"
	byServicePolicy = "ServicePolicy"
	byGrant         = "Grant"
	byFileSystem    = "FileSystem"
	byDefault       = "Default"
)

// verdict is what a request comes to.
type verdict struct {
	allowed bool
	// by is one of the constants above, with the statement or the grant.
	by        string
	statement policy.Decision
	grant     *store.Grant
}

// question asks whether a request is allowed.
type question struct {
	subject    *subject
	action     string
	attributes *attributes
	// grants says that grants may allow it.
	grants bool
}

// decide answers in the order of AWS: an explicit Deny, then the key policy, with what it leaves to the account's own policy, then grants.
func (s *Service) decide(q *question) (verdict, error) {
	k := q.attributes.key
	request := policy.Request{Subject: q.subject, Action: q.action, Resource: k.arn, Attributes: q.attributes}
	key := k.policy.Decide(&request)
	if key.Effect == policy.Deny {
		return verdict{by: byKeyPolicy, statement: key}, nil
	}
	service := s.servicePolicy.Load().Decide(&request)
	switch {
	case service.Effect == policy.Deny:
		return verdict{by: byServicePolicy, statement: service}, nil
	case key.Effect == policy.Allow:
		return verdict{allowed: true, by: byKeyPolicy, statement: key}, nil
	case key.Effect == policy.Delegate && service.Effect == policy.Allow:
		return verdict{allowed: true, by: byServicePolicy, statement: service}, nil
	}
	if q.grants && k.hasGrants {
		g, err := s.allowingGrant(q)
		if g != nil || err != nil {
			return verdict{allowed: g != nil, by: byGrant, grant: g}, err
		}
	}
	return verdict{by: byDefault, statement: key}, nil
}

// allowingGrant returns a grant that allows the request; nil if there is none.
func (s *Service) allowingGrant(q *question) (*store.Grant, error) {
	var room [16]policy.Principal
	operation := strings.TrimPrefix(q.action, actionPrefix)
	for _, p := range q.subject.principals(room[:0]) {
		grants, err := s.grantsOf(q.attributes.key, p)
		if err != nil {
			return nil, err
		}
		for _, g := range grants {
			if grantAllows(g, operation, q.attributes) {
				return g, nil
			}
		}
	}
	return nil, nil
}

const actionPrefix = "kms:"

// grantAllows says whether a grant that the subject has allows an operation.
func grantAllows(g *store.Grant, operation string, a *attributes) bool {
	if !slices.Contains(g.Operations, operation) || isOver(g.Expires, a.time) {
		return false
	}
	// AWS ignores constraints where there is no encryption context to compare.
	return operation == "DescribeKey" || operation == "RetireGrant" || constraintsHold(g, a.context)
}

// isOver says whether a time that may be zero, for never, has come.
func isOver(end, now time.Time) bool { return !end.IsZero() && !now.Before(end) }

// ownActions are those that a mount needs no leave for when it acts of itself.
var ownActions = []string{"kms:Decrypt", "kms:GenerateDataKey", "kms:ReEncryptFrom", "kms:ReEncryptTo"}

// admit lets the caller perform the action on the key.
func (s *Service) admit(r *request, action string, k *key) error {
	return s.admitIn(r, action, k, nil)
}

// admitIn lets the caller perform the action on the key in an encryption context. Grants count where AWS has grants for the action.
func (s *Service) admitIn(r *request, action string, k *key, context map[string]string) error {
	r.concerns(resourceKey, k.arn)
	a := &r.attributes
	a.s, a.key, a.context, a.alias = s, k, context, r.alias
	s.identify(r)
	if r.caller.Own && slices.Contains(ownActions, action) {
		r.verdict = verdict{allowed: true, by: byFileSystem}
		return nil
	}
	v, err := s.decide(&question{subject: &r.subject, action: action, attributes: a, grants: true})
	if err != nil {
		return err
	}
	r.verdict = v
	if v.allowed {
		return nil
	}
	return s.denial(r, action, k.arn, v)
}

// admitAccount lets the caller perform an action that concerns no key: resource is an alias's ARN, or "*".
func (s *Service) admitAccount(r *request, action, resource string) error {
	s.identify(r)
	if r.caller.Own && action == "kmsfs:RecordEvent" {
		return nil
	}
	d := s.servicePolicy.Load().Decide(&policy.Request{Subject: &r.subject, Action: action, Resource: resource, Attributes: s.accountAttributes(r)})
	if d.Effect == policy.Allow {
		return nil
	}
	return s.denial(r, action, resource, verdict{by: byServicePolicy, statement: d})
}

// accountAttributes are the request's, for what concerns no key.
func (s *Service) accountAttributes(r *request) *attributes {
	a := &r.attributes
	a.s, a.key, a.context = s, nil, nil
	return a
}

// identify finds out who asks, once for each request.
func (s *Service) identify(r *request) {
	a := &r.attributes
	if a.subject != nil {
		return
	}
	c := &r.caller
	r.subject = subject{users: s.users, time: r.time, uid: c.UID, owns: c.UID == s.facts.Owner, groups: callerGroups{c}}
	if c.ViaFileSystem {
		a.via = fileSystemService
	}
	a.subject, a.time, a.caller = &r.subject, r.time, c
}

// callerGroups are all groups of a caller, as the system has them if the caller doesn't say.
type callerGroups struct{ *kms.Caller }

func (c callerGroups) groups() []uint32 {
	groups := []uint32{c.GID}
	if c.Groups == nil {
		return append(groups, caller.Groups(c.PID)...)
	}
	return append(groups, c.Groups...)
}

// denial is the error that says so, in AWS's words.
func (s *Service) denial(r *request, action, resource string, v verdict) error {
	based := "resource-based"
	if v.by == byServicePolicy || v.statement.Effect == policy.Delegate {
		based = "identity-based"
	}
	user := s.users.user(r.caller.UID, r.time).arn
	if v.statement.Effect == policy.Deny {
		return kms.Errorf(kms.CodeAccessDenied, "User: %s is not authorized to perform: %s on resource: %s with an explicit deny in a %s policy",
			user, action, resource, based)
	}
	return kms.Errorf(kms.CodeAccessDenied, "User: %s is not authorized to perform: %s on resource: %s because no %s policy allows the %s action",
		user, action, resource, based, action)
}
