package keyservice_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"

	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/material"
)

func TestDataKey(t *testing.T) {
	s := newService(t)
	key := newKey(t, s)
	pair := fileContext()
	made := generate(t, s, key, pair)
	if len(made.Plaintext) != 32 || len(made.CiphertextBlob) > 144 || made.KeyId != key {
		t.Fatalf("got %d bytes, a blob of %d bytes and key %s", len(made.Plaintext), len(made.CiphertextBlob), made.KeyId)
	}
	opened, err := kms.Decrypt.Call(t.Context(), s, self(), &kms.DecryptInput{CiphertextBlob: made.CiphertextBlob, EncryptionContext: pair})
	if err != nil || !bytes.Equal(opened.Plaintext, made.Plaintext) || opened.KeyMaterialId != made.KeyMaterialId {
		t.Fatalf("decrypt: %+v, %v", opened, err)
	}
	sealed, err := kms.GenerateDataKeyWithoutPlaintext.Call(t.Context(), s, self(), &kms.GenerateDataKeyWithoutPlaintextInput{KeyId: key, NumberOfBytes: new(int32(64))})
	if err != nil {
		t.Fatal(err)
	}
	if opened := decrypt(t, s, sealed.CiphertextBlob, nil); len(opened) != 64 || bytes.Equal(opened, make([]byte, 64)) {
		t.Fatalf("got a data key %x", opened)
	}
	info, err := material.ParseBlob(made.CiphertextBlob)
	if err != nil || !strings.HasSuffix(key, info.Key.String()) || info.Material.String() != made.KeyMaterialId {
		t.Fatalf("parse: %+v, %v", info, err)
	}
}

func decrypt(t testing.TB, api kms.Service, blob []byte, encryptionContext map[string]string) []byte {
	t.Helper()
	out, err := kms.Decrypt.Call(t.Context(), api, self(), &kms.DecryptInput{CiphertextBlob: blob, EncryptionContext: encryptionContext})
	if err != nil {
		t.Fatal(err)
	}
	return out.Plaintext
}

func TestEncryptSizes(t *testing.T) {
	s := newService(t)
	key := newKey(t, s)
	for _, size := range []int{0, 1, 4095, 4096, 4097} {
		plaintext := bytes.Repeat([]byte{'x'}, size)
		out, err := kms.Encrypt.Call(t.Context(), s, self(), &kms.EncryptInput{KeyId: key, Plaintext: plaintext})
		if size == 0 || size > 4096 {
			if code(err) != kms.CodeValidation || strings.Contains(err.Error(), "xx") {
				t.Errorf("%d bytes: %v", size, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := decrypt(t, s, out.CiphertextBlob, map[string]string{}); !bytes.Equal(got, plaintext) {
			t.Errorf("%d bytes: got %d other ones back", size, len(got))
		}
	}
}

// Every pair of these contexts is easily taken for the other by an encoding that is not careful.
func TestContextsAreNotConfused(t *testing.T) {
	s := newService(t)
	key := newKey(t, s)
	contexts := []map[string]string{
		nil,
		{"": ""},
		{"ab": "c"},
		{"a": "bc"},
		{"a": "b", "c": ""},
		{"a": "", "b": "c"},
		{"a": "b"},
		{"A": "b"},
		{"a": "B"},
		{"a": "c", "b": "b"},
		{"a": "b", "b": "c"},
		{"a": "b\x00"},
		{"a\x00": "b"},
		{"a": "\xff"},
		{"a": "\xfe"},
		{"a": "\u00e9"},
		{"a": "e\u0301"},
		{"\x00\x00\x00\x01a": "b"},
	}
	for i, made := range contexts {
		blob := generate(t, s, key, made).CiphertextBlob
		for j, used := range contexts {
			_, err := kms.Decrypt.Call(t.Context(), s, self(), &kms.DecryptInput{CiphertextBlob: blob, EncryptionContext: used})
			switch {
			case i == j && err != nil:
				t.Errorf("%q: %v", made, err)
			case i != j && err == nil:
				t.Errorf("%q opens what %q sealed", used, made)
			case i != j && err.Error() != kms.CodeInvalidCiphertext:
				t.Errorf("%q for %q: %v", used, made, err)
			}
		}
	}
}

func TestTamperedBlobs(t *testing.T) {
	s := newService(t)
	key := newKey(t, s)
	blob := generate(t, s, key, fileContext()).CiphertextBlob
	tampered := map[string][]byte{"empty header": blob[:78], "no plaintext": append(blob[:78:78], blob[len(blob)-16:]...), "longer": append(blob[:len(blob):len(blob)], 0)}
	for i := range blob {
		for _, bit := range []byte{1, 0x80} {
			changed := bytes.Clone(blob)
			changed[i] ^= bit
			tampered[fmt.Sprintf("byte %d, bit %x", i, bit)] = changed
		}
		if i > 0 {
			tampered[fmt.Sprintf("%d bytes", i)] = blob[:i]
		}
	}
	for name, b := range tampered {
		for _, keyID := range []string{"", key} {
			_, err := kms.Decrypt.Call(t.Context(), s, self(), &kms.DecryptInput{CiphertextBlob: b, KeyId: keyID, EncryptionContext: fileContext()})
			switch code(err) {
			case kms.CodeInvalidCiphertext:
				if err.Error() != kms.CodeInvalidCiphertext {
					t.Errorf("%s: %v", name, err)
				}
			case kms.CodeAccessDenied, kms.CodeIncorrectKey: // the key's ID was changed
				if info, parseErr := material.ParseBlob(b); parseErr != nil || strings.HasSuffix(key, info.Key.String()) {
					t.Errorf("%s: %v", name, err)
				}
			default:
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestReEncrypt(t *testing.T) {
	s := newService(t)
	from, to := newKey(t, s), newKey(t, s)
	made := generate(t, s, from, fileContext())
	moved := maps.Clone(fileContext())
	moved["kmsfs:path"] = "/elsewhere"
	out, err := kms.ReEncrypt.Call(t.Context(), s, self(), &kms.ReEncryptInput{
		CiphertextBlob: made.CiphertextBlob, SourceEncryptionContext: fileContext(), DestinationKeyId: to, DestinationEncryptionContext: moved,
	})
	if err != nil {
		t.Fatal(err)
	}
	if out.SourceKeyId != from || out.KeyId != to || out.SourceKeyMaterialId != made.KeyMaterialId || out.DestinationKeyMaterialId == made.KeyMaterialId {
		t.Errorf("got %+v", out)
	}
	if got := decrypt(t, s, out.CiphertextBlob, moved); !bytes.Equal(got, made.Plaintext) {
		t.Error("the data key has changed")
	}
	_, err = kms.ReEncrypt.Call(t.Context(), s, self(), &kms.ReEncryptInput{CiphertextBlob: made.CiphertextBlob, SourceEncryptionContext: moved, DestinationKeyId: to})
	if code(err) != kms.CodeInvalidCiphertext {
		t.Errorf("wrong context: %v", err)
	}
}

func TestRandom(t *testing.T) {
	s := newService(t)
	a, err := kms.GenerateRandom.Call(t.Context(), s, self(), &kms.GenerateRandomInput{NumberOfBytes: new(int32(1024))})
	if err != nil || len(a.Plaintext) != 1024 || bytes.Equal(a.Plaintext, make([]byte, 1024)) {
		t.Fatalf("got %v, %v", a, err)
	}
}

// The race detector watches calls of all kinds at once; a disabled key is never used after DisableKey returned.
func TestConcurrency(t *testing.T) {
	s := newService(t)
	key, other := newKey(t, s), newKey(t, s)
	blob := generate(t, s, other, nil).CiphertextBlob
	var work sync.WaitGroup
	for worker := range 8 {
		work.Go(func() {
			for i := range 20 {
				ctx, alias := context.Background(), fmt.Sprintf("alias/w%d-%d", worker, i)
				for _, err := range []error{
					second(kms.Decrypt.Call(ctx, s, viaFileSystem(), &kms.DecryptInput{CiphertextBlob: blob})),
					second(kms.CreateAlias.Call(ctx, s, self(), &kms.CreateAliasInput{AliasName: alias, TargetKeyId: key})),
					second(kms.GenerateDataKey.Call(ctx, s, self(), &kms.GenerateDataKeyInput{KeyId: alias, KeySpec: "AES_128"})),
					second(kms.ListAliases.Call(ctx, s, self(), &kms.ListAliasesInput{})),
					second(kms.DeleteAlias.Call(ctx, s, self(), &kms.DeleteAliasInput{AliasName: alias})),
				} {
					if err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	work.Wait()
	if _, err := kms.DisableKey.Call(t.Context(), s, self(), &kms.DisableKeyInput{KeyId: other}); err != nil {
		t.Fatal(err)
	}
	if _, err := kms.Decrypt.Call(t.Context(), s, self(), &kms.DecryptInput{CiphertextBlob: blob}); code(err) != kms.CodeDisabled {
		t.Errorf("disabled key: %v", err)
	}
}

// Each worker grants, uses and revokes on a key that all share, whose policy and material change meanwhile: what it was answered holds for it at
// once, whatever the others do.
func TestConcurrentChanges(t *testing.T) {
	s := newService(t)
	key := newKey(t, s)
	document, err := kms.GetKeyPolicy.Call(t.Context(), s, self(), &kms.GetKeyPolicyInput{KeyId: key})
	if err != nil {
		t.Fatal(err)
	}
	blob := generate(t, s, key, nil).CiphertextBlob
	ctx := t.Context()
	var work sync.WaitGroup
	for worker := range 6 {
		work.Go(func() {
			grantee := user(uint32(5000 + worker))
			for range 10 {
				grant, err := kms.CreateGrant.Call(ctx, s, self(), &kms.CreateGrantInput{
					KeyId: key, GranteePrincipal: fmt.Sprintf("uid:%d", grantee.UID), Operations: []string{"Decrypt"},
				})
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := kms.Decrypt.Call(ctx, s, grantee, &kms.DecryptInput{CiphertextBlob: blob}); err != nil {
					t.Errorf("granted: %v", err)
				}
				if _, err := kms.RevokeGrant.Call(ctx, s, self(), &kms.RevokeGrantInput{KeyId: key, GrantId: grant.GrantId}); err != nil {
					t.Error(err)
				}
				if _, err := kms.Decrypt.Call(ctx, s, grantee, &kms.DecryptInput{CiphertextBlob: blob}); code(err) != kms.CodeAccessDenied {
					t.Errorf("revoked: %v", err)
				}
			}
		})
	}
	work.Go(func() {
		for range 10 {
			if _, err := kms.RotateKeyOnDemand.Call(ctx, s, self(), &kms.RotateKeyOnDemandInput{KeyId: key}); err != nil {
				t.Error(err)
			}
		}
	})
	work.Go(func() {
		for range 10 {
			if _, err := kms.PutKeyPolicy.Call(ctx, s, self(), &kms.PutKeyPolicyInput{KeyId: key, Policy: document.Policy}); err != nil {
				t.Error(err)
			}
		}
	})
	work.Wait()
	grants, err := kms.ListGrants.Call(ctx, s, self(), &kms.ListGrantsInput{KeyId: key})
	if err != nil || len(grants.Grants) != 0 {
		t.Errorf("grants left: %v, %v", grants, err)
	}
	rotations, err := kms.ListKeyRotations.Call(ctx, s, self(), &kms.ListKeyRotationsInput{KeyId: key})
	if err != nil || len(rotations.Rotations) != 10 {
		t.Errorf("rotations: %v, %v", rotations, err)
	}
}

func second[T any](_ T, err error) error { return err }

func FuzzParseBlob(f *testing.F) {
	s := newService(f)
	blob := generate(f, s, newKey(f, s), nil).CiphertextBlob
	f.Add([]byte{})
	f.Add(blob)
	f.Add(blob[:78])
	f.Add(append([]byte{2}, blob[1:]...))
	f.Fuzz(func(t *testing.T, b []byte) {
		info, err := material.ParseBlob(b)
		if err == nil && (len(info.Key.String()) != 36 || len(info.Material.String()) != 64) {
			t.Errorf("%x: %+v", b, info)
		}
		if _, err := kms.Decrypt.Call(t.Context(), s, self(), &kms.DecryptInput{CiphertextBlob: b}); err == nil && !bytes.Equal(b, blob) {
			t.Errorf("%x opens", b)
		}
	})
}
