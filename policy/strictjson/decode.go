// Package strictjson reads JSON that two readers can understand in one way only.
//
// Beyond what encoding/json refuses, it refuses duplicate member names, invalid UTF-8, lone
// surrogates, values nested deeper than MaxDepth, and anything behind the value. A Decoder fills a
// struct, and also refuses unknown and differently capitalised member names and nulls inside
// members. Parse returns values of any shape.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
)

// MaxDepth bounds how deep objects and arrays nest: deeper than any policy or operation's input.
const MaxDepth = 8

// Error is why a text is refused, and where.
type Error struct {
	// Line and Column count from 1, the column in bytes.
	Line, Column int
	Reason       string
}

func (e *Error) Error() string { return e.Reason }

// errorAt returns the error for an offset in the text.
func errorAt(text []byte, offset int, reason string) *Error {
	before := text[:min(offset, len(text))]
	return &Error{bytes.Count(before, []byte("\n")) + 1, len(before) - bytes.LastIndexByte(before, '\n'), reason}
}

// Decoder reads objects into values of a struct type. It is safe for concurrent use.
type Decoder[T any] struct{ shape *shape }

// NewDecoder returns a decoder for T, a struct type that does not contain itself.
func NewDecoder[T any]() Decoder[T] { return Decoder[T]{shapeOf(reflect.TypeFor[T]())} }

// Decode reads one JSON object. An empty text is an empty object. A value of the wrong type gives a
// *json.UnmarshalTypeError, everything else that is refused an *Error.
func (d Decoder[T]) Decode(text []byte) (*T, error) {
	decoded := new(T)
	text = bytes.Trim(text, " \t\r\n")
	if len(text) == 0 {
		return decoded, nil
	}
	if text[0] != '{' {
		return nil, errorAt(text, 0, "not an object")
	}
	if err := decode(text, decoded); err != nil {
		return nil, err
	}
	s := scanner{text: text}
	if _, err := s.value(d.shape, 0); err != nil {
		return nil, err
	}
	return decoded, nil
}

// shape is the set of member names that a value may have; nil for any.
type shape struct {
	// members are an object's, by name; nil for any names.
	members map[string]*shape
	// item is the shape of an array's items, or of the values of any names.
	item *shape
}

// unmarshaler is implemented by types that read their JSON themselves.
var unmarshaler = reflect.TypeFor[json.Unmarshaler]()

// shapeOf returns the shape of a type's JSON.
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

// Object is a JSON object with its members in the order of the text.
type Object []Member

// Member is a member of an Object.
type Member struct {
	Name string
	// Value is a string, a json.Number, a bool, nil, a []any or an Object.
	Value any
}

// Parse reads one JSON value: a string, a json.Number, a bool, nil, a []any or an Object. The error
// is an *Error.
func Parse(text string) (any, error) {
	b := []byte(text)
	if err := decode(b, new(json.RawMessage)); err != nil {
		return nil, err
	}
	s := scanner{text: b, build: true}
	return s.value(nil, 0)
}

// decode decodes what is one JSON value in UTF-8.
func decode(text []byte, into any) error {
	if at := invalidUTF8(text); at >= 0 {
		return errorAt(text, at, "invalid UTF-8")
	}
	err := json.Unmarshal(text, into)
	if malformed, ok := errors.AsType[*json.SyntaxError](err); ok {
		return errorAt(text, max(int(malformed.Offset)-1, 0), "invalid JSON: "+malformed.Error())
	}
	return err
}
