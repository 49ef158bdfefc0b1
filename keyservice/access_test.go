package keyservice_test

import (
	"testing"

	"kmsfs/keyservice"
	"kmsfs/policy/caller"
)

// What CheckUses says is what the use itself would be answered, at every step of a key's life.
func TestCheckUses(t *testing.T) {
	s := newService(t)
	key := newKey(t, s)
	context := fileContext()
	blob := generate(t, s, key, context).CiphertextBlob
	bob := caller.Caller{UID: self().UID + 1, GID: 4711, Groups: []uint32{4712}}
	check := func(who caller.Caller) keyservice.KeyUseVerdict {
		t.Helper()
		c := self()
		c.ViaFileSystem = true
		out, err := s.CheckUses(t.Context(), c, &keyservice.CheckUsesInput{Uses: []keyservice.KeyUse{
			{Caller: who, Action: "Decrypt", KeyId: key, EncryptionContext: context, CiphertextBlob: blob},
		}})
		if err != nil {
			t.Fatal(err)
		}
		c.Caller = who
		_, err = s.Decrypt(t.Context(), c, &keyservice.DecryptInput{KeyId: key, CiphertextBlob: blob, EncryptionContext: context})
		if code(err) != out.Uses[0].Code {
			t.Errorf("CheckUses says %q, Decrypt %v", out.Uses[0].Code, err)
		}
		return out.Uses[0]
	}
	if v := check(self().Caller); v.Code != "" || !v.Current {
		t.Errorf("the owner: %+v", v)
	}
	if v := check(bob); v.Code != keyservice.CodeAccessDenied {
		t.Errorf("a stranger: %+v", v)
	}
	grant, err := s.CreateGrant(t.Context(), self(), &keyservice.CreateGrantInput{
		KeyId: key, GranteePrincipal: "gid:4712", Operations: []string{"Decrypt"},
		Constraints: &keyservice.GrantConstraints{PathPrefix: "/home/alice/reports"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if v := check(bob); v.Code != "" {
		t.Errorf("with a grant: %+v", v)
	}
	if _, err := s.RotateKeyOnDemand(t.Context(), self(), &keyservice.RotateKeyOnDemandInput{KeyId: key}); err != nil {
		t.Fatal(err)
	}
	if v := check(bob); v.Code != "" || v.Current {
		t.Errorf("after a rotation: %+v", v)
	}
	if _, err := s.RevokeGrant(t.Context(), self(), &keyservice.RevokeGrantInput{KeyId: key, GrantId: grant.GrantId}); err != nil {
		t.Fatal(err)
	}
	if v := check(bob); v.Code != keyservice.CodeAccessDenied {
		t.Errorf("after the grant: %+v", v)
	}
	if _, err := s.DisableKey(t.Context(), self(), &keyservice.DisableKeyInput{KeyId: key}); err != nil {
		t.Fatal(err)
	}
	if v := check(self().Caller); v.Code != keyservice.CodeDisabled {
		t.Errorf("a disabled key: %+v", v)
	}
}
