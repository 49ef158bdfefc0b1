package policy

import (
	"encoding/base64"
	"fmt"
	"strings"
)

// operator is one of the operators of conditions.
type operator struct {
	compare comparison
	// read makes an operand of a value in the policy.
	read    func(text string, variables bool) (operand, error)
	negated bool
}

func less(order int) bool        { return order < 0 }
func lessEqual(order int) bool   { return order <= 0 }
func equal(order int) bool       { return order == 0 }
func more(order int) bool        { return order > 0 }
func moreOrEqual(order int) bool { return order >= 0 }

// findOperator returns the operator of that name.
func findOperator(name string) (operator, bool) {
	switch name {
	case "StringEquals":
		return operator{textMatches, readText, false}, true
	case "StringNotEquals":
		return operator{textMatches, readText, true}, true
	case "StringEqualsIgnoreCase":
		return operator{textEqualFold, readText, false}, true
	case "StringNotEqualsIgnoreCase":
		return operator{textEqualFold, readText, true}, true
	case "StringLike":
		return operator{textMatches, readPattern, false}, true
	case "StringNotLike":
		return operator{textMatches, readPattern, true}, true
	case "ArnEquals", "ArnLike":
		return operator{arnMatches, readARN, false}, true
	case "ArnNotEquals", "ArnNotLike":
		return operator{arnMatches, readARN, true}, true
	case "Bool":
		return operator{truthIs, readTruth, false}, true
	case "BinaryEquals":
		return operator{textMatches, readBinary, false}, true
	case "IpAddress":
		return operator{addressIn, readNetwork, false}, true
	case "NotIpAddress":
		return operator{addressIn, readNetwork, true}, true
	}
	return findOrder(name)
}

// findOrder returns the operator of that name that compares numbers or dates.
func findOrder(name string) (operator, bool) {
	orders := map[string]func(int) bool{
		"Equals": equal, "NotEquals": equal, "LessThan": less, "LessThanEquals": lessEqual, "GreaterThan": more, "GreaterThanEquals": moreOrEqual,
	}
	if suffix, ok := strings.CutPrefix(name, "Numeric"); ok && orders[suffix] != nil {
		return operator{number(orders[suffix]), readNumber, suffix == "NotEquals"}, true
	}
	if suffix, ok := strings.CutPrefix(name, "Date"); ok && orders[suffix] != nil {
		return operator{date(orders[suffix]), readDate, suffix == "NotEquals"}, true
	}
	return operator{}, false
}

func readText(text string, variables bool) (operand, error) {
	p, err := parsePattern(text, false, variables)
	return operand{text: p}, err
}

func readPattern(text string, variables bool) (operand, error) {
	p, err := parsePattern(text, true, variables)
	return operand{text: p}, err
}

func readARN(text string, variables bool) (operand, error) {
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
func arnFields(text string, variables bool) string {
	fields := []byte(text)
	left, inside := 5, false
	for i := range fields {
		switch {
		case variables && fields[i] == '{' && i > 0 && fields[i-1] == '$':
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

func readNumber(text string, _ bool) (operand, error) {
	n, err := parseNumber(text)
	if err != nil {
		return operand{}, fmt.Errorf("%q is no number", text)
	}
	return operand{number: n}, nil
}

func readDate(text string, _ bool) (operand, error) {
	t, err := parseDate(text)
	if err != nil {
		return operand{}, fmt.Errorf("%q is no date", text)
	}
	return operand{moment: t}, nil
}

func readTruth(text string, _ bool) (operand, error) {
	truth, err := parseTruth(text)
	if err != nil {
		return operand{}, fmt.Errorf("%q is neither true nor false", text)
	}
	return operand{truth: truth}, nil
}

func readBinary(text string, _ bool) (operand, error) {
	if _, err := base64.StdEncoding.DecodeString(text); err != nil {
		return operand{}, fmt.Errorf("%q is not base64", text)
	}
	return readText(text, false)
}

func readNetwork(text string, _ bool) (operand, error) {
	network, err := parseNetwork(text)
	if err != nil {
		return operand{}, fmt.Errorf("%q is neither an address nor a network", text)
	}
	return operand{network: network.Masked()}, nil
}
