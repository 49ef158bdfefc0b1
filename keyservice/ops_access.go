package keyservice

import (
	"cmp"
	"context"

	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/material"
)

// checkUses is for those who hold data keys, and ask often whether they are still authorized: it tells
// nothing that a denied call wouldn't, and unwraps nothing.
func (s *Service) checkUses(r *request, in *kms.CheckUsesInput) (*kms.CheckUsesOutput, error) {
	out := &kms.CheckUsesOutput{Uses: make([]kms.KeyUseVerdict, len(in.Uses))}
	for i := range in.Uses {
		if err := r.ctx.Err(); err != nil {
			return nil, err
		}
		out.Uses[i] = s.checkUse(r.ctx, r.caller, &in.Uses[i])
	}
	return out, nil
}

func (s *Service) checkUse(ctx context.Context, c kms.Caller, u *kms.KeyUse) (v kms.KeyUseVerdict) {
	if c.ViaFileSystem {
		c.Caller = u.Caller
	}
	r := s.newRequest(ctx, c, "CheckUses")
	defer s.endRequest(r)
	current, err := s.wouldAdmit(r, u)
	if err != nil {
		refusal := kms.AsError(err)
		return kms.KeyUseVerdict{Code: refusal.Code, Message: refusal.Message}
	}
	return kms.KeyUseVerdict{Current: current}
}

// wouldAdmit refuses what the use itself would be refused with, and says whether the data key is under the key's current material.
func (s *Service) wouldAdmit(r *request, u *kms.KeyUse) (current bool, err error) {
	if err := cmp.Or(
		kms.CheckEnum("action", u.Action, "Decrypt", "GenerateDataKey"),
		kms.CheckIdentifier("keyId", u.KeyId),
		kms.CheckContext("encryptionContext", u.EncryptionContext)); err != nil {
		return false, err
	}
	k, err := s.anyKey(r, u.KeyId)
	if err != nil {
		return false, err
	}
	r.authz.Set("kms:encryptionalgorithm", kms.SpecSymmetric)
	if err := s.authorizeIn(r, "kms:"+u.Action, k, u.EncryptionContext); err != nil {
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
