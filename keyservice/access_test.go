package keyservice_test

import (
	"testing"

	"kmsfs/keyservice/kms"
	"kmsfs/policy/caller"
)

// What CheckUses says is what the use itself would be answered, at every step of a key's life.
func TestCheckUses(t *testing.T) {
	s := newService(t)
	key := newKey(t, s)
	context := fileContext()
	blob := generate(t, s, key, context).CiphertextBlob
	bob := caller.Caller{UID: self().UID + 1, GID: 4711, Groups: []uint32{4712}}
	check := func(who caller.Caller) kms.KeyUseVerdict {
		t.Helper()
		c := self()
		c.ViaFileSystem = true
		out, err := kms.CheckUses.Call(t.Context(), s, c, &kms.CheckUsesInput{Uses: []kms.KeyUse{
			{Caller: who, Action: "Decrypt", KeyId: key, EncryptionContext: context, CiphertextBlob: blob},
		}})
		if err != nil {
			t.Fatal(err)
		}
		c.Caller = who
		_, err = kms.Decrypt.Call(t.Context(), s, c, &kms.DecryptInput{KeyId: key, CiphertextBlob: blob, EncryptionContext: context})
		if code(err) != out.Uses[0].Code {
			t.Errorf("CheckUses says %q, Decrypt %v", out.Uses[0].Code, err)
		}
		return out.Uses[0]
	}
	if v := check(self().Caller); v.Code != "" || !v.Current {
		t.Errorf("the owner: %+v", v)
	}
	if v := check(bob); v.Code != kms.CodeAccessDenied {
		t.Errorf("a stranger: %+v", v)
	}
	grant, err := kms.CreateGrant.Call(t.Context(), s, self(), &kms.CreateGrantInput{
		KeyId: key, GranteePrincipal: "gid:4712", Operations: []string{"Decrypt"},
		Constraints: &kms.GrantConstraints{PathPrefix: "/home/alice/reports"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if v := check(bob); v.Code != "" {
		t.Errorf("with a grant: %+v", v)
	}
	if _, err := kms.RotateKeyOnDemand.Call(t.Context(), s, self(), &kms.RotateKeyOnDemandInput{KeyId: key}); err != nil {
		t.Fatal(err)
	}
	if v := check(bob); v.Code != "" || v.Current {
		t.Errorf("after a rotation: %+v", v)
	}
	if _, err := kms.RevokeGrant.Call(t.Context(), s, self(), &kms.RevokeGrantInput{KeyId: key, GrantId: grant.GrantId}); err != nil {
		t.Fatal(err)
	}
	if v := check(bob); v.Code != kms.CodeAccessDenied {
		t.Errorf("after the grant: %+v", v)
	}
	if _, err := kms.DisableKey.Call(t.Context(), s, self(), &kms.DisableKeyInput{KeyId: key}); err != nil {
		t.Fatal(err)
	}
	if v := check(self().Caller); v.Code != kms.CodeDisabled {
		t.Errorf("a disabled key: %+v", v)
	}
}
