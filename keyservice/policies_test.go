package keyservice_test

import (
	"strings"
	"testing"

	"kmsfs/keyservice"
)

// withStatement puts a statement before those of a key's policy, and stores it.
func (g *granted) withStatement(statement string) {
	g.Helper()
	out, err := g.GetKeyPolicy(g.Context(), self(), &keyservice.GetKeyPolicyInput{KeyId: g.key})
	if err != nil {
		g.Fatal(err)
	}
	text := strings.Replace(out.Policy, `"Statement":[`, `"Statement":[`+statement+`,`, 1)
	if _, err := g.PutKeyPolicy(g.Context(), self(), &keyservice.PutKeyPolicyInput{KeyId: g.key, Policy: text}); err != nil {
		g.Fatal(err)
	}
	again, err := g.GetKeyPolicy(g.Context(), self(), &keyservice.GetKeyPolicyInput{KeyId: g.key})
	if err != nil || again.Policy != text || again.PolicyName != "default" {
		g.Errorf("got %+v, %v: want %s", again, err, text)
	}
}

func TestKeyPolicy(t *testing.T) {
	g := newGranted(t)
	g.withStatement(`{"Effect":"Allow","Principal":{"AWS":"uid:4711"},"Action":"kms:Decrypt","Resource":"*",` +
		`"Condition":{"StringLike":{"kms:EncryptionContext:KMSFS:Path":"/finance/*"},"ForAllValues:StringEquals":{"kms:EncryptionContextKeys":["kmsfs:volume","kmsfs:path","kmsfs:owner"]}}}`)
	bob := user(4711)
	g.want("path", g.decrypts(bob, "kmsfs:path", "/finance/q3"), true)
	g.want("another path", g.decrypts(bob, "kmsfs:path", "/hr/q3"), false)
	g.want("further pair", g.decrypts(bob, "kmsfs:path", "/finance/q3", "x", "y"), false)
	g.want("somebody else", g.decrypts(user(4712), "kmsfs:path", "/finance/q3"), false)
}

func TestPolicyRefusals(t *testing.T) {
	g := newGranted(t)
	put := func(text string, bypass bool) error {
		return second(g.PutKeyPolicy(t.Context(), self(), &keyservice.PutKeyPolicyInput{KeyId: g.key, Policy: text, BypassPolicyLockoutSafetyCheck: bypass}))
	}
	const lockout = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":"*","Action":"kms:Decrypt","Resource":"*"}}`
	for _, test := range []struct{ name, text, want string }{
		{"empty", "", keyservice.CodeValidation},
		{"nonsense", "zzz", keyservice.CodeMalformedPolicy},
		{"no principal", `{"Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`, keyservice.CodeMalformedPolicy},
		{"lockout", lockout, keyservice.CodeMalformedPolicy},
		{"too long", strings.Replace(lockout, "kms:Decrypt", "kms:Decrypt"+strings.Repeat("x", 40000), 1), keyservice.CodeLimitExceeded},
	} {
		if err := put(test.text, false); code(err) != test.want {
			t.Errorf("%s: got %v, want %s", test.name, err, test.want)
		}
	}
	if _, err := g.CreateKey(t.Context(), self(), &keyservice.CreateKeyInput{Policy: lockout}); code(err) != keyservice.CodeMalformedPolicy {
		t.Errorf("a new key: %v", err)
	}
	if err := put(lockout, true); err != nil {
		t.Fatal(err)
	}
	if err := put(lockout, true); code(err) != keyservice.CodeAccessDenied {
		t.Errorf("it is not locked: %v", err)
	}
	if _, err := g.Decrypt(t.Context(), user(4711), &keyservice.DecryptInput{CiphertextBlob: g.blob, EncryptionContext: fileContext()}); err != nil {
		t.Errorf("everybody may decrypt: %v", err)
	}
}

// What a key's policy leaves to the account, the service policy decides.
func TestServicePolicy(t *testing.T) {
	g := newGranted(t)
	bob := user(4711)
	out, err := g.GetServicePolicy(t.Context(), self(), &keyservice.GetServicePolicyInput{})
	if err != nil {
		t.Fatal(err)
	}
	put := func(statement string) {
		t.Helper()
		text := strings.Replace(out.Policy, `"Statement":[`, `"Statement":[`+statement+`,`, 1)
		if _, err := g.PutServicePolicy(t.Context(), self(), &keyservice.PutServicePolicyInput{Policy: text}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := g.CreateKey(t.Context(), bob, &keyservice.CreateKeyInput{}); code(err) != keyservice.CodeAccessDenied {
		t.Errorf("got %v", err)
	}
	put(`{"Effect":"Allow","Principal":{"AWS":"uid:4711"},"Action":["kms:CreateKey","kms:Decrypt"],"Resource":"*"}`)
	if _, err := g.CreateKey(t.Context(), bob, &keyservice.CreateKeyInput{}); err != nil {
		t.Error(err)
	}
	g.want("delegated", g.decrypts(bob), true)
	if _, err := g.PutServicePolicy(t.Context(), bob, &keyservice.PutServicePolicyInput{Policy: out.Policy}); code(err) != keyservice.CodeAccessDenied {
		t.Errorf("got %v", err)
	}
	g.grant(keyservice.CreateGrantInput{GranteePrincipal: "uid:4711", Operations: []string{"Decrypt"}})
	put(`{"Effect":"Deny","Principal":{"AWS":"uid:4711"},"Action":"kms:Decrypt","Resource":"*"}`)
	g.want("denied", g.decrypts(bob), false)
	if _, err := g.PutServicePolicy(t.Context(), self(), &keyservice.PutServicePolicyInput{Policy: `{"Statement":[]}`}); code(err) != keyservice.CodeMalformedPolicy {
		t.Errorf("lockout: %v", err)
	}
}

// Everybody can be told why.
func TestExplain(t *testing.T) {
	g := newGranted(t)
	g.withStatement(`{"Sid":"no","Effect":"Deny","Principal":{"AWS":"uid:4712"},"Action":"kms:*","Resource":"*"}`)
	id := g.grant(keyservice.CreateGrantInput{GranteePrincipal: "uid:4711", Operations: []string{"Decrypt"}}).GrantId
	for _, test := range []struct {
		principal, action, by, sid, grant string
		allowed                           bool
	}{
		{"uid:4711", "Decrypt", "Grant", "", id, true},
		{"uid:4711", "kms:Encrypt", "Default", "", "", false},
		{"uid:4712", "kms:Decrypt", "KeyPolicy", "no", "", false},
	} {
		out, err := g.ExplainAccess(t.Context(), self(), &keyservice.ExplainAccessInput{KeyId: g.key, Principal: test.principal, Action: test.action})
		if err != nil {
			t.Fatal(err)
		}
		if out.Allowed != test.allowed || out.DecidedBy != test.by || out.Sid != test.sid || out.GrantId != test.grant || out.Reason == "" {
			t.Errorf("%+v: got %+v", test, out)
		}
	}
	if _, err := g.ExplainAccess(t.Context(), user(4711), &keyservice.ExplainAccessInput{KeyId: g.key, Principal: "uid:1", Action: "Decrypt"}); code(err) != keyservice.CodeAccessDenied {
		t.Errorf("a stranger asks: %v", err)
	}
}

// The file system's own key is there for it when it asks, for everybody else to look at, and for nobody to change.
func TestManagedKey(t *testing.T) {
	s := newService(t)
	const alias = "alias/kmsfs/fs"
	out, err := s.GenerateDataKey(t.Context(), viaFileSystem(), &keyservice.GenerateDataKeyInput{KeyId: alias, KeySpec: "AES_256"})
	if err != nil {
		t.Fatal(err)
	}
	m := describe(t, s, alias)
	if m.Arn != out.KeyId || m.KeyManager != "AWS" {
		t.Errorf("got %+v", m)
	}
	list, err := s.ListAliases(t.Context(), self(), &keyservice.ListAliasesInput{})
	if err != nil || len(list.Aliases) != 1 || list.Aliases[0].AliasName != alias {
		t.Errorf("got %+v, %v", list, err)
	}
	status, err := s.GetKeyRotationStatus(t.Context(), self(), &keyservice.GetKeyRotationStatusInput{KeyId: m.Arn})
	if err != nil || !status.KeyRotationEnabled {
		t.Errorf("got %+v, %v", status, err)
	}
	me, ctx := self(), t.Context()
	for name, err := range map[string]error{
		"Decrypt":             second(s.Decrypt(ctx, me, &keyservice.DecryptInput{CiphertextBlob: out.CiphertextBlob})),
		"DisableKey":          second(s.DisableKey(ctx, me, &keyservice.DisableKeyInput{KeyId: m.Arn})),
		"ScheduleKeyDeletion": second(s.ScheduleKeyDeletion(ctx, me, &keyservice.ScheduleKeyDeletionInput{KeyId: m.Arn})),
		"PutKeyPolicy":        second(s.PutKeyPolicy(ctx, me, &keyservice.PutKeyPolicyInput{KeyId: m.Arn, Policy: "{}"})),
		"CreateGrant":         second(s.CreateGrant(ctx, me, &keyservice.CreateGrantInput{KeyId: m.Arn, GranteePrincipal: "uid:1", Operations: []string{"Decrypt"}})),
		"TagResource":         second(s.TagResource(ctx, me, &keyservice.TagResourceInput{KeyId: m.Arn, Tags: []keyservice.Tag{{TagKey: "a"}}})),
	} {
		if code(err) != keyservice.CodeAccessDenied {
			t.Errorf("%s: got %v", name, err)
		}
	}
	// Owned keys are seen by nobody: here, the one that import tokens are sealed with.
	key, err := s.CreateKey(ctx, me, &keyservice.CreateKeyInput{Origin: "EXTERNAL"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.GetParametersForImport(ctx, me, &keyservice.GetParametersForImportInput{KeyId: key.KeyMetadata.Arn, WrappingAlgorithm: "RSAES_OAEP_SHA_256", WrappingKeySpec: "RSA_2048"}); err != nil {
		t.Fatal(err)
	}
	keys, err := s.ListKeys(ctx, me, &keyservice.ListKeysInput{})
	if err != nil || len(keys.Keys) != 2 {
		t.Errorf("got %+v, %v", keys, err)
	}
}
