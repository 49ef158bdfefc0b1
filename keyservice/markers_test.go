package keyservice_test

import (
	"errors"
	"testing"
	"time"

	"kmsfs/keyservice/kms"
)

// volumeKeyOf is a volume's wrapped metadata key.
func volumeKeyOf(out *kms.GenerateDataKeyOutput, encryptionContext map[string]string) kms.VolumeKey {
	return kms.VolumeKey{KeyId: out.KeyId, CiphertextBlob: out.CiphertextBlob, EncryptionContext: encryptionContext}
}

// TestMarkers opens, lists and closes markers of a volume: as who may decrypt its metadata key, and as
// others. What has been opened can be closed after the KMS key was disabled.
func TestMarkers(t *testing.T) {
	s := newService(t)
	arn := newKey(t, s)
	of := map[string]string{"kmsfs:volume": "00112233445566778899aabbccddeeff", "kmsfs:path": "/", "kmsfs:owner": "uid:0"}
	v := volumeKeyOf(generate(t, s, arn, of), of)
	marker := kms.Marker{ID: kms.MarkerID{1}, Time: time.Unix(1, 0), BootID: [16]byte{2}}
	if _, err := kms.OpenMarker.Call(t.Context(), s, self(), &kms.OpenMarkerInput{Volume: v, Marker: marker}); err != nil {
		t.Fatal(err)
	}
	wantMarkers := func(n int) {
		t.Helper()
		out, err := kms.GetMarkers.Call(t.Context(), s, self(), &v)
		if err != nil || len(out.Markers) != n {
			t.Errorf("%d markers are open, want %d; %v", len(out.Markers), n, err)
		}
	}
	wantMarkers(1)

	refused := func(what string, err error, code string) {
		t.Helper()
		var e *kms.Error
		if !errors.As(err, &e) || e.Code != code {
			t.Errorf("%s: %v, want %s", what, err, code)
		}
	}
	closing := &kms.CloseMarkersInput{Volume: v, IDs: []kms.MarkerID{marker.ID}}
	_, err := kms.CloseMarkers.Call(t.Context(), s, stranger(), closing)
	refused("a stranger closes a marker", err, kms.CodeAccessDenied)
	file := map[string]string{"kmsfs:volume": of["kmsfs:volume"], "kmsfs:path": "/file", "kmsfs:owner": "uid:0"}
	_, err = kms.CloseMarkers.Call(t.Context(), s, self(), &kms.CloseMarkersInput{
		Volume: volumeKeyOf(generate(t, s, arn, file), file), IDs: closing.IDs,
	})
	refused("a file's data key", err, kms.CodeValidation)
	wantMarkers(1)

	if _, err := kms.DisableKey.Call(t.Context(), s, self(), &kms.DisableKeyInput{KeyId: arn}); err != nil {
		t.Fatal(err)
	}
	_, err = kms.OpenMarker.Call(t.Context(), s, self(), &kms.OpenMarkerInput{Volume: v, Marker: kms.Marker{ID: kms.MarkerID{3}}})
	refused("a marker under a disabled key", err, kms.CodeDisabled)
	_, err = kms.CloseMarkers.Call(t.Context(), s, stranger(), closing)
	refused("a stranger closes a marker under a disabled key", err, kms.CodeAccessDenied)
	if _, err := kms.CloseMarkers.Call(t.Context(), s, self(), closing); err != nil {
		t.Errorf("closing a marker under a disabled key: %v", err)
	}
	if _, err := kms.EnableKey.Call(t.Context(), s, self(), &kms.EnableKeyInput{KeyId: arn}); err != nil {
		t.Fatal(err)
	}
	wantMarkers(0)
}
