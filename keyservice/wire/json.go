package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxDepth bounds how deep objects and arrays nest in a request: more than any operation's input has.
const maxDepth = 8

// Decoder reads inputs of one operation. It is safe for concurrent use.
type Decoder[I any] struct{ shape *shape }

// NewDecoder returns a decoder for a type, which must be a struct.
func NewDecoder[I any]() Decoder[I] { return Decoder[I]{shapeOf(reflect.TypeFor[I]())} }

// Decode reads one JSON object. Stricter than encoding/json, it refuses whatever two readers could understand in two ways: duplicate, unknown and
// differently capitalised member names, invalid UTF-8, lone surrogates, nulls inside members, and anything behind the object. An empty body is
// an empty object.
func (d Decoder[I]) Decode(body []byte) (*I, error) {
	in := new(I)
	body = bytes.Trim(body, " \t\r\n")
	if len(body) == 0 {
		return in, nil
	}
	if !utf8.Valid(body) {
		return nil, errors.New("invalid UTF-8")
	}
	if err := json.Unmarshal(body, in); err != nil {
		if _, malformed := errors.AsType[*json.SyntaxError](err); malformed {
			return nil, errors.New("invalid JSON")
		}
		if body[0] != '{' {
			return nil, errNoObject
		}
		return nil, inWords(err, body)
	}
	if body[0] != '{' {
		return nil, errNoObject
	}
	w := walk{text: body}
	if err := w.value(d.shape, 0); err != nil {
		return nil, err
	}
	return in, nil
}

var errNoObject = errors.New("not an object")

// misfit is what AWS says of a value of the wrong type.
type misfit string

func (m misfit) Error() string { return string(m) }

// inWords says in AWS's words that a value is of the wrong type.
func inWords(err error, body []byte) error {
	e, ok := errors.AsType[*json.UnmarshalTypeError](err)
	if !ok {
		return err
	}
	value, _, _ := strings.Cut(e.Value, " ") // a number has its digits behind it
	switch value {
	case "array":
		return misfit("Start of list found where not expected")
	case "object":
		return misfit("Start of structure or map found where not expected.")
	case "bool":
		value = "false"
		if bytes.HasSuffix(body[:min(e.Offset, int64(len(body)))], []byte("true")) {
			value = "true"
		}
	}
	want := "a Structure"
	switch e.Type.Kind() {
	case reflect.String:
		want = "a String"
	case reflect.Bool:
		want = "a Boolean"
	case reflect.Int32:
		want = "an Integer"
	case reflect.Int64:
		want = "a Long"
	case reflect.Slice:
		want = "a List"
		if e.Type.Elem().Kind() == reflect.Uint8 {
			want = "a Blob"
		}
	case reflect.Map:
		want = "a Map"
	}
	return misfit(strings.ToUpper(value) + "_VALUE can not be converted to " + want)
}

// shape says what names there may be in a value; nil for anything.
type shape struct {
	// members are an object's, by name; nil for any names.
	members map[string]*shape
	// item is the shape of an array's items, or of the values of any names.
	item *shape
}

// unmarshaler is what types implement that read their JSON themselves.
var unmarshaler = reflect.TypeFor[json.Unmarshaler]()

// shapeOf is that of a type's JSON. The type must not contain itself.
func shapeOf(t reflect.Type) *shape {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if reflect.PointerTo(t).Implements(unmarshaler) {
		return nil
	}
	switch t.Kind() {
	case reflect.Slice, reflect.Map:
		return &shape{item: shapeOf(t.Elem())}
	case reflect.Struct:
		s := &shape{members: make(map[string]*shape, t.NumField())}
		for field := range t.Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if name == "" {
				name = field.Name
			}
			s.members[name] = shapeOf(field.Type)
		}
		return s
	}
	return nil
}

// walk goes through valid JSON, and refuses what Decode's comment says.
type walk struct {
	text []byte
	pos  int
}

// next skips white space, commas and colons, and returns the first byte of what follows.
func (w *walk) next() byte {
	for {
		switch c := w.text[w.pos]; c {
		case ' ', '\t', '\r', '\n', ',', ':':
			w.pos++
		default:
			return c
		}
	}
}

// value goes through a value that lies in so many others.
func (w *walk) value(s *shape, depth int) error {
	switch c := w.next(); c {
	case '{', '[':
		if depth == maxDepth {
			return fmt.Errorf("nested deeper than %d levels", maxDepth)
		}
		w.pos++
		if c == '{' {
			return w.object(s, depth+1)
		}
		return w.array(s, depth+1)
	case '"':
		_, err := w.quoted()
		return err
	case 'n':
		if depth > 1 {
			return errors.New("null inside a member")
		}
	}
	w.pos += len(w.text[w.pos:]) - len(bytes.TrimLeft(w.text[w.pos:], "+-.0123456789Eaeflnrstu")) // a number, true, false or null
	return nil
}

func (w *walk) array(s *shape, depth int) error {
	var item *shape
	if s != nil {
		item = s.item
	}
	for w.next() != ']' {
		if err := w.value(item, depth); err != nil {
			return err
		}
	}
	w.pos++
	return nil
}

func (w *walk) object(s *shape, depth int) error {
	seen := names{}
	for w.next() != '}' {
		name, err := w.name()
		if err != nil {
			return err
		}
		if !seen.add(name) {
			return fmt.Errorf("duplicate member %q", name)
		}
		var value *shape
		switch {
		case s == nil:
		case s.members == nil:
			value = s.item
		default:
			known := false
			if value, known = s.members[string(name)]; !known {
				return fmt.Errorf("unknown member %q", name)
			}
		}
		if err := w.value(value, depth); err != nil {
			return err
		}
	}
	w.pos++
	return nil
}

// name reads a member's name.
func (w *walk) name() ([]byte, error) {
	quoted, err := w.quoted()
	if err != nil {
		return nil, err
	}
	if bytes.IndexByte(quoted, '\\') < 0 {
		return quoted[1 : len(quoted)-1], nil
	}
	var name string
	err = json.Unmarshal(quoted, &name)
	return []byte(name), err
}

// quoted skips a string, and returns it with its quotes. It refuses what encoding/json would silently replace by U+FFFD.
func (w *walk) quoted() ([]byte, error) {
	start := w.pos
	for w.pos++; ; {
		w.pos += bytes.IndexAny(w.text[w.pos:], `"\\`)
		if w.text[w.pos] == '"' {
			w.pos++
			return w.text[start:w.pos], nil
		}
		unit, surrogate := codeUnit(w.text[w.pos:])
		w.pos += 2
		if !surrogate {
			continue
		}
		if low, _ := codeUnit(w.text[w.pos+4:]); unit > 0xdbff || low < 0xdc00 {
			return nil, errors.New("lone surrogate")
		}
		w.pos += 10
	}
}

// codeUnit is the value of the escape \uXXXX that text begins with, if it is one half of a surrogate pair.
func codeUnit(text []byte) (unit uint64, surrogate bool) {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return 0, false
	}
	unit, err := strconv.ParseUint(string(text[2:6]), 16, 16)
	if err != nil || unit < 0xd800 || unit > 0xdfff {
		return 0, false
	}
	return unit, true
}

// names are those of an object's members so far.
type names struct {
	few  [12][]byte
	n    int
	many map[string]bool // once there are more
}

// add returns false if the name is there already.
func (s *names) add(name []byte) bool {
	if s.many == nil {
		for _, known := range s.few[:s.n] {
			if bytes.Equal(known, name) {
				return false
			}
		}
		if s.n < len(s.few) {
			s.few[s.n] = name
			s.n++
			return true
		}
		s.many = make(map[string]bool, 2*s.n)
		for _, known := range s.few {
			s.many[string(known)] = true
		}
	}
	if s.many[string(name)] {
		return false
	}
	s.many[string(name)] = true
	return true
}
