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
	members, err := memberNames(reflect.TypeOf(in))
	if err != nil {
		return err
	}
	if err := checkStructure(body, members); err != nil {
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

// memberNames returns the JSON names of the fields of the struct that t points to.
func memberNames(t reflect.Type) (map[string]bool, error) {
	if t == nil || t.Kind() != reflect.Pointer || t.Elem().Kind() != reflect.Struct {
		return nil, fmt.Errorf("decode into %v: want a pointer to a struct", t)
	}
	names := make(map[string]bool, t.Elem().NumField())
	for field := range t.Elem().Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "" {
			name = field.Name
		}
		names[name] = true
	}
	return names, nil
}

// level is an object or array that checkStructure is in.
type level struct {
	names map[string]bool // nil for an array
	key   bool            // the next token is a member's name
}

// checkStructure refuses what Decode's comment says, in valid JSON.
func checkStructure(body []byte, members map[string]bool) error {
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
		if stack, err = step(stack, token, members); err != nil {
			return err
		}
	}
}

func step(stack []level, token json.Token, members map[string]bool) ([]level, error) {
	if delim, ok := token.(json.Delim); ok && (delim == '}' || delim == ']') {
		return valueDone(stack[:len(stack)-1]), nil
	}
	if n := len(stack); n > 0 && stack[n-1].key {
		return stack, nameMember(&stack[n-1], token, n == 1, members)
	}
	switch token {
	case json.Delim('{'), json.Delim('['):
		if len(stack) == maxDepth {
			return nil, fmt.Errorf("nested deeper than %d levels", maxDepth)
		}
		if token == json.Delim('{') {
			return append(stack, level{names: map[string]bool{}, key: true}), nil
		}
		return append(stack, level{}), nil
	case nil:
		if len(stack) > 1 {
			return nil, errors.New("null inside a member")
		}
	}
	return valueDone(stack), nil
}

// valueDone notes that a value is complete, so that in an object a name comes next.
func valueDone(stack []level) []level {
	if n := len(stack); n > 0 && stack[n-1].names != nil {
		stack[n-1].key = true
	}
	return stack
}

func nameMember(l *level, token json.Token, top bool, members map[string]bool) error {
	name, ok := token.(string)
	switch {
	case !ok:
		return errors.New("invalid JSON")
	case l.names[name]:
		return fmt.Errorf("duplicate member %q", name)
	case top && !members[name]:
		return fmt.Errorf("unknown member %q", name)
	}
	l.names[name], l.key = true, false
	return nil
}
