package keyservice_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"kmsfs/keyservice"
)

// keyIn makes a symmetric key in a state. A key that awaits its import has never had material; blob is of another key then.
func keyIn(t *testing.T, s *keyservice.Service, state string) (arn string, blob []byte) {
	t.Helper()
	if state == "PendingImport" {
		out, err := s.CreateKey(t.Context(), self(), &keyservice.CreateKeyInput{Origin: "EXTERNAL"})
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
		_, err = s.DisableKey(t.Context(), self(), &keyservice.DisableKeyInput{KeyId: arn})
	case "PendingDeletion":
		_, err = s.ScheduleKeyDeletion(t.Context(), self(), &keyservice.ScheduleKeyDeletionInput{KeyId: arn})
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
			return second(s.Encrypt(ctx, me, &keyservice.EncryptInput{KeyId: arn, Plaintext: []byte("p")}))
		},
		"Decrypt": func(ctx context.Context, s *keyservice.Service, arn string, blob []byte) error {
			return second(s.Decrypt(ctx, me, &keyservice.DecryptInput{KeyId: arn, CiphertextBlob: blob}))
		},
		"ReEncryptTo": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			out, err := s.CreateKey(ctx, me, &keyservice.CreateKeyInput{})
			if err != nil {
				return err
			}
			made, err := s.Encrypt(ctx, me, &keyservice.EncryptInput{KeyId: out.KeyMetadata.Arn, Plaintext: []byte("p")})
			if err != nil {
				return err
			}
			return second(s.ReEncrypt(ctx, me, &keyservice.ReEncryptInput{CiphertextBlob: made.CiphertextBlob, DestinationKeyId: arn}))
		},
		"GenerateDataKey": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(s.GenerateDataKey(ctx, me, &keyservice.GenerateDataKeyInput{KeyId: arn, KeySpec: "AES_256"}))
		},
		"GenerateDataKeyWithoutPlaintext": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(s.GenerateDataKeyWithoutPlaintext(ctx, me, &keyservice.GenerateDataKeyWithoutPlaintextInput{KeyId: arn, KeySpec: "AES_128"}))
		},
		"GenerateDataKeyPair": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(s.GenerateDataKeyPair(ctx, me, &keyservice.GenerateDataKeyPairInput{KeyId: arn, KeyPairSpec: "ECC_NIST_P256"}))
		},
		"GenerateDataKeyPairWithoutPlaintext": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(s.GenerateDataKeyPairWithoutPlaintext(ctx, me, &keyservice.GenerateDataKeyPairWithoutPlaintextInput{KeyId: arn, KeyPairSpec: "ECC_NIST_EDWARDS25519"}))
		},
		"CreateGrant": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(s.CreateGrant(ctx, me, &keyservice.CreateGrantInput{KeyId: arn, GranteePrincipal: "uid:1", Operations: []string{"Decrypt"}}))
		},
		"EnableKey": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(s.EnableKey(ctx, me, &keyservice.EnableKeyInput{KeyId: arn}))
		},
		"DisableKey": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(s.DisableKey(ctx, me, &keyservice.DisableKeyInput{KeyId: arn}))
		},
		"EnableKeyRotation": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(s.EnableKeyRotation(ctx, me, &keyservice.EnableKeyRotationInput{KeyId: arn}))
		},
		"DisableKeyRotation": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(s.DisableKeyRotation(ctx, me, &keyservice.DisableKeyRotationInput{KeyId: arn}))
		},
		"RotateKeyOnDemand": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(s.RotateKeyOnDemand(ctx, me, &keyservice.RotateKeyOnDemandInput{KeyId: arn}))
		},
		"GetKeyRotationStatus": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(s.GetKeyRotationStatus(ctx, me, &keyservice.GetKeyRotationStatusInput{KeyId: arn}))
		},
		"ListKeyRotations": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(s.ListKeyRotations(ctx, me, &keyservice.ListKeyRotationsInput{KeyId: arn}))
		},
		"CreateAlias": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(s.CreateAlias(ctx, me, &keyservice.CreateAliasInput{AliasName: "alias/new", TargetKeyId: arn}))
		},
		"UpdateAlias": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			out, err := s.CreateKey(ctx, me, &keyservice.CreateKeyInput{})
			if err != nil {
				return err
			}
			if _, err := s.CreateAlias(ctx, me, &keyservice.CreateAliasInput{AliasName: "alias/old", TargetKeyId: out.KeyMetadata.Arn}); err != nil {
				return err
			}
			return second(s.UpdateAlias(ctx, me, &keyservice.UpdateAliasInput{AliasName: "alias/old", TargetKeyId: arn}))
		},
		"TagResource": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(s.TagResource(ctx, me, &keyservice.TagResourceInput{KeyId: arn, Tags: []keyservice.Tag{{TagKey: "a"}}}))
		},
		"UntagResource": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(s.UntagResource(ctx, me, &keyservice.UntagResourceInput{KeyId: arn, TagKeys: []string{"a"}}))
		},
		"ListResourceTags": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(s.ListResourceTags(ctx, me, &keyservice.ListResourceTagsInput{KeyId: arn}))
		},
		"UpdateKeyDescription": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(s.UpdateKeyDescription(ctx, me, &keyservice.UpdateKeyDescriptionInput{KeyId: arn, Description: "d"}))
		},
		"ScheduleKeyDeletion": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(s.ScheduleKeyDeletion(ctx, me, &keyservice.ScheduleKeyDeletionInput{KeyId: arn}))
		},
		"CancelKeyDeletion": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(s.CancelKeyDeletion(ctx, me, &keyservice.CancelKeyDeletionInput{KeyId: arn}))
		},
		"GetParametersForImport": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(s.GetParametersForImport(ctx, me, &keyservice.GetParametersForImportInput{KeyId: arn, WrappingAlgorithm: "RSAES_OAEP_SHA_256", WrappingKeySpec: "RSA_2048"}))
		},
		"DeleteImportedKeyMaterial": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(s.DeleteImportedKeyMaterial(ctx, me, &keyservice.DeleteImportedKeyMaterialInput{KeyId: arn}))
		},
		"DescribeKey": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(s.DescribeKey(ctx, me, &keyservice.DescribeKeyInput{KeyId: arn}))
		},
		"GetPublicKey": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(s.GetPublicKey(ctx, me, &keyservice.GetPublicKeyInput{KeyId: arn}))
		},
		"GetKeyLastUsage": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(s.GetKeyLastUsage(ctx, me, &keyservice.GetKeyLastUsageInput{KeyId: arn}))
		},
		"GetKeyPolicy": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(s.GetKeyPolicy(ctx, me, &keyservice.GetKeyPolicyInput{KeyId: arn}))
		},
		"PutKeyPolicy": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			out, err := s.GetKeyPolicy(ctx, me, &keyservice.GetKeyPolicyInput{KeyId: arn})
			if err != nil {
				return err
			}
			return second(s.PutKeyPolicy(ctx, me, &keyservice.PutKeyPolicyInput{KeyId: arn, Policy: out.Policy}))
		},
		"ListKeyPolicies": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(s.ListKeyPolicies(ctx, me, &keyservice.ListKeyPoliciesInput{KeyId: arn}))
		},
		"ListGrants": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(s.ListGrants(ctx, me, &keyservice.ListGrantsInput{KeyId: arn}))
		},
		"Sign": func(ctx context.Context, s *keyservice.Service, arn string, _ []byte) error {
			return second(s.Sign(ctx, me, &keyservice.SignInput{KeyId: arn, Message: []byte("m"), SigningAlgorithm: "ECDSA_SHA_256"}))
		},
	}
}

// What AWS's table of key states says (kms.md, 2.6). What is not listed succeeds.
func TestStates(t *testing.T) {
	const (
		disabled    = keyservice.CodeDisabled
		invalid     = keyservice.CodeInvalidState
		unsupported = keyservice.CodeUnsupportedOperation
		usage       = keyservice.CodeInvalidKeyUsage
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
				return keyservice.CodeInvalidState
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
		scheduled, err := s.ScheduleKeyDeletion(t.Context(), self(), &keyservice.ScheduleKeyDeletionInput{KeyId: arn, PendingWindowInDays: new(int32(7))})
		if err != nil || scheduled.KeyState != "PendingDeletion" || scheduled.PendingWindowInDays != 7 || scheduled.KeyId != arn {
			t.Fatalf("got %+v, %v", scheduled, err)
		}
		pending := describe(t, s, arn)
		if pending.KeyState != "PendingDeletion" || pending.Enabled || pending.DeletionDate == nil || !pending.DeletionDate.Equal(scheduled.DeletionDate.Time) {
			t.Errorf("got %+v", pending)
		}
		if _, err := s.CancelKeyDeletion(t.Context(), self(), &keyservice.CancelKeyDeletionInput{KeyId: arn}); err != nil {
			t.Fatal(err)
		}
		if got := describe(t, s, arn); got.KeyState != test.want || got.DeletionDate != nil {
			t.Errorf("from %s: got %+v", test.from, got)
		}
	}
}

func describe(t *testing.T, s *keyservice.Service, arn string) keyservice.KeyMetadata {
	t.Helper()
	out, err := s.DescribeKey(t.Context(), self(), &keyservice.DescribeKeyInput{KeyId: arn})
	if err != nil {
		t.Fatal(err)
	}
	return out.KeyMetadata
}
