package keyservice_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"kmsfs/keyservice"
	"kmsfs/keyservice/kms"
	"kmsfs/policy/caller"
)

// user is a process of a user with that UID, in the groups.
func user(uid uint32, groups ...uint32) kms.Caller {
	return kms.Caller{Caller: caller.Caller{UID: uid, GID: uid, Groups: append([]uint32{}, groups...)}}
}

// granted is a key with something encrypted under it in fileContext.
type granted struct {
	*testing.T
	*keyservice.Service
	key  string
	blob []byte
}

func newGranted(t *testing.T) *granted {
	s := newService(t)
	key := newKey(t, s)
	return &granted{t, s, key, generate(t, s, key, fileContext()).CiphertextBlob}
}

func (g *granted) grant(in kms.CreateGrantInput) *kms.CreateGrantOutput {
	g.Helper()
	in.KeyId = g.key
	out, err := kms.CreateGrant.Call(g.Context(), g, self(), &in)
	if err != nil {
		g.Fatal(err)
	}
	return out
}

// decrypts says whether a caller may decrypt in a context that has been changed so.
func (g *granted) decrypts(c kms.Caller, changes ...string) bool {
	g.Helper()
	context := fileContext()
	for i := 0; i+1 < len(changes); i += 2 {
		context[changes[i]] = changes[i+1]
	}
	made := generate(g.T, g.Service, g.key, context)
	_, err := kms.Decrypt.Call(g.Context(), g, c, &kms.DecryptInput{KeyId: g.key, CiphertextBlob: made.CiphertextBlob, EncryptionContext: context})
	if err != nil && code(err) != kms.CodeAccessDenied {
		g.Errorf("got %v", err)
	}
	return err == nil
}

func (g *granted) want(what string, got, want bool) {
	g.Helper()
	if got != want {
		g.Errorf("%s: got %t, want %t", what, got, want)
	}
}

func TestGrantOperations(t *testing.T) {
	g := newGranted(t)
	bob := user(4711)
	g.want("before", g.decrypts(bob), false)
	made := g.grant(kms.CreateGrantInput{GranteePrincipal: "uid:4711", Operations: []string{"Decrypt", "DescribeKey"}})
	g.want("granted", g.decrypts(bob), true)
	g.want("somebody else", g.decrypts(user(4712)), false)
	if _, err := kms.DescribeKey.Call(t.Context(), g, bob, &kms.DescribeKeyInput{KeyId: g.key, GrantTokens: []string{made.GrantToken}}); err != nil {
		t.Error(err)
	}
	if _, err := kms.GenerateDataKey.Call(t.Context(), g, bob, &kms.GenerateDataKeyInput{KeyId: g.key, KeySpec: "AES_256"}); code(err) != kms.CodeAccessDenied {
		t.Errorf("another operation: %v", err)
	}
	if _, err := kms.DisableKey.Call(t.Context(), g, bob, &kms.DisableKeyInput{KeyId: g.key}); code(err) != kms.CodeAccessDenied {
		t.Errorf("administration: %v", err)
	}
	if _, err := kms.RevokeGrant.Call(t.Context(), g, self(), &kms.RevokeGrantInput{KeyId: g.key, GrantId: made.GrantId}); err != nil {
		t.Fatal(err)
	}
	g.want("revoked", g.decrypts(bob), false)
	group := g.grant(kms.CreateGrantInput{GranteePrincipal: "gid:900", Operations: []string{"Decrypt"}})
	g.want("member", g.decrypts(user(4713, 900)), true)
	g.want("no member", g.decrypts(user(4713, 901)), false)
	if _, err := kms.RetireGrant.Call(t.Context(), g, self(), &kms.RetireGrantInput{GrantToken: group.GrantToken}); err != nil {
		t.Error(err) // the owner may, by the service policy
	}
	g.want("retired", g.decrypts(user(4713, 900)), false)
}

func TestGrantConstraints(t *testing.T) {
	for _, test := range []struct {
		name        string
		constraints kms.GrantConstraints
		changes     []string
		want        bool
	}{
		{"equal", kms.GrantConstraints{EncryptionContextEquals: fileContext()}, nil, true},
		{"not equal", kms.GrantConstraints{EncryptionContextEquals: fileContext()}, []string{"kmsfs:owner", "uid:1"}, false},
		{"more than equal", kms.GrantConstraints{EncryptionContextEquals: fileContext()}, []string{"more", ""}, false},
		{"subset", kms.GrantConstraints{EncryptionContextSubset: map[string]string{"kmsfs:owner": "uid:1000"}}, []string{"more", ""}, true},
		{"not a subset", kms.GrantConstraints{EncryptionContextSubset: map[string]string{"kmsfs:owner": "uid:1001"}}, nil, false},
		{"names in other capitals", kms.GrantConstraints{EncryptionContextSubset: map[string]string{"kmsfs:Owner": "uid:1000"}}, nil, false},
		{"path itself", kms.GrantConstraints{PathPrefix: "/a/b"}, []string{"kmsfs:path", "/a/b"}, true},
		{"path beneath", kms.GrantConstraints{PathPrefix: "/a/b"}, []string{"kmsfs:path", "/a/b/c/d"}, true},
		{"path beside", kms.GrantConstraints{PathPrefix: "/a/b"}, []string{"kmsfs:path", "/a/bc"}, false},
		{"path above", kms.GrantConstraints{PathPrefix: "/a/b"}, []string{"kmsfs:path", "/a"}, false},
		{"any path", kms.GrantConstraints{PathPrefix: "/"}, nil, true},
		{"path and subset", kms.GrantConstraints{PathPrefix: "/home", EncryptionContextSubset: map[string]string{"x": "y"}}, nil, false},
	} {
		g := newGranted(t)
		g.grant(kms.CreateGrantInput{GranteePrincipal: "uid:4711", Operations: []string{"Decrypt"}, Constraints: &test.constraints})
		g.want(test.name, g.decrypts(user(4711), test.changes...), test.want)
	}
}

// An explicit Deny beats a grant.
func TestDenyBeatsGrant(t *testing.T) {
	g := newGranted(t)
	g.grant(kms.CreateGrantInput{GranteePrincipal: "uid:4711", Operations: []string{"Decrypt"}})
	out, err := kms.GetKeyPolicy.Call(t.Context(), g, self(), &kms.GetKeyPolicyInput{KeyId: g.key})
	if err != nil {
		t.Fatal(err)
	}
	denying := strings.Replace(out.Policy, `"Statement":[`, `"Statement":[{"Effect":"Deny","Principal":{"AWS":"uid:4711"},"Action":"kms:Decrypt","Resource":"*"},`, 1)
	if _, err := kms.PutKeyPolicy.Call(t.Context(), g, self(), &kms.PutKeyPolicyInput{KeyId: g.key, Policy: denying}); err != nil {
		t.Fatal(err)
	}
	g.want("denied", g.decrypts(user(4711)), false)
}

func TestNamedGrants(t *testing.T) {
	g := newGranted(t)
	in := kms.CreateGrantInput{GranteePrincipal: "uid:4711", Operations: []string{"Decrypt", "Encrypt"}, Name: "n"}
	first := g.grant(in)
	in.Operations = []string{"Encrypt", "Decrypt"}
	if again := g.grant(in); again.GrantId != first.GrantId || again.GrantToken == first.GrantToken {
		t.Errorf("got %+v, then %+v", first, again)
	}
	in.Operations = []string{"Encrypt"}
	if other := g.grant(in); other.GrantId == first.GrantId {
		t.Error("other parameters give the same grant")
	}
	in.Name, in.Operations = "", []string{"Decrypt", "Encrypt"}
	if unnamed := g.grant(in); unnamed.GrantId == first.GrantId {
		t.Error("a grant without a name is one with")
	}
	if _, err := kms.CreateGrant.Call(t.Context(), g, self(), &kms.CreateGrantInput{KeyId: g.key, GranteePrincipal: "uid:1", Operations: []string{"Decrypt"}, DryRun: true}); code(err) != kms.CodeDryRun {
		t.Errorf("dry run: %v", err)
	}
	list, err := kms.ListGrants.Call(t.Context(), g, self(), &kms.ListGrantsInput{KeyId: g.key})
	if err != nil || len(list.Grants) != 3 {
		t.Errorf("got %d grants, %v: want 3", len(list.Grants), err)
	}
}

// Whom a grant is for, and whom it names, may give it up; others may not.
func TestRetire(t *testing.T) {
	g := newGranted(t)
	retire := func(c kms.Caller, in *kms.RetireGrantInput) string {
		return code(second(kms.RetireGrant.Call(t.Context(), g, c, in)))
	}
	bob, eve := user(4711), user(666)
	plain := g.grant(kms.CreateGrantInput{GranteePrincipal: "uid:4711", Operations: []string{"Decrypt"}, RetiringPrincipal: "uid:4712"})
	for who, c := range map[string]kms.Caller{"stranger": eve, "grantee without RetireGrant": bob} {
		if got := retire(c, &kms.RetireGrantInput{GrantToken: plain.GrantToken}); got != kms.CodeAccessDenied {
			t.Errorf("%s: %s", who, got)
		}
	}
	if got := retire(user(4712), &kms.RetireGrantInput{KeyId: g.key, GrantId: plain.GrantId}); got != "" {
		t.Errorf("retiring principal: %s", got)
	}
	own := g.grant(kms.CreateGrantInput{GranteePrincipal: "uid:4711", Operations: []string{"Decrypt", "RetireGrant"}})
	if got := retire(bob, &kms.RetireGrantInput{GrantToken: own.GrantToken}); got != "" {
		t.Errorf("grantee: %s", got)
	}
	g.want("retired", g.decrypts(bob), false)
	for name, in := range map[string]*kms.RetireGrantInput{
		kms.CodeNotFound: {GrantToken: own.GrantToken}, kms.CodeInvalidGrantToken: {GrantToken: "token"},
		kms.CodeInvalidGrantID: {KeyId: g.key, GrantId: "x"}, kms.CodeValidation: {},
	} {
		if got := retire(self(), in); got != name {
			t.Errorf("%+v: got %s, want %s", in, got, name)
		}
	}
}

// One who may grant by a grant may grant no more than he has.
func TestGrantsByGrant(t *testing.T) {
	g := newGranted(t)
	g.grant(kms.CreateGrantInput{
		GranteePrincipal: "uid:4711", Operations: []string{"Decrypt", "CreateGrant"},
		Constraints: &kms.GrantConstraints{PathPrefix: "/home", EncryptionContextSubset: map[string]string{"kmsfs:owner": "uid:1000"}},
	})
	subset := map[string]string{"kmsfs:owner": "uid:1000"}
	for _, test := range []struct {
		name        string
		operations  []string
		constraints *kms.GrantConstraints
		want        string
	}{
		{"the same", []string{"Decrypt"}, &kms.GrantConstraints{PathPrefix: "/home", EncryptionContextSubset: subset}, ""},
		{"less", []string{"Decrypt"}, &kms.GrantConstraints{PathPrefix: "/home/alice", EncryptionContextSubset: subset}, ""},
		{"equal contexts", []string{"Decrypt"}, &kms.GrantConstraints{EncryptionContextEquals: fileContext()}, ""},
		{"another operation", []string{"Encrypt"}, &kms.GrantConstraints{PathPrefix: "/home", EncryptionContextSubset: subset}, kms.CodeAccessDenied},
		{"another path", []string{"Decrypt"}, &kms.GrantConstraints{PathPrefix: "/", EncryptionContextSubset: subset}, kms.CodeAccessDenied},
		{"another owner", []string{"Decrypt"}, &kms.GrantConstraints{PathPrefix: "/home"}, kms.CodeAccessDenied},
		{"everything", []string{"Decrypt"}, nil, kms.CodeAccessDenied},
	} {
		_, err := kms.CreateGrant.Call(t.Context(), g, user(4711), &kms.CreateGrantInput{
			KeyId: g.key, GranteePrincipal: "uid:4712", Operations: test.operations, Constraints: test.constraints,
		})
		if code(err) != test.want {
			t.Errorf("%s: got %v, want %q", test.name, err, test.want)
		}
	}
}

func TestGrantRefusals(t *testing.T) {
	g := newGranted(t)
	out, err := kms.CreateKey.Call(t.Context(), g, self(), &kms.CreateKeyInput{KeySpec: "HMAC_256", KeyUsage: "GENERATE_VERIFY_MAC"})
	if err != nil {
		t.Fatal(err)
	}
	mac := out.KeyMetadata.Arn
	many := map[string]string{}
	for i := range 9 {
		many[string(rune('a'+i))] = ""
	}
	for _, test := range []struct {
		name string
		in   kms.CreateGrantInput
		want string
	}{
		{"nobody", kms.CreateGrantInput{KeyId: g.key, Operations: []string{"Decrypt"}}, kms.CodeValidation},
		{"everybody", kms.CreateGrantInput{KeyId: g.key, GranteePrincipal: "*", Operations: []string{"Decrypt"}}, kms.CodeInvalidArn},
		{"no principal", kms.CreateGrantInput{KeyId: g.key, GranteePrincipal: "bob", Operations: []string{"Decrypt"}}, kms.CodeInvalidArn},
		{"no operation", kms.CreateGrantInput{KeyId: g.key, GranteePrincipal: "uid:1"}, kms.CodeValidation},
		{"unknown operation", kms.CreateGrantInput{KeyId: g.key, GranteePrincipal: "uid:1", Operations: []string{"DisableKey"}}, kms.CodeValidation},
		{"operation of another usage", kms.CreateGrantInput{KeyId: g.key, GranteePrincipal: "uid:1", Operations: []string{"Sign"}}, kms.CodeValidation},
		{"decryption by MAC", kms.CreateGrantInput{KeyId: mac, GranteePrincipal: "uid:1", Operations: []string{"Decrypt"}}, kms.CodeValidation},
		{"constrained MAC", kms.CreateGrantInput{KeyId: mac, GranteePrincipal: "uid:1", Operations: []string{"GenerateMac"}, Constraints: &kms.GrantConstraints{PathPrefix: "/"}}, kms.CodeValidation},
		{"nine pairs", kms.CreateGrantInput{KeyId: g.key, GranteePrincipal: "uid:1", Operations: []string{"Decrypt"}, Constraints: &kms.GrantConstraints{EncryptionContextSubset: many}}, kms.CodeValidation},
		{"relative path", kms.CreateGrantInput{KeyId: g.key, GranteePrincipal: "uid:1", Operations: []string{"Decrypt"}, Constraints: &kms.GrantConstraints{PathPrefix: "a"}}, kms.CodeValidation},
		{"strange name", kms.CreateGrantInput{KeyId: g.key, GranteePrincipal: "uid:1", Operations: []string{"Decrypt"}, Name: "a b"}, kms.CodeValidation},
		{"alias", kms.CreateGrantInput{KeyId: "alias/x", GranteePrincipal: "uid:1", Operations: []string{"Decrypt"}}, kms.CodeNotFound},
		{"past expiry", kms.CreateGrantInput{KeyId: g.key, GranteePrincipal: "uid:1", Operations: []string{"Decrypt"}, ExpirationDate: &kms.Timestamp{Time: time.Now().Add(-time.Hour)}}, kms.CodeValidation},
	} {
		if _, err := kms.CreateGrant.Call(t.Context(), g, self(), &test.in); code(err) != test.want {
			t.Errorf("%s: got %v, want %s", test.name, err, test.want)
		}
	}
}

// A grant ends at its time, and then is listed no more.
func TestGrantExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGranted(t)
		g.grant(kms.CreateGrantInput{GranteePrincipal: "uid:4711", Operations: []string{"Decrypt"}, ExpirationDate: &kms.Timestamp{Time: time.Now().Add(24 * time.Hour)}})
		time.Sleep(24*time.Hour - time.Second)
		g.want("in time", g.decrypts(user(4711)), true)
		time.Sleep(time.Second)
		g.want("too late", g.decrypts(user(4711)), false)
		list, err := kms.ListGrants.Call(t.Context(), g, self(), &kms.ListGrantsInput{KeyId: g.key})
		if err != nil || len(list.Grants) > 0 {
			t.Errorf("got %+v, %v", list, err)
		}
	})
}

func TestGrantLists(t *testing.T) {
	g := newGranted(t)
	want := map[string]bool{}
	for i := range 7 {
		in := kms.CreateGrantInput{GranteePrincipal: "uid:1", RetiringPrincipal: "uid:3", Operations: []string{"Decrypt"}}
		if i%2 > 0 {
			in.GranteePrincipal, in.RetiringPrincipal = "uid:2", ""
		}
		want[g.grant(in).GrantId] = i%2 == 0
	}
	pages := func(list func(marker string) ([]kms.GrantListEntry, string, error)) (ids []string) {
		for marker := ""; ; {
			grants, next, err := list(marker)
			if err != nil || len(grants) > 3 {
				t.Fatalf("%d grants, %v", len(grants), err)
			}
			for _, entry := range grants {
				ids = append(ids, entry.GrantId)
			}
			if marker = next; marker == "" {
				return ids
			}
		}
	}
	for name, ids := range map[string][]string{
		"all": pages(func(marker string) ([]kms.GrantListEntry, string, error) {
			out, err := kms.ListGrants.Call(t.Context(), g, self(), &kms.ListGrantsInput{KeyId: g.key, Limit: new(int32(3)), Marker: marker})
			return out.Grants, out.NextMarker, err
		}),
		"grantee": pages(func(marker string) ([]kms.GrantListEntry, string, error) {
			out, err := kms.ListGrants.Call(t.Context(), g, self(), &kms.ListGrantsInput{KeyId: g.key, GranteePrincipal: "uid:1", Limit: new(int32(3)), Marker: marker})
			return out.Grants, out.NextMarker, err
		}),
		"retirable": pages(func(marker string) ([]kms.GrantListEntry, string, error) {
			out, err := kms.ListRetirableGrants.Call(t.Context(), g, self(), &kms.ListRetirableGrantsInput{RetiringPrincipal: "uid:3", Limit: new(int32(3)), Marker: marker})
			return out.Grants, out.NextMarker, err
		}),
	} {
		seen := map[string]bool{}
		for _, id := range ids {
			if seen[id] || name != "all" && !want[id] {
				t.Errorf("%s: %s should not be there, or is twice", name, id)
			}
			seen[id] = true
		}
		if wanted := map[string]int{"all": 7, "grantee": 4, "retirable": 4}[name]; len(ids) != wanted {
			t.Errorf("%s: got %d, want %d", name, len(ids), wanted)
		}
	}
}
