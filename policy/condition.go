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
	// compare says whether a value of the request fits one of the policy's; nil for Null.
	compare  comparison
	operands []operand
	// negated says that no operand may fit.
	negated bool
	// ifExists says that the condition holds if the key is absent.
	ifExists bool
	set      setOperator
	// wantNull is the operand of Null.
	wantNull bool
}

// setOperator says how many of a key's values have to fit.
type setOperator uint8

const (
	single setOperator = iota
	forAny
	forAll
)

// operand is a value in a policy, read as its operator wants it.
type operand struct {
	text    pattern
	number  float64
	moment  time.Time
	truth   bool
	network netip.Prefix
	arn     []pattern
}

// comparison says whether a request's value fits an operand. A value that is not of the operator's type fits none.
type comparison func(o *operand, value string, a Attributes) bool

// holds says whether the condition holds for a request.
//
// A key of several values under an operator without ForAnyValue or ForAllValues holds if all of them fit, or, negated, if none fits: so an Allow
// is not had by adding values to a request.
func (c *condition) holds(a Attributes) bool {
	var room [4]string
	values := a.Append(room[:0], c.key)
	if c.compare == nil {
		return (len(values) == 0) == c.wantNull
	}
	if len(values) == 0 {
		return c.ifExists || c.set == forAll || c.set == single && c.negated
	}
	for _, value := range values {
		fits := c.fits(value, a) != c.negated
		if fits && c.set == forAny {
			return true
		}
		if !fits && c.set != forAny {
			return false
		}
	}
	return c.set != forAny
}

// fits says whether a value fits one of the operands.
func (c *condition) fits(value string, a Attributes) bool {
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

// arnMatches compares ARNs part by part: a wildcard doesn't reach over a colon of the first five.
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

// number makes a comparison of numbers of what is wanted of their order: below 0, 0, or above 0.
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

// date is the same for times.
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

// parseDate reads the forms of ISO 8601 that AWS does, and seconds since 1970.
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
