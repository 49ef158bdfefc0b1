package keyservice

import "context"

// maxChecks bounds the uses that one call over the wire asks about, so that it fits into a request of 1 MiB with contexts of usual size.
const maxChecks = 500

// CheckUses says of uses of keys whether they would be let through. It is for those who hold data keys and want to know whether they still may, often: so
// it isn't recorded, tells nothing that a refused call wouldn't, and unwraps nothing.
func (s *Service) CheckUses(ctx context.Context, c Caller, in *CheckUsesInput) (*CheckUsesOutput, error) {
	s.life.RLock()
	defer s.life.RUnlock()
	if s.closed {
		return nil, refuse(CodeInternal, "the key service is closed")
	}
	out := &CheckUsesOutput{Uses: make([]KeyUseVerdict, len(in.Uses))}
	for i := range in.Uses {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		out.Uses[i] = s.checkUse(ctx, c, &in.Uses[i])
	}
	return out, nil
}

func (s *Service) checkUse(ctx context.Context, c Caller, u *KeyUse) (v KeyUseVerdict) {
	if c.ViaFileSystem {
		c.Caller = u.Caller
	}
	r := s.newRequest(ctx, c, "CheckUses")
	defer s.endRequest(r)
	current, err := s.wouldAdmit(r, u)
	if err != nil {
		refusal := asError(err)
		return KeyUseVerdict{Code: refusal.Code, Message: refusal.Message}
	}
	return KeyUseVerdict{Current: current}
}

// wouldAdmit refuses what the use itself would be refused with, and says whether the data key is under the key's current material.
func (s *Service) wouldAdmit(r *request, u *KeyUse) (current bool, err error) {
	if err := firstError(
		checkEnum("action", u.Action, "Decrypt", "GenerateDataKey"),
		checkIdentifier("keyId", u.KeyId),
		checkContext("encryptionContext", u.EncryptionContext)); err != nil {
		return false, err
	}
	k, err := s.anyKey(r, u.KeyId)
	if err != nil {
		return false, err
	}
	r.about("kms:encryptionalgorithm", specSymmetric)
	if err := s.admitIn(r, actionPrefix+u.Action, k, u.EncryptionContext); err != nil {
		return false, err
	}
	if err := firstError(k.serves(u.Action, usageEncryption), k.usable()); err != nil || len(u.CiphertextBlob) == 0 {
		return false, err
	}
	parsed, err := parseBlob(u.CiphertextBlob)
	if err != nil || k.materials[parsed.material] == nil {
		return false, errInvalidCiphertext()
	}
	return parsed.key == k.ID && parsed.material == k.Materials[k.Current].ID, nil
}
