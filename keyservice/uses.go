package keyservice

import (
	"cmp"
	"context"

	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/material"
)

// useOperations say whether uses of keys are still authorized.
type useOperations struct{ *core }

// checkUses is for mounts, which hold data keys and ask often whether their callers are still
// authorized. It unwraps nothing. Others would find out unseen what keys and aliases there are.
func (o useOperations) checkUses(r *request, in *kms.CheckUsesInput) (*kms.CheckUsesOutput, error) {
	if !r.caller.ViaFileSystem && !r.caller.AtHome {
		r.recorded = false // a denial is worth a record
		return nil, kms.Errorf(kms.CodeAccessDenied, "CheckUses is for mounts.")
	}
	out := &kms.CheckUsesOutput{Uses: make([]kms.KeyUseVerdict, len(in.Uses))}
	for i := range in.Uses {
		if err := r.ctx.Err(); err != nil {
			return nil, err
		}
		out.Uses[i] = o.checkUse(r.ctx, r.caller, &in.Uses[i])
	}
	return out, nil
}

func (o useOperations) checkUse(ctx context.Context, c kms.Caller, u *kms.KeyUse) (v kms.KeyUseVerdict) {
	if c.ViaFileSystem {
		c.Caller = u.Caller
	}
	r := o.newRequest(ctx, c, "CheckUses")
	defer o.endRequest(r)
	current, err := o.wouldAdmit(r, u)
	if err != nil {
		refusal := kms.AsError(err)
		return kms.KeyUseVerdict{Code: refusal.Code, Message: refusal.Message}
	}
	return kms.KeyUseVerdict{Current: current}
}

// wouldAdmit refuses what the use itself would be refused with, and says whether the data key is under the key's current material.
func (o useOperations) wouldAdmit(r *request, u *kms.KeyUse) (current bool, err error) {
	if err := cmp.Or(
		kms.CheckEnum("action", u.Action, "Decrypt", "GenerateDataKey"),
		kms.CheckIdentifier("keyId", u.KeyId),
		kms.CheckContext("encryptionContext", u.EncryptionContext)); err != nil {
		return false, err
	}
	k, err := o.anyKey(r, u.KeyId)
	if err != nil {
		return false, err
	}
	r.authz.Set("kms:encryptionalgorithm", kms.SpecSymmetric)
	if err := o.authorizeIn(r, "kms:"+u.Action, k, u.EncryptionContext); err != nil {
		return false, err
	}
	if err := cmp.Or(k.Serves(u.Action, kms.UsageEncryption), k.Usable()); err != nil || len(u.CiphertextBlob) == 0 {
		return false, err
	}
	parsed, err := material.ParseBlob(u.CiphertextBlob)
	if err != nil || k.Present[parsed.Material] == nil {
		return false, kms.ErrInvalidCiphertext()
	}
	return parsed.Key == k.ID && parsed.Material == k.Materials[k.Current].ID, nil
}
