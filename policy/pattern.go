package policy

import (
	"errors"
	"fmt"
	"strings"
)

// pattern is a text with wildcards and variables: * stands for any characters, ? for one.
type pattern struct {
	parts []part
	// plain is the whole text if there is neither a wildcard nor a variable in it, as is usual.
	plain   string
	isPlain bool
	// variables says that there are some among the parts.
	variables bool
	// fold says that upper and lower case are the same. The parts are in lower case then.
	fold bool
}

// part is a piece of a pattern.
type part struct {
	kind partKind
	// text is a literal, or a variable's condition key in lower case; fallback is a variable's
	// default.
	text, fallback string
	hasFallback    bool
	// spellings says that a variable's values are spellings of one value.
	spellings bool
}

type partKind uint8

const (
	literal partKind = iota
	anyText          // *
	anyOne           // ?
	variable
)

var errVariable = errors.New("malformed policy variable")

// parsePattern reads a pattern. It may have wildcards if they are asked for, and the scope's
// condition keys as variables if there is one.
func parsePattern(text string, wildcards bool, variables *Scope) (pattern, error) {
	var p pattern
	for rest := text; rest != ""; {
		switch {
		case variables != nil && strings.HasPrefix(rest, "${"):
			end := strings.IndexByte(rest, '}')
			if end < 0 {
				return p, fmt.Errorf("%w: no } behind %q", errVariable, rest)
			}
			v, err := parseVariable(rest[2:end], variables)
			if err != nil {
				return p, err
			}
			p.add(v)
			p.variables = p.variables || v.kind == variable
			rest = rest[end+1:]
		case wildcards && rest[0] == '*':
			p.add(part{kind: anyText})
			rest = rest[1:]
		case wildcards && rest[0] == '?':
			p.add(part{kind: anyOne})
			rest = rest[1:]
		default:
			end := 1
			for end < len(rest) && (!wildcards || rest[end] != '*' && rest[end] != '?') && (variables == nil || !strings.HasPrefix(rest[end:], "${")) {
				end++
			}
			p.add(part{kind: literal, text: rest[:end]})
			rest = rest[end:]
		}
	}
	switch {
	case len(p.parts) == 0:
		p.isPlain = true
	case len(p.parts) == 1 && p.parts[0].kind == literal:
		p.isPlain, p.plain = true, p.parts[0].text
	}
	return p, nil
}

// add adds a part; literals beside each other, and stars, become one.
func (p *pattern) add(next part) {
	if n := len(p.parts); n > 0 {
		last := &p.parts[n-1]
		switch {
		case next.kind == literal && last.kind == literal:
			last.text += next.text
			return
		case next.kind == anyText && last.kind == anyText:
			return
		}
	}
	p.parts = append(p.parts, next)
}

// parseVariable reads what stands between ${ and }.
func parseVariable(text string, scope *Scope) (part, error) {
	switch text {
	case "*", "?", "$":
		return part{kind: literal, text: text}, nil
	}
	key, fallback, hasFallback := strings.Cut(text, ",")
	key = strings.TrimSpace(key)
	known, ok := scope.key(key)
	switch {
	case !ok:
		return part{}, fmt.Errorf("%w ${%s}: no request has such a condition key%s", errVariable, text, scope.suggestKey(key))
	case known.Type == Texts:
		return part{}, fmt.Errorf("%w ${%s}: the key has several values", errVariable, text)
	}
	if hasFallback {
		fallback = strings.TrimSpace(fallback)
		if len(fallback) < 2 || fallback[0] != '\'' || fallback[len(fallback)-1] != '\'' {
			return part{}, fmt.Errorf("%w ${%s}: want the default in single quotes", errVariable, text)
		}
		fallback = fallback[1 : len(fallback)-1]
	}
	return part{variable, strings.ToLower(key), fallback, hasFallback, known.Type == PrincipalARN}, nil
}

// matches says whether the text is one of those that the pattern means. A variable that is absent
// and has no default means none.
func (p *pattern) matches(text string, attributes Attributes) bool {
	switch {
	case p.isPlain && p.fold:
		return strings.EqualFold(text, p.plain)
	case p.isPlain:
		return text == p.plain
	case !p.variables:
		return match(p.parts, text, p.fold)
	}
	var room [16]part
	parts, ok := p.resolve(room[:0], attributes)
	return ok && match(parts, text, p.fold)
}

// resolve appends the parts with literals in the place of variables.
func (p *pattern) resolve(parts []part, attributes Attributes) ([]part, bool) {
	for _, next := range p.parts {
		if next.kind == variable {
			value, ok := next.value(attributes)
			if !ok {
				return nil, false
			}
			next = part{kind: literal, text: value}
		}
		parts = append(parts, next)
	}
	return parts, true
}

// value is a variable's. A key with several values has none that could be put in a text.
func (v *part) value(attributes Attributes) (string, bool) {
	if attributes != nil {
		var room [2]string
		if values := attributes.Append(room[:0], v.text); len(values) == 1 || v.spellings && len(values) > 0 {
			return values[0], true
		}
	}
	return v.fallback, v.hasFallback
}

// match matches without going back further than to the last star, so in time proportional to the
// two lengths' product at most.
func match(parts []part, text string, fold bool) bool {
	at, starAt, starText := 0, -1, ""
	for {
		if at == len(parts) {
			if text == "" {
				return true
			}
		} else {
			switch next := parts[at]; {
			case next.kind == anyText:
				if at == len(parts)-1 {
					return true
				}
				starAt, starText = at, text
				at++
				continue
			case next.kind == anyOne && text != "":
				text = text[firstRune(text):]
				at++
				continue
			case next.kind == literal && hasPrefix(text, next.text, fold):
				text = text[len(next.text):]
				at++
				continue
			}
		}
		if starAt < 0 || starText == "" {
			return false
		}
		starText = starText[firstRune(starText):]
		at, text = starAt+1, starText
	}
}

func hasPrefix(text, prefix string, fold bool) bool {
	if fold {
		return len(text) >= len(prefix) && strings.EqualFold(text[:len(prefix)], prefix)
	}
	return strings.HasPrefix(text, prefix)
}

// firstRune is the size in bytes of a text's first character.
func firstRune(text string) int {
	for i := range text {
		if i > 0 {
			return i
		}
	}
	return len(text)
}

// Wildcard returns what says whether a text is like a pattern of policies without variables: *
// stands for any characters, ? for one.
func Wildcard(text string) func(string) bool {
	p, _ := parsePattern(text, true, nil) // only variables can be malformed
	return func(text string) bool { return p.matches(text, nil) }
}
