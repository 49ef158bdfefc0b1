package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"kmsfs/policy/strictjson"
)

// MalformedError says what is wrong with a policy document.
type MalformedError struct {
	// Place is where, such as "Statement[2].Condition.StringEquals.kms:ViaService", or a line and column.
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
func Parse(text, account string) (*Document, error) {
	root, err := strictjson.Parse(text)
	if malformed, ok := errors.AsType[*strictjson.Error](err); ok {
		return nil, &MalformedError{fmt.Sprintf("line %d, column %d", malformed.Line, malformed.Column), malformed.Reason}
	}
	p := parser{account: account}
	d := p.document(root)
	if p.err != nil {
		return nil, p.err
	}
	return d, nil
}

// parser makes a document of JSON values. It notes the first error, and goes on.
type parser struct {
	account   string
	variables bool
	err       error
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
	d := &Document{}
	var statements any
	for _, m := range top {
		switch m.Name {
		case "Version":
			version := p.text(m.Name, m.Value)
			p.variables = version == version2012
			if version != version2008 && version != version2012 {
				p.fail(m.Name, "unknown version %q: want %s or %s", version, version2012, version2008)
			}
		case "Id":
			p.text(m.Name, m.Value)
		case "Statement":
			statements = m.Value
		default:
			p.fail(m.Name, "there is no such element")
		}
	}
	switch s := statements.(type) {
	case strictjson.Object:
		d.statements = append(d.statements, p.statement("Statement", s))
	case []any:
		for i, value := range s {
			place := fmt.Sprintf("Statement[%d]", i)
			o, ok := value.(strictjson.Object)
			if !ok {
				p.fail(place, "it is not an object")
			}
			d.statements = append(d.statements, p.statement(place, o))
		}
	default:
		p.fail("Statement", "want a statement or a list of them")
	}
	return d
}

func (p *parser) statement(place string, o strictjson.Object) statement {
	var s statement
	var effect string
	named := 0
	for _, m := range o {
		at := place + "." + m.Name
		switch m.Name {
		case "Sid":
			s.sid = p.text(at, m.Value)
		case "Effect":
			effect = p.text(at, m.Value)
		case "Principal", "NotPrincipal":
			named++
			s.principals, s.notPrincipals = p.principals(at, m.Value), m.Name == "NotPrincipal"
		case "Action", "NotAction":
			p.once(at, &s.actions)
			s.actions = matcher{p.patterns(at, m.Value, true), m.Name == "NotAction"}
		case "Resource", "NotResource":
			p.once(at, &s.resources)
			s.resources = matcher{p.patterns(at, m.Value, false), m.Name == "NotResource"}
		case "Condition":
			s.conditions = p.conditions(at, m.Value)
		default:
			p.fail(at, "there is no such element")
		}
	}
	s.deny = effect == "Deny"
	switch {
	case effect != "Allow" && effect != "Deny":
		p.fail(place+".Effect", "want Allow or Deny")
	case named == 0:
		p.fail(place, "Policy contains a statement with no principal.")
	case named > 1:
		p.fail(place, "want either Principal or NotPrincipal")
	}
	return s
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
	var texts []string
	switch v := value.(type) {
	case string:
		if v != "*" {
			p.fail(place, `want "*" or an object with the member AWS`)
		}
		texts = []string{v}
	case strictjson.Object:
		for _, m := range v {
			if m.Name != "AWS" {
				p.fail(place+"."+m.Name, "there are no such principals: want AWS")
			}
			texts = p.texts(place+"."+m.Name, m.Value)
		}
	}
	if len(texts) == 0 {
		p.fail(place, `want "*" or an object with the member AWS`)
	}
	principals := make([]Principal, len(texts))
	for i, text := range texts {
		parsed, err := ParsePrincipal(text, p.account)
		if err != nil {
			p.fail(place, "%v", err)
		}
		principals[i] = parsed
	}
	return principals
}

// patterns reads actions, which are the same in any case and have no variables, or resources.
func (p *parser) patterns(place string, value any, actions bool) []pattern {
	texts := p.texts(place, value)
	patterns := make([]pattern, len(texts))
	for i, text := range texts {
		if actions {
			text = strings.ToLower(text)
			if text != "*" && !strings.Contains(text, ":") {
				p.fail(place, "%q is no action: want such as kms:Decrypt", text)
			}
		}
		parsed, err := parsePattern(text, true, p.variables && !actions)
		parsed.fold = actions
		if err != nil {
			p.fail(place, "%v", err)
		}
		patterns[i] = parsed
	}
	return patterns
}

func (p *parser) conditions(place string, value any) []condition {
	block, ok := value.(strictjson.Object)
	if !ok {
		p.fail(place, "want an object")
	}
	var all []condition
	for _, m := range block {
		at := place + "." + m.Name
		keys, ok := m.Value.(strictjson.Object)
		if !ok || len(keys) == 0 {
			p.fail(at, "want an object of condition keys")
		}
		for _, k := range keys {
			all = append(all, p.condition(at, m.Name, k))
		}
	}
	return all
}

func (p *parser) condition(place, name string, m strictjson.Member) condition {
	c := condition{key: strings.ToLower(m.Name)}
	at := place + "." + m.Name
	if !isKey(m.Name) {
		p.fail(at, "it is no condition key: want such as kms:ViaService")
	}
	if rest, ok := strings.CutPrefix(name, "ForAnyValue:"); ok {
		name, c.set = rest, forAny
	} else if rest, ok := strings.CutPrefix(name, "ForAllValues:"); ok {
		name, c.set = rest, forAll
		if strings.HasPrefix(c.key, "kms:encryptioncontext:") || strings.HasPrefix(c.key, "aws:requesttag/") {
			p.fail(at, "OverlyPermissiveCondition: ForAllValues holds for a key that is absent")
		}
	}
	if name == "Null" {
		return p.null(at, c, m.Value)
	}
	name, c.ifExists = strings.CutSuffix(name, "IfExists")
	op, ok := findOperator(name)
	if !ok {
		p.fail(place, "there is no such operator")
		return c
	}
	c.compare, c.negated = op.compare, op.negated
	for _, text := range p.values(at, m.Value) {
		o, err := op.read(text, p.variables)
		if err != nil {
			p.fail(at, "%v", err)
		}
		c.operands = append(c.operands, o)
	}
	return c
}

// null reads the operand of Null: whether the key is to be absent.
func (p *parser) null(place string, c condition, value any) condition {
	values := p.values(place, value)
	if len(values) != 1 || c.set != single {
		p.fail(place, "want one value, true or false")
		return c
	}
	truth, err := parseTruth(values[0])
	if err != nil {
		p.fail(place, "want true or false")
	}
	c.wantNull = truth
	return c
}

// values reads a condition's values: strings, numbers, booleans, or a list of them.
func (p *parser) values(place string, value any) []string {
	list, ok := value.([]any)
	if !ok {
		list = []any{value}
	}
	if len(list) == 0 {
		p.fail(place, "want at least one value")
	}
	texts := make([]string, len(list))
	for i, item := range list {
		switch v := item.(type) {
		case string:
			texts[i] = v
		case json.Number:
			texts[i] = v.String()
		case bool:
			texts[i] = fmt.Sprint(v)
		default:
			p.fail(place, "want a string, a number, true or false")
		}
	}
	return texts
}
