// Package policy reads and evaluates policies in the AWS policy language.
//
// A Scope says what policies can speak of: the account, its actions, resources and condition keys.
// Scope.Parse reads a policy strictly, and Document.Decide answers requests. A Deny never fails
// open: what can match no request is refused when the policy is read.
package policy

// Subject is the caller as policies see it.
type Subject interface {
	// Is says whether the subject is the principal: its user or UID, or one of its groups or GIDs.
	// It is not asked about Anyone and Account.
	Is(p Principal) bool
	// IsRoot says whether the subject is the account's root principal: the home's owner.
	IsRoot() bool
}

// Attributes are a request's values for condition keys.
type Attributes interface {
	// Append appends the values of a condition key, given in lower case, to values, and nothing if
	// the key is absent. For a key of the type PrincipalARN it appends all spellings of the one
	// principal, the canonical one first.
	Append(values []string, key string) []string
}

// Request is what a policy decides on.
type Request struct {
	Subject Subject
	// Action is such as "kms:Decrypt", and Resource an ARN or "*".
	Action, Resource string
	Attributes       Attributes
}

// Effect is a policy's answer to a request.
type Effect uint8

// The effects, each stronger than those before it. Delegate is an Allow to the account, for a
// subject that is not its root: the account's own policy decides.
const (
	None Effect = iota
	Delegate
	Allow
	Deny
)

func (e Effect) String() string {
	return [...]string{"None", "Delegate", "Allow", "Deny"}[e]
}

// Decision is an effect, and the statement that has it.
type Decision struct {
	Effect Effect
	// Statement is the index of the first statement with that effect; -1 if there is none. Sid is
	// its name, which may be empty.
	Statement int
	Sid       string
}

// Document is a policy. It doesn't change, and is safe for concurrent use.
type Document struct {
	statements []statement
}

// statement is one of a policy's statements, made ready for use.
type statement struct {
	sid  string
	deny bool
	// principals are those that the statement applies to or, if notPrincipals is set, those that it
	// does not apply to.
	principals    []Principal
	notPrincipals bool
	// actions fold case.
	actions, resources matcher
	conditions         []condition
}

// matcher is a list of patterns or, if not is set, of patterns that must not match. Without
// patterns nothing matches, and the statement has no effect.
type matcher struct {
	patterns []pattern
	not      bool
}

// Decide answers a request: a Deny wins over everything.
func (d *Document) Decide(r *Request) Decision {
	decision := Decision{Statement: -1}
	for i := range d.statements {
		s := &d.statements[i]
		effect := s.effect(r.Subject)
		if effect <= decision.Effect || !s.appliesTo(r) {
			continue
		}
		decision = Decision{effect, i, s.sid}
	}
	return decision
}

// effect is the statement's effect on a subject, if the rest of the statement applies.
func (s *statement) effect(subject Subject) Effect {
	named := None
	for _, p := range s.principals {
		named = max(named, s.names(p, subject))
	}
	if s.notPrincipals {
		if named != None {
			return None
		}
		named = Allow
	}
	if named != None && s.deny {
		return Deny
	}
	return named
}

// names says whether a principal of the statement is the subject: None for no. Principal names
// everybody in the account with the account's root, NotPrincipal excepts the root alone.
func (s *statement) names(p Principal, subject Subject) Effect {
	switch {
	case p.Kind == Anyone:
		return Allow
	case p.Kind == Account && subject.IsRoot():
		return Allow
	case p.Kind == Account && !s.notPrincipals:
		return Delegate
	case p.Kind != Account && subject.Is(p):
		return Allow
	}
	return None
}

func (s *statement) appliesTo(r *Request) bool {
	if !s.actions.matches(r.Action, nil) || !s.resources.matches(r.Resource, r.Attributes) {
		return false
	}
	for i := range s.conditions {
		if !s.conditions[i].holds(r.Attributes) {
			return false
		}
	}
	return true
}

func (m *matcher) matches(text string, attributes Attributes) bool {
	if len(m.patterns) == 0 {
		return false
	}
	for i := range m.patterns {
		if m.patterns[i].matches(text, attributes) {
			return !m.not
		}
	}
	return m.not
}
