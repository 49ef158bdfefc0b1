package strictjson

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// scanner goes through one valid JSON value, and refuses what the package comment lists.
type scanner struct {
	text []byte
	pos  int
	// build has value return the values.
	build bool
}

func (s *scanner) fail(format string, args ...any) error {
	return errorAt(s.text, s.pos, fmt.Sprintf(format, args...))
}

// next skips white space, commas and colons, and returns the first byte of what follows.
func (s *scanner) next() byte {
	for {
		switch c := s.text[s.pos]; c {
		case ' ', '\t', '\r', '\n', ',', ':':
			s.pos++
		default:
			return c
		}
	}
}

// value goes through a value that lies within depth others.
func (s *scanner) value(of *shape, depth int) (any, error) {
	switch c := s.next(); c {
	case '{', '[':
		if depth == MaxDepth {
			return nil, s.fail("nested deeper than %d levels", MaxDepth)
		}
		s.pos++
		if c == '{' {
			return s.object(of, depth+1)
		}
		return s.array(of, depth+1)
	case '"':
		quoted, err := s.quoted()
		if err != nil || !s.build {
			return nil, err
		}
		return unquote(quoted)
	case 'n':
		if depth > 1 && !s.build {
			return nil, s.fail("null inside a member")
		}
	}
	return s.scalar()
}

// scalar goes through a number, true, false or null.
func (s *scanner) scalar() (any, error) {
	rest := s.text[s.pos:]
	token := rest[:len(rest)-len(bytes.TrimLeft(rest, "+-.0123456789Eaeflnrstu"))]
	s.pos += len(token)
	if !s.build {
		return nil, nil
	}
	switch token[0] {
	case 'n':
		return nil, nil
	case 't', 'f':
		return token[0] == 't', nil
	}
	return json.Number(token), nil
}

func (s *scanner) array(of *shape, depth int) (any, error) {
	var item *shape
	if of != nil {
		item = of.item
	}
	var list []any
	for s.next() != ']' {
		value, err := s.value(item, depth)
		if err != nil {
			return nil, err
		}
		if s.build {
			list = append(list, value)
		}
	}
	s.pos++
	return list, nil
}

func (s *scanner) object(of *shape, depth int) (any, error) {
	seen := names{}
	var built Object
	for s.next() != '}' {
		name, err := s.name()
		if err != nil {
			return nil, err
		}
		if !seen.add(name) {
			return nil, s.fail("duplicate member %q", name)
		}
		member, known := of.member(name)
		if !known {
			return nil, s.fail("unknown member %q", name)
		}
		value, err := s.value(member, depth)
		if err != nil {
			return nil, err
		}
		if s.build {
			built = append(built, Member{string(name), value})
		}
	}
	s.pos++
	return built, nil
}

// member returns the shape of an object's member, and whether there may be one of that name.
func (s *shape) member(name []byte) (member *shape, known bool) {
	switch {
	case s == nil:
		return nil, true
	case s.members == nil:
		return s.item, true
	}
	member, known = s.members[string(name)]
	return member, known
}

// name reads a member's name.
func (s *scanner) name() ([]byte, error) {
	quoted, err := s.quoted()
	if err != nil {
		return nil, err
	}
	if bytes.IndexByte(quoted, '\\') < 0 {
		return quoted[1 : len(quoted)-1], nil
	}
	name, err := unquote(quoted)
	return []byte(name), err
}

func unquote(quoted []byte) (text string, err error) {
	err = json.Unmarshal(quoted, &text)
	return text, err
}

// quoted skips a string, and returns it with its quotes. It refuses what encoding/json would
// silently replace by U+FFFD.
func (s *scanner) quoted() ([]byte, error) {
	start := s.pos
	for s.pos++; ; {
		s.pos += bytes.IndexAny(s.text[s.pos:], `"\\`)
		if s.text[s.pos] == '"' {
			s.pos++
			return s.text[start:s.pos], nil
		}
		unit, surrogate := codeUnit(s.text[s.pos:])
		if !surrogate {
			s.pos += 2
			continue
		}
		if low, _ := codeUnit(s.text[s.pos+6:]); unit > 0xdbff || low < 0xdc00 {
			return nil, s.fail("lone surrogate")
		}
		s.pos += 12
	}
}

// codeUnit is the value of the escape \uXXXX that text begins with, if it is one half of a
// surrogate pair.
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

// invalidUTF8 is the offset of the first byte that is not UTF-8; -1 if there is none.
func invalidUTF8(text []byte) int {
	if utf8.Valid(text) {
		return -1
	}
	at := 0
	for {
		r, size := utf8.DecodeRune(text[at:])
		if r == utf8.RuneError && size <= 1 {
			return at
		}
		at += size
	}
}

// names is a set of member names that needs no memory of its own while it is small.
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
