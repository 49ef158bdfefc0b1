// Package policy reads and evaluates policies in the AWS policy language.
package policy

// Subject is who asks.
type Subject interface {
	// Is says whether p is the subject's user or UID, or a group or GID of its. It is not asked about Anyone and Account.
	Is(p Principal) bool
	// IsRoot says that the subject is the account's root principal: the home's owner.
	IsRoot() bool
}

// Attributes are a request's values for condition keys.
type Attributes interface {
	// Append appends the values of a condition key, given in lower case, to values; nothing if it is absent.
	Append(values []string, key string) []string
}

// Request is what is to be decided on.
type Request struct {
	Subject Subject
	// Action is such as "kms:Decrypt", and Resource an ARN or "*".
	Action, Resource string
	Attributes       Attributes
}

// Effect is what a policy says to a request.
type Effect uint8

// The effects, each stronger than those before it. Delegate is an Allow to the account, for a subject that is not its root: the account's own
// policy decides.
const (
	None Effect = iota
	Delegate
	Allow
	Deny
)

func (e Effect) String() string {
	return [...]string{"None", "Delegate", "Allow", "Deny"}[e]
}

// Decision is a policy's answer.
type Decision struct {
	Effect Effect
	// Statement is the place of the first statement with that effect, from 0; -1 if there is none. Sid is its name, which may be empty.
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
	// principals are those meant, or, if notPrincipals is set, those not meant.
	principals    []Principal
	notPrincipals bool
	// actions fold case.
	actions, resources matcher
	conditions         []condition
}

// matcher is a list of patterns, or of patterns that must not match. Without patterns nothing matches: the statement has no effect.
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

// effect is what the statement says to a subject, if it applies.
func (s *statement) effect(subject Subject) Effect {
	matched := s.concerns(subject)
	switch {
	case matched == None:
		return None
	case s.deny:
		return Deny
	}
	return matched
}

// concerns says whether the statement means a subject: None for no, Delegate if it means its account only.
func (s *statement) concerns(subject Subject) Effect {
	best := None
	for _, p := range s.principals {
		if e := means(p, subject); e > best {
			best = e
		}
	}
	if !s.notPrincipals {
		return best
	}
	// As an exception from everybody, naming the account excepts all that belong to it.
	if best == None {
		return Allow
	}
	return None
}

func means(p Principal, subject Subject) Effect {
	switch {
	case p.Kind == Anyone:
		return Allow
	case p.Kind == Account && !subject.IsRoot():
		return Delegate
	case p.Kind == Account || subject.Is(p):
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
