package main_test

import (
	"encoding/json"
	"strings"
	"testing"
)

// withService has the program make a home and a volume, opened by a key file that the environment
// names.
func withService(t *testing.T) *program {
	p := newProgram(t)
	p.environment = append(p.environment, "KMSFS_KEY_FILE="+p.path("key"))
	p.must("init", "vault")
	return p
}

// line is the one line that a command prints.
func (p *program) line(args ...string) string {
	p.t.Helper()
	return strings.TrimSpace(p.must(args...))
}

// decode reads what a command prints as JSON.
func (p *program) decode(out any, args ...string) {
	p.t.Helper()
	if err := json.Unmarshal([]byte(p.must(args...)), out); err != nil {
		p.t.Fatal(err)
	}
}

func TestKeyCommands(t *testing.T) {
	p := withService(t)
	arn := p.line("key", "create", "--description", "Finance", "--tag", "team=finance")
	p.must("alias", "create", "alias/finance", arn)
	var described struct {
		KeyMetadata struct{ Arn, Description, KeyState, KeySpec string }
	}
	p.decode(&described, "key", "describe", "--json", "alias/finance")
	if m := described.KeyMetadata; m.Arn != arn || m.Description != "Finance" || m.KeyState != "Enabled" || m.KeySpec != "SYMMETRIC_DEFAULT" {
		t.Errorf("got %+v", m)
	}
	if got := p.line("key", "list"); !strings.Contains(got, "alias/finance") || !strings.Contains(got, "alias/kmsfs-default") {
		t.Errorf("the list is %s", got)
	}
	state := func(want string) {
		t.Helper()
		if got := p.line("key", "describe", "alias/finance"); !strings.Contains(got, want) {
			t.Errorf("want %s in %s", want, got)
		}
	}
	for _, step := range []struct {
		args []string
		want string
	}{
		{[]string{"disable"}, "Disabled"},
		{[]string{"enable"}, "Enabled"},
		{[]string{"rotate"}, "Enabled"},
		{[]string{"enable-rotation", "--period", "90"}, "Enabled"},
		{[]string{"disable-rotation"}, "Enabled"},
		{[]string{"schedule-deletion", "--days", "7"}, "PendingDeletion"},
		{[]string{"cancel-deletion"}, "Disabled"},
	} {
		p.must(append(append([]string{"key"}, step.args...), "alias/finance")...)
		state(step.want)
	}
	var rotations struct {
		Rotations []struct{ KeyMaterialState, RotationType string }
	}
	p.decode(&rotations, "key", "rotations", "--json", "alias/finance")
	if r := rotations.Rotations; len(r) != 2 || r[1].KeyMaterialState != "CURRENT" || r[1].RotationType != "ON_DEMAND" {
		t.Errorf("got %+v", r)
	}
	p.must("key", "untag", "alias/finance", "team")
	p.must("alias", "delete", "alias/finance")
	p.fails("there is no alias", "NotFoundException", "key", "describe", "alias/finance")
	p.fails("a window of a day", "ValidationException", "key", "schedule-deletion", "--days", "1", arn)
}

// fails has a command fail with a text in its one line of error.
func (p *program) fails(why, want string, args ...string) {
	p.t.Helper()
	p.t.Log(why)
	p.run(args...).wantError(p.t, 1, want)
}

func TestImportCommand(t *testing.T) {
	p := withService(t)
	arn := p.line("key", "create", "--origin", "EXTERNAL")
	material := p.write("material", strings.Repeat("m", 32))
	id := p.line("key", "import", arn, material)
	if got := p.line("key", "describe", arn); !strings.Contains(got, id) || !strings.Contains(got, "Enabled") {
		t.Errorf("got %s", got)
	}
	p.fails("another material", "IncorrectKeyMaterialException", "key", "import", arn, p.write("other", strings.Repeat("n", 32)))
	p.must("key", "import", "--next", arn, p.path("other"))
	p.must("key", "rotate", arn)
	p.fails("too short", "IncorrectKeyMaterialException", "key", "import", "--next", arn, p.write("short", "mmmmmmmmmmmmmmmm"))
}

// What encrypt writes decrypt reads, in the same context only, and nothing is written where it
// fails.
func TestCryptoCommands(t *testing.T) {
	p := withService(t)
	plain := p.write("plain", "secret\x00\n")
	ciphertext := p.must("encrypt", "--key", "alias/kmsfs-default", "--context", "a=b=c", "--in", plain)
	if strings.Contains(ciphertext, "secret") {
		t.Error("the plaintext is in the ciphertext")
	}
	sealed := p.write("sealed", ciphertext)
	if got := p.must("decrypt", "--context", "a=b=c", "--in", sealed); got != "secret\x00\n" {
		t.Errorf("got %q", got)
	}
	p.fails("another context", "InvalidCiphertextException", "decrypt", "--context", "a=b", "--in", sealed)
	p.fails("no context", "InvalidCiphertextException", "decrypt", "--in", sealed)
	p.fails("4097 bytes", "more than 4096 bytes", "encrypt", "--key", "alias/kmsfs-default", "--in", p.write("long", strings.Repeat("x", 4097)))
	if got := p.run("encrypt", "--in", plain); got.code != 2 {
		t.Errorf("without a key: exit status %d", got.code)
	}
	if got := p.run("decrypt", "--context", "a=b", "--context", "a=c", "--in", sealed); got.code != 2 {
		t.Errorf("a pair twice: exit status %d", got.code)
	}
	var key struct{ Plaintext, CiphertextBlob, KeyId string }
	p.decode(&key, "data-key", "--key", "alias/kmsfs-default", "--bytes", "16", "--json")
	if len(key.Plaintext) != 24 || key.CiphertextBlob == "" {
		t.Errorf("got %+v", key)
	}
	if got := p.line("data-key", "--key", "alias/kmsfs-default", "--without-plaintext", "--json"); strings.Contains(got, "Plaintext") {
		t.Errorf("got %s", got)
	}
}

func TestGrantCommands(t *testing.T) {
	p := withService(t)
	const key = "alias/kmsfs-default"
	explain := func(path string) string {
		t.Helper()
		return p.line("key", "policy", "explain", "--principal", "uid:4711", "--action", "Decrypt", "--context", "kmsfs:path="+path, key)
	}
	if got := explain("/finance/q3"); !strings.HasPrefix(got, "deny: ") {
		t.Errorf("got %s", got)
	}
	id := p.line("grant", "create", "--key", key, "--grantee", "uid:4711", "--operations", "Decrypt,DescribeKey", "--path", "/finance/*", "--expires", "24h")
	if got := explain("/finance/q3"); got != "allow: grant "+id+" allows it" {
		t.Errorf("got %s", got)
	}
	if got := explain("/finances"); !strings.HasPrefix(got, "deny: ") {
		t.Errorf("got %s", got)
	}
	var list struct {
		Grants []struct {
			GrantId, GranteePrincipal string
			Operations                []string
			Constraints               struct{ PathPrefix string }
		}
	}
	p.decode(&list, "grant", "list", "--key", key, "--grantee", "uid:4711", "--json")
	if len(list.Grants) != 1 || list.Grants[0].GrantId != id || list.Grants[0].Constraints.PathPrefix != "/finance" {
		t.Errorf("got %+v", list)
	}
	p.must("grant", "revoke", "--key", key, id)
	if got := explain("/finance/q3"); !strings.HasPrefix(got, "deny: ") {
		t.Errorf("got %s", got)
	}
	var made struct{ GrantToken, GrantId string }
	p.decode(&made, "grant", "create", "--key", key, "--grantee", "uid:4711", "--operations", "Decrypt", "--json")
	p.must("grant", "retire", made.GrantToken)
	p.fails("it is over", "NotFoundException", "grant", "revoke", "--key", key, made.GrantId)
	p.fails("nobody", "InvalidArnException", "grant", "create", "--key", key, "--grantee", "bob", "--operations", "Decrypt")
}

func TestPolicyCommands(t *testing.T) {
	p := withService(t)
	const key = "alias/kmsfs-default"
	document := p.line("key", "policy", "get", key)
	allowed := strings.Replace(document, `"Statement":[`, `"Statement":[{"Sid":"Team","Effect":"Allow","Principal":{"AWS":"uid:4711"},"Action":"kms:Decrypt","Resource":"*"},`, 1)
	p.must("key", "policy", "put", key, p.write("policy", allowed))
	if got := p.line("key", "policy", "get", key); got != allowed {
		t.Errorf("got %s, want %s", got, allowed)
	}
	if got := p.line("key", "policy", "explain", "--principal", "uid:4711", "--action", "kms:Decrypt", key); got != `allow: statement 0 ("Team") of the key policy allows it` {
		t.Errorf("got %s", got)
	}
	p.fails("misspelt", "Statement[0].Efect", "key", "policy", "put", key, p.write("bad", strings.Replace(allowed, "Effect", "Efect", 1)))
	p.fails("lockout", "update the key policy", "key", "policy", "put", key, p.write("lockout", strings.Replace(document, "kms:*", "kms:Decrypt", 1)))
	service := p.line("home", "policy", "get")
	p.must("home", "policy", "put", p.write("service", service))
	if got := p.run("key", "policy", "explain", key); got.code != 2 {
		t.Errorf("without a principal: exit status %d", got.code)
	}
}

// A home comes back from its backup, with what opened it then; another secret opens it after
// passwd, and the old one doesn't.
func TestHomeCommands(t *testing.T) {
	p := withService(t)
	arn := p.line("key", "create")
	p.must("home", "backup", "backup")
	p.fails("a second time", "file exists", "home", "backup", "backup")
	p.fails("over a home", "something is there already", "home", "restore", "backup")
	p.must("home", "restore", "--home", p.path("restored"), "backup")
	if got := p.line("key", "describe", "--home", p.path("restored"), arn); !strings.Contains(got, arn) {
		t.Errorf("got %s", got)
	}
	p.must("home", "passwd", "--new-passphrase-file", p.write("passphrase", passphrase))
	p.fails("the old key file", "sealed by something else", "key", "list")
	p.must("key", "list", "--passphrase-file", p.path("passphrase"))
	p.fails("a wrong passphrase", "wrong passphrase", "home", "passwd", "--passphrase-file", p.write("wrong", "wrong"), "--new-key-file", p.path("other"))
	p.must("home", "passwd", "--passphrase-file", p.path("passphrase"), "--new-key-file", p.path("other"))
	p.must("key", "list", "--key-file", p.path("other"))
	p.fails("no backup", "not an intact backup", "home", "restore", "--home", p.path("nothing"), p.write("garbage", "garbage"))
}
