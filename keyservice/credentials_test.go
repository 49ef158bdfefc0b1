package keyservice_test

import (
	"os"
	"strings"
	"testing"

	"kmsfs/keyservice/kms"
)

// Users make, list and delete access keys of their own, the home's owner everybody's, and nobody others' or by means of an access key.
func TestAccessKeys(t *testing.T) {
	dir, secret := newHome(t)
	s := openHome(t, dir, secret)
	alice, bob := user(4711, 900), user(4712)
	create := func(c kms.Caller, name string) (*kms.CreateAccessKeyOutput, error) {
		return kms.CreateAccessKey.Call(t.Context(), s, c, &kms.CreateAccessKeyInput{UserName: name})
	}
	made, err := create(alice, "")
	if err != nil {
		t.Fatal(err)
	}
	key := made.AccessKey
	if got, caller, err := s.AccessKey(key.AccessKeyId); err != nil || string(got) != key.SecretAccessKey || caller.UID != alice.UID {
		t.Errorf("%s stands for %+v, %v", key.AccessKeyId, caller, err)
	}
	if got, _, err := s.AccessKey(strings.ToLower(key.AccessKeyId)); got != nil || err != nil {
		t.Errorf("an access key that nobody has: %q, %v", got, err)
	}
	byKey := alice
	byKey.AccessKeyID = key.AccessKeyId
	_, forBob := create(alice, "uid:4712")
	_, forSelf := create(byKey, "")
	_, listAll := kms.ListAccessKeys.Call(t.Context(), s, alice, &kms.ListAccessKeysInput{UserName: "*"})
	_, listAlice := kms.ListAccessKeys.Call(t.Context(), s, bob, &kms.ListAccessKeysInput{UserName: "uid:4711"})
	_, deleteAlice := kms.DeleteAccessKey.Call(t.Context(), s, bob, &kms.DeleteAccessKeyInput{AccessKeyId: key.AccessKeyId})
	_, deleteNone := kms.DeleteAccessKey.Call(t.Context(), s, bob, &kms.DeleteAccessKeyInput{AccessKeyId: "KMFSAAAAAAAAAAAAAAAA"})
	for name, err := range map[string]error{
		"for another": forBob, "by an access key": forSelf, "list all": listAll, "list another's": listAlice,
		"delete another's": deleteAlice, "delete one that is not there": deleteNone,
	} {
		if code(err) != kms.CodeAccessDenied {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := create(self(), "uid:4712"); err != nil {
		t.Errorf("the owner for another: %v", err)
	}
	if out, err := kms.ListAccessKeys.Call(t.Context(), s, self(), &kms.ListAccessKeysInput{UserName: "*"}); err != nil || len(out.AccessKeyMetadata) != 2 {
		t.Errorf("the owner lists %+v, %v", out, err)
	}
	if out, err := kms.ListAccessKeys.Call(t.Context(), s, alice, nil); err != nil || len(out.AccessKeyMetadata) != 1 || out.AccessKeyMetadata[0].AccessKeyId != key.AccessKeyId {
		t.Errorf("alice lists %+v, %v", out, err)
	}
	for range 15 {
		if _, err := create(alice, ""); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := create(alice, ""); code(err) != kms.CodeLimitExceeded {
		t.Errorf("a seventeenth: %v", err)
	}
	if _, err := kms.DeleteAccessKey.Call(t.Context(), s, alice, &kms.DeleteAccessKeyInput{AccessKeyId: key.AccessKeyId}); err != nil {
		t.Error(err)
	}
	if got, _, err := s.AccessKey(key.AccessKeyId); got != nil || err != nil {
		t.Errorf("a deleted access key: %q, %v", got, err)
	}
	for _, name := range []string{"keys.db", "audit/current.jsonl"} {
		if text, err := os.ReadFile(dir + "/" + name); err != nil || strings.Contains(string(text), key.SecretAccessKey) {
			t.Errorf("%s has the secret, or can't be read: %v", name, err)
		}
	}
}
