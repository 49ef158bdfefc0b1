package policy

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"kmsfs/policy/strictjson"
)

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

// condition reads the operator of that name, applied to one condition key.
func (p *parser) condition(place, name string, m strictjson.Member) condition {
	at := place + "." + m.Name
	c := condition{key: strings.ToLower(m.Name)}
	key, known := p.scope.key(m.Name)
	if !known {
		p.fail(at, "no request has such a condition key%s", p.scope.suggestKey(m.Name))
	}
	c.spellings = key.Type == PrincipalARN
	if rest, ok := strings.CutPrefix(name, "ForAnyValue:"); ok {
		name, c.set = rest, forAny
	} else if rest, ok := strings.CutPrefix(name, "ForAllValues:"); ok {
		name, c.set = rest, forAll
	}
	if name == "Null" {
		return p.null(at, c, m.Value)
	}
	name, c.ifExists = strings.CutSuffix(name, "IfExists")
	op, ok := findOperator(name)
	if !ok {
		p.fail(place, "there is no such operator%s", suggestion(name, operatorNames()))
		return c
	}
	p.suits(at, name, op, &key, c.set)
	c.compare, c.negated = op.compare, op.negated
	c.operands = p.operands(at, op, &key, m.Value)
	return c
}

// suits refuses an operator whose conditions on a key would never hold, or nearly always.
func (p *parser) suits(place, name string, op operator, key *Key, set setOperator) {
	switch {
	case key.Type == Texts && set == single:
		p.fail(place, "the key has several values: want ForAnyValue:%s or ForAllValues:%s", name, name)
	case key.isPrefix() && set == forAll:
		p.fail(place, "OverlyPermissiveCondition: ForAllValues holds for a key that is absent")
	case !slices.Contains(key.Type.operators(), op.family):
		p.fail(place, "%s matches no value of this key", name)
	}
}

func (p *parser) operands(place string, op operator, key *Key, value any) []operand {
	var operands []operand
	for _, text := range p.values(place, value) {
		p.plain(place, text)
		o, err := op.read(text, p.variables)
		if err == nil && (op.family == textFamily || op.family == arnFamily) {
			err = p.possible(op, key, text)
		}
		if err != nil {
			p.fail(place, "%v", err)
		}
		operands = append(operands, o)
	}
	return operands
}

// possible refuses a text that no value of the key matches.
func (p *parser) possible(op operator, key *Key, text string) error {
	forms := []string{key.Form}
	switch {
	case key.Type == PrincipalARN:
		forms = principalForms(p.scope.Account, key.Groups)
	case key.Form == "":
		return nil
	}
	parsed, err := parsePattern(text, op.wildcards, p.variables)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(forms, func(form string) bool { return overlaps(&parsed, form) }) {
		return fmt.Errorf("no value of this key matches %q: want such as %s", text, strings.Join(forms, ", "))
	}
	if key.Type != PrincipalARN || !parsed.isPlain {
		return nil
	}
	principal, err := ParsePrincipal(text, p.scope.Account)
	if err != nil {
		return err
	}
	return p.scope.checkExists(principal)
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
