package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxDepth bounds how deep objects and arrays nest in a request: more than any operation's input has.
const maxDepth = 8

// Decode fills in, a pointer to a struct, from one JSON object. Stricter than encoding/json, it refuses whatever two
// readers could understand in two ways: duplicate, unknown and differently capitalised member names, invalid UTF-8, lone
// surrogates, nulls inside members, and anything behind the object. An empty body is an empty object.
func Decode(body []byte, in any) error {
	if len(bytes.TrimSpace(body)) == 0 {
		return nil
	}
	if err := checkText(body); err != nil {
		return err
	}
	t := reflect.TypeOf(in)
	if t == nil || t.Kind() != reflect.Pointer || t.Elem().Kind() != reflect.Struct {
		return fmt.Errorf("decode into %v: want a pointer to a struct", t)
	}
	if err := checkStructure(body, t.Elem()); err != nil {
		return err
	}
	return json.Unmarshal(body, in)
}

// checkText refuses text that encoding/json would silently replace by U+FFFD.
func checkText(body []byte) error {
	if !utf8.Valid(body) {
		return errors.New("invalid UTF-8")
	}
	if !json.Valid(body) {
		return errors.New("invalid JSON")
	}
	for i := 0; i < len(body); i++ {
		if body[i] != '\\' { // in valid JSON, only strings have backslashes
			continue
		}
		i++
		if body[i] != 'u' {
			continue
		}
		high := codeUnit(body[i-1:])
		i += 4
		switch {
		case high < 0xd800 || high > 0xdfff:
		case high <= 0xdbff && isLowSurrogate(codeUnit(body[i+1:])):
			i += 6
		default:
			return errors.New("lone surrogate")
		}
	}
	return nil
}

// codeUnit is the value of the escape \uXXXX that text begins with; 0 if it begins with none.
func codeUnit(text []byte) uint64 {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return 0
	}
	unit, err := strconv.ParseUint(string(text[2:6]), 16, 16)
	if err != nil {
		return 0
	}
	return unit
}

func isLowSurrogate(unit uint64) bool { return unit >= 0xdc00 && unit <= 0xdfff }

// members returns the types of a struct's fields by their JSON names; nil for a type that names no members, such as a map.
func members(t reflect.Type) map[string]reflect.Type {
	if t == nil || t.Kind() != reflect.Struct || reflect.PointerTo(t).Implements(unmarshaler) {
		return nil
	}
	fields := make(map[string]reflect.Type, t.NumField())
	for field := range t.Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "" {
			name = field.Name
		}
		fields[name] = field.Type
	}
	return fields
}

// unmarshaler is what types implement that read their JSON themselves.
var unmarshaler = reflect.TypeFor[json.Unmarshaler]()

// elem is the type of a value's items, or of what a pointer points to; nil if it has none.
func elem(t reflect.Type) reflect.Type {
	if t == nil {
		return nil
	}
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		return t.Elem()
	}
	return nil
}

// level is an object or array that checkStructure is in.
type level struct {
	// seen are the names so far; nil for an array.
	seen map[string]bool
	// members are those that an object may have; nil for any.
	members map[string]reflect.Type
	// item is the type of the next value; nil if it is not known.
	item reflect.Type
	key  bool // the next token is a member's name
}

// checkStructure refuses what Decode's comment says, in valid JSON for the type.
func checkStructure(body []byte, t reflect.Type) error {
	d := json.NewDecoder(bytes.NewReader(body))
	var stack []level
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if len(stack) == 0 && token != json.Delim('{') {
			return errors.New("not an object")
		}
		if stack, err = step(stack, token, t); err != nil {
			return err
		}
	}
}

func step(stack []level, token json.Token, t reflect.Type) ([]level, error) {
	n := len(stack)
	if delim, ok := token.(json.Delim); ok && (delim == '}' || delim == ']') {
		return valueDone(stack[:n-1]), nil
	}
	if n > 0 {
		if stack[n-1].key {
			return stack, nameMember(&stack[n-1], token)
		}
		t = stack[n-1].item
	}
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch token {
	case json.Delim('{'), json.Delim('['):
		if n == maxDepth {
			return nil, fmt.Errorf("nested deeper than %d levels", maxDepth)
		}
		if token == json.Delim('{') {
			return append(stack, level{seen: map[string]bool{}, members: members(t), item: elem(t), key: true}), nil
		}
		return append(stack, level{item: elem(t)}), nil
	case nil:
		if n > 1 {
			return nil, errors.New("null inside a member")
		}
	}
	return valueDone(stack), nil
}

// valueDone notes that a value is complete, so that in an object a name comes next.
func valueDone(stack []level) []level {
	if n := len(stack); n > 0 && stack[n-1].seen != nil {
		stack[n-1].key = true
	}
	return stack
}

func nameMember(l *level, token json.Token) error {
	name, ok := token.(string)
	switch {
	case !ok:
		return errors.New("invalid JSON")
	case l.seen[name]:
		return fmt.Errorf("duplicate member %q", name)
	}
	if l.members != nil {
		t, known := l.members[name]
		if !known {
			return fmt.Errorf("unknown member %q", name)
		}
		l.item = t
	}
	l.seen[name], l.key = true, false
	return nil
}
