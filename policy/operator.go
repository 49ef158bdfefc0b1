package policy

import (
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// family is a group of operators that match the same values.
type family uint8

const (
	textFamily family = iota
	numberFamily
	dateFamily
	boolFamily
	binaryFamily
	addressFamily
	arnFamily
)

// operator is one of the operators of conditions.
type operator struct {
	family  family
	compare comparison
	// read makes an operand of a value in the policy. variables is nil if there are none in the
	// value.
	read func(text string, variables *Scope) (operand, error)
	// negated says that conditions hold for values that match no operand.
	negated bool
	// wildcards says that operands have wildcards.
	wildcards bool
}

var (
	textEquals     = operator{family: textFamily, compare: textMatches, read: readText}
	textEqualsFold = operator{family: textFamily, compare: textEqualFold, read: readText}
	textLike       = operator{family: textFamily, compare: textMatches, read: readPattern, wildcards: true}
	arnLike        = operator{family: arnFamily, compare: arnMatches, read: readARN, wildcards: true}
	ipAddress      = operator{family: addressFamily, compare: addressIn, read: readNetwork}
)

// operators are the operators by their names, without those that only negate another.
var operators = map[string]operator{
	"StringEquals":           textEquals,
	"StringEqualsIgnoreCase": textEqualsFold,
	"StringLike":             textLike,
	"ArnEquals":              arnLike, // as AWS documents it
	"ArnLike":                arnLike,
	"Bool":                   {family: boolFamily, compare: truthIs, read: readTruth},
	"BinaryEquals":           {family: binaryFamily, compare: textMatches, read: readBinary},
	"IpAddress":              ipAddress,

	"NumericEquals":            numeric(equal),
	"NumericLessThan":          numeric(less),
	"NumericLessThanEquals":    numeric(lessEqual),
	"NumericGreaterThan":       numeric(more),
	"NumericGreaterThanEquals": numeric(moreOrEqual),

	"DateEquals":            dated(equal),
	"DateLessThan":          dated(less),
	"DateLessThanEquals":    dated(lessEqual),
	"DateGreaterThan":       dated(more),
	"DateGreaterThanEquals": dated(moreOrEqual),
}

// negations are the names of negated operators, with those that they negate.
var negations = map[string]string{
	"StringNotEquals":           "StringEquals",
	"StringNotEqualsIgnoreCase": "StringEqualsIgnoreCase",
	"StringNotLike":             "StringLike",
	"ArnNotEquals":              "ArnEquals",
	"ArnNotLike":                "ArnLike",
	"NotIpAddress":              "IpAddress",
	"NumericNotEquals":          "NumericEquals",
	"DateNotEquals":             "DateEquals",
}

func less(order int) bool        { return order < 0 }
func lessEqual(order int) bool   { return order <= 0 }
func equal(order int) bool       { return order == 0 }
func more(order int) bool        { return order > 0 }
func moreOrEqual(order int) bool { return order >= 0 }

func numeric(wanted func(order int) bool) operator {
	return operator{family: numberFamily, compare: number(wanted), read: readNumber}
}

func dated(wanted func(order int) bool) operator {
	return operator{family: dateFamily, compare: date(wanted), read: readDate}
}

// findOperator returns the operator of that name.
func findOperator(name string) (operator, bool) {
	if negated, ok := negations[name]; ok {
		op := operators[negated]
		op.negated = true
		return op, true
	}
	op, ok := operators[name]
	return op, ok
}

// operatorNames returns the names of all operators, sorted.
func operatorNames() []string {
	names := slices.AppendSeq([]string{"Null"}, maps.Keys(operators))
	names = slices.AppendSeq(names, maps.Keys(negations))
	slices.Sort(names)
	return names
}

func readText(text string, variables *Scope) (operand, error) {
	p, err := parsePattern(text, false, variables)
	return operand{text: p}, err
}

func readPattern(text string, variables *Scope) (operand, error) {
	p, err := parsePattern(text, true, variables)
	return operand{text: p}, err
}

func readARN(text string, variables *Scope) (operand, error) {
	var o operand
	if text == "*" {
		text = "*:*:*:*:*:*"
	}
	for rest := range strings.SplitSeq(arnFields(text, variables), "\x00") {
		p, err := parsePattern(rest, true, variables)
		if err != nil {
			return o, err
		}
		o.arn = append(o.arn, p)
	}
	if len(o.arn) != 6 {
		return o, fmt.Errorf("%q is no ARN", text)
	}
	return o, nil
}

// arnFields puts zero bytes in the place of the first five colons that are not a variable's.
func arnFields(text string, variables *Scope) string {
	fields := []byte(text)
	left, inside := 5, false
	for i := range fields {
		switch {
		case variables != nil && fields[i] == '{' && i > 0 && fields[i-1] == '$':
			inside = true
		case inside && fields[i] == '}':
			inside = false
		case fields[i] == ':' && !inside && left > 0:
			fields[i] = 0
			left--
		}
	}
	return string(fields)
}

func readNumber(text string, _ *Scope) (operand, error) {
	n, err := parseNumber(text)
	if err != nil {
		return operand{}, fmt.Errorf("%q is no number", text)
	}
	return operand{number: n}, nil
}

func readDate(text string, _ *Scope) (operand, error) {
	t, err := parseDate(text)
	if err != nil {
		return operand{}, fmt.Errorf("%q is no date", text)
	}
	return operand{moment: t}, nil
}

func readTruth(text string, _ *Scope) (operand, error) {
	truth, err := parseTruth(text)
	if err != nil {
		return operand{}, fmt.Errorf("%q is neither true nor false", text)
	}
	return operand{truth: truth}, nil
}

func readBinary(text string, _ *Scope) (operand, error) {
	if _, err := base64.StdEncoding.DecodeString(text); err != nil {
		return operand{}, fmt.Errorf("%q is not base64", text)
	}
	return readText(text, nil)
}

func readNetwork(text string, _ *Scope) (operand, error) {
	network, err := parseNetwork(text)
	if err != nil {
		return operand{}, fmt.Errorf("%q is neither an address nor a network", text)
	}
	return operand{network: network.Masked()}, nil
}
