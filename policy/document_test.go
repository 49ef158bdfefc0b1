package policy_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"kmsfs/policy"
)

func principals(texts ...string) any { return map[string]any{"AWS": texts} }

func TestPrincipals(t *testing.T) {
	arn := "arn:kmsfs:iam::" + account + ":"
	for _, test := range []struct {
		name      string
		principal any
		who       policy.Subject
		want      policy.Effect
	}{
		{"anyone", "*", bob, policy.Allow},
		{"anyone in a list", principals("*"), bob, policy.Allow},
		{"user", principals(arn + "user/alice"), alice, policy.Allow},
		{"another user", principals(arn + "user/alice"), bob, policy.None},
		{"short user", principals("user:alice"), alice, policy.Allow},
		{"UID", principals(arn + "user/uid:1000"), alice, policy.Allow},
		{"short UID", principals("uid:1001", "uid:1000"), alice, policy.Allow},
		{"group", principals(arn + "group/finance"), alice, policy.Allow},
		{"another's group", principals("group:finance"), bob, policy.None},
		{"GID", principals("gid:100"), alice, policy.Allow},
		{"account for its root", principals(arn + "root"), owner, policy.Allow},
		{"account for others", principals(account), alice, policy.Delegate},
		{"account and user", principals(account, "uid:1000"), alice, policy.Allow},
	} {
		if got := decide(document(t, allow(statement{"Principal": test.principal})), test.who, nil); got.Effect != test.want {
			t.Errorf("%s: got %v, want %v", test.name, got.Effect, test.want)
		}
		deny := document(t, allow(nil), allow(statement{"Principal": test.principal, "Effect": "Deny"}))
		want := policy.Deny
		if test.want == policy.None {
			want = policy.Allow
		}
		if got := decide(deny, test.who, nil); got.Effect != want {
			t.Errorf("%s, denied: got %v, want %v", test.name, got.Effect, want)
		}
		if test.principal == "*" || test.name == "anyone in a list" {
			continue // NotPrincipal can't except everybody
		}
		not := document(t, allow(nil), allow(statement{"Principal": nil, "NotPrincipal": test.principal, "Effect": "Deny"}))
		want = policy.Allow
		if test.want == policy.None || test.want == policy.Delegate { // the account excepts its root alone
			want = policy.Deny
		}
		if got := decide(not, test.who, nil); got.Effect != want {
			t.Errorf("%s, all others denied: got %v, want %v", test.name, got.Effect, want)
		}
	}
}

func TestPrincipalForms(t *testing.T) {
	for _, text := range []string{
		"", "alice", "uid:", "uid:-1", "uid:01", "uid:4294967296", "uid:1 ", "user:", "user:a*", "user:a b", "user:uid:1", "group:*", "role:x",
		"arn:aws:iam::123456789012:user/alice", "arn:kmsfs:iam::999999999999:user/alice", "arn:kmsfs:iam::123456789012:role/x",
		"arn:kmsfs:iam::123456789012:user/*", "arn:kmsfs:iam::123456789012:user/", "123456789013", strings.Repeat("x", 10000),
	} {
		if p, err := policy.ParsePrincipal(text, account); err == nil {
			t.Errorf("%q is %v", text, p)
		}
	}
	for _, text := range []string{"*", account, "uid:0", "uid:4294967295", "user:alice", "user:a.b-c_d", "gid:100", "group:finance"} {
		p, err := policy.ParsePrincipal(text, account)
		if err != nil {
			t.Error(err)
			continue
		}
		if again, err := policy.ParsePrincipal(p.ARN(account), account); err != nil || again != p {
			t.Errorf("%s: its ARN %s is %v, %v", text, p.ARN(account), again, err)
		}
	}
}

func TestActionsAndResources(t *testing.T) {
	for _, test := range []struct {
		name    string
		changes statement
		want    bool
	}{
		{"action", statement{"Action": "kms:Decrypt"}, true},
		{"action in other capitals", statement{"Action": "KMS:decrypt"}, true},
		{"one of two actions", statement{"Action": []string{"kms:Encrypt", "kms:Decrypt"}}, true},
		{"wildcards", statement{"Action": "kms:De*p?"}, true},
		{"everything", statement{"Action": "*"}, true},
		{"another action", statement{"Action": "kms:Encrypt"}, false},
		{"longer action", statement{"Action": "kms:ReEncryptFrom"}, false},
		{"not another action", statement{"Action": nil, "NotAction": "kms:Encrypt"}, true},
		{"not the action", statement{"Action": nil, "NotAction": []string{"kms:Encrypt", "kms:De*"}}, false},
		{"no action", statement{"Action": nil}, false},
		{"resource", statement{"Resource": keyARN}, true},
		{"another resource", statement{"Resource": keyARN + "0"}, false},
		{"an alias", statement{"Resource": "arn:kmsfs:kms:local:123456789012:alias/x"}, false},
		{"resource with a wildcard", statement{"Resource": "arn:kmsfs:kms:*:key/*"}, true},
		{"resource with a variable", statement{"Resource": "arn:kmsfs:kms:local:${aws:Account}:key/*"}, true},
		{"resource with an absent variable", statement{"Resource": "${aws:absent}*"}, false},
		{"not another resource", statement{"Resource": nil, "NotResource": keyARN + "0"}, true},
		{"not the resource", statement{"Resource": nil, "NotResource": "arn:kmsfs:*"}, false},
		{"no resource", statement{"Resource": nil}, false},
	} {
		got := decide(document(t, allow(test.changes)), alice, attributes{"aws:account": {account}})
		if (got.Effect == policy.Allow) != test.want {
			t.Errorf("%s: got %v", test.name, got.Effect)
		}
	}
}

// The first statement of the strongest effect is named.
func TestDecision(t *testing.T) {
	d := document(t,
		allow(statement{"Sid": "delegates", "Principal": principals(account)}),
		allow(statement{"Sid": "allows it"}), allow(statement{"Sid": "too"}),
		allow(statement{"Sid": "denies", "Effect": "Deny", "Principal": principals("uid:1001")}))
	for _, test := range []struct {
		who  policy.Subject
		want policy.Decision
	}{
		{alice, policy.Decision{Effect: policy.Allow, Statement: 1, Sid: "allows it"}},
		{bob, policy.Decision{Effect: policy.Deny, Statement: 3, Sid: "denies"}},
		{owner, policy.Decision{Effect: policy.Allow, Statement: 0, Sid: "delegates"}},
	} {
		if got := decide(d, test.who, nil); got != test.want {
			t.Errorf("got %+v, want %+v", got, test.want)
		}
	}
	if got := decide(document(t), alice, nil); got != (policy.Decision{Statement: -1}) {
		t.Errorf("no statements: %+v", got)
	}
}

func TestMalformed(t *testing.T) {
	one := func(members string) string {
		return `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"kms:*","Resource":"*"},{"Effect":"Allow","Principal":"*",` + members + `}]}`
	}
	for _, test := range []struct{ text, place, reason string }{
		{"zzz", "line 1, column 1", "invalid"},
		{"", "line 1", "unexpected end"},
		{"[]", "", "not a JSON object"},
		{"{}", "Statement", "want a statement"},
		{"{}{}", "line 1, column 3", "after top-level value"},
		{"{\n \"Version\": }", "line 2", ""},
		{"{\"Statement\":[\xff]}", "", "UTF-8"},
		{`{"Statement":[],"Statement":[]}`, "line 1", "duplicate"},
		{`{"Version":"2020-01-01","Statement":[]}`, "Version", "unknown version"},
		{`{"Versions":"2012-10-17","Statement":[]}`, "Versions", "no such element"},
		{`{"Statement":[1]}`, "Statement[0]", "not an object"},
		{`{"Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`, "Statement", "no principal"},
		{`{"Statement":{"Effect":"Perhaps","Principal":"*"}}`, "Statement.Effect", "Allow or Deny"},
		{`{"Statement":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, "line 1", "nested deeper"},
		{`{"Statement":{"Effect":"Allow","Principal":"*","Action":"*","Resource":"\ud83d"}}`, "line 1, column 73", "lone surrogate"},
		{one(`"Effects":"Deny"`), "Statement[1].Effects", "no such element"},
		{one(`"Sid":1`), "Statement[1].Sid", "string"},
		{one(`"NotPrincipal":"*"`), "Statement[1]", "either"},
		{one(`"Action":[]`), "Statement[1].Action", "list"},
		{one(`"Action":[1]`), "Statement[1].Action[0]", "string"},
		{one(`"Action":"Decrypt"`), "Statement[1].Action", "no action"},
		{one(`"Action":"kms:*","NotAction":"kms:*"`), "Statement[1].NotAction", "opposite"},
		{one(`"Resource":"${aws:username"`), "Statement[1].Resource", "variable"},
		{one(`"Resource":"${username}"`), "Statement[1].Resource", "variable"},
		{one(`"Resource":"${aws:username, nobody}"`), "Statement[1].Resource", "quotes"},
		{one(`"Condition":[]`), "Statement[1].Condition", "object"},
		{one(`"Condition":{"StringEquals":{}}`), "Statement[1].Condition.StringEquals", "condition keys"},
		{one(`"Condition":{"StringIs":{"aws:Tested":"y"}}`), "Statement[1].Condition.StringIs", "operator"},
		{one(`"Condition":{"stringequals":{"aws:Tested":"y"}}`), "Statement[1].Condition.stringequals", "operator"},
		{one(`"Condition":{"NullIfExists":{"aws:Tested":"true"}}`), "Statement[1].Condition.NullIfExists", "operator"},
		{one(`"Condition":{"Null":{"aws:Tested":"maybe"}}`), "Statement[1].Condition.Null.aws:Tested", "true or false"},
		{one(`"Condition":{"StringEquals":{"x":"y"}}`), "Statement[1].Condition.StringEquals.x", "condition key"},
		{one(`"Condition":{"StringEquals":{"aws:Tested":[]}}`), "Statement[1].Condition.StringEquals.aws:Tested", "value"},
		{one(`"Condition":{"StringEquals":{"aws:Tested":null}}`), "Statement[1].Condition.StringEquals.aws:Tested", "string"},
		{one(`"Condition":{"StringEquals":{"aws:Tested":{"y":"z"}}}`), "Statement[1].Condition.StringEquals.aws:Tested", "string"},
		{one(`"Condition":{"NumericEquals":{"aws:Tested":"five"}}`), "Statement[1].Condition.NumericEquals.aws:Tested", "number"},
		{one(`"Condition":{"NumericEquals":{"aws:Tested":"NaN"}}`), "Statement[1].Condition.NumericEquals.aws:Tested", "number"},
		{one(`"Condition":{"DateEquals":{"aws:Tested":"today"}}`), "Statement[1].Condition.DateEquals.aws:Tested", "date"},
		{one(`"Condition":{"Bool":{"aws:Tested":"yes"}}`), "Statement[1].Condition.Bool.aws:Tested", "true nor false"},
		{one(`"Condition":{"IpAddress":{"aws:Tested":"10.0.0.0/33"}}`), "Statement[1].Condition.IpAddress.aws:Tested", "network"},
		{one(`"Condition":{"ArnLike":{"aws:Tested":"alice"}}`), "Statement[1].Condition.ArnLike.aws:Tested", "ARN"},
		{one(`"Condition":{"BinaryEquals":{"aws:Tested":"*"}}`), "Statement[1].Condition.BinaryEquals.aws:Tested", "base64"},
		{one(`"Condition":{"ForAllValues:StringEquals":{"kms:EncryptionContext:a":"b"}}`), "Statement[1].Condition.ForAllValues:StringEquals.kms:EncryptionContext:a", "OverlyPermissiveCondition"},
		{`{"Statement":{"Effect":"Allow","Principal":"alice"}}`, "Statement.Principal", "AWS"},
		{`{"Statement":{"Effect":"Allow","Principal":{}}}`, "Statement.Principal", "AWS"},
		{`{"Statement":{"Effect":"Allow","Principal":{"Service":"s3.amazonaws.com"}}}`, "Statement.Principal.Service", "no such principals"},
		{`{"Statement":{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::123456789012:user/x"}}}`, "Statement.Principal", "invalid principal"},
	} {
		_, err := scope.Parse(test.text)
		malformed, ok := errors.AsType[*policy.MalformedError](err)
		if !ok || !strings.Contains(malformed.Place, test.place) || !strings.Contains(malformed.Reason, test.reason) {
			t.Errorf("%.100q: got %v, want %s: %s", test.text, err, test.place, test.reason)
		}
	}
}

// anyStatement draws a statement that may well match.
func anyStatement(t *rapid.T) statement {
	s := statement{
		"Effect":    rapid.SampledFrom([]string{"Allow", "Deny"}).Draw(t, "effect"),
		"Principal": principals(rapid.SampledFrom([]string{"*", account, "uid:1000", "uid:1001", "group:finance"}).Draw(t, "principal")),
		"Action":    rapid.SampledFrom([]string{"kms:*", "kms:Decrypt", "kms:Encrypt"}).Draw(t, "action"),
		"Resource":  rapid.SampledFrom([]string{"*", keyARN, keyARN + "0"}).Draw(t, "resource"),
	}
	if rapid.Bool().Draw(t, "conditional") {
		operator := rapid.SampledFrom([]string{"StringEquals", "StringNotEquals", "ForAnyValue:StringLike", "StringEqualsIfExists"}).Draw(t, "operator")
		s["Condition"] = map[string]any{operator: map[string]any{"aws:Tested": rapid.SampledFrom([]string{"a", "b", "*"}).Draw(t, "operand")}}
	}
	return s
}

func anyAttributes(t *rapid.T) attributes {
	return attributes{"aws:Tested": rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c"}), 0, 2).Draw(t, "values")}
}

// What each further statement may change, and that their order changes nothing.
func TestStatementsTogether(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		statements := rapid.SliceOfN(rapid.Custom(anyStatement), 0, 6).Draw(r, "statements")
		who := rapid.SampledFrom([]person{alice, bob, owner}).Draw(r, "who")
		values := anyAttributes(r)
		before := decide(document(t, statements...), who, values).Effect
		strongest := policy.None
		for _, s := range statements {
			strongest = max(strongest, decide(document(t, s), who, values).Effect)
		}
		if before != strongest {
			r.Errorf("together %v, one by one %v at most", before, strongest)
		}
		further := anyStatement(r)
		after := decide(document(t, append(statements, further)...), who, values).Effect
		if further["Effect"] == "Allow" && after < before || further["Effect"] == "Deny" && after != before && after != policy.Deny {
			r.Errorf("%v: %v before, %v after", further, before, after)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add(`{"Version":"2012-10-17","Statement":[{"Sid":"s","Effect":"Allow","Principal":{"AWS":["uid:1","*"]},"Action":"kms:*","Resource":"*"}]}`, "kms:Decrypt", "a")
	f.Add(`{"Statement":{"Effect":"Deny","NotPrincipal":{"AWS":"user:a"},"NotAction":"kms:D?c*","NotResource":"${aws:Tested, 'y'}","Condition":{"ForAnyValue:ArnLike":{"aws:Tested":"a:b:c:d:e:f*"},"DateLessThan":{"aws:Tested":"2026-01-01"},"IpAddress":{"aws:Tested":"10.0.0.0/8"}}}}`, "*", "a:b:c:d:e:f")
	f.Fuzz(func(t *testing.T, text, action, value string) {
		d, err := scope.Parse(text)
		if _, ok := errors.AsType[*policy.MalformedError](err); err != nil && !ok {
			t.Fatalf("another error: %v", err)
		}
		if err != nil {
			return
		}
		for _, who := range []person{alice, owner} {
			d.Decide(&policy.Request{Subject: who, Action: action, Resource: keyARN, Attributes: attributes{"aws:Tested": {value}}})
		}
	})
}

func BenchmarkDecide(b *testing.B) {
	var statements []statement
	for i := range 10 {
		statements = append(statements, allow(statement{
			"Principal": principals(fmt.Sprintf("uid:%d", 991+i)),
			"Condition": map[string]any{
				"StringEquals": map[string]any{"kms:ViaService": "fs.kmsfs"},
				"StringLike":   map[string]any{"kms:EncryptionContext:kmsfs:path": "/finance/*"},
			},
		}))
	}
	d := document(b, statements...)
	r := &policy.Request{Subject: alice, Action: "kms:Decrypt", Resource: keyARN, Attributes: attributes{
		"kms:viaservice": {"fs.kmsfs"}, "kms:encryptioncontext:kmsfs:path": {"/finance/q3/report"},
	}}
	b.ReportAllocs()
	for b.Loop() {
		if d.Decide(r).Effect != policy.Allow {
			b.Fatal("not allowed")
		}
	}
}
