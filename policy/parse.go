package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"kmsfs/policy/strictjson"
)

// MalformedError says what is wrong with a policy document.
type MalformedError struct {
	// Place is where, such as "Statement[2].Condition.StringEquals.kms:ViaService", or a line and
	// column.
	Place, Reason string
}

func (e *MalformedError) Error() string {
	if e.Place == "" {
		return "malformed policy document: " + e.Reason
	}
	return "malformed policy document: " + e.Place + ": " + e.Reason
}

const (
	version2008 = "2008-10-17"
	version2012 = "2012-10-17"
)

// Parse reads a policy document of the account. The error is a *MalformedError.
func (s *Scope) Parse(text string) (*Document, error) {
	root, err := strictjson.Parse(text)
	if malformed, ok := errors.AsType[*strictjson.Error](err); ok {
		return nil, &MalformedError{fmt.Sprintf("line %d, column %d", malformed.Line, malformed.Column), malformed.Reason}
	}
	p := parser{scope: s, sids: map[string]string{}}
	d := p.document(root)
	if p.err != nil {
		return nil, p.err
	}
	return d, nil
}

// parser makes a document of JSON values. It notes the first error, and goes on.
type parser struct {
	scope *Scope
	// variables is the scope too, or nil in documents of the version that has no variables.
	variables *Scope
	// sids are the places of statements by their names.
	sids map[string]string
	err  error
}

func (p *parser) fail(place, format string, args ...any) {
	if p.err == nil {
		p.err = &MalformedError{place, fmt.Sprintf(format, args...)}
	}
}

func (p *parser) document(root any) *Document {
	top, ok := root.(strictjson.Object)
	if !ok {
		p.fail("", "it is not a JSON object")
		return nil
	}
	var statements any
	for _, m := range top {
		switch m.Name {
		case "Version":
			p.version(m)
		case "Id":
			p.text(m.Name, m.Value)
		case "Statement":
			statements = m.Value
		default:
			p.fail(m.Name, "there is no such element%s", suggestion(m.Name, []string{"Version", "Id", "Statement"}))
		}
	}
	return &Document{p.statements(statements)}
}

func (p *parser) version(m strictjson.Member) {
	switch version := p.text(m.Name, m.Value); version {
	case version2012:
		p.variables = p.scope
	case version2008:
	default:
		p.fail(m.Name, "unknown version %q: want %s or %s", version, version2012, version2008)
	}
}

func (p *parser) statements(value any) (all []statement) {
	switch s := value.(type) {
	case strictjson.Object:
		all = append(all, p.statement("Statement", s))
	case []any:
		for i, value := range s {
			place := fmt.Sprintf("Statement[%d]", i)
			o, ok := value.(strictjson.Object)
			if !ok {
				p.fail(place, "it is not an object")
			}
			all = append(all, p.statement(place, o))
		}
	default:
		p.fail("Statement", "want a statement or a list of them")
	}
	return all
}

// elements are the names of a statement's members.
var elements = []string{
	"Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource", "NotResource", "Condition",
}

func (p *parser) statement(place string, o strictjson.Object) statement {
	var s statement
	var effect string
	for _, m := range o {
		at := place + "." + m.Name
		switch m.Name {
		case "Sid":
			s.sid = p.sid(at, place, m.Value)
		case "Effect":
			effect = p.text(at, m.Value)
		case "Principal", "NotPrincipal":
			if s.principals != nil {
				p.fail(place, "want either Principal or NotPrincipal")
			}
			s.principals, s.notPrincipals = p.principals(at, m.Value), m.Name == "NotPrincipal"
		case "Action", "NotAction":
			p.once(at, &s.actions)
			s.actions = matcher{p.actions(at, m.Value), m.Name == "NotAction"}
		case "Resource", "NotResource":
			p.once(at, &s.resources)
			s.resources = matcher{p.resources(at, m.Value), m.Name == "NotResource"}
		case "Condition":
			s.conditions = p.conditions(at, m.Value)
		default:
			p.fail(at, "there is no such element%s", suggestion(m.Name, elements))
		}
	}
	if effect != "Allow" && effect != "Deny" {
		p.fail(place+".Effect", "want Allow or Deny")
	}
	s.deny = effect == "Deny"
	for i := range s.conditions {
		s.conditions[i].deny = s.deny
	}
	p.matchable(place, &s)
	return s
}

// matchable refuses a statement that applies to nobody, and a Deny that applies to nothing. AWS
// lets an Allow stand that has no effect.
func (p *parser) matchable(place string, s *statement) {
	switch {
	case s.principals == nil:
		p.fail(place, "Policy contains a statement with no principal.")
	case s.notPrincipals && slices.Contains(s.principals, Principal{Kind: Anyone}):
		p.fail(place+".NotPrincipal", "it excepts everybody")
	case s.deny && s.actions.patterns == nil:
		p.fail(place, "a Deny without Action denies nothing")
	case s.deny && s.resources.patterns == nil:
		p.fail(place, "a Deny without Resource denies nothing")
	}
}

// sid reads a statement's name, which no other statement has.
func (p *parser) sid(place, statement string, value any) string {
	sid := p.text(place, value)
	if other, ok := p.sids[sid]; ok && sid != "" {
		p.fail(place, "%s has the name %q too", other, sid)
	}
	p.sids[sid] = statement
	return sid
}

// plain refuses variables in a document that has none: they would be compared as they stand.
func (p *parser) plain(place, text string) {
	if p.variables == nil && strings.Contains(text, "${") {
		p.fail(place, "%q has a variable: want the Version %s", text, version2012)
	}
}

// once refuses an element and its opposite together.
func (p *parser) once(place string, m *matcher) {
	if m.patterns != nil {
		p.fail(place, "it and its opposite can't stand together")
	}
}

func (p *parser) text(place string, value any) string {
	text, ok := value.(string)
	if !ok {
		p.fail(place, "want a string")
	}
	return text
}

// texts reads a string or a list of strings, not empty.
func (p *parser) texts(place string, value any) []string {
	if text, ok := value.(string); ok {
		return []string{text}
	}
	list, ok := value.([]any)
	if !ok || len(list) == 0 {
		p.fail(place, "want a string or a list of strings")
	}
	texts := make([]string, len(list))
	for i, item := range list {
		texts[i] = p.text(fmt.Sprintf("%s[%d]", place, i), item)
	}
	return texts
}

func (p *parser) principals(place string, value any) []Principal {
	var principals []Principal
	switch v := value.(type) {
	case string:
		if v == "*" {
			return []Principal{{Kind: Anyone}}
		}
	case strictjson.Object:
		for _, m := range v {
			at := place + "." + m.Name
			if m.Name != "AWS" {
				p.fail(at, "%s", otherPrincipals(m.Name))
				continue
			}
			for i, text := range p.texts(at, m.Value) {
				principals = append(principals, p.principal(at, i, m.Value, text))
			}
		}
	}
	if len(principals) == 0 {
		p.fail(place, `want "*" or an object with the member AWS`)
	}
	return principals
}

// principal reads the principal at an index of a value, which is a list or the text alone.
func (p *parser) principal(place string, i int, value any, text string) Principal {
	if _, isList := value.([]any); isList {
		place = fmt.Sprintf("%s[%d]", place, i)
	}
	principal, err := ParsePrincipal(text, p.scope.Account)
	if err == nil {
		err = p.scope.checkExists(principal)
	}
	if err != nil {
		p.fail(place, "%v", err)
	}
	return principal
}

// otherPrincipals says what to write in place of AWS's other kinds of principals.
func otherPrincipals(kind string) string {
	if kind == "Service" {
		return `there are no such principals: for calls of the file system, want the callers under AWS, such as {"AWS":"*"}, ` +
			`and the condition {"StringEquals":{"kms:ViaService":"fs.kmsfs"}}`
	}
	return "there are no such principals: want AWS"
}

// actions reads patterns of actions, which are the same in any case and have no variables.
func (p *parser) actions(place string, value any) []pattern {
	texts := p.texts(place, value)
	patterns := make([]pattern, len(texts))
	for i, text := range texts {
		parsed, err := parsePattern(strings.ToLower(text), true, nil)
		parsed.fold = true
		if err == nil {
			err = p.scope.checkAction(&parsed, text)
		}
		if err != nil {
			p.fail(place, "%v", err)
		}
		patterns[i] = parsed
	}
	return patterns
}

func (p *parser) resources(place string, value any) []pattern {
	texts := p.texts(place, value)
	patterns := make([]pattern, len(texts))
	for i, text := range texts {
		p.plain(place, text)
		parsed, err := parsePattern(text, true, p.variables)
		if err == nil {
			err = p.scope.checkResource(&parsed, text)
		}
		if err != nil {
			p.fail(place, "%v", err)
		}
		patterns[i] = parsed
	}
	return patterns
}
