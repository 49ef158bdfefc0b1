package kms

import (
	"encoding/binary"
	"maps"
	"slices"
	"strings"
)

// ContextSize is the size in bytes of the context's canonical form.
func ContextSize(context map[string]string) int {
	size := 4
	for key, value := range context {
		size += 4 + len(key) + 4 + len(value)
	}
	return size
}

// AppendContext appends the context's canonical form: the number of pairs and then the pairs, sorted by the bytes of their keys, key
// and value each behind its length. Numbers have four bytes, the highest first. So no two contexts have the same form.
func AppendContext(b []byte, context map[string]string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(context)))
	var few [8]string // file systems' contexts have fewer, and need no memory
	keys := slices.AppendSeq(few[:0], maps.Keys(context))
	slices.Sort(keys)
	for _, key := range keys {
		b = appendText(b, key)
		b = appendText(b, context[key])
	}
	return b
}

func appendText(b []byte, text string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(text)))
	return append(b, text...)
}

// CheckContext returns an error for an encryption context that is too large or ambiguous.
func CheckContext(member string, context map[string]string) error {
	if size := ContextSize(context); size > MaxContext {
		return Invalid(member, "", "Member must have a canonical form of at most %d bytes, and has %d", MaxContext, size)
	}
	// Key policies compare keys without regard to case, and could not tell these apart.
	if len(context) > 1 && foldsTogether(context) {
		return Invalid(member, "", "Member must not have keys that differ in case only")
	}
	return nil
}

// foldsTogether says whether two keys differ in case only.
func foldsTogether(context map[string]string) bool {
	if len(context) > 8 { // too many to compare each with each
		folded := make(map[string]bool, len(context))
		for key := range context {
			folded[strings.ToLower(strings.ToUpper(key))] = true
		}
		return len(folded) < len(context)
	}
	var few [8]string
	keys := slices.AppendSeq(few[:0], maps.Keys(context))
	for i, a := range keys {
		for _, b := range keys[:i] {
			if strings.EqualFold(a, b) {
				return true
			}
		}
	}
	return false
}
