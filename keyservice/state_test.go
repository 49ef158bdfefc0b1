package keyservice_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"kmsfs/keyservice"
	"kmsfs/keyservice/kms"
)

// keyIn makes a symmetric key in a state. A key that awaits its import has never had material; blob is of another key then.
func keyIn(t *testing.T, s *keyservice.Service, state string) (arn string, blob []byte) {
	t.Helper()
	if state == "PendingImport" {
		out, err := kms.CreateKey.Call(t.Context(), s, self(), &kms.CreateKeyInput{Origin: "EXTERNAL"})
		if err != nil {
			t.Fatal(err)
		}
		return out.KeyMetadata.Arn, generate(t, s, newKey(t, s), nil).CiphertextBlob
	}
	arn = newKey(t, s)
	blob = generate(t, s, arn, nil).CiphertextBlob
	var err error
	switch state {
	case "Disabled":
		_, err = kms.DisableKey.Call(t.Context(), s, self(), &kms.DisableKeyInput{KeyId: arn})
	case "PendingDeletion":
		_, err = kms.ScheduleKeyDeletion.Call(t.Context(), s, self(), &kms.ScheduleKeyDeletionInput{KeyId: arn})
	}
	if err != nil {
		t.Fatal(err)
	}
	return arn, blob
}

// operation is a call for a key in the state that is tested, by one who may do everything.
type operation func(ctx context.Context, s *keyservice.Service, arn string, blob []byte) error

// stateOperations are all operations on symmetric keys.
func stateOperations() map[string]operation {
	me := self()
	return map[string]operation{
		"Encrypt": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(kms.Encrypt.Call(ctx, s, me, &kms.EncryptInput{KeyId: arn, Plaintext: []byte("p")}))
		},
		"Decrypt": func(ctx context.Context, s *keyservice.Service, arn string, blob []byte) error {
			return second(kms.Decrypt.Call(ctx, s, me, &kms.DecryptInput{KeyId: arn, CiphertextBlob: blob}))
		},
		"ReEncryptTo": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			out, err := kms.CreateKey.Call(ctx, s, me, &kms.CreateKeyInput{})
			if err != nil {
				return err
			}
			made, err := kms.Encrypt.Call(ctx, s, me, &kms.EncryptInput{KeyId: out.KeyMetadata.Arn, Plaintext: []byte("p")})
			if err != nil {
				return err
			}
			return second(kms.ReEncrypt.Call(ctx, s, me, &kms.ReEncryptInput{CiphertextBlob: made.CiphertextBlob, DestinationKeyId: arn}))
		},
		"GenerateDataKey": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(kms.GenerateDataKey.Call(ctx, s, me, &kms.GenerateDataKeyInput{KeyId: arn, KeySpec: "AES_256"}))
		},
		"GenerateDataKeyWithoutPlaintext": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(kms.GenerateDataKeyWithoutPlaintext.Call(ctx, s, me, &kms.GenerateDataKeyWithoutPlaintextInput{KeyId: arn, KeySpec: "AES_128"}))
		},
		"GenerateDataKeyPair": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(kms.GenerateDataKeyPair.Call(ctx, s, me, &kms.GenerateDataKeyPairInput{KeyId: arn, KeyPairSpec: "ECC_NIST_P256"}))
		},
		"GenerateDataKeyPairWithoutPlaintext": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(kms.GenerateDataKeyPairWithoutPlaintext.Call(ctx, s, me, &kms.GenerateDataKeyPairWithoutPlaintextInput{KeyId: arn, KeyPairSpec: "ECC_NIST_EDWARDS25519"}))
		},
		"CreateGrant": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(kms.CreateGrant.Call(ctx, s, me, &kms.CreateGrantInput{KeyId: arn, GranteePrincipal: "uid:1", Operations: []string{"Decrypt"}}))
		},
		"EnableKey": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(kms.EnableKey.Call(ctx, s, me, &kms.EnableKeyInput{KeyId: arn}))
		},
		"DisableKey": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(kms.DisableKey.Call(ctx, s, me, &kms.DisableKeyInput{KeyId: arn}))
		},
		"EnableKeyRotation": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(kms.EnableKeyRotation.Call(ctx, s, me, &kms.EnableKeyRotationInput{KeyId: arn}))
		},
		"DisableKeyRotation": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(kms.DisableKeyRotation.Call(ctx, s, me, &kms.DisableKeyRotationInput{KeyId: arn}))
		},
		"RotateKeyOnDemand": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(kms.RotateKeyOnDemand.Call(ctx, s, me, &kms.RotateKeyOnDemandInput{KeyId: arn}))
		},
		"GetKeyRotationStatus": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(kms.GetKeyRotationStatus.Call(ctx, s, me, &kms.GetKeyRotationStatusInput{KeyId: arn}))
		},
		"ListKeyRotations": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(kms.ListKeyRotations.Call(ctx, s, me, &kms.ListKeyRotationsInput{KeyId: arn}))
		},
		"CreateAlias": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(kms.CreateAlias.Call(ctx, s, me, &kms.CreateAliasInput{AliasName: "alias/new", TargetKeyId: arn}))
		},
		"UpdateAlias": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			out, err := kms.CreateKey.Call(ctx, s, me, &kms.CreateKeyInput{})
			if err != nil {
				return err
			}
			if _, err := kms.CreateAlias.Call(ctx, s, me, &kms.CreateAliasInput{AliasName: "alias/old", TargetKeyId: out.KeyMetadata.Arn}); err != nil {
				return err
			}
			return second(kms.UpdateAlias.Call(ctx, s, me, &kms.UpdateAliasInput{AliasName: "alias/old", TargetKeyId: arn}))
		},
		"TagResource": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(kms.TagResource.Call(ctx, s, me, &kms.TagResourceInput{KeyId: arn, Tags: []kms.Tag{{TagKey: "a"}}}))
		},
		"UntagResource": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(kms.UntagResource.Call(ctx, s, me, &kms.UntagResourceInput{KeyId: arn, TagKeys: []string{"a"}}))
		},
		"ListResourceTags": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(kms.ListResourceTags.Call(ctx, s, me, &kms.ListResourceTagsInput{KeyId: arn}))
		},
		"UpdateKeyDescription": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(kms.UpdateKeyDescription.Call(ctx, s, me, &kms.UpdateKeyDescriptionInput{KeyId: arn, Description: "d"}))
		},
		"ScheduleKeyDeletion": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(kms.ScheduleKeyDeletion.Call(ctx, s, me, &kms.ScheduleKeyDeletionInput{KeyId: arn}))
		},
		"CancelKeyDeletion": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(kms.CancelKeyDeletion.Call(ctx, s, me, &kms.CancelKeyDeletionInput{KeyId: arn}))
		},
		"GetParametersForImport": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(kms.GetParametersForImport.Call(ctx, s, me, &kms.GetParametersForImportInput{KeyId: arn, WrappingAlgorithm: "RSAES_OAEP_SHA_256", WrappingKeySpec: "RSA_2048"}))
		},
		"DeleteImportedKeyMaterial": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(kms.DeleteImportedKeyMaterial.Call(ctx, s, me, &kms.DeleteImportedKeyMaterialInput{KeyId: arn}))
		},
		"DescribeKey": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(kms.DescribeKey.Call(ctx, s, me, &kms.DescribeKeyInput{KeyId: arn}))
		},
		"GetPublicKey": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(kms.GetPublicKey.Call(ctx, s, me, &kms.GetPublicKeyInput{KeyId: arn}))
		},
		"GetKeyLastUsage": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(kms.GetKeyLastUsage.Call(ctx, s, me, &kms.GetKeyLastUsageInput{KeyId: arn}))
		},
		"GetKeyPolicy": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(kms.GetKeyPolicy.Call(ctx, s, me, &kms.GetKeyPolicyInput{KeyId: arn}))
		},
		"PutKeyPolicy": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			out, err := kms.GetKeyPolicy.Call(ctx, s, me, &kms.GetKeyPolicyInput{KeyId: arn})
			if err != nil {
				return err
			}
			return second(kms.PutKeyPolicy.Call(ctx, s, me, &kms.PutKeyPolicyInput{KeyId: arn, Policy: out.Policy}))
		},
		"ListKeyPolicies": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(kms.ListKeyPolicies.Call(ctx, s, me, &kms.ListKeyPoliciesInput{KeyId: arn}))
		},
		"ListGrants": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(kms.ListGrants.Call(ctx, s, me, &kms.ListGrantsInput{KeyId: arn}))
		},
		"Sign": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(kms.Sign.Call(ctx, s, me, &kms.SignInput{KeyId: arn, Message: []byte("m"), SigningAlgorithm: "ECDSA_SHA_256"}))
		},
	}
}

// What AWS's table of key states says (kms.md, 2.6). What is not listed succeeds.
func TestStates(t *testing.T) {
	const (
		disabled    = kms.CodeDisabled
		invalid     = kms.CodeKMSInvalidState
		unsupported = kms.CodeUnsupportedOperation
		usage       = kms.CodeInvalidKeyUsage
	)
	uses := []string{
		"Encrypt", "Decrypt", "ReEncryptTo", "GenerateDataKey", "GenerateDataKeyWithoutPlaintext", "GenerateDataKeyPair", "GenerateDataKeyPairWithoutPlaintext", "CreateGrant",
	}
	changes := []string{"CreateAlias", "UpdateAlias", "TagResource", "UntagResource", "UpdateKeyDescription", "ScheduleKeyDeletion", "EnableKey", "DisableKey"}
	rotation := []string{"EnableKeyRotation", "DisableKeyRotation"}
	want := func(state, name string) string {
		switch {
		case name == "Sign":
			return usage
		case name == "GetPublicKey":
			return unsupported
		case name == "CancelKeyDeletion":
			if state == "PendingDeletion" {
				return ""
			}
			return invalid
		case (name == "GetParametersForImport" || name == "DeleteImportedKeyMaterial") && state != "PendingImport":
			return unsupported
		}
		switch state {
		case "Disabled":
			if slices.Contains(uses, name) || slices.Contains(rotation, name) || name == "RotateKeyOnDemand" {
				return disabled
			}
		case "PendingDeletion":
			if slices.Contains(uses, name) || slices.Contains(changes, name) || slices.Contains(rotation, name) || name == "RotateKeyOnDemand" {
				return invalid
			}
		case "PendingImport":
			switch {
			case name == "Decrypt":
				return kms.CodeKMSInvalidState
			case slices.Contains(uses, name), name == "EnableKey", name == "DisableKey", name == "RotateKeyOnDemand":
				return invalid
			case slices.Contains(rotation, name), name == "GetKeyRotationStatus":
				return unsupported
			}
		}
		return ""
	}
	for _, state := range []string{"Enabled", "Disabled", "PendingDeletion", "PendingImport"} {
		for name, call := range stateOperations() {
			t.Run(fmt.Sprintf("%s/%s", state, name), func(t *testing.T) {
				s := newService(t)
				arn, blob := keyIn(t, s, state)
				if got := code(call(t.Context(), s, arn, blob)); got != want(state, name) {
					t.Errorf("got %q, want %q", got, want(state, name))
				}
			})
		}
	}
}

// A key that was pending deletion is disabled, one that never had material awaits its import again, and metadata says what is.
func TestStateChanges(t *testing.T) {
	s := newService(t)
	for _, test := range []struct{ from, want string }{{"Enabled", "Disabled"}, {"Disabled", "Disabled"}, {"PendingImport", "PendingImport"}} {
		arn, _ := keyIn(t, s, test.from)
		scheduled, err := kms.ScheduleKeyDeletion.Call(t.Context(), s, self(), &kms.ScheduleKeyDeletionInput{KeyId: arn, PendingWindowInDays: new(int32(7))})
		if err != nil || scheduled.KeyState != "PendingDeletion" || scheduled.PendingWindowInDays != 7 || scheduled.KeyId != arn {
			t.Fatalf("got %+v, %v", scheduled, err)
		}
		pending := describe(t, s, arn)
		if pending.KeyState != "PendingDeletion" || pending.Enabled || pending.DeletionDate == nil || !pending.DeletionDate.Equal(scheduled.DeletionDate.Time) {
			t.Errorf("got %+v", pending)
		}
		if _, err := kms.CancelKeyDeletion.Call(t.Context(), s, self(), &kms.CancelKeyDeletionInput{KeyId: arn}); err != nil {
			t.Fatal(err)
		}
		if got := describe(t, s, arn); got.KeyState != test.want || got.DeletionDate != nil {
			t.Errorf("from %s: got %+v", test.from, got)
		}
	}
}

func describe(t *testing.T, s *keyservice.Service, arn string) kms.KeyMetadata {
	t.Helper()
	out, err := kms.DescribeKey.Call(t.Context(), s, self(), &kms.DescribeKeyInput{KeyId: arn})
	if err != nil {
		t.Fatal(err)
	}
	return out.KeyMetadata
}
