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
	"kmsfs/keyservice/home"
	"kmsfs/keyservice/kms"
	"kmsfs/policy/caller"
)

// calls has one well-formed call of each operation.
func calls(api kms.Service, key string, blob []byte) map[string]func(t *testing.T, c kms.Caller) error {
	one := new(int32(1))
	return map[string]func(t *testing.T, c kms.Caller) error{
		"CreateKey": func(t *testing.T, c kms.Caller) error {
			return second(kms.CreateKey.Call(t.Context(), api, c, &kms.CreateKeyInput{}))
		},
		"DescribeKey": func(t *testing.T, c kms.Caller) error {
			return second(kms.DescribeKey.Call(t.Context(), api, c, &kms.DescribeKeyInput{KeyId: key}))
		},
		"ListKeys": func(t *testing.T, c kms.Caller) error {
			return second(kms.ListKeys.Call(t.Context(), api, c, &kms.ListKeysInput{}))
		},
		"EnableKey": func(t *testing.T, c kms.Caller) error {
			return second(kms.EnableKey.Call(t.Context(), api, c, &kms.EnableKeyInput{KeyId: key}))
		},
		"DisableKey": func(t *testing.T, c kms.Caller) error {
			return second(kms.DisableKey.Call(t.Context(), api, c, &kms.DisableKeyInput{KeyId: key}))
		},
		"CreateAlias": func(t *testing.T, c kms.Caller) error {
			return second(kms.CreateAlias.Call(t.Context(), api, c, &kms.CreateAliasInput{AliasName: "alias/new", TargetKeyId: key}))
		},
		"UpdateAlias": func(t *testing.T, c kms.Caller) error {
			return second(kms.UpdateAlias.Call(t.Context(), api, c, &kms.UpdateAliasInput{AliasName: "alias/a", TargetKeyId: key}))
		},
		"DeleteAlias": func(t *testing.T, c kms.Caller) error {
			return second(kms.DeleteAlias.Call(t.Context(), api, c, &kms.DeleteAliasInput{AliasName: "alias/a"}))
		},
		"ListAliases": func(t *testing.T, c kms.Caller) error {
			return second(kms.ListAliases.Call(t.Context(), api, c, &kms.ListAliasesInput{}))
		},
		"Encrypt": func(t *testing.T, c kms.Caller) error {
			return second(kms.Encrypt.Call(t.Context(), api, c, &kms.EncryptInput{KeyId: key, Plaintext: []byte("p")}))
		},
		"Decrypt": func(t *testing.T, c kms.Caller) error {
			return second(kms.Decrypt.Call(t.Context(), api, c, &kms.DecryptInput{CiphertextBlob: blob}))
		},
		"ReEncrypt": func(t *testing.T, c kms.Caller) error {
			return second(kms.ReEncrypt.Call(t.Context(), api, c, &kms.ReEncryptInput{CiphertextBlob: blob, DestinationKeyId: key}))
		},
		"GenerateDataKey": func(t *testing.T, c kms.Caller) error {
			return second(kms.GenerateDataKey.Call(t.Context(), api, c, &kms.GenerateDataKeyInput{KeyId: key, NumberOfBytes: one}))
		},
		"GenerateDataKeyWithoutPlaintext": func(t *testing.T, c kms.Caller) error {
			return second(kms.GenerateDataKeyWithoutPlaintext.Call(t.Context(), api, c, &kms.GenerateDataKeyWithoutPlaintextInput{KeyId: key, NumberOfBytes: one}))
		},
		"GenerateRandom": func(t *testing.T, c kms.Caller) error {
			return second(kms.GenerateRandom.Call(t.Context(), api, c, &kms.GenerateRandomInput{NumberOfBytes: one}))
		},
		"RecordEvent": func(t *testing.T, c kms.Caller) error {
			_, err := kms.RecordEvent.Call(t.Context(), api, c, &kms.Event{Name: "VolumeMounted"})
			return err
		},
	}
}

// served is a service with a key, an alias and a blob of it.
func served(t *testing.T) (s *keyservice.Service, key string, blob []byte) {
	t.Helper()
	s = newService(t)
	key = newKey(t, s)
	if _, err := kms.CreateAlias.Call(t.Context(), s, self(), &kms.CreateAliasInput{AliasName: "alias/a", TargetKeyId: key}); err != nil {
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
			if code(err) != kms.CodeAccessDenied {
				t.Errorf("a stranger: %v", err)
			}
			file := stranger()
			file.ViaFileSystem = true
			if err := call(t, file); code(err) != kms.CodeAccessDenied {
				t.Errorf("a stranger by way of the file system: %v", err)
			}
			file.Own = true
			needed := slices.Contains([]string{"Decrypt", "ReEncrypt", "GenerateDataKey", "RecordEvent"}, name)
			if err := call(t, file); needed && err != nil || !needed && code(err) != kms.CodeAccessDenied {
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
	if _, err := kms.DisableKey.Call(t.Context(), s, self(), &kms.DisableKeyInput{KeyId: key}); err != nil {
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
	if err := home.Init(home.InitOptions{Dir: dir, Sealer: secret, Owner: 4711}); err != nil {
		t.Fatal(err)
	}
	s := openHome(t, dir, secret)
	if s.OwnerUID() != 4711 {
		t.Errorf("the owner is %d", s.OwnerUID())
	}
	if _, err := kms.CreateKey.Call(t.Context(), s, self(), nil); code(err) != kms.CodeAccessDenied {
		t.Errorf("root: %v", err)
	}
	if _, err := kms.CreateKey.Call(t.Context(), s, kms.Caller{Caller: caller.Caller{UID: 4711}}, nil); err != nil {
		t.Errorf("the owner: %v", err)
	}
}

func TestDisabledKey(t *testing.T) {
	s, key, blob := served(t)
	if _, err := kms.DisableKey.Call(t.Context(), s, self(), &kms.DisableKeyInput{KeyId: key}); err != nil {
		t.Fatal(err)
	}
	for name, call := range calls(s, key, blob) {
		switch name {
		case "Encrypt", "Decrypt", "ReEncrypt", "GenerateDataKey", "GenerateDataKeyWithoutPlaintext":
			err := call(t, self())
			if code(err) != kms.CodeDisabled || !strings.HasSuffix(err.Error(), key+" is disabled.") {
				t.Errorf("%s: %v", name, err)
			}
		case "EnableKey", "DeleteAlias": // would have the others fail
		default:
			if err := call(t, self()); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if _, err := kms.EnableKey.Call(t.Context(), s, self(), &kms.EnableKeyInput{KeyId: key}); err != nil {
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
		{"no key", second(kms.DescribeKey.Call(ctx, s, me, nil)), kms.CodeValidation},
		{"unknown key", second(kms.DescribeKey.Call(ctx, s, me, &kms.DescribeKeyInput{KeyId: missing})), kms.CodeNotFound},
		{"no key ID", second(kms.DescribeKey.Call(ctx, s, me, &kms.DescribeKeyInput{KeyId: "fake"})), kms.CodeNotFound},
		{"key ID in another form", second(kms.DescribeKey.Call(ctx, s, me, &kms.DescribeKeyInput{KeyId: "{" + id + "}"})), kms.CodeNotFound},
		{"key ID in capitals", second(kms.DescribeKey.Call(ctx, s, me, &kms.DescribeKeyInput{KeyId: strings.ToUpper(id + "a")})), kms.CodeNotFound},
		{"another home's ARN", second(kms.DescribeKey.Call(ctx, s, me, &kms.DescribeKeyInput{KeyId: strings.Replace(key, ":local:", ":far:", 1)})), kms.CodeNotFound},
		{"AWS's ARN", second(kms.DescribeKey.Call(ctx, s, me, &kms.DescribeKeyInput{KeyId: strings.Replace(key, "kmsfs", "aws", 1)})), kms.CodeInvalidArn},
		{"ARN of something else", second(kms.DescribeKey.Call(ctx, s, me, &kms.DescribeKeyInput{KeyId: strings.Replace(key, "key/", "lock/", 1)})), kms.CodeInvalidArn},
		{"unknown alias", second(kms.DescribeKey.Call(ctx, s, me, &kms.DescribeKeyInput{KeyId: "alias/b"})), kms.CodeNotFound},
		{"alias to disable", second(kms.DisableKey.Call(ctx, s, me, &kms.DisableKeyInput{KeyId: "alias/a"})), kms.CodeNotFound},
		{"grant token", second(kms.DescribeKey.Call(ctx, s, me, &kms.DescribeKeyInput{KeyId: key, GrantTokens: []string{"t"}})), kms.CodeInvalidGrantToken},
		{"RSA without usage", second(kms.CreateKey.Call(ctx, s, me, &kms.CreateKeyInput{KeySpec: "RSA_2048"})), kms.CodeValidation},
		{"RSA for MACs", second(kms.CreateKey.Call(ctx, s, me, &kms.CreateKeyInput{KeySpec: "RSA_2048", KeyUsage: "GENERATE_VERIFY_MAC"})), kms.CodeValidation},
		{"ML-DSA", second(kms.CreateKey.Call(ctx, s, me, &kms.CreateKeyInput{KeySpec: "ML_DSA_44", KeyUsage: "SIGN_VERIFY"})), kms.CodeUnsupportedOperation},
		{"unknown spec", second(kms.CreateKey.Call(ctx, s, me, &kms.CreateKeyInput{KeySpec: "ROT13"})), kms.CodeValidation},
		{"two specs", second(kms.CreateKey.Call(ctx, s, me, &kms.CreateKeyInput{KeySpec: "HMAC_256", CustomerMasterKeySpec: "HMAC_256"})), kms.CodeValidation},
		{"signing", second(kms.CreateKey.Call(ctx, s, me, &kms.CreateKeyInput{KeyUsage: "SIGN_VERIFY"})), kms.CodeValidation},
		{"key store", second(kms.CreateKey.Call(ctx, s, me, &kms.CreateKeyInput{Origin: "AWS_CLOUDHSM"})), kms.CodeUnsupportedOperation},
		{"several regions", second(kms.CreateKey.Call(ctx, s, me, &kms.CreateKeyInput{MultiRegion: true})), kms.CodeUnsupportedOperation},
		{"policy", second(kms.CreateKey.Call(ctx, s, me, &kms.CreateKeyInput{Policy: "{}"})), kms.CodeMalformedPolicy},
		{"tags", second(kms.CreateKey.Call(ctx, s, me, &kms.CreateKeyInput{Tags: []kms.Tag{{TagKey: "aws:a", TagValue: ""}}})), kms.CodeTag},
		{"tag twice", second(kms.CreateKey.Call(ctx, s, me, &kms.CreateKeyInput{Tags: []kms.Tag{{TagKey: "a", TagValue: ""}, {TagKey: "a", TagValue: ""}}})), kms.CodeTag},
		{"description", second(kms.CreateKey.Call(ctx, s, me, &kms.CreateKeyInput{Description: strings.Repeat("d", 8193)})), kms.CodeValidation},

		{"alias without prefix", second(kms.CreateAlias.Call(ctx, s, me, &kms.CreateAliasInput{AliasName: "b", TargetKeyId: key})), kms.CodeValidation},
		{"alias without name", second(kms.CreateAlias.Call(ctx, s, me, &kms.CreateAliasInput{AliasName: "alias/", TargetKeyId: key})), kms.CodeInvalidAliasName},
		{"alias with a colon", second(kms.CreateAlias.Call(ctx, s, me, &kms.CreateAliasInput{AliasName: "alias/b:c", TargetKeyId: key})), kms.CodeValidation},
		{"reserved alias", second(kms.CreateAlias.Call(ctx, s, me, &kms.CreateAliasInput{AliasName: "alias/kmsfs/b", TargetKeyId: key})), kms.CodeNotAuthorized},
		{"AWS's alias", second(kms.CreateAlias.Call(ctx, s, me, &kms.CreateAliasInput{AliasName: "alias/aws/s3", TargetKeyId: key})), kms.CodeNotAuthorized},
		{"alias too long", second(kms.CreateAlias.Call(ctx, s, me, &kms.CreateAliasInput{AliasName: "alias/" + strings.Repeat("b", 251), TargetKeyId: key})), kms.CodeValidation},
		{"alias twice", second(kms.CreateAlias.Call(ctx, s, me, &kms.CreateAliasInput{AliasName: "alias/a", TargetKeyId: other})), kms.CodeAlreadyExists},
		{"alias of an alias", second(kms.CreateAlias.Call(ctx, s, me, &kms.CreateAliasInput{AliasName: "alias/b", TargetKeyId: "alias/a"})), kms.CodeValidation},
		{"alias of nothing", second(kms.CreateAlias.Call(ctx, s, me, &kms.CreateAliasInput{AliasName: "alias/b", TargetKeyId: missing})), kms.CodeNotFound},
		{"update of no alias", second(kms.UpdateAlias.Call(ctx, s, me, &kms.UpdateAliasInput{AliasName: "alias/b", TargetKeyId: key})), kms.CodeNotFound},
		{"deletion of no alias", second(kms.DeleteAlias.Call(ctx, s, me, &kms.DeleteAliasInput{AliasName: "alias/b"})), kms.CodeNotFound},

		{"no plaintext", second(kms.Encrypt.Call(ctx, s, me, &kms.EncryptInput{KeyId: key})), kms.CodeValidation},
		{"long context", second(kms.Encrypt.Call(ctx, s, me, &kms.EncryptInput{KeyId: key, Plaintext: []byte("p"), EncryptionContext: long})), kms.CodeValidation},
		{"RSA's algorithm", second(kms.Encrypt.Call(ctx, s, me, &kms.EncryptInput{KeyId: key, Plaintext: []byte("p"), EncryptionAlgorithm: "RSAES_OAEP_SHA_1"})), kms.CodeInvalidKeyUsage},
		{"unknown algorithm", second(kms.Encrypt.Call(ctx, s, me, &kms.EncryptInput{KeyId: key, Plaintext: []byte("p"), EncryptionAlgorithm: "ROT13"})), kms.CodeValidation},
		{"dry run", second(kms.Encrypt.Call(ctx, s, me, &kms.EncryptInput{KeyId: key, Plaintext: []byte("p"), DryRun: true})), kms.CodeDryRun},
		{"no ciphertext", second(kms.Decrypt.Call(ctx, s, me, &kms.DecryptInput{})), kms.CodeValidation},
		{"long ciphertext", second(kms.Decrypt.Call(ctx, s, me, &kms.DecryptInput{CiphertextBlob: make([]byte, 6145)})), kms.CodeValidation},
		{"garbage", second(kms.Decrypt.Call(ctx, s, me, &kms.DecryptInput{CiphertextBlob: make([]byte, 6144)})), kms.CodeInvalidCiphertext},
		{"another key", second(kms.Decrypt.Call(ctx, s, me, &kms.DecryptInput{CiphertextBlob: blob, KeyId: other})), kms.CodeIncorrectKey},
		{"recipient", second(kms.Decrypt.Call(ctx, s, me, &kms.DecryptInput{CiphertextBlob: blob, Recipient: []byte("{}")})), kms.CodeUnsupportedOperation},
		{"dry decryption", second(kms.Decrypt.Call(ctx, s, me, &kms.DecryptInput{CiphertextBlob: blob, DryRun: true})), kms.CodeDryRun},
		{"re-encryption from another key", second(kms.ReEncrypt.Call(ctx, s, me, &kms.ReEncryptInput{CiphertextBlob: blob, SourceKeyId: other, DestinationKeyId: key})), kms.CodeIncorrectKey},
		{"re-encryption to nothing", second(kms.ReEncrypt.Call(ctx, s, me, &kms.ReEncryptInput{CiphertextBlob: blob, DestinationKeyId: missing})), kms.CodeNotFound},

		{"no size", second(kms.GenerateDataKey.Call(ctx, s, me, &kms.GenerateDataKeyInput{KeyId: key})), kms.CodeValidation},
		{"two sizes", second(kms.GenerateDataKey.Call(ctx, s, me, &kms.GenerateDataKeyInput{KeyId: key, KeySpec: "AES_256", NumberOfBytes: new(int32(32))})), kms.CodeValidation},
		{"no bytes", second(kms.GenerateDataKey.Call(ctx, s, me, &kms.GenerateDataKeyInput{KeyId: key, NumberOfBytes: new(int32(0))})), kms.CodeValidation},
		{"many bytes", second(kms.GenerateDataKey.Call(ctx, s, me, &kms.GenerateDataKeyInput{KeyId: key, NumberOfBytes: new(int32(1025))})), kms.CodeValidation},
		{"unknown size", second(kms.GenerateDataKey.Call(ctx, s, me, &kms.GenerateDataKeyInput{KeyId: key, KeySpec: "AES_512"})), kms.CodeValidation},
		{"no random bytes", second(kms.GenerateRandom.Call(ctx, s, me, &kms.GenerateRandomInput{})), kms.CodeValidation},
		{"limit", second(kms.ListKeys.Call(ctx, s, me, &kms.ListKeysInput{Limit: new(int32(1001))})), kms.CodeValidation},
		{"marker", second(kms.ListKeys.Call(ctx, s, me, &kms.ListKeysInput{Marker: "abc"})), kms.CodeInvalidMarker},
		{"event without a name", second(kms.RecordEvent.Call(ctx, s, me, &kms.Event{})), kms.CodeValidation},
		{"event with a strange name", second(kms.RecordEvent.Call(ctx, s, me, &kms.Event{Name: "a b"})), kms.CodeValidation},
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
		if out, err := kms.Decrypt.Call(t.Context(), s, self(), &kms.DecryptInput{CiphertextBlob: blob, KeyId: name}); err != nil || out.KeyId != key {
			t.Errorf("%s: %v, %v", name, out, err)
		}
	}
	if _, err := kms.UpdateAlias.Call(t.Context(), s, self(), &kms.UpdateAliasInput{AliasName: "alias/a", TargetKeyId: other}); err != nil {
		t.Fatal(err)
	}
	if _, err := kms.Decrypt.Call(t.Context(), s, self(), &kms.DecryptInput{CiphertextBlob: blob, KeyId: "alias/a"}); code(err) != kms.CodeIncorrectKey {
		t.Errorf("the alias still names the old key: %v", err)
	}
	for i := range 49 {
		if _, err := kms.CreateAlias.Call(t.Context(), s, self(), &kms.CreateAliasInput{AliasName: fmt.Sprintf("alias/%02d", i), TargetKeyId: other}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := kms.CreateAlias.Call(t.Context(), s, self(), &kms.CreateAliasInput{AliasName: "alias/51", TargetKeyId: other}); code(err) != kms.CodeLimitExceeded {
		t.Errorf("the 51st alias: %v", err)
	}
}

func TestPages(t *testing.T) {
	s := newService(t)
	want := map[string]bool{}
	for i := range 7 {
		key := newKey(t, s)
		want[key] = true
		if _, err := kms.CreateAlias.Call(t.Context(), s, self(), &kms.CreateAliasInput{AliasName: fmt.Sprintf("alias/%d", i), TargetKeyId: key}); err != nil {
			t.Fatal(err)
		}
	}
	marker := ""
	for {
		page, err := kms.ListKeys.Call(t.Context(), s, self(), &kms.ListKeysInput{Limit: new(int32(3)), Marker: marker})
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
	first, err := kms.ListAliases.Call(t.Context(), s, self(), &kms.ListAliasesInput{Limit: new(int32(3))})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kms.DeleteAlias.Call(t.Context(), s, self(), &kms.DeleteAliasInput{AliasName: "alias/2"}); err != nil {
		t.Fatal(err)
	}
	rest, err := kms.ListAliases.Call(t.Context(), s, self(), &kms.ListAliasesInput{Marker: first.NextMarker})
	if err != nil || len(rest.Aliases) != 4 || rest.Aliases[0].AliasName != "alias/3" {
		t.Errorf("got %+v, %v", rest, err)
	}
	if _, err := kms.ListKeys.Call(t.Context(), s, self(), &kms.ListKeysInput{Marker: first.NextMarker}); code(err) != kms.CodeInvalidMarker {
		t.Errorf("another operation's marker: %v", err)
	}
}

func TestMetadata(t *testing.T) {
	s := newService(t)
	out, err := kms.CreateKey.Call(t.Context(), s, self(), &kms.CreateKeyInput{Description: "d"})
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
		if err := call(t, self()); code(err) != kms.CodeInternal {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := s.Serve(); err == nil {
		t.Error("it still serves")
	}
}
