package policy

import (
	"fmt"
	"slices"
	"strings"
)

// Scope is what the policies of an account can speak of. A policy that names anything else is
// refused when it is written: a Deny that can match no request would deny nothing, without a word.
type Scope struct {
	// Account has twelve digits.
	Account string
	// Resources are patterns of the ARNs that requests have, in which wildcards stand for anything
	// but colons.
	Resources []string
	// Actions are such as "kms:Decrypt".
	Actions []string
	// Keys are the condition keys for which requests have values.
	Keys []Key
	// Exists says whether there is a user or a group; nil for policies that were checked when they
	// were written, as users may go afterwards.
	Exists func(Principal) bool
}

// Key is a condition key.
type Key struct {
	// Name is such as "kms:ViaService". A name that ends with ":" or "/" is followed by any text.
	Name string
	Type KeyType
	// Groups says that a principal may be a group.
	Groups bool
	// Form is a pattern of the key's values, like those of Scope.Resources; empty for any.
	Form string
}

// KeyType says how a condition key's values are compared.
type KeyType uint8

// The types of condition keys.
const (
	Text KeyType = iota
	// Texts are several values: conditions on them need ForAnyValue or ForAllValues.
	Texts
	Bool
	Number
	// Date is a time, as a date or in seconds since 1970.
	Date
	Address
	ARN
	// PrincipalARN is one principal, for which a request has an ARN in each of its spellings, such
	// as user/uid:5 and user/games.
	PrincipalARN
)

// operators are the families of operators that can match values of the type. Null is for all.
func (t KeyType) operators() []family {
	switch t {
	case Bool:
		return []family{boolFamily, textFamily}
	case Number:
		return []family{numberFamily, textFamily}
	case Date:
		return []family{dateFamily, numberFamily, textFamily}
	case Address:
		return []family{addressFamily}
	case ARN, PrincipalARN:
		return []family{arnFamily, textFamily}
	}
	return []family{textFamily, boolFamily, numberFamily, dateFamily, addressFamily, arnFamily, binaryFamily}
}

// key finds a condition key by a name in any case.
func (s *Scope) key(name string) (Key, bool) {
	for _, k := range s.Keys {
		if strings.EqualFold(k.Name, name) && !k.isPrefix() || k.isPrefix() && len(name) > len(k.Name) && strings.EqualFold(name[:len(k.Name)], k.Name) {
			return k, true
		}
	}
	return Key{}, false
}

func (k *Key) isPrefix() bool {
	return strings.HasSuffix(k.Name, ":") || strings.HasSuffix(k.Name, "/")
}

// suggestKey returns a hint at the condition key that was probably meant.
func (s *Scope) suggestKey(name string) string {
	var names []string
	for _, k := range s.Keys {
		candidate := k.Name
		if k.isPrefix() {
			_, rest, _ := strings.Cut(name, ":")
			_, rest, _ = strings.Cut(rest, k.Name[len(k.Name)-1:])
			if rest == "" {
				rest = "NAME"
			}
			candidate += rest
		}
		names = append(names, candidate)
	}
	return suggestion(name, names)
}

// suggestion returns a hint at the name that was probably meant; empty if none is near.
func suggestion(name string, names []string) string {
	best, least := "", max(2, len(name)/4)+1
	for _, candidate := range names {
		if strings.HasSuffix(strings.ToLower(candidate), ":"+strings.ToLower(name)) {
			best = candidate
			break
		}
		if d := distance(strings.ToLower(name), strings.ToLower(candidate)); d < least {
			best, least = candidate, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(": do you mean %s?", best)
}

// distance is the number of characters that have to be added, removed or replaced to make one text
// of the other (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			next := diagonal
			if a[i] != b[j] {
				next = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], next
		}
	}
	return row[len(b)]
}

// checkAction refuses a pattern of actions that matches none.
func (s *Scope) checkAction(p *pattern, text string) error {
	if slices.ContainsFunc(s.Actions, func(action string) bool { return p.matches(action, nil) }) {
		return nil
	}
	return fmt.Errorf("there is no action %q%s", text, suggestion(text, s.Actions))
}

// checkResource refuses a pattern of resources that matches none.
func (s *Scope) checkResource(p *pattern, text string) error {
	for _, form := range s.Resources {
		if overlaps(p, form) {
			return nil
		}
	}
	return fmt.Errorf("there can be no resource %q: want \"*\" or such as %s", text, strings.Join(s.Resources, ", "))
}

// checkExists refuses users and groups that there are not.
func (s *Scope) checkExists(p Principal) error {
	if s.Exists == nil || p.Kind != User && p.Kind != Group || s.Exists(p) {
		return nil
	}
	kind := "user"
	if p.Kind == Group {
		kind = "group"
	}
	return fmt.Errorf("there is no %s %q", kind, p.Name)
}
