package keyservice_test

import (
	"fmt"
	"strings"
	"testing"

	"kmsfs/keyservice/kms"
)

// withStatement puts a statement before those of a key's policy, and stores it.
func (g *granted) withStatement(statement string) {
	g.Helper()
	out, err := kms.GetKeyPolicy.Call(g.Context(), g, self(), &kms.GetKeyPolicyInput{KeyId: g.key})
	if err != nil {
		g.Fatal(err)
	}
	text := strings.Replace(out.Policy, `"Statement":[`, `"Statement":[`+statement+`,`, 1)
	if _, err := kms.PutKeyPolicy.Call(g.Context(), g, self(), &kms.PutKeyPolicyInput{KeyId: g.key, Policy: text}); err != nil {
		g.Fatal(err)
	}
	again, err := kms.GetKeyPolicy.Call(g.Context(), g, self(), &kms.GetKeyPolicyInput{KeyId: g.key})
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
		return second(kms.PutKeyPolicy.Call(t.Context(), g, self(), &kms.PutKeyPolicyInput{KeyId: g.key, Policy: text, BypassPolicyLockoutSafetyCheck: bypass}))
	}
	const lockout = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":"*","Action":"kms:Decrypt","Resource":"*"}}`
	for _, test := range []struct{ name, text, want string }{
		{"empty", "", kms.CodeValidation},
		{"nonsense", "zzz", kms.CodeMalformedPolicy},
		{"no principal", `{"Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`, kms.CodeMalformedPolicy},
		{"lockout", lockout, kms.CodeMalformedPolicy},
		{"too long", strings.Replace(lockout, "kms:Decrypt", "kms:Decrypt"+strings.Repeat("x", 40000), 1), kms.CodeLimitExceeded},
	} {
		if err := put(test.text, false); code(err) != test.want {
			t.Errorf("%s: got %v, want %s", test.name, err, test.want)
		}
	}
	if _, err := kms.CreateKey.Call(t.Context(), g, self(), &kms.CreateKeyInput{Policy: lockout}); code(err) != kms.CodeMalformedPolicy {
		t.Errorf("a new key: %v", err)
	}
	if err := put(lockout, true); err != nil {
		t.Fatal(err)
	}
	if err := put(lockout, true); code(err) != kms.CodeAccessDenied {
		t.Errorf("it is not locked: %v", err)
	}
	if _, err := kms.Decrypt.Call(t.Context(), g, user(4711), &kms.DecryptInput{CiphertextBlob: g.blob, EncryptionContext: fileContext()}); err != nil {
		t.Errorf("everybody may decrypt: %v", err)
	}
}

// What a key's policy leaves to the account, the service policy decides.
func TestServicePolicy(t *testing.T) {
	g := newGranted(t)
	bob := user(4711)
	out, err := kms.GetServicePolicy.Call(t.Context(), g, self(), &kms.GetServicePolicyInput{})
	if err != nil {
		t.Fatal(err)
	}
	put := func(statement string) {
		t.Helper()
		text := strings.Replace(out.Policy, `"Statement":[`, `"Statement":[`+statement+`,`, 1)
		if _, err := kms.PutServicePolicy.Call(t.Context(), g, self(), &kms.PutServicePolicyInput{Policy: text}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := kms.CreateKey.Call(t.Context(), g, bob, &kms.CreateKeyInput{}); code(err) != kms.CodeAccessDenied {
		t.Errorf("got %v", err)
	}
	put(`{"Effect":"Allow","Principal":{"AWS":"uid:4711"},"Action":["kms:CreateKey","kms:Decrypt"],"Resource":"*"}`)
	if _, err := kms.CreateKey.Call(t.Context(), g, bob, &kms.CreateKeyInput{}); err != nil {
		t.Error(err)
	}
	g.want("delegated", g.decrypts(bob), true)
	if _, err := kms.PutServicePolicy.Call(t.Context(), g, bob, &kms.PutServicePolicyInput{Policy: out.Policy}); code(err) != kms.CodeAccessDenied {
		t.Errorf("got %v", err)
	}
	g.grant(kms.CreateGrantInput{GranteePrincipal: "uid:4711", Operations: []string{"Decrypt"}})
	put(`{"Effect":"Deny","Principal":{"AWS":"uid:4711"},"Action":"kms:Decrypt","Resource":"*"}`)
	g.want("denied", g.decrypts(bob), false)
	if _, err := kms.PutServicePolicy.Call(t.Context(), g, self(), &kms.PutServicePolicyInput{Policy: `{"Statement":[]}`}); code(err) != kms.CodeMalformedPolicy {
		t.Errorf("lockout: %v", err)
	}
}

// Everybody can be told why.
func TestExplain(t *testing.T) {
	g := newGranted(t)
	g.withStatement(`{"Sid":"no","Effect":"Deny","Principal":{"AWS":"uid:4712"},"Action":"kms:*","Resource":"*"}`)
	id := g.grant(kms.CreateGrantInput{GranteePrincipal: "uid:4711", Operations: []string{"Decrypt"}}).GrantId
	for _, test := range []struct {
		principal, action, by, sid, grant string
		allowed                           bool
	}{
		{"uid:4711", "Decrypt", "Grant", "", id, true},
		{"uid:4711", "kms:Encrypt", "Default", "", "", false},
		{"uid:4712", "kms:Decrypt", "KeyPolicy", "no", "", false},
	} {
		out, err := kms.ExplainAccess.Call(t.Context(), g, self(), &kms.ExplainAccessInput{KeyId: g.key, Principal: test.principal, Action: test.action})
		if err != nil {
			t.Fatal(err)
		}
		if out.Allowed != test.allowed || out.DecidedBy != test.by || out.Sid != test.sid || out.GrantId != test.grant || out.Reason == "" {
			t.Errorf("%+v: got %+v", test, out)
		}
	}
	if _, err := kms.ExplainAccess.Call(t.Context(), g, user(4711), &kms.ExplainAccessInput{KeyId: g.key, Principal: "uid:1", Action: "Decrypt"}); code(err) != kms.CodeAccessDenied {
		t.Errorf("a stranger asks: %v", err)
	}
}

// The file system's own key is there for it when it asks, for everybody else to look at, and for nobody to change.
func TestManagedKey(t *testing.T) {
	s := newService(t)
	const alias = "alias/kmsfs/fs"
	out, err := kms.GenerateDataKey.Call(t.Context(), s, viaFileSystem(), &kms.GenerateDataKeyInput{KeyId: alias, KeySpec: "AES_256"})
	if err != nil {
		t.Fatal(err)
	}
	m := describe(t, s, alias)
	if m.Arn != out.KeyId || m.KeyManager != "AWS" {
		t.Errorf("got %+v", m)
	}
	list, err := kms.ListAliases.Call(t.Context(), s, self(), &kms.ListAliasesInput{})
	if err != nil || len(list.Aliases) != 1 || list.Aliases[0].AliasName != alias {
		t.Errorf("got %+v, %v", list, err)
	}
	status, err := kms.GetKeyRotationStatus.Call(t.Context(), s, self(), &kms.GetKeyRotationStatusInput{KeyId: m.Arn})
	if err != nil || !status.KeyRotationEnabled {
		t.Errorf("got %+v, %v", status, err)
	}
	me, ctx := self(), t.Context()
	for name, err := range map[string]error{
		"Decrypt":             second(kms.Decrypt.Call(ctx, s, me, &kms.DecryptInput{CiphertextBlob: out.CiphertextBlob})),
		"DisableKey":          second(kms.DisableKey.Call(ctx, s, me, &kms.DisableKeyInput{KeyId: m.Arn})),
		"ScheduleKeyDeletion": second(kms.ScheduleKeyDeletion.Call(ctx, s, me, &kms.ScheduleKeyDeletionInput{KeyId: m.Arn})),
		"PutKeyPolicy":        second(kms.PutKeyPolicy.Call(ctx, s, me, &kms.PutKeyPolicyInput{KeyId: m.Arn, Policy: "{}"})),
		"CreateGrant":         second(kms.CreateGrant.Call(ctx, s, me, &kms.CreateGrantInput{KeyId: m.Arn, GranteePrincipal: "uid:1", Operations: []string{"Decrypt"}})),
		"TagResource":         second(kms.TagResource.Call(ctx, s, me, &kms.TagResourceInput{KeyId: m.Arn, Tags: []kms.Tag{{TagKey: "a"}}})),
	} {
		if code(err) != kms.CodeAccessDenied {
			t.Errorf("%s: got %v", name, err)
		}
	}
	// Owned keys are seen by nobody: here, the one that import tokens are sealed with.
	key, err := kms.CreateKey.Call(ctx, s, me, &kms.CreateKeyInput{Origin: "EXTERNAL"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kms.GetParametersForImport.Call(ctx, s, me, &kms.GetParametersForImportInput{KeyId: key.KeyMetadata.Arn, WrappingAlgorithm: "RSAES_OAEP_SHA_256", WrappingKeySpec: "RSA_2048"}); err != nil {
		t.Fatal(err)
	}
	keys, err := kms.ListKeys.Call(ctx, s, me, &kms.ListKeysInput{})
	if err != nil || len(keys.Keys) != 2 {
		t.Errorf("got %+v, %v", keys, err)
	}
}

// The alias in the condition kms:RequestAlias is the one that named the key in question: in ReEncrypt,
// each of the two keys has its own.
func TestReEncryptRequestAlias(t *testing.T) {
	g := newGranted(t)
	other := newKey(t, g)
	for name, key := range map[string]string{"alias/from": g.key, "alias/to": other} {
		if _, err := kms.CreateAlias.Call(t.Context(), g, self(), &kms.CreateAliasInput{AliasName: name, TargetKeyId: key}); err != nil {
			t.Fatal(err)
		}
	}
	allow := func(key, action, alias string) {
		t.Helper()
		policy := `{"Statement":[{"Effect":"Allow","Principal":{"AWS":"uid:4711"},"Action":"` + action + `","Resource":"*",` +
			`"Condition":{"StringEquals":{"kms:RequestAlias":"` + alias + `"}}},` +
			`{"Effect":"Allow","Principal":{"AWS":"uid:` + fmt.Sprint(self().UID) + `"},"Action":"kms:*","Resource":"*"}]}`
		if _, err := kms.PutKeyPolicy.Call(t.Context(), g, self(), &kms.PutKeyPolicyInput{KeyId: key, Policy: policy}); err != nil {
			t.Fatal(err)
		}
	}
	blob := generate(t, g, g.key, nil).CiphertextBlob
	for _, test := range []struct {
		name                string
		fromAlias, toAlias  string // in the conditions
		source, destination string // identifiers in the request
		want                string
	}{
		{"each by its alias", "alias/from", "alias/to", "alias/from", "alias/to", ""},
		{"source by ID", "alias/from", "alias/to", g.key, "alias/to", kms.CodeAccessDenied},
		{"source by the ciphertext", "alias/from", "alias/to", "", "alias/to", kms.CodeAccessDenied},
		{"destination by ID", "alias/from", "alias/to", "alias/from", other, kms.CodeAccessDenied},
		{"the destination's alias for the source", "alias/to", "alias/to", g.key, "alias/to", kms.CodeAccessDenied},
		{"the source's alias for the destination", "alias/from", "alias/from", "alias/from", other, kms.CodeAccessDenied},
	} {
		allow(g.key, "kms:ReEncryptFrom", test.fromAlias)
		allow(other, "kms:ReEncryptTo", test.toAlias)
		_, err := kms.ReEncrypt.Call(t.Context(), g, user(4711), &kms.ReEncryptInput{
			CiphertextBlob: blob, SourceKeyId: test.source, DestinationKeyId: test.destination,
		})
		if code(err) != test.want {
			t.Errorf("%s: got %v, want %q", test.name, err, test.want)
		}
	}
}
