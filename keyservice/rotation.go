package keyservice

import (
	"cmp"
	"encoding/binary"
	"slices"
	"time"

	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/catalog"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/material"
	"kmsfs/keyservice/store"
)

// How a rotation came about.
const (
	rotationAutomatic = "AUTOMATIC"
	rotationOnDemand  = "ON_DEMAND"
)

// rotationOperations rotate KMS keys.
type rotationOperations struct{ *core }

func (o rotationOperations) enableKeyRotation(r *request, in *kms.EnableKeyRotationInput) (*kms.EnableKeyRotationOutput, error) {
	period := int32(kms.DefaultRotationPeriod)
	if in.RotationPeriodInDays != nil {
		period = *in.RotationPeriodInDays
	}
	r.paramNumber("rotationPeriodInDays", int64(period))
	r.authz.SetNumber("kms:rotationperiodindays", int64(period))
	if err := kms.CheckNumber("rotationPeriodInDays", &period, kms.MinRotationPeriod, kms.MaxRotationPeriod); err != nil {
		return nil, err
	}
	return &kms.EnableKeyRotationOutput{}, o.alter(r, "kms:EnableKeyRotation", in.KeyId, func(k *catalog.Key, changed *store.Key) error {
		changed.RotationPeriod, changed.NextRotation = int(period), millis(r.time).AddDate(0, 0, int(period))
		return cmp.Or(k.RotatesItself(), k.NotIn(kms.StateDisabled, kms.StatePendingDeletion, kms.StatePendingImport))
	})
}

func (o rotationOperations) disableKeyRotation(r *request, in *kms.DisableKeyRotationInput) (*kms.DisableKeyRotationOutput, error) {
	return &kms.DisableKeyRotationOutput{}, o.alter(r, "kms:DisableKeyRotation", in.KeyId, func(k *catalog.Key, changed *store.Key) error {
		changed.RotationPeriod, changed.NextRotation = 0, time.Time{}
		return cmp.Or(k.RotatesItself(), k.NotIn(kms.StateDisabled, kms.StatePendingDeletion, kms.StatePendingImport))
	})
}

func (o rotationOperations) getKeyRotationStatus(r *request, in *kms.GetKeyRotationStatusInput) (*kms.GetKeyRotationStatusOutput, error) {
	k, err := o.named(r, "kms:GetKeyRotationStatus", in.KeyId)
	if err != nil {
		return nil, err
	}
	if err := k.RotatesItself(); err != nil {
		return nil, err
	}
	out := &kms.GetKeyRotationStatusOutput{KeyId: k.ARN}
	if k.RotationPeriod > 0 && !k.IsIn(kms.StatePendingDeletion) {
		out.KeyRotationEnabled, out.RotationPeriodInDays, out.NextRotationDate = true, int32(k.RotationPeriod), given(k.NextRotation)
	}
	return out, nil
}

func (o rotationOperations) rotateKeyOnDemand(r *request, in *kms.RotateKeyOnDemandInput) (*kms.RotateKeyOnDemandOutput, error) {
	r.readOnly = false
	o.changes.Lock()
	defer o.changes.Unlock()
	k, err := o.named(r, "kms:RotateKeyOnDemand", in.KeyId)
	if err != nil {
		return nil, err
	}
	if err := cmp.Or(k.Rotates(), k.NotIn(kms.StateDisabled, kms.StatePendingDeletion, kms.StatePendingImport)); err != nil {
		return nil, err
	}
	if k.OnDemandRotations >= kms.MaxOnDemandRotations {
		return nil, kms.Errorf(kms.CodeLimitExceeded, "%s has been rotated on demand %d times, which is the limit.", k.ARN, kms.MaxOnDemandRotations)
	}
	changed := k.Key
	changed.OnDemandRotations++
	r.response = append(r.response, audit.Text("keyId", k.ARN))
	if err := o.rotate(r, k, &changed, rotationOnDemand); err != nil {
		return nil, err
	}
	return &kms.RotateKeyOnDemandOutput{KeyId: k.ARN}, nil
}

// rotate makes a new material the current one; for imported material, the one that awaits it.
func (o rotationOperations) rotate(r *request, k *catalog.Key, changed *store.Key, how string) error {
	changed.Materials = slices.Clone(k.Materials)
	var made *material.Plain
	if k.Origin == kms.OriginExternal {
		next := slices.IndexFunc(changed.Materials, func(m store.Material) bool { return m.Pending && m.Present })
		if next < 0 {
			return kms.Errorf(kms.CodeKMSInvalidState, "%s has no key material that is pending rotation.", k.ARN)
		}
		changed.Materials[next].Pending, changed.Current = false, next
	} else {
		var err error
		if made, err = o.generateMaterial(r, changed); err != nil {
			return err
		}
		defer made.Wipe()
	}
	current := &changed.Materials[changed.Current]
	current.Rotated, current.Rotation = millis(r.time), how
	return o.changeMaterial(r, made, func(tx *store.Tx) error {
		return cmp.Or(tx.PutKey(changed), noteDue(tx, changed))
	}, k.ID)
}

// rotateDue rotates a key whose rotation is due. That of a disabled key waits until it is enabled.
func (o rotationOperations) rotateDue(r *request, k *catalog.Key) error {
	if k.State != kms.StateEnabled || k.RotationPeriod == 0 || r.time.Before(k.NextRotation) {
		return nil
	}
	changed := k.Key
	changed.NextRotation = millis(r.time).AddDate(0, 0, k.RotationPeriod)
	r.name = "RotateKey"
	r.concerns(resourceKey, k.ARN)
	r.details = append(r.details, audit.Text("keyId", k.ID.String()), audit.Text("rotationType", rotationAutomatic), audit.Text("previousKeyMaterialId", k.CurrentID))
	return o.rotate(r, k, &changed, rotationAutomatic)
}

func (o rotationOperations) listKeyRotations(r *request, in *kms.ListKeyRotationsInput) (*kms.ListKeyRotationsOutput, error) {
	limit, err := kms.PageSize(in.Limit, 100, 1000)
	if err := cmp.Or(err, kms.CheckEnum("includeKeyMaterial", in.IncludeKeyMaterial, "ALL_KEY_MATERIAL", "ROTATIONS_ONLY")); err != nil {
		return nil, err
	}
	k, err := o.named(r, "kms:ListKeyRotations", in.KeyId)
	if err != nil {
		return nil, err
	}
	if err := k.Rotates(); err != nil {
		return nil, err
	}
	after, err := o.tokens.ReadKeyMarker("ListKeyRotations", in.Marker, k.ID)
	if err != nil {
		return nil, err
	}
	from := 0
	if len(after) == 4 {
		from = int(binary.BigEndian.Uint32(after)) // materials are only ever added behind the others
	}
	out := &kms.ListKeyRotationsOutput{Rotations: []kms.RotationsListEntry{}}
	for i := from; i < len(k.Materials); i++ {
		if in.IncludeKeyMaterial != "ALL_KEY_MATERIAL" && k.Materials[i].Rotated.IsZero() {
			continue
		}
		if len(out.Rotations) == limit {
			out.Truncated = true
			out.NextMarker = o.tokens.Marker("ListKeyRotations", binary.BigEndian.AppendUint32(k.ID[:], uint32(i)))
			break
		}
		out.Rotations = append(out.Rotations, rotation(k, i))
	}
	return out, nil
}

// rotation describes one of the key's materials.
func rotation(k *catalog.Key, at int) kms.RotationsListEntry {
	m := &k.Materials[at]
	e := kms.RotationsListEntry{
		KeyId: k.ID.String(), KeyMaterialId: m.ID.String(), KeyMaterialState: "NON_CURRENT", KeyMaterialDescription: m.Description,
		RotationDate: given(m.Rotated), RotationType: m.Rotation,
	}
	switch {
	case m.Pending:
		e.KeyMaterialState = "PENDING_ROTATION"
	case at == k.Current:
		e.KeyMaterialState = "CURRENT"
	}
	if k.Origin == kms.OriginExternal {
		e.ImportState = "PENDING_IMPORT"
		if m.Present {
			e.ImportState, e.ExpirationModel, e.ValidTo = "IMPORTED", expirationModel(m.ValidTo), given(m.ValidTo)
		}
	}
	return e
}
