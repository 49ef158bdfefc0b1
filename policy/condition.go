package policy

import (
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// condition is an operator applied to one condition key: a line of a Condition block.
type condition struct {
	// key is in lower case.
	key string
	// compare compares a value of the request with an operand; nil for Null.
	compare  comparison
	operands []operand
	// negated says that the condition holds for values that match no operand.
	negated bool
	// ifExists says that the condition holds if the key is absent.
	ifExists bool
	set      setOperator
	// wantNull is the operand of Null.
	wantNull bool
	// deny says that the statement is a Deny.
	deny bool
	// spellings says that the key's values are spellings of one value.
	spellings bool
}

// setOperator says how many of a key's values the condition has to hold for.
type setOperator uint8

const (
	single setOperator = iota
	forAny
	forAll
)

// operand is a value in a policy, read for its operator.
type operand struct {
	text    pattern
	number  float64
	moment  time.Time
	truth   bool
	network netip.Prefix
	arn     []pattern
}

// comparison says whether a request's value matches an operand. A value that is not of the
// operator's type matches none.
type comparison func(o *operand, value string, a Attributes) bool

// holds says whether the condition holds for a request.
//
// If a key has several values under an operator without ForAnyValue or ForAllValues, a condition of
// an Allow has to hold for all of them, and that of a Deny for one: adding values to a request
// gains nothing.
func (c *condition) holds(a Attributes) bool {
	var room [4]string
	values := a.Append(room[:0], c.key)
	switch {
	case c.compare == nil:
		return (len(values) == 0) == c.wantNull
	case len(values) == 0:
		return c.ifExists || c.set == forAll || c.set == single && c.negated
	case c.spellings:
		return c.matchesAny(values, a) != c.negated
	}
	one := c.set == forAny || c.set == single && c.deny
	for _, value := range values {
		if (c.matches(value, a) != c.negated) == one {
			return one
		}
	}
	return !one
}

func (c *condition) matchesAny(values []string, a Attributes) bool {
	for _, value := range values {
		if c.matches(value, a) {
			return true
		}
	}
	return false
}

// matches says whether a value matches one of the operands.
func (c *condition) matches(value string, a Attributes) bool {
	for i := range c.operands {
		if c.compare(&c.operands[i], value, a) {
			return true
		}
	}
	return false
}

func textMatches(o *operand, value string, a Attributes) bool { return o.text.matches(value, a) }

func textEqualFold(o *operand, value string, a Attributes) bool {
	if o.text.isPlain {
		return strings.EqualFold(o.text.plain, value)
	}
	var room [16]part
	parts, ok := o.text.resolve(room[:0], a)
	if !ok {
		return false
	}
	var whole strings.Builder
	for _, p := range parts {
		whole.WriteString(p.text)
	}
	return strings.EqualFold(whole.String(), value)
}

// arnMatches compares ARNs field by field: no wildcard spans one of the first five colons.
func arnMatches(o *operand, value string, a Attributes) bool {
	for i := range o.arn {
		text, rest, more := strings.Cut(value, ":")
		if i == len(o.arn)-1 {
			text, more = value, true
		}
		if !more || !o.arn[i].matches(text, a) {
			return false
		}
		value = rest
	}
	return true
}

func addressIn(o *operand, value string, _ Attributes) bool {
	address, err := netip.ParseAddr(value)
	return err == nil && o.network.Contains(address.Unmap())
}

func truthIs(o *operand, value string, _ Attributes) bool {
	truth, err := parseTruth(value)
	return err == nil && truth == o.truth
}

func parseTruth(text string) (bool, error) {
	switch strings.ToLower(text) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, strconv.ErrSyntax
}

// number makes a comparison of numbers. wanted gets their order: below 0, 0, or above 0.
func number(wanted func(order int) bool) comparison {
	return func(o *operand, value string, _ Attributes) bool {
		n, err := parseNumber(value)
		if err != nil {
			return false
		}
		switch {
		case n < o.number:
			return wanted(-1)
		case n > o.number:
			return wanted(1)
		}
		return wanted(0)
	}
}

// date makes a comparison of times, like number.
func date(wanted func(order int) bool) comparison {
	return func(o *operand, value string, _ Attributes) bool {
		t, err := parseDate(value)
		return err == nil && wanted(t.Compare(o.moment))
	}
}

func parseNumber(text string) (float64, error) {
	n, err := strconv.ParseFloat(text, 64)
	if err == nil && (n != n || strings.ContainsAny(text, "xXpP_iInN")) {
		err = strconv.ErrSyntax
	}
	return n, err
}

// parseDate reads the forms of ISO 8601 that AWS reads, and seconds since 1970.
func parseDate(text string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04Z07:00", "2006-01-02T15:04:05", "2006-01-02"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil || seconds < -1<<40 || seconds > 1<<40 {
		return time.Time{}, strconv.ErrSyntax
	}
	return time.Unix(seconds, 0), nil
}

// parseNetwork reads an address or a network in CIDR notation.
func parseNetwork(text string) (netip.Prefix, error) {
	if strings.Contains(text, "/") {
		return netip.ParsePrefix(text)
	}
	address, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, err
	}
	return netip.PrefixFrom(address, address.BitLen()), nil
}
