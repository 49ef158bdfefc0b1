package policy_test

import (
	"testing"

	"kmsfs/policy"
)

// aliceARNs are the spellings of one principal.
var aliceARNs = []string{"arn:kmsfs:iam::123456789012:user/alice", "arn:kmsfs:iam::123456789012:user/uid:1000"}

// holds says whether one condition, in a statement that allows everything else, holds for the
// values of aws:Tested.
func holds(t *testing.T, operator string, operand any, values ...string) bool {
	t.Helper()
	d := document(t, allow(statement{"Condition": map[string]any{operator: map[string]any{"aws:Tested": operand}}}))
	return decide(d, alice, attributes{"aws:Tested": values, "aws:username": {"alice"}, "aws:PrincipalArn": aliceARNs}).Effect == policy.Allow
}

// Each operator fits one value and not another; its negation the other way round.
func TestOperators(t *testing.T) {
	const arn = "arn:kmsfs:iam::123456789012:user/alice"
	for _, test := range []struct {
		operator     string
		operand      any
		fits, doesnt string
	}{
		{"StringEquals", "a*", "a*", "ab"},
		{"StringEquals", []string{"x", "y"}, "y", "z"},
		{"StringEquals", "Key", "Key", "key"},
		{"StringEqualsIgnoreCase", "Key", "kEY", "keys"},
		{"StringLike", "/finance/*", "/finance/q3/report", "/finances"},
		{"StringLike", "a?c", "abc", "ac"},
		{"StringLike", "a?c", "aéc", "abbc"},
		{"StringLike", "*a*b*", "xxaxxbxx", "xxbxxaxx"},
		{"StringLike", "Key", "Key", "key"},
		{"StringLike", "", "", "a"},
		{"ArnEquals", arn, arn, arn + "x"},
		{"ArnLike", "arn:kmsfs:iam::*:user/*", arn, "arn:kmsfs:iam::123456789012:group/alice"},
		{"ArnLike", "arn:kmsfs:*:user/*:*:*", "arn:kmsfs:a:user/b:c:d", "arn:kmsfs:iam::123456789012:user/alice"},
		{"NumericEquals", 5, "5.0", "6"},
		{"NumericLessThan", "5", "4", "5"},
		{"NumericLessThanEquals", 5, "5", "5.1"},
		{"NumericGreaterThan", 5, "6", "5"},
		{"NumericGreaterThanEquals", 5, "5", "4"},
		{"NumericEquals", 5, "5", "five"},
		{"DateEquals", "2026-01-05T10:00:00Z", "2026-01-05T11:00:00+01:00", "2026-01-05T10:00:01Z"},
		{"DateLessThan", "2026-01-05", "2026-01-04T23:59:59Z", "2026-01-05T00:00:00Z"},
		{"DateLessThanEquals", "2026-01-05T00:00:00Z", "2026-01-05T00:00:00Z", "2026-01-06T00:00:00Z"},
		{"DateGreaterThan", 1767607200, "2026-01-05T10:00:01Z", "2026-01-05T10:00:00Z"},
		{"DateGreaterThanEquals", "1767607200", "1767607200", "1767607199"},
		{"Bool", true, "true", "false"},
		{"Bool", "false", "FALSE", "yes"},
		{"BinaryEquals", "AAE=", "AAE=", "AAI="},
		{"IpAddress", "10.0.0.0/8", "10.1.2.3", "11.1.2.3"},
		{"IpAddress", "10.0.0.1", "::ffff:10.0.0.1", "10.0.0.2"},
		{"IpAddress", "2001:db8::/32", "2001:db8::1", "no address"},
	} {
		check := func(operator string, want bool, values ...string) {
			t.Helper()
			if got := holds(t, operator, test.operand, values...); got != want {
				t.Errorf("%s %v of %q: got %t", operator, test.operand, values, got)
			}
		}
		check(test.operator, true, test.fits)
		check(test.operator, false, test.doesnt)
		check(test.operator, false)
		check(test.operator, false, test.fits, test.doesnt)
		check(test.operator+"IfExists", true)
		check(test.operator+"IfExists", false, test.doesnt)
		check("ForAnyValue:"+test.operator, true, test.doesnt, test.fits)
		check("ForAnyValue:"+test.operator, false, test.doesnt)
		check("ForAnyValue:"+test.operator, false)
		check("ForAllValues:"+test.operator, true, test.fits, test.fits)
		check("ForAllValues:"+test.operator, false, test.doesnt, test.fits)
		check("ForAllValues:"+test.operator, true)

		negation := map[string]string{
			"StringEquals": "StringNotEquals", "StringEqualsIgnoreCase": "StringNotEqualsIgnoreCase", "StringLike": "StringNotLike",
			"ArnEquals": "ArnNotEquals", "ArnLike": "ArnNotLike", "NumericEquals": "NumericNotEquals", "DateEquals": "DateNotEquals", "IpAddress": "NotIpAddress",
		}[test.operator]
		if negation == "" {
			continue
		}
		check(negation, false, test.fits)
		check(negation, true, test.doesnt)
		check(negation, true)
		check(negation, false, test.fits, test.doesnt)
		check("ForAnyValue:"+negation, true, test.doesnt, test.fits)
		check("ForAnyValue:"+negation, false)
		check("ForAllValues:"+negation, false, test.doesnt, test.fits)
		check("ForAllValues:"+negation, true)
	}
}

func TestNull(t *testing.T) {
	for _, test := range []struct {
		operand any
		present bool
		want    bool
	}{{true, false, true}, {true, true, false}, {"false", false, false}, {"false", true, true}} {
		var values []string
		if test.present {
			values = []string{""}
		}
		if got := holds(t, "Null", test.operand, values...); got != test.want {
			t.Errorf("Null %v, present %t: got %t", test.operand, test.present, got)
		}
	}
}

// Variables stand for values, which are taken literally.
func TestVariables(t *testing.T) {
	for _, test := range []struct {
		operator, operand, value string
		want                     bool
	}{
		{"StringEquals", "${aws:username}", "alice", true},
		{"StringEquals", "${AWS:Username}", "alice", true},
		{"StringEqualsIgnoreCase", "/${aws:username}", "/ALICE", true},
		{"StringLike", "/home/${aws:username}/*", "/home/alice/x", true},
		{"StringLike", "/home/${aws:username}/*", "/home/bob/x", false},
		{"StringLike", "${aws:absent}", "", false},
		{"StringLike", "${aws:PrincipalArn}", "arn:kmsfs:iam::123456789012:user/alice", true},
		{"StringLike", "${aws:PrincipalArn}", "arn:kmsfs:iam::123456789012:user/uid:1000", false},
		{"StringLike", "${aws:absent, 'nobody'}", "nobody", true},
		{"StringLike", "${aws:username, 'nobody'}", "nobody", false},
		{"StringLike", "${*}", "x", false},
		{"StringLike", "${*}${?}${$}", "*?$", true},
		{"StringEquals", "$${aws:username}", "$alice", true},
		{"StringNotEquals", "${aws:absent}", "x", true},
	} {
		if got := holds(t, test.operator, test.operand, test.value); got != test.want {
			t.Errorf("%s %s of %q: got %t", test.operator, test.operand, test.value, got)
		}
	}
	// A value with a wildcard in it is no wildcard.
	d := document(t, allow(statement{"Condition": map[string]any{"StringLike": map[string]any{"aws:Tested": "/${aws:username}/x"}}}))
	if got := decide(d, alice, attributes{"aws:username": {"*"}, "aws:Tested": {"/bob/x"}}); got.Effect != policy.None {
		t.Errorf("a user named * is everybody: %v", got)
	}
}

// Condition keys are the same in any case; all keys and operators of a statement must hold.
func TestConditionsTogether(t *testing.T) {
	d := document(t, allow(statement{"Condition": map[string]any{
		"StringEquals": map[string]any{"kms:EncryptionContext:Dept": "x", "KMS:ViaService": "fs.kmsfs"},
		"Bool":         map[string]any{"aws:Flag": true},
	}}))
	whole := attributes{"kms:encryptioncontext:dept": {"x"}, "kms:viaservice": {"fs.kmsfs"}, "aws:flag": {"true"}}
	if got := decide(d, alice, whole); got.Effect != policy.Allow {
		t.Errorf("got %v", got)
	}
	for key := range whole {
		part := attributes{}
		for k, v := range whole {
			if k != key {
				part[k] = v
			}
		}
		if got := decide(d, alice, part); got.Effect != policy.None {
			t.Errorf("without %s: %v", key, got)
		}
	}
}
