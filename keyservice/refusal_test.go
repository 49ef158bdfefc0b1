package keyservice_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"kmsfs/keyservice"
	"kmsfs/policy/caller"
)

// calls has one well-formed call of each operation.
func calls(api keyservice.API, key string, blob []byte) map[string]func(t *testing.T, c keyservice.Caller) error {
	one := new(int32(1))
	return map[string]func(t *testing.T, c keyservice.Caller) error{
		"CreateKey": func(t *testing.T, c keyservice.Caller) error {
			return second(api.CreateKey(t.Context(), c, &keyservice.CreateKeyInput{}))
		},
		"DescribeKey": func(t *testing.T, c keyservice.Caller) error {
			return second(api.DescribeKey(t.Context(), c, &keyservice.DescribeKeyInput{KeyId: key}))
		},
		"ListKeys": func(t *testing.T, c keyservice.Caller) error {
			return second(api.ListKeys(t.Context(), c, &keyservice.ListKeysInput{}))
		},
		"EnableKey": func(t *testing.T, c keyservice.Caller) error {
			return second(api.EnableKey(t.Context(), c, &keyservice.EnableKeyInput{KeyId: key}))
		},
		"DisableKey": func(t *testing.T, c keyservice.Caller) error {
			return second(api.DisableKey(t.Context(), c, &keyservice.DisableKeyInput{KeyId: key}))
		},
		"CreateAlias": func(t *testing.T, c keyservice.Caller) error {
			return second(api.CreateAlias(t.Context(), c, &keyservice.CreateAliasInput{AliasName: "alias/new", TargetKeyId: key}))
		},
		"UpdateAlias": func(t *testing.T, c keyservice.Caller) error {
			return second(api.UpdateAlias(t.Context(), c, &keyservice.UpdateAliasInput{AliasName: "alias/a", TargetKeyId: key}))
		},
		"DeleteAlias": func(t *testing.T, c keyservice.Caller) error {
			return second(api.DeleteAlias(t.Context(), c, &keyservice.DeleteAliasInput{AliasName: "alias/a"}))
		},
		"ListAliases": func(t *testing.T, c keyservice.Caller) error {
			return second(api.ListAliases(t.Context(), c, &keyservice.ListAliasesInput{}))
		},
		"Encrypt": func(t *testing.T, c keyservice.Caller) error {
			return second(api.Encrypt(t.Context(), c, &keyservice.EncryptInput{KeyId: key, Plaintext: []byte("p")}))
		},
		"Decrypt": func(t *testing.T, c keyservice.Caller) error {
			return second(api.Decrypt(t.Context(), c, &keyservice.DecryptInput{CiphertextBlob: blob}))
		},
		"ReEncrypt": func(t *testing.T, c keyservice.Caller) error {
			return second(api.ReEncrypt(t.Context(), c, &keyservice.ReEncryptInput{CiphertextBlob: blob, DestinationKeyId: key}))
		},
		"GenerateDataKey": func(t *testing.T, c keyservice.Caller) error {
			return second(api.GenerateDataKey(t.Context(), c, &keyservice.GenerateDataKeyInput{KeyId: key, NumberOfBytes: one}))
		},
		"GenerateDataKeyWithoutPlaintext": func(t *testing.T, c keyservice.Caller) error {
			return second(api.GenerateDataKeyWithoutPlaintext(t.Context(), c, &keyservice.GenerateDataKeyWithoutPlaintextInput{KeyId: key, NumberOfBytes: one}))
		},
		"GenerateRandom": func(t *testing.T, c keyservice.Caller) error {
			return second(api.GenerateRandom(t.Context(), c, &keyservice.GenerateRandomInput{NumberOfBytes: one}))
		},
		"RecordEvent": func(t *testing.T, c keyservice.Caller) error {
			return api.RecordEvent(t.Context(), c, keyservice.Event{Name: "VolumeMounted"})
		},
	}
}

// served is a service with a key, an alias and a blob of it.
func served(t *testing.T) (s *keyservice.Service, key string, blob []byte) {
	t.Helper()
	s = newService(t)
	key = newKey(t, s)
	if _, err := s.CreateAlias(t.Context(), self(), &keyservice.CreateAliasInput{AliasName: "alias/a", TargetKeyId: key}); err != nil {
		t.Fatal(err)
	}
	return s, key, generate(t, s, key, nil).CiphertextBlob
}

func TestAuthorisation(t *testing.T) {
	for name := range calls(nil, "", nil) {
		t.Run(name, func(t *testing.T) {
			s, key, blob := served(t)
			call := calls(s, key, blob)[name]
			err := call(t, stranger())
			if code(err) != keyservice.CodeAccessDenied {
				t.Errorf("a stranger: %v", err)
			}
			file := stranger()
			file.ViaFileSystem = true
			if err := call(t, file); code(err) != keyservice.CodeAccessDenied {
				t.Errorf("a stranger by way of the file system: %v", err)
			}
			file.Own = true
			needed := slices.Contains([]string{"Decrypt", "ReEncrypt", "GenerateDataKey", "RecordEvent"}, name)
			if err := call(t, file); needed && err != nil || !needed && code(err) != keyservice.CodeAccessDenied {
				t.Errorf("the file system itself: %v", err)
			}
		})
	}
	for name := range calls(nil, "", nil) {
		s, key, blob := served(t)
		if err := calls(s, key, blob)[name](t, self()); err != nil {
			t.Errorf("%s by the owner: %v", name, err)
		}
	}
}

// A caller who may do nothing doesn't learn a key's state.
func TestStateIsNotRevealed(t *testing.T) {
	s, key, blob := served(t)
	before := map[string]string{}
	for name, call := range calls(s, key, blob) {
		before[name] = fmt.Sprint(call(t, stranger()))
	}
	if _, err := s.DisableKey(t.Context(), self(), &keyservice.DisableKeyInput{KeyId: key}); err != nil {
		t.Fatal(err)
	}
	for name, call := range calls(s, key, blob) {
		if got := fmt.Sprint(call(t, stranger())); got != before[name] {
			t.Errorf("%s: got %q, and %q before", name, got, before[name])
		}
	}
}

func TestRootIsNobodySpecial(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root makes homes for others")
	}
	dir, secret := filepath.Join(t.TempDir(), "home"), newKeyFile(t)
	if err := keyservice.Init(keyservice.InitOptions{Dir: dir, Sealer: secret, Owner: 4711}); err != nil {
		t.Fatal(err)
	}
	s := openHome(t, dir, secret)
	if s.OwnerUID() != 4711 {
		t.Errorf("the owner is %d", s.OwnerUID())
	}
	if _, err := s.CreateKey(t.Context(), self(), nil); code(err) != keyservice.CodeAccessDenied {
		t.Errorf("root: %v", err)
	}
	if _, err := s.CreateKey(t.Context(), keyservice.Caller{Caller: caller.Caller{UID: 4711}}, nil); err != nil {
		t.Errorf("the owner: %v", err)
	}
}

func TestDisabledKey(t *testing.T) {
	s, key, blob := served(t)
	if _, err := s.DisableKey(t.Context(), self(), &keyservice.DisableKeyInput{KeyId: key}); err != nil {
		t.Fatal(err)
	}
	for name, call := range calls(s, key, blob) {
		switch name {
		case "Encrypt", "Decrypt", "ReEncrypt", "GenerateDataKey", "GenerateDataKeyWithoutPlaintext":
			err := call(t, self())
			if code(err) != keyservice.CodeDisabled || !strings.HasSuffix(err.Error(), key+" is disabled.") {
				t.Errorf("%s: %v", name, err)
			}
		case "EnableKey", "DeleteAlias": // would have the others fail
		default:
			if err := call(t, self()); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if _, err := s.EnableKey(t.Context(), self(), &keyservice.EnableKeyInput{KeyId: key}); err != nil {
		t.Fatal(err)
	}
	decrypt(t, s, blob, nil)
}

func TestRefusals(t *testing.T) {
	s, key, blob := served(t)
	other := newKey(t, s)
	id := key[strings.LastIndexByte(key, '/')+1:]
	missing := "00000000-0000-4000-8000-000000000000"
	long := map[string]string{"k": strings.Repeat("v", 8192)}
	ctx, me := t.Context(), self()
	for _, test := range []struct {
		name string
		err  error
		want string
	}{
		{"no key", second(s.DescribeKey(ctx, me, nil)), keyservice.CodeValidation},
		{"unknown key", second(s.DescribeKey(ctx, me, &keyservice.DescribeKeyInput{KeyId: missing})), keyservice.CodeNotFound},
		{"no key ID", second(s.DescribeKey(ctx, me, &keyservice.DescribeKeyInput{KeyId: "fake"})), keyservice.CodeNotFound},
		{"key ID in another form", second(s.DescribeKey(ctx, me, &keyservice.DescribeKeyInput{KeyId: "{" + id + "}"})), keyservice.CodeNotFound},
		{"key ID in capitals", second(s.DescribeKey(ctx, me, &keyservice.DescribeKeyInput{KeyId: strings.ToUpper(id + "a")})), keyservice.CodeNotFound},
		{"another home's ARN", second(s.DescribeKey(ctx, me, &keyservice.DescribeKeyInput{KeyId: strings.Replace(key, ":local:", ":far:", 1)})), keyservice.CodeNotFound},
		{"AWS's ARN", second(s.DescribeKey(ctx, me, &keyservice.DescribeKeyInput{KeyId: strings.Replace(key, "kmsfs", "aws", 1)})), keyservice.CodeInvalidArn},
		{"ARN of something else", second(s.DescribeKey(ctx, me, &keyservice.DescribeKeyInput{KeyId: strings.Replace(key, "key/", "lock/", 1)})), keyservice.CodeInvalidArn},
		{"unknown alias", second(s.DescribeKey(ctx, me, &keyservice.DescribeKeyInput{KeyId: "alias/b"})), keyservice.CodeNotFound},
		{"alias to disable", second(s.DisableKey(ctx, me, &keyservice.DisableKeyInput{KeyId: "alias/a"})), keyservice.CodeNotFound},
		{"grant token", second(s.DescribeKey(ctx, me, &keyservice.DescribeKeyInput{KeyId: key, GrantTokens: []string{"t"}})), keyservice.CodeInvalidGrantToken},
		{"RSA without usage", second(s.CreateKey(ctx, me, &keyservice.CreateKeyInput{KeySpec: "RSA_2048"})), keyservice.CodeValidation},
		{"RSA for MACs", second(s.CreateKey(ctx, me, &keyservice.CreateKeyInput{KeySpec: "RSA_2048", KeyUsage: "GENERATE_VERIFY_MAC"})), keyservice.CodeValidation},
		{"ML-DSA", second(s.CreateKey(ctx, me, &keyservice.CreateKeyInput{KeySpec: "ML_DSA_44", KeyUsage: "SIGN_VERIFY"})), keyservice.CodeUnsupportedOperation},
		{"unknown spec", second(s.CreateKey(ctx, me, &keyservice.CreateKeyInput{KeySpec: "ROT13"})), keyservice.CodeValidation},
		{"two specs", second(s.CreateKey(ctx, me, &keyservice.CreateKeyInput{KeySpec: "HMAC_256", CustomerMasterKeySpec: "HMAC_256"})), keyservice.CodeValidation},
		{"signing", second(s.CreateKey(ctx, me, &keyservice.CreateKeyInput{KeyUsage: "SIGN_VERIFY"})), keyservice.CodeValidation},
		{"key store", second(s.CreateKey(ctx, me, &keyservice.CreateKeyInput{Origin: "AWS_CLOUDHSM"})), keyservice.CodeUnsupportedOperation},
		{"several regions", second(s.CreateKey(ctx, me, &keyservice.CreateKeyInput{MultiRegion: true})), keyservice.CodeUnsupportedOperation},
		{"policy", second(s.CreateKey(ctx, me, &keyservice.CreateKeyInput{Policy: "{}"})), keyservice.CodeMalformedPolicy},
		{"tags", second(s.CreateKey(ctx, me, &keyservice.CreateKeyInput{Tags: []keyservice.Tag{{"aws:a", ""}}})), keyservice.CodeTag},
		{"tag twice", second(s.CreateKey(ctx, me, &keyservice.CreateKeyInput{Tags: []keyservice.Tag{{"a", ""}, {"a", ""}}})), keyservice.CodeTag},
		{"description", second(s.CreateKey(ctx, me, &keyservice.CreateKeyInput{Description: strings.Repeat("d", 8193)})), keyservice.CodeValidation},

		{"alias without prefix", second(s.CreateAlias(ctx, me, &keyservice.CreateAliasInput{AliasName: "b", TargetKeyId: key})), keyservice.CodeValidation},
		{"alias without name", second(s.CreateAlias(ctx, me, &keyservice.CreateAliasInput{AliasName: "alias/", TargetKeyId: key})), keyservice.CodeInvalidAliasName},
		{"alias with a colon", second(s.CreateAlias(ctx, me, &keyservice.CreateAliasInput{AliasName: "alias/b:c", TargetKeyId: key})), keyservice.CodeValidation},
		{"reserved alias", second(s.CreateAlias(ctx, me, &keyservice.CreateAliasInput{AliasName: "alias/kmsfs/b", TargetKeyId: key})), keyservice.CodeNotAuthorized},
		{"AWS's alias", second(s.CreateAlias(ctx, me, &keyservice.CreateAliasInput{AliasName: "alias/aws/s3", TargetKeyId: key})), keyservice.CodeNotAuthorized},
		{"alias too long", second(s.CreateAlias(ctx, me, &keyservice.CreateAliasInput{AliasName: "alias/" + strings.Repeat("b", 251), TargetKeyId: key})), keyservice.CodeValidation},
		{"alias twice", second(s.CreateAlias(ctx, me, &keyservice.CreateAliasInput{AliasName: "alias/a", TargetKeyId: other})), keyservice.CodeAlreadyExists},
		{"alias of an alias", second(s.CreateAlias(ctx, me, &keyservice.CreateAliasInput{AliasName: "alias/b", TargetKeyId: "alias/a"})), keyservice.CodeValidation},
		{"alias of nothing", second(s.CreateAlias(ctx, me, &keyservice.CreateAliasInput{AliasName: "alias/b", TargetKeyId: missing})), keyservice.CodeNotFound},
		{"update of no alias", second(s.UpdateAlias(ctx, me, &keyservice.UpdateAliasInput{AliasName: "alias/b", TargetKeyId: key})), keyservice.CodeNotFound},
		{"deletion of no alias", second(s.DeleteAlias(ctx, me, &keyservice.DeleteAliasInput{AliasName: "alias/b"})), keyservice.CodeNotFound},

		{"no plaintext", second(s.Encrypt(ctx, me, &keyservice.EncryptInput{KeyId: key})), keyservice.CodeValidation},
		{"long context", second(s.Encrypt(ctx, me, &keyservice.EncryptInput{KeyId: key, Plaintext: []byte("p"), EncryptionContext: long})), keyservice.CodeValidation},
		{"RSA's algorithm", second(s.Encrypt(ctx, me, &keyservice.EncryptInput{KeyId: key, Plaintext: []byte("p"), EncryptionAlgorithm: "RSAES_OAEP_SHA_1"})), keyservice.CodeInvalidKeyUsage},
		{"unknown algorithm", second(s.Encrypt(ctx, me, &keyservice.EncryptInput{KeyId: key, Plaintext: []byte("p"), EncryptionAlgorithm: "ROT13"})), keyservice.CodeValidation},
		{"dry run", second(s.Encrypt(ctx, me, &keyservice.EncryptInput{KeyId: key, Plaintext: []byte("p"), DryRun: true})), keyservice.CodeDryRun},
		{"no ciphertext", second(s.Decrypt(ctx, me, &keyservice.DecryptInput{})), keyservice.CodeValidation},
		{"long ciphertext", second(s.Decrypt(ctx, me, &keyservice.DecryptInput{CiphertextBlob: make([]byte, 6145)})), keyservice.CodeValidation},
		{"garbage", second(s.Decrypt(ctx, me, &keyservice.DecryptInput{CiphertextBlob: make([]byte, 6144)})), keyservice.CodeInvalidCiphertext},
		{"another key", second(s.Decrypt(ctx, me, &keyservice.DecryptInput{CiphertextBlob: blob, KeyId: other})), keyservice.CodeIncorrectKey},
		{"recipient", second(s.Decrypt(ctx, me, &keyservice.DecryptInput{CiphertextBlob: blob, Recipient: []byte("{}")})), keyservice.CodeUnsupportedOperation},
		{"dry decryption", second(s.Decrypt(ctx, me, &keyservice.DecryptInput{CiphertextBlob: blob, DryRun: true})), keyservice.CodeDryRun},
		{"re-encryption from another key", second(s.ReEncrypt(ctx, me, &keyservice.ReEncryptInput{CiphertextBlob: blob, SourceKeyId: other, DestinationKeyId: key})), keyservice.CodeIncorrectKey},
		{"re-encryption to nothing", second(s.ReEncrypt(ctx, me, &keyservice.ReEncryptInput{CiphertextBlob: blob, DestinationKeyId: missing})), keyservice.CodeNotFound},

		{"no size", second(s.GenerateDataKey(ctx, me, &keyservice.GenerateDataKeyInput{KeyId: key})), keyservice.CodeValidation},
		{"two sizes", second(s.GenerateDataKey(ctx, me, &keyservice.GenerateDataKeyInput{KeyId: key, KeySpec: "AES_256", NumberOfBytes: new(int32(32))})), keyservice.CodeValidation},
		{"no bytes", second(s.GenerateDataKey(ctx, me, &keyservice.GenerateDataKeyInput{KeyId: key, NumberOfBytes: new(int32(0))})), keyservice.CodeValidation},
		{"many bytes", second(s.GenerateDataKey(ctx, me, &keyservice.GenerateDataKeyInput{KeyId: key, NumberOfBytes: new(int32(1025))})), keyservice.CodeValidation},
		{"unknown size", second(s.GenerateDataKey(ctx, me, &keyservice.GenerateDataKeyInput{KeyId: key, KeySpec: "AES_512"})), keyservice.CodeValidation},
		{"no random bytes", second(s.GenerateRandom(ctx, me, &keyservice.GenerateRandomInput{})), keyservice.CodeValidation},
		{"limit", second(s.ListKeys(ctx, me, &keyservice.ListKeysInput{Limit: new(int32(1001))})), keyservice.CodeValidation},
		{"marker", second(s.ListKeys(ctx, me, &keyservice.ListKeysInput{Marker: "abc"})), keyservice.CodeInvalidMarker},
		{"event without a name", s.RecordEvent(ctx, me, keyservice.Event{}), keyservice.CodeValidation},
		{"event with a strange name", s.RecordEvent(ctx, me, keyservice.Event{Name: "a b"}), keyservice.CodeValidation},
	} {
		if code(test.err) != test.want {
			t.Errorf("%s: got %v, want %s", test.name, test.err, test.want)
		}
	}
}

func TestAliases(t *testing.T) {
	s, key, blob := served(t)
	other := newKey(t, s)
	arn := strings.Replace(key, key[strings.Index(key, "key/"):], "alias/a", 1)
	for _, name := range []string{"alias/a", arn} {
		if out, err := s.Decrypt(t.Context(), self(), &keyservice.DecryptInput{CiphertextBlob: blob, KeyId: name}); err != nil || out.KeyId != key {
			t.Errorf("%s: %v, %v", name, out, err)
		}
	}
	if _, err := s.UpdateAlias(t.Context(), self(), &keyservice.UpdateAliasInput{AliasName: "alias/a", TargetKeyId: other}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Decrypt(t.Context(), self(), &keyservice.DecryptInput{CiphertextBlob: blob, KeyId: "alias/a"}); code(err) != keyservice.CodeIncorrectKey {
		t.Errorf("the alias still names the old key: %v", err)
	}
	for i := range 49 {
		if _, err := s.CreateAlias(t.Context(), self(), &keyservice.CreateAliasInput{AliasName: fmt.Sprintf("alias/%02d", i), TargetKeyId: other}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.CreateAlias(t.Context(), self(), &keyservice.CreateAliasInput{AliasName: "alias/51", TargetKeyId: other}); code(err) != keyservice.CodeLimitExceeded {
		t.Errorf("the 51st alias: %v", err)
	}
}

func TestPages(t *testing.T) {
	s := newService(t)
	want := map[string]bool{}
	for i := range 7 {
		key := newKey(t, s)
		want[key] = true
		if _, err := s.CreateAlias(t.Context(), self(), &keyservice.CreateAliasInput{AliasName: fmt.Sprintf("alias/%d", i), TargetKeyId: key}); err != nil {
			t.Fatal(err)
		}
	}
	marker := ""
	for {
		page, err := s.ListKeys(t.Context(), self(), &keyservice.ListKeysInput{Limit: new(int32(3)), Marker: marker})
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range page.Keys {
			if !want[k.KeyArn] {
				t.Errorf("%s is listed twice, or doesn't exist", k.KeyArn)
			}
			delete(want, k.KeyArn)
		}
		if marker = page.NextMarker; (marker != "") != page.Truncated {
			t.Errorf("marker %q, truncated %t", marker, page.Truncated)
		}
		if marker == "" {
			break
		}
	}
	if len(want) > 0 {
		t.Errorf("not listed: %v", want)
	}

	// An alias that goes between two pages takes nothing else with it.
	first, err := s.ListAliases(t.Context(), self(), &keyservice.ListAliasesInput{Limit: new(int32(3))})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.DeleteAlias(t.Context(), self(), &keyservice.DeleteAliasInput{AliasName: "alias/2"}); err != nil {
		t.Fatal(err)
	}
	rest, err := s.ListAliases(t.Context(), self(), &keyservice.ListAliasesInput{Marker: first.NextMarker})
	if err != nil || len(rest.Aliases) != 4 || rest.Aliases[0].AliasName != "alias/3" {
		t.Errorf("got %+v, %v", rest, err)
	}
	if _, err := s.ListKeys(t.Context(), self(), &keyservice.ListKeysInput{Marker: first.NextMarker}); code(err) != keyservice.CodeInvalidMarker {
		t.Errorf("another operation's marker: %v", err)
	}
}

func TestMetadata(t *testing.T) {
	s := newService(t)
	out, err := s.CreateKey(t.Context(), self(), &keyservice.CreateKeyInput{Description: "d"})
	if err != nil {
		t.Fatal(err)
	}
	m := out.KeyMetadata
	if len(m.AWSAccountId) != 12 || m.Arn != "arn:kmsfs:kms:local:"+m.AWSAccountId+":key/"+m.KeyId || !m.Enabled || m.KeyState != "Enabled" ||
		m.KeyManager != "CUSTOMER" || m.Origin != "AWS_KMS" || m.KeySpec != "SYMMETRIC_DEFAULT" || len(m.CurrentKeyMaterialId) != 64 || m.Description != "d" {
		t.Errorf("got %+v", m)
	}
}

func TestClosedService(t *testing.T) {
	dir, secret := newHome(t)
	s, err := keyservice.Open(dir, secret)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	for name, call := range calls(s, "alias/a", []byte("b")) {
		if err := call(t, self()); code(err) != keyservice.CodeInternal {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := s.Serve(); err == nil {
		t.Error("it still serves")
	}
}
