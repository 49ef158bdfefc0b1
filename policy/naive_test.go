package policy_test

import (
	"encoding/json"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"kmsfs/policy"
)

// naive is a second evaluator, as plain as can be: it goes by the JSON text each time, and matches
// by regular expressions. It believes that the policy was accepted.
type naive struct {
	who        person
	action     string
	resource   string
	attributes attributes
	deny       bool
}

func (n *naive) decide(text string) policy.Effect {
	var document struct{ Statement []map[string]any }
	if err := json.Unmarshal([]byte(text), &document); err != nil {
		panic(err)
	}
	strongest := policy.None
	for _, s := range document.Statement {
		strongest = max(strongest, n.statement(s))
	}
	return strongest
}

func (n *naive) statement(s map[string]any) policy.Effect {
	n.deny = s["Effect"] == "Deny"
	effect := n.principal(s)
	if effect == policy.None || !n.either(s, "Action", n.isAction) || !n.either(s, "Resource", n.isResource) {
		return policy.None
	}
	conditions, _ := s["Condition"].(map[string]any)
	for operator, keys := range conditions {
		for key, operands := range keys.(map[string]any) {
			if !n.condition(operator, key, list(operands)) {
				return policy.None
			}
		}
	}
	if n.deny {
		return policy.Deny
	}
	return effect
}

func (n *naive) principal(s map[string]any) policy.Effect {
	named := func(value any, others policy.Effect) policy.Effect {
		if value == "*" {
			return policy.Allow
		}
		best := policy.None
		for _, text := range list(value.(map[string]any)["AWS"]) {
			p, err := policy.ParsePrincipal(text, account)
			switch {
			case err != nil:
				panic(err)
			case p.Kind == policy.Anyone, p.Kind == policy.Account && n.who.root, p.Kind != policy.Account && n.who.Is(p):
				best = policy.Allow
			case p.Kind == policy.Account:
				best = max(best, others)
			}
		}
		return best
	}
	if value, ok := s["Principal"]; ok {
		return named(value, policy.Delegate)
	}
	if named(s["NotPrincipal"], policy.None) == policy.None {
		return policy.Allow
	}
	return policy.None
}

// either goes by an element or its opposite; without both the statement has no effect.
func (n *naive) either(s map[string]any, name string, is func(string) bool) bool {
	if value, ok := s[name]; ok {
		return slices.ContainsFunc(list(value), is)
	}
	value, ok := s["Not"+name]
	return ok && !slices.ContainsFunc(list(value), is)
}

func (n *naive) isAction(pattern string) bool {
	return regexp.MustCompile("(?i)" + wildcards(pattern)).MatchString(n.action)
}

func (n *naive) isResource(pattern string) bool {
	expression, ok := n.expression(pattern, true)
	return ok && regexp.MustCompile(expression).MatchString(n.resource)
}

// wildcards is a pattern as a regular expression.
func wildcards(pattern string) string {
	quoted := regexp.QuoteMeta(pattern)
	return "^(?s:" + strings.ReplaceAll(strings.ReplaceAll(quoted, `\*`, ".*"), `\?`, ".") + ")$"
}

var variables = regexp.MustCompile(`\$\{([^}]*)\}`)

// expression is a pattern with variables as a regular expression; false if a variable has no value.
func (n *naive) expression(pattern string, wild bool) (string, bool) {
	piece := regexp.QuoteMeta
	if wild {
		piece = func(text string) string {
			return strings.TrimSuffix(strings.TrimPrefix(wildcards(text), "^(?s:"), ")$")
		}
	}
	var all strings.Builder
	rest := pattern
	for {
		at := variables.FindStringSubmatchIndex(rest)
		if at == nil {
			return "^(?s:" + all.String() + piece(rest) + ")$", true
		}
		value, ok := n.variable(rest[at[2]:at[3]])
		if !ok {
			return "", false
		}
		all.WriteString(piece(rest[:at[0]]) + regexp.QuoteMeta(value))
		rest = rest[at[1]:]
	}
}

func (n *naive) variable(text string) (string, bool) {
	if text == "*" || text == "?" || text == "$" {
		return text, true
	}
	key, fallback, hasFallback := strings.Cut(text, ",")
	values := n.attributes.Append(nil, strings.ToLower(strings.TrimSpace(key)))
	if len(values) == 1 || len(values) > 1 && strings.EqualFold(key, "aws:PrincipalArn") {
		return values[0], true
	}
	return strings.Trim(strings.TrimSpace(fallback), "'"), hasFallback
}

func (n *naive) condition(operator, key string, operands []string) bool {
	values := n.attributes.Append(nil, strings.ToLower(key))
	if operator == "Null" {
		return (operands[0] == "true") == (len(values) == 0)
	}
	set, rest, ok := strings.Cut(operator, ":")
	if !ok {
		set, rest = "", operator
	}
	base, ifExists := strings.CutSuffix(rest, "IfExists")
	positive := strings.Replace(base, "Not", "", 1)
	negated := positive != base
	if len(values) == 0 {
		return ifExists || set == "ForAllValues" || set == "" && negated
	}
	matches := func(value string) bool {
		return slices.ContainsFunc(operands, func(operand string) bool { return n.compare(positive, operand, value) })
	}
	if strings.EqualFold(key, "aws:PrincipalArn") {
		return slices.ContainsFunc(values, matches) != negated
	}
	count := 0
	for _, value := range values {
		if matches(value) != negated {
			count++
		}
	}
	if set == "ForAnyValue" || set == "" && n.deny {
		return count > 0
	}
	return count == len(values)
}

// compare compares a value of the request with an operand, by an operator that is not negated.
func (n *naive) compare(operator, operand, value string) bool {
	switch operator {
	case "StringEquals", "StringEqualsIgnoreCase", "StringLike", "BinaryEquals":
		expression, ok := n.expression(operand, operator == "StringLike")
		if operator == "StringEqualsIgnoreCase" {
			expression = "(?i)" + expression
		}
		return ok && regexp.MustCompile(expression).MatchString(value)
	case "ArnEquals", "ArnLike":
		return n.compareARN(operand, value)
	case "Bool":
		return strings.EqualFold(operand, value)
	case "IpAddress":
		return compareAddress(operand, value)
	}
	if order, ok := strings.CutPrefix(operator, "Numeric"); ok {
		a, errA := strconv.ParseFloat(value, 64)
		b, errB := strconv.ParseFloat(operand, 64)
		return errA == nil && errB == nil && ordered(order, a, b)
	}
	a, b := moment(value), moment(operand)
	return a != nil && b != nil && ordered(strings.TrimPrefix(operator, "Date"), float64(a.Sub(*b)), 0)
}

func ordered(order string, a, b float64) bool {
	return map[string]bool{
		"Equals": a == b, "LessThan": a < b, "LessThanEquals": a <= b, "GreaterThan": a > b, "GreaterThanEquals": a >= b,
	}[order]
}

func moment(text string) *time.Time {
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return &t
		}
	}
	if seconds, err := strconv.ParseInt(text, 10, 64); err == nil {
		t := time.Unix(seconds, 0)
		return &t
	}
	return nil
}

func compareAddress(operand, value string) bool {
	if !strings.Contains(operand, "/") {
		return net.ParseIP(value) != nil && net.ParseIP(operand).Equal(net.ParseIP(value))
	}
	_, network, err := net.ParseCIDR(operand)
	return err == nil && network.Contains(net.ParseIP(value))
}

func (n *naive) compareARN(operand, value string) bool {
	if operand == "*" {
		operand = "*:*:*:*:*:*"
	}
	// Colons of variables don't separate fields.
	hidden := variables.ReplaceAllStringFunc(operand, func(v string) string { return strings.ReplaceAll(v, ":", "\x00") })
	want, got := strings.SplitN(hidden, ":", 6), strings.SplitN(value, ":", 6)
	if len(got) != 6 {
		return false
	}
	for i := range want {
		expression, ok := n.expression(strings.ReplaceAll(want[i], "\x00", ":"), true)
		if !ok || !regexp.MustCompile(expression).MatchString(got[i]) {
			return false
		}
	}
	return true
}

// list is a string or a list of strings, numbers and truths.
func list(value any) (texts []string) {
	items, ok := value.([]any)
	if !ok {
		items = []any{value}
	}
	for _, item := range items {
		texts = append(texts, fmt.Sprint(item))
	}
	return texts
}

// comparison are operators with operands, and values that are near them.
type comparison struct{ operators, operands, values []string }

// principalComparisons are of a principal, in each spelling.
var principalComparisons = []comparison{
	{
		[]string{"StringLike", "StringNotLike", "ArnEquals", "ArnLike", "ArnNotEquals", "ArnNotLike"},
		[]string{aliceARNs[0], aliceARNs[1], "*", "arn:kmsfs:iam::123456789012:user/uid:*", "arn:*:*:*:*:user/bob", "arn:kmsfs:iam::123456789012:root"},
		nil,
	},
	{[]string{"StringEquals", "StringNotEquals"}, append([]string{"arn:kmsfs:iam::123456789012:user/bob"}, aliceARNs...), nil},
}

var comparisons = []comparison{
	principalComparisons[0],
	principalComparisons[1],
	{
		[]string{"StringEquals", "StringNotEquals", "StringEqualsIgnoreCase", "StringNotEqualsIgnoreCase", "StringLike", "StringNotLike"},
		[]string{"a", "A", "ab", "a*", "*b", "?", "a?b*", "*", "", "é", "a.b", "${aws:username}", "${aws:Absent}", "${aws:Absent, 'a'}", "x${aws:PrincipalArn}*", "${*}", "$a", "(", "a\nb"},
		[]string{"a", "A", "ab", "aab", "b", "", "é", "alice", "*", "a.b", "axb", "$a", "(", "a\nb", "a\nbb"},
	},
	{
		[]string{"ArnEquals", "ArnLike", "ArnNotEquals", "ArnNotLike"},
		[]string{"*", "arn:a:b:c:d:e", "arn:*:b:c:d:*", "arn:a:b:c:d:e:f", "arn:a*:b:c:d:e", "*:*:*:*:*:e*", "arn:a:b::${aws:username}:x", "arn:a:b:c:d:?"},
		[]string{"arn:a:b:c:d:e", "arn:a:b:c:d:e:f", "arn:a:b::alice:x", "arn:a:b", "", "arn:x:y:z:a:e"},
	},
	{
		[]string{"NumericEquals", "NumericNotEquals", "NumericLessThan", "NumericLessThanEquals", "NumericGreaterThan", "NumericGreaterThanEquals"},
		[]string{"5", "5.0", "-1", "1e3"},
		[]string{"5", "5.00", "6", "-1.5", "1000", "five", ""},
	},
	{
		[]string{"DateEquals", "DateNotEquals", "DateLessThan", "DateLessThanEquals", "DateGreaterThan", "DateGreaterThanEquals"},
		[]string{"2026-01-05", "2026-01-05T10:00:00Z", "1767607200"},
		[]string{"2026-01-05T00:00:00Z", "2026-01-05T11:00:00+01:00", "1767607201", "2026-01-04", "today"},
	},
	{[]string{"Bool"}, []string{"true", "false"}, []string{"true", "false", "TRUE", "yes", ""}},
	{[]string{"BinaryEquals"}, []string{"AAE=", "AAI="}, []string{"AAE=", "AAI=", "aae="}},
	{
		[]string{"IpAddress", "NotIpAddress"},
		[]string{"10.0.0.0/8", "10.0.0.1", "::1", "2001:db8::/32"},
		[]string{"10.0.0.1", "10.1.2.3", "::ffff:10.0.0.1", "::1", "2001:db8::5", "11.0.0.1", "", "x"},
	},
}

// anyCondition draws a Condition block of one line, with values for its key.
func anyCondition(t *rapid.T, values attributes) map[string]any {
	kind := rapid.SampledFrom(comparisons).Draw(t, "kind")
	operator := rapid.SampledFrom(kind.operators).Draw(t, "operator") + rapid.SampledFrom([]string{"", "", "IfExists"}).Draw(t, "suffix")
	keys := []string{"aws:Tested", "AWS:tested", "aws:Several", "kms:EncryptionContext:x"}
	if kind.values == nil {
		keys = []string{"aws:PrincipalArn"}
	}
	key := rapid.SampledFrom(keys).Draw(t, "key")
	set := rapid.SampledFrom([]string{"", "ForAnyValue:", "ForAllValues:"}).Draw(t, "set")
	switch {
	case key == "aws:Several" && set == "":
		set = "ForAnyValue:"
	case key == "kms:EncryptionContext:x" && set == "ForAllValues:":
		set = ""
	}
	if _, ok := values[strings.ToLower(key)]; !ok && kind.values != nil {
		values[strings.ToLower(key)] = rapid.SliceOfN(rapid.SampledFrom(kind.values), 0, 3).Draw(t, "values")
	}
	if rapid.IntRange(0, 9).Draw(t, "null") == 0 {
		return map[string]any{"Null": map[string]any{key: rapid.Bool().Draw(t, "absent")}}
	}
	return map[string]any{set + operator: map[string]any{key: rapid.SliceOfN(rapid.SampledFrom(kind.operands), 1, 3).Draw(t, "operands")}}
}

// anyPolicy draws a policy that is accepted, and values for its conditions.
func anyPolicy(t *rapid.T) (text string, values attributes) {
	values = attributes{"aws:username": {"alice"}}
	if rapid.Bool().Draw(t, "named") {
		values["aws:principalarn"] = aliceARNs
	}
	people := []string{"*", account, "uid:1000", "user:bob", "group:finance", "arn:kmsfs:iam::123456789012:root"}
	actions := []string{"*", "kms:*", "kms:Decrypt", "KMS:de?r*", "kms:Encrypt", "kms:*crypt", "kmsfs:*"}
	resources := []string{"*", keyARN, keyARN[:len(keyARN)-1] + "1", "arn:*:key/*", "arn:kmsfs:kms:local:123456789012:alias/*", "arn:kmsfs:kms:local:123456789012:key/${aws:Tested}*"}
	var statements []map[string]any
	for range rapid.IntRange(1, 4).Draw(t, "statements") {
		s := map[string]any{"Effect": rapid.SampledFrom([]string{"Allow", "Deny"}).Draw(t, "effect")}
		element := func(name string, from []string, wrap func([]string) any) {
			if rapid.IntRange(0, 3).Draw(t, "not") == 0 {
				name = "Not" + name
				if from[0] == "*" && name == "NotPrincipal" {
					from = from[1:]
				}
			}
			s[name] = wrap(rapid.SliceOfN(rapid.SampledFrom(from), 1, 2).Draw(t, name))
		}
		element("Principal", people, func(texts []string) any { return map[string]any{"AWS": texts} })
		element("Action", actions, func(texts []string) any { return texts })
		element("Resource", resources, func(texts []string) any { return texts })
		if rapid.Bool().Draw(t, "conditional") {
			s["Condition"] = anyCondition(t, values)
		}
		statements = append(statements, s)
	}
	b, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": statements})
	if err != nil {
		t.Fatal(err)
	}
	return string(b), values
}

func againstNaive(t *rapid.T) {
	text, values := anyPolicy(t)
	d, err := scope.Parse(text)
	if err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	who := rapid.SampledFrom([]person{alice, bob, owner}).Draw(t, "who")
	action := rapid.SampledFrom(scope.Actions).Draw(t, "action")
	got := d.Decide(&policy.Request{Subject: who, Action: action, Resource: keyARN, Attributes: values}).Effect
	n := naive{who: who, action: action, resource: keyARN, attributes: values}
	if want := n.decide(text); got != want {
		t.Errorf("%s of %v: got %v, and naively %v, by %s with %q", action, who.names[1].Name, got, want, text, values)
	}
}

// The evaluator decides as the naive one does.
func TestAgainstNaive(t *testing.T) { rapid.Check(t, againstNaive) }

func FuzzAgainstNaive(f *testing.F) { f.Fuzz(rapid.MakeFuzz(againstNaive)) }
