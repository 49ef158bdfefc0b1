package keyservice

import (
	"context"
	"time"

	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/store"
)

// Waiting periods before deletion, in days.
const (
	minPendingWindow = 7
	maxPendingWindow = 30
)

// ScheduleKeyDeletion has a KMS key deleted after a waiting period, during which it can't be used.
func (s *Service) ScheduleKeyDeletion(ctx context.Context, c Caller, in *ScheduleKeyDeletionInput) (*ScheduleKeyDeletionOutput, error) {
	return run(ctx, s, c, "ScheduleKeyDeletion", in, (*Service).scheduleKeyDeletion)
}

// CancelKeyDeletion keeps a KMS key that is pending deletion. It is disabled then.
func (s *Service) CancelKeyDeletion(ctx context.Context, c Caller, in *CancelKeyDeletionInput) (*CancelKeyDeletionOutput, error) {
	return run(ctx, s, c, "CancelKeyDeletion", in, (*Service).cancelKeyDeletion)
}

func (s *Service) scheduleKeyDeletion(r *request, in *ScheduleKeyDeletionInput) (*ScheduleKeyDeletionOutput, error) {
	window := int32(maxPendingWindow)
	if in.PendingWindowInDays != nil {
		window = *in.PendingWindowInDays
	}
	r.paramNumber("pendingWindowInDays", int64(window))
	r.aboutNumber("kms:schedulekeydeletionpendingwindowindays", int64(window))
	if err := checkNumber("pendingWindowInDays", &window, minPendingWindow, maxPendingWindow); err != nil {
		return nil, err
	}
	out := &ScheduleKeyDeletionOutput{KeyState: statePendingDeletion, PendingWindowInDays: window}
	err := s.alter(r, "kms:ScheduleKeyDeletion", in.KeyId, func(k *key, changed *store.Key) error {
		changed.State, changed.Deletion = statePendingDeletion, millis(r.time).AddDate(0, 0, int(window))
		out.KeyId, out.DeletionDate = k.arn, Timestamp{changed.Deletion}
		r.response = append(r.response, audit.Text("keyId", k.arn), audit.Text("keyState", changed.State),
			audit.Text("deletionDate", changed.Deletion.Format(time.RFC3339)), audit.Number("pendingWindowInDays", int64(window)))
		return k.notIn(statePendingDeletion)
	})
	return out, err
}

func (s *Service) cancelKeyDeletion(r *request, in *CancelKeyDeletionInput) (*CancelKeyDeletionOutput, error) {
	out := &CancelKeyDeletionOutput{}
	err := s.alter(r, "kms:CancelKeyDeletion", in.KeyId, func(k *key, changed *store.Key) error {
		if !k.isIn(statePendingDeletion) {
			return refuse(CodeInvalidState, "%s is not pending deletion.", k.arn)
		}
		changed.State, changed.Deletion = stateDisabled, time.Time{}
		if k.lacksMaterial() {
			changed.State = statePendingImport
		}
		out.KeyId = k.arn
		r.response = append(r.response, audit.Text("keyId", k.arn))
		return nil
	})
	return out, err
}

// lacksMaterial says whether material that the key encrypts or decrypts with is missing.
func (k *key) lacksMaterial() bool {
	for _, m := range k.Materials {
		if !m.Present && !m.Pending {
			return true
		}
	}
	return k.Current < 0
}
