package keyservice

import (
	"time"

	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/catalog"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/store"
)

func (s *Service) scheduleKeyDeletion(r *request, in *kms.ScheduleKeyDeletionInput) (*kms.ScheduleKeyDeletionOutput, error) {
	window := int32(kms.MaxPendingWindow)
	if in.PendingWindowInDays != nil {
		window = *in.PendingWindowInDays
	}
	r.paramNumber("pendingWindowInDays", int64(window))
	r.authz.SetNumber("kms:schedulekeydeletionpendingwindowindays", int64(window))
	if err := kms.CheckNumber("pendingWindowInDays", &window, kms.MinPendingWindow, kms.MaxPendingWindow); err != nil {
		return nil, err
	}
	out := &kms.ScheduleKeyDeletionOutput{KeyState: kms.StatePendingDeletion, PendingWindowInDays: window}
	err := s.alter(r, "kms:ScheduleKeyDeletion", in.KeyId, func(k *catalog.Key, changed *store.Key) error {
		changed.State, changed.Deletion = kms.StatePendingDeletion, millis(r.time).AddDate(0, 0, int(window))
		out.KeyId, out.DeletionDate = k.ARN, kms.Timestamp{Time: changed.Deletion}
		r.response = append(r.response, audit.Text("keyId", k.ARN), audit.Text("keyState", changed.State),
			audit.Text("deletionDate", changed.Deletion.Format(time.RFC3339)), audit.Number("pendingWindowInDays", int64(window)))
		return k.NotIn(kms.StatePendingDeletion)
	})
	return out, err
}

func (s *Service) cancelKeyDeletion(r *request, in *kms.CancelKeyDeletionInput) (*kms.CancelKeyDeletionOutput, error) {
	out := &kms.CancelKeyDeletionOutput{}
	err := s.alter(r, "kms:CancelKeyDeletion", in.KeyId, func(k *catalog.Key, changed *store.Key) error {
		if !k.IsIn(kms.StatePendingDeletion) {
			return kms.Errorf(kms.CodeKMSInvalidState, "%s is not pending deletion.", k.ARN)
		}
		changed.State, changed.Deletion = kms.StateDisabled, time.Time{}
		if catalog.LacksMaterial(&k.Key) {
			changed.State = kms.StatePendingImport
		}
		out.KeyId = k.ARN
		r.response = append(r.response, audit.Text("keyId", k.ARN))
		return nil
	})
	return out, err
}
