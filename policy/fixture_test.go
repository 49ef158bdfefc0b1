package policy_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"kmsfs/policy"
)

const (
	account = "123456789012"
	keyARN  = "arn:kmsfs:kms:local:123456789012:key/0d5b7a3e-0000-4000-8000-000000000000"
)

// scope has the keys that the tests use, of each type, and two users and a group.
var scope = &policy.Scope{
	Account:   account,
	Resources: []string{"arn:kmsfs:kms:local:" + account + ":key/*", "arn:kmsfs:kms:local:" + account + ":alias/*"},
	Actions:   []string{"kms:Decrypt", "kms:Encrypt", "kms:ReEncryptFrom", "kmsfs:ReadAudit"},
	Keys: []policy.Key{
		{Name: "aws:Tested"},
		{Name: "aws:Absent"},
		{Name: "aws:Account"},
		{Name: "aws:username"},
		{Name: "aws:Several", Type: policy.Texts},
		{Name: "aws:Flag", Type: policy.Bool},
		{Name: "aws:Count", Type: policy.Number},
		{Name: "aws:Time", Type: policy.Date},
		{Name: "aws:Address", Type: policy.Address},
		{Name: "aws:ARN", Type: policy.ARN},
		{Name: "aws:PrincipalArn", Type: policy.PrincipalARN},
		{Name: "kms:ViaService"},
		{Name: "kms:RequestAlias", Form: "alias/*"},
		{Name: "kms:EncryptionContext:"},
		{Name: "aws:RequestTag/"},
	},
	Exists: func(p policy.Principal) bool {
		return slices.Contains([]string{"alice", "bob", "a.b-c_d", "finance"}, p.Name)
	},
}

// person is a subject.
type person struct {
	names []policy.Principal
	root  bool
}

func (p person) IsRoot() bool { return p.root }

func (p person) Is(other policy.Principal) bool {
	for _, name := range p.names {
		if name == other {
			return true
		}
	}
	return false
}

var (
	alice = person{names: []policy.Principal{
		{Kind: policy.UID, ID: 1000}, {Kind: policy.User, Name: "alice"}, {Kind: policy.GID, ID: 100}, {Kind: policy.Group, Name: "finance"},
	}}
	bob   = person{names: []policy.Principal{{Kind: policy.UID, ID: 1001}, {Kind: policy.User, Name: "bob"}}}
	owner = person{names: []policy.Principal{{Kind: policy.UID, ID: 0}, {Kind: policy.User, Name: "root"}}, root: true}
)

// attributes are values by condition keys.
type attributes map[string][]string

func (a attributes) Append(values []string, key string) []string {
	if key != strings.ToLower(key) {
		panic("the key is not in lower case: " + key)
	}
	for name, v := range a {
		if strings.ToLower(name) == key {
			values = append(values, v...)
		}
	}
	return values
}

func parse(t testing.TB, text string) *policy.Document {
	t.Helper()
	d, err := scope.Parse(text)
	if err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return d
}

// statement is a statement of a policy, as JSON has it.
type statement map[string]any

// document makes a policy of statements.
func document(t testing.TB, statements ...statement) *policy.Document {
	t.Helper()
	text, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": append([]statement{}, statements...)})
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, string(text))
}

// allow is a statement that allows everything to everybody, but for what the changes say. A nil
// takes a member out.
func allow(changes statement) statement {
	s := statement{"Effect": "Allow", "Principal": "*", "Action": "kms:*", "Resource": "*"}
	for name, value := range changes {
		if value == nil {
			delete(s, name)
		} else {
			s[name] = value
		}
	}
	return s
}

// decide asks for Decrypt on the key.
func decide(d *policy.Document, who policy.Subject, a attributes) policy.Decision {
	return d.Decide(&policy.Request{Subject: who, Action: "kms:Decrypt", Resource: keyARN, Attributes: a})
}
