package policy_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"kmsfs/policy"
)

// What can match no request is refused, with its place and, where one is near, the name that was
// meant.
func TestUnmatchable(t *testing.T) {
	condition := func(operator, key string, operand any) statement {
		return statement{"Condition": map[string]any{operator: map[string]any{key: operand}}}
	}
	const arn = "arn:kmsfs:iam::123456789012:"
	for _, test := range []struct {
		name          string
		changes       statement
		place, reason string
	}{
		{"misspelled action", statement{"Action": "kms:Decript"}, "Action", "do you mean kms:Decrypt?"},
		{"one of two actions", statement{"Action": []string{"kms:Decrypt", "kms:Encript"}}, "Action", `"kms:Encript": do you mean kms:Encrypt?`},
		{"action without its service", statement{"Action": "Decrypt"}, "Action", "do you mean kms:Decrypt?"},
		{"another service's action", statement{"Action": "s3:*"}, "Action", "there is no action"},
		{"pattern of no action", statement{"Action": "kms:Dee*"}, "Action", "there is no action"},
		{"misspelled NotAction", statement{"Action": nil, "NotAction": "kms:Decript"}, "NotAction", "do you mean kms:Decrypt?"},

		{"another partition", statement{"Resource": "arn:aws:kms:local:123456789012:key/*"}, "Resource", "there can be no resource"},
		{"another region", statement{"Resource": "arn:kmsfs:kms:us-east-1:123456789012:key/*"}, "Resource", "there can be no resource"},
		{"another account", statement{"Resource": "arn:kmsfs:kms:*:999999999999:key/*"}, "Resource", "there can be no resource"},
		{"another service", statement{"Resource": "arn:kmsfs:s3:*"}, "Resource", "there can be no resource"},
		{"an ID alone", statement{"Resource": "0d5b7a3e-0000-4000-8000-000000000000"}, "Resource", `want "*"`},
		{"another NotResource", statement{"Resource": nil, "NotResource": "arn:aws:kms:*"}, "NotResource", "there can be no resource"},

		{"misspelled user", statement{"Principal": principals("user:alise")}, "Principal.AWS[0]", `no user "alise"`},
		{"misspelled group", statement{"Principal": map[string]any{"AWS": "group:finanse"}}, "Principal.AWS", `no group "finanse"`},
		{"second principal", statement{"Principal": principals("*", arn+"user/alise")}, "Principal.AWS[1]", `no user "alise"`},
		{"NotPrincipal", statement{"Principal": nil, "NotPrincipal": principals("user:alise")}, "NotPrincipal.AWS[0]", `no user "alise"`},
		{"AWS's principal", statement{"Principal": principals("arn:aws:iam::123456789012:user/alice")}, "Principal.AWS[0]", "want arn:kmsfs:iam::123456789012:user/alice"},
		{"a role", statement{"Principal": principals("arn:aws:iam::123456789012:role/admin")}, "Principal.AWS[0]", "no roles"},
		{"a service", statement{"Principal": map[string]any{"Service": "s3.amazonaws.com"}}, "Principal.Service", "kms:ViaService"},
		{"nobody", statement{"Principal": nil, "NotPrincipal": "*"}, "NotPrincipal", "everybody"},

		{"misspelled key", condition("StringLike", "kms:EncryptionContex:kmsfs:path", "/*"), "Condition.StringLike.kms:EncryptionContex:kmsfs:path", "do you mean kms:EncryptionContext:kmsfs:path?"},
		{"misspelled short key", condition("StringEquals", "kms:ViaServices", "x"), "Condition.StringEquals.kms:ViaServices", "do you mean kms:ViaService?"},
		{"key that nothing has", condition("StringEquals", "aws:PrincipalTag/team", "x"), "Condition.StringEquals.aws:PrincipalTag/team", "no request has such a condition key"},
		{"prefix alone", condition("StringEquals", "kms:EncryptionContext:", "x"), "Condition.StringEquals.kms:EncryptionContext:", "no request"},
		{"Null of an unknown key", condition("Null", "aws:MultiFactorAuthAge", true), "Condition.Null.aws:MultiFactorAuthAge", "no request"},
		{"misspelled operator", condition("StringEqual", "aws:Tested", "x"), "Condition.StringEqual", "do you mean StringEquals?"},
		{"misspelled element", statement{"Conditions": map[string]any{}}, "Conditions", "do you mean Condition?"},
		{"unknown variable", condition("StringEquals", "aws:Tested", "${aws:usernam}"), "Condition.StringEquals.aws:Tested", "do you mean aws:username?"},
		{"variable of several values", condition("StringEquals", "aws:Tested", "${aws:Several}"), "Condition.StringEquals.aws:Tested", "several values"},

		{"several values", condition("StringEquals", "aws:Several", "x"), "Condition.StringEquals.aws:Several", "ForAnyValue:StringEquals"},
		{"several values, negated", condition("StringNotLikeIfExists", "aws:Several", "x"), "Condition.StringNotLikeIfExists.aws:Several", "ForAllValues:StringNotLike"},
		{"truth as a number", condition("NumericEquals", "aws:Flag", 1), "Condition.NumericEquals.aws:Flag", "matches no value"},
		{"number as a date", condition("DateLessThan", "aws:Count", "2026-01-01"), "Condition.DateLessThan.aws:Count", "matches no value"},
		{"text as an address", condition("StringEquals", "aws:Address", "10.0.0.0/8"), "Condition.StringEquals.aws:Address", "matches no value"},
		{"address as an ARN", condition("IpAddress", "aws:ARN", "10.0.0.0/8"), "Condition.IpAddress.aws:ARN", "matches no value"},
		{"alias without its prefix", condition("StringEquals", "kms:RequestAlias", "finance"), "Condition.StringEquals.kms:RequestAlias", "alias/*"},
		{"principal of another partition", condition("ArnLike", "aws:PrincipalArn", "arn:aws:iam::*:user/alice"), "Condition.ArnLike.aws:PrincipalArn", "want such as arn:kmsfs:iam::123456789012:root, "},
		{"principal in the short form", condition("StringNotEquals", "aws:PrincipalArn", "user:alice"), "Condition.StringNotEquals.aws:PrincipalArn", "want such as"},
		{"unknown principal in a condition", condition("ArnEquals", "aws:PrincipalArn", []string{aliceARNs[0], arn + "user/alise"}), "Condition.ArnEquals.aws:PrincipalArn", `no user "alise"`},

		{"Deny without Action", statement{"Effect": "Deny", "Action": nil}, "", "Action"},
		{"Deny without Resource", statement{"Effect": "Deny", "Resource": nil}, "", "Resource"},
		{"duplicate Sid", statement{"Sid": "first"}, "Sid", `Statement[0] has the name "first" too`},
	} {
		text, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": []statement{allow(statement{"Sid": "first"}), allow(test.changes)}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = scope.Parse(string(text))
		malformed, ok := errors.AsType[*policy.MalformedError](err)
		want := strings.TrimSuffix("Statement[1]."+test.place, ".")
		if !ok || malformed.Place != want || !strings.Contains(malformed.Reason, test.reason) {
			t.Errorf("%s: got %v, want %s: ...%s...", test.name, err, want, test.reason)
		}
	}
}

// What may match is accepted, however unlikely.
func TestMatchable(t *testing.T) {
	condition := func(operator, key string, operand any) statement {
		return statement{"Condition": map[string]any{operator: map[string]any{key: operand}}}
	}
	for name, changes := range map[string]statement{
		"action in other capitals": {"Action": "KMS:DECRYPT"},
		"wildcards":                {"Action": []string{"*", "kms:*", "k?s:*crypt"}},
		"resources":                {"Resource": []string{"*", "*key*", "arn:*:kms:*:*:key/*", "arn:kmsfs:kms:${aws:Tested}:key/?", "arn:kmsfs:kms:local:123456789012:alias/x"}},
		"a UID that nobody has":    {"Principal": principals("uid:4711", "gid:4711", "arn:kmsfs:iam::123456789012:user/uid:4711")},
		"empty Sids":               {"Sid": ""},
		"key in other capitals":    condition("StringEquals", "KMS:viaservice", "x"),
		"a context's key":          condition("StringEquals", "kms:encryptioncontext:Any Key:at/all", "x"),
		"set operator on one":      condition("ForAnyValue:StringEquals", "kms:ViaService", "x"),
		"pattern of an alias":      condition("StringLike", "kms:RequestAlias", "*fin*"),
		"pattern of a principal":   condition("ArnLike", "aws:PrincipalArn", "arn:*:iam::*:user/al*"),
		"variable in a principal":  condition("ArnEquals", "aws:PrincipalArn", "arn:kmsfs:iam::123456789012:user/${aws:username}"),
		"the account":              condition("ArnEquals", "aws:PrincipalArn", "arn:kmsfs:iam::123456789012:root"),
		"number as text":           condition("StringEquals", "aws:Count", "5"),
		"date in seconds":          condition("NumericLessThan", "aws:Time", 1767607200),
	} {
		document(t, allow(changes), allow(changes))
		if t.Failed() {
			t.Fatal(name)
		}
	}
}

// Documents of the old version, which is also that of documents without one, have no variables:
// what looks like one would be compared as it stands.
func TestOldVersion(t *testing.T) {
	for _, version := range []string{"", `"Version":"2008-10-17",`} {
		for _, rest := range []string{
			`"Resource":"*","Condition":{"StringEquals":{"aws:Tested":"${aws:username}"}}`, `"Resource":"*","Condition":{"ArnLike":{"aws:ARN":"arn:a:b:c:d:${aws:username}"}}`,
			`"Resource":"arn:kmsfs:kms:local:123456789012:key/${aws:username}"`,
		} {
			_, err := scope.Parse("{" + version + `"Statement":{"Effect":"Deny","Principal":"*","Action":"*",` + rest + "}}")
			if err == nil || !strings.Contains(err.Error(), "want the Version 2012-10-17") {
				t.Errorf("%s: %v", rest, err)
			}
		}
	}
	document(t, allow(statement{"Condition": map[string]any{"StringEquals": map[string]any{"aws:Tested": "${*}${$}"}}}))
}

// A policy that was accepted is still read when its users are gone.
func TestUsersGone(t *testing.T) {
	later := *scope
	later.Exists = nil
	if _, err := later.Parse(`{"Statement":{"Effect":"Deny","Principal":{"AWS":"user:gone"},"Action":"*","Resource":"*"}}`); err != nil {
		t.Error(err)
	}
}

// NotPrincipal that lists the account's root excepts the root, and nobody else in the account:
// AWS's example is a Deny for all but one user and the root.
func TestNotPrincipal(t *testing.T) {
	root := "arn:kmsfs:iam::123456789012:root"
	for _, test := range []struct {
		name   string
		except any
		want   map[string]policy.Effect // for alice, bob and owner
	}{
		{"root", principals(root), map[string]policy.Effect{"alice": policy.Deny, "bob": policy.Deny, "owner": policy.Allow}},
		{"account", principals(account), map[string]policy.Effect{"alice": policy.Deny, "bob": policy.Deny, "owner": policy.Allow}},
		{"user and root", principals("user:bob", root), map[string]policy.Effect{"alice": policy.Deny, "bob": policy.Allow, "owner": policy.Allow}},
		{"user", principals("user:bob"), map[string]policy.Effect{"alice": policy.Deny, "bob": policy.Allow, "owner": policy.Deny}},
		{"group", principals("group:finance"), map[string]policy.Effect{"alice": policy.Allow, "bob": policy.Deny, "owner": policy.Deny}},
	} {
		for name, who := range map[string]person{"alice": alice, "bob": bob, "owner": owner} {
			deny := document(t, allow(nil), allow(statement{"Effect": "Deny", "Principal": nil, "NotPrincipal": test.except}))
			if got := decide(deny, who, nil).Effect; got != test.want[name] {
				t.Errorf("Deny but for %s: %s gets %v, want %v", test.name, name, got, test.want[name])
			}
			want := policy.None
			if test.want[name] == policy.Deny {
				want = policy.Allow
			}
			only := document(t, allow(statement{"Principal": nil, "NotPrincipal": test.except}))
			if got := decide(only, who, nil).Effect; got != want {
				t.Errorf("Allow but for %s: %s gets %v, want %v", test.name, name, got, want)
			}
		}
	}
}

// A key that has several values, though it is documented to have one: an Allow wants all of them, a
// Deny one.
func TestUnexpectedValues(t *testing.T) {
	of := func(effect, operator string) *policy.Document {
		return document(t, allow(nil), allow(statement{"Effect": effect, "Condition": map[string]any{operator: map[string]any{"aws:Tested": "a"}}}))
	}
	for _, operator := range []string{"StringEquals", "StringNotEquals"} {
		if got := decide(of("Deny", operator), alice, attributes{"aws:Tested": {"a", "b"}}).Effect; got != policy.Deny {
			t.Errorf("Deny %s: got %v", operator, got)
		}
	}
}

// A principal's ARN matches in each of its spellings, and a negated operator excepts each of them.
func TestSpellings(t *testing.T) {
	for _, arn := range aliceARNs {
		for operator, want := range map[string]policy.Effect{
			"ArnEquals": policy.Deny, "StringEquals": policy.Deny, "ArnLikeIfExists": policy.Deny, "ForAnyValue:StringLike": policy.Deny, "ForAllValues:ArnEquals": policy.Deny,
			"ArnNotEquals": policy.Allow, "StringNotEquals": policy.Allow, "StringNotEqualsIgnoreCase": policy.Allow, "ForAnyValue:ArnNotLike": policy.Allow,
		} {
			d := document(t, allow(nil), allow(statement{"Effect": "Deny", "Condition": map[string]any{operator: map[string]any{"aws:PrincipalArn": arn}}}))
			if got := decide(d, alice, attributes{"aws:PrincipalArn": aliceARNs}).Effect; got != want {
				t.Errorf("%s %s: got %v, want %v", operator, arn, got, want)
			}
			other := attributes{"aws:PrincipalArn": {"arn:kmsfs:iam::123456789012:user/bob", "arn:kmsfs:iam::123456789012:user/uid:1001"}}
			if got := decide(d, bob, other).Effect; got == want {
				t.Errorf("%s %s for another: got %v", operator, arn, got)
			}
		}
	}
}
