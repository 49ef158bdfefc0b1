package keyservice

import (
	"encoding/hex"
	"errors"

	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/store"
)

// markerOperations keep the open markers of volumes.
type markerOperations struct{ encryptionOperations }

// admit returns the ID of the volume whose metadata key it is. The caller must be allowed to decrypt
// the key, and the key must open: nobody else has a say in the volume's markers. The ID is there
// too where only the key's state is in the way.
func (o markerOperations) admit(r *request, v *kms.VolumeKey) (volume string, err error) {
	volume = v.VolumeID()
	if id, err := hex.DecodeString(volume); err != nil || len(id) != 16 {
		return "", kms.Invalid("encryptionContext", "", "Member must be that of a volume's metadata key")
	}
	out, err := o.decrypt(r, &kms.DecryptInput{KeyId: v.KeyId, CiphertextBlob: v.CiphertextBlob, EncryptionContext: v.EncryptionContext})
	if err != nil {
		return volume, err
	}
	clear(out.Plaintext)
	return volume, nil
}

// isUnusable says whether a caller was allowed to use a key whose state does not permit its use: a
// volume can be unmounted cleanly after its key was disabled or its material destroyed. Closing a
// marker takes tolerance away and gives nothing.
func isUnusable(err error) bool {
	var e *kms.Error
	return errors.As(err, &e) && (e.Code == kms.CodeDisabled || e.Code == kms.CodeKMSInvalidState)
}

func (o markerOperations) openMarker(r *request, in *kms.OpenMarkerInput) (*kms.OpenMarkerOutput, error) {
	volume, err := o.admit(r, &in.Volume)
	if err != nil {
		return nil, err
	}
	r.param("marker", hex.EncodeToString(in.Marker.ID[:]))
	o.changes.Lock()
	defer o.changes.Unlock()
	return &kms.OpenMarkerOutput{}, o.change(r, func(tx *store.Tx) error {
		all, err := tx.Markers(volume)
		if err != nil {
			return err
		}
		if len(all) >= kms.MaxMarkers {
			return kms.Errorf(kms.CodeLimitExceeded, "The volume has %d open markers.", len(all))
		}
		return tx.PutMarker(volume, &store.Marker{ID: in.Marker.ID, Time: in.Marker.Time, BootID: in.Marker.BootID})
	})
}

func (o markerOperations) getMarkers(r *request, in *kms.VolumeKey) (*kms.GetMarkersOutput, error) {
	volume, err := o.admit(r, in)
	if err != nil {
		return nil, err
	}
	out := &kms.GetMarkersOutput{}
	err = o.store.View(func(tx *store.Tx) error {
		all, err := tx.Markers(volume)
		for _, m := range all {
			out.Markers = append(out.Markers, kms.Marker{ID: m.ID, Time: m.Time, BootID: m.BootID})
		}
		return err
	})
	return out, err
}

func (o markerOperations) closeMarkers(r *request, in *kms.CloseMarkersInput) (*kms.CloseMarkersOutput, error) {
	volume, err := o.admit(r, &in.Volume)
	if err != nil && !isUnusable(err) {
		return nil, err
	}
	if len(in.IDs) > kms.MaxMarkers {
		return nil, kms.Invalid("ids", "", "Member must have at most %d elements", kms.MaxMarkers)
	}
	r.params = append(r.params, audit.Number("markers", int64(len(in.IDs))))
	o.changes.Lock()
	defer o.changes.Unlock()
	return &kms.CloseMarkersOutput{}, o.change(r, func(tx *store.Tx) error {
		for _, id := range in.IDs {
			if err := tx.DeleteMarker(volume, id); err != nil {
				return err
			}
		}
		return nil
	})
}
