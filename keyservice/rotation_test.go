package keyservice_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"kmsfs/keyservice"
	"kmsfs/keyservice/kms"
)

const day = 24 * time.Hour

func rotations(t *testing.T, s *keyservice.Service, key string) []kms.RotationsListEntry {
	t.Helper()
	out, err := kms.ListKeyRotations.Call(t.Context(), s, self(), &kms.ListKeyRotationsInput{KeyId: key})
	if err != nil {
		t.Fatal(err)
	}
	return out.Rotations
}

// A key is rotated when its period is over; what was encrypted before stays readable, and says under which material.
func TestAutomaticRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t)
		key := newKey(t, s)
		if _, err := kms.EnableKeyRotation.Call(t.Context(), s, self(), &kms.EnableKeyRotationInput{KeyId: key, RotationPeriodInDays: new(int32(90))}); err != nil {
			t.Fatal(err)
		}
		before := generate(t, s, key, nil)
		time.Sleep(90*day - time.Hour)
		if got := rotations(t, s, key); len(got) != 0 {
			t.Errorf("too early: %+v", got)
		}
		time.Sleep(2 * time.Hour)
		got := rotations(t, s, key)
		if len(got) != 1 || got[0].RotationType != "AUTOMATIC" || got[0].KeyMaterialState != "CURRENT" {
			t.Fatalf("got %+v", got)
		}
		after := generate(t, s, key, nil)
		if after.KeyMaterialId == before.KeyMaterialId || after.KeyMaterialId != got[0].KeyMaterialId || describe(t, s, key).CurrentKeyMaterialId != after.KeyMaterialId {
			t.Errorf("material %s before, %s after", before.KeyMaterialId, after.KeyMaterialId)
		}
		out, err := kms.Decrypt.Call(t.Context(), s, self(), &kms.DecryptInput{CiphertextBlob: before.CiphertextBlob})
		if err != nil || string(out.Plaintext) != string(before.Plaintext) || out.KeyMaterialId != before.KeyMaterialId {
			t.Errorf("got %+v, %v", out, err)
		}
		status, err := kms.GetKeyRotationStatus.Call(t.Context(), s, self(), &kms.GetKeyRotationStatusInput{KeyId: key})
		if err != nil || !status.KeyRotationEnabled || status.RotationPeriodInDays != 90 || time.Until(status.NextRotationDate.Time) < 89*day {
			t.Errorf("got %+v, %v", status, err)
		}

		// A disabled key's rotation waits until it is enabled.
		if _, err := kms.DisableKey.Call(t.Context(), s, self(), &kms.DisableKeyInput{KeyId: key}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * day)
		if got := rotations(t, s, key); len(got) != 1 {
			t.Errorf("disabled: %+v", got)
		}
		if _, err := kms.EnableKey.Call(t.Context(), s, self(), &kms.EnableKeyInput{KeyId: key}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		if got := rotations(t, s, key); len(got) != 2 {
			t.Errorf("enabled: %+v", got)
		}
	})
}

func TestRotationOnDemand(t *testing.T) {
	s := newService(t)
	key := newKey(t, s)
	made := []*kms.GenerateDataKeyOutput{generate(t, s, key, nil)}
	for range 25 {
		if _, err := kms.RotateKeyOnDemand.Call(t.Context(), s, self(), &kms.RotateKeyOnDemandInput{KeyId: key}); err != nil {
			t.Fatal(err)
		}
		made = append(made, generate(t, s, key, nil))
	}
	if _, err := kms.RotateKeyOnDemand.Call(t.Context(), s, self(), &kms.RotateKeyOnDemandInput{KeyId: key}); code(err) != kms.CodeLimitExceeded {
		t.Errorf("the 26th: %v", err)
	}
	materials := map[string]bool{}
	for _, m := range made {
		materials[m.KeyMaterialId] = true
		if out, err := kms.Decrypt.Call(t.Context(), s, self(), &kms.DecryptInput{CiphertextBlob: m.CiphertextBlob}); err != nil || string(out.Plaintext) != string(m.Plaintext) {
			t.Errorf("got %+v, %v", out, err)
		}
	}
	if len(materials) != 26 {
		t.Errorf("%d materials", len(materials))
	}
	var all []kms.RotationsListEntry
	for marker := ""; ; {
		out, err := kms.ListKeyRotations.Call(t.Context(), s, self(), &kms.ListKeyRotationsInput{KeyId: key, IncludeKeyMaterial: "ALL_KEY_MATERIAL", Limit: new(int32(10)), Marker: marker})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, out.Rotations...)
		if marker = out.NextMarker; marker == "" {
			break
		}
	}
	if len(all) != 26 || all[0].RotationDate != nil || all[25].KeyMaterialState != "CURRENT" || all[24].KeyMaterialState != "NON_CURRENT" {
		t.Errorf("got %d: %+v", len(all), all)
	}
}

// A key goes when its waiting period is over, whether the service is open then or opened later, with all that is its own.
func TestDeletion(t *testing.T) {
	for _, open := range []bool{true, false} {
		t.Run(fmt.Sprintf("open=%t", open), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir, secret := newHome(t)
				s := openHome(t, dir, secret)
				key, other := newKey(t, s), newKey(t, s)
				blob, stays := generate(t, s, key, nil), generate(t, s, other, nil)
				if _, err := kms.CreateAlias.Call(t.Context(), s, self(), &kms.CreateAliasInput{AliasName: "alias/a", TargetKeyId: key}); err != nil {
					t.Fatal(err)
				}
				if _, err := kms.ScheduleKeyDeletion.Call(t.Context(), s, self(), &kms.ScheduleKeyDeletionInput{KeyId: key, PendingWindowInDays: new(int32(7))}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(7*day - time.Hour)
				if describe(t, s, key).KeyState != "PendingDeletion" {
					t.Error("it is gone too early")
				}
				if !open {
					if err := s.Close(); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(2 * time.Hour)
				if !open {
					s = openHome(t, dir, secret)
				}
				for _, name := range []string{key, "alias/a"} {
					if _, err := kms.DescribeKey.Call(t.Context(), s, self(), &kms.DescribeKeyInput{KeyId: name}); code(err) != kms.CodeNotFound {
						t.Errorf("%s: %v", name, err)
					}
				}
				if _, err := kms.Decrypt.Call(t.Context(), s, self(), &kms.DecryptInput{CiphertextBlob: blob.CiphertextBlob}); code(err) != kms.CodeAccessDenied {
					t.Errorf("got %v", err)
				}
				if _, err := kms.Decrypt.Call(t.Context(), s, self(), &kms.DecryptInput{CiphertextBlob: stays.CiphertextBlob}); err != nil {
					t.Error(err)
				}
				if _, err := kms.CreateAlias.Call(t.Context(), s, self(), &kms.CreateAliasInput{AliasName: "alias/a", TargetKeyId: other}); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A key store from before the deletion, with the root key's secret at hand, does not bring the key back: the slots are on disk once only.
func TestDeletionDestroys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, secret := newHome(t)
		s := openHome(t, dir, secret)
		key := newKey(t, s)
		blob := generate(t, s, key, nil)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "keys.db")
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		s = openHome(t, dir, secret)
		if _, err := kms.ScheduleKeyDeletion.Call(t.Context(), s, self(), &kms.ScheduleKeyDeletionInput{KeyId: key, PendingWindowInDays: new(int32(7))}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(8 * day)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, before, 0o600); err != nil {
			t.Fatal(err)
		}
		s = openHome(t, dir, secret)
		if out, err := kms.Decrypt.Call(t.Context(), s, self(), &kms.DecryptInput{CiphertextBlob: blob.CiphertextBlob}); err == nil {
			t.Errorf("it is decrypted: %+v", out)
		}
	})
}

// When a key was last used is remembered, also over a restart.
func TestLastUsage(t *testing.T) {
	dir, secret := newHome(t)
	s := openHome(t, dir, secret)
	key := newKey(t, s)
	usage := func() kms.KeyLastUsage {
		t.Helper()
		out, err := kms.GetKeyLastUsage.Call(t.Context(), s, self(), &kms.GetKeyLastUsageInput{KeyId: key})
		if err != nil {
			t.Fatal(err)
		}
		return out.KeyLastUsage
	}
	if got := usage(); got != (kms.KeyLastUsage{}) {
		t.Errorf("got %+v", got)
	}
	made := generate(t, s, key, nil)
	first := usage()
	if first.Operation != "GenerateDataKey" || first.Timestamp == nil || len(first.CloudTrailEventId) != 36 || len(first.KmsRequestId) != 36 {
		t.Errorf("got %+v", first)
	}
	if _, err := kms.Decrypt.Call(t.Context(), s, self(), &kms.DecryptInput{CiphertextBlob: made.CiphertextBlob, EncryptionContext: fileContext()}); err == nil {
		t.Fatal("it opens in another context")
	}
	if got := usage(); got.KmsRequestId != first.KmsRequestId {
		t.Errorf("a failed use counts: %+v", got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openHome(t, dir, secret)
	if got := usage(); got.KmsRequestId != first.KmsRequestId || got.Operation != first.Operation {
		t.Errorf("got %+v, want %+v", got, first)
	}
}
