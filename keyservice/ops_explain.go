package keyservice

import (
	"cmp"
	"os/user"
	"strconv"
	"strings"

	"kmsfs/keyservice/kms"
	"kmsfs/policy"
)

func (s *Service) explainAccess(r *request, in *kms.ExplainAccessInput) (*kms.ExplainAccessOutput, error) {
	r.textParam("keyId", in.KeyId)
	r.textParam("principal", in.Principal)
	r.textParam("action", in.Action)
	r.contextParam("encryptionContext", in.EncryptionContext)
	if err := cmp.Or(
		kms.CheckIdentifier("keyId", in.KeyId),
		kms.CheckContext("encryptionContext", in.EncryptionContext),
		kms.CheckLength("action", len(in.Action), 1, kms.MaxIdentifier)); err != nil {
		return nil, err
	}
	asked, err := s.userID("principal", in.Principal)
	if err != nil {
		return nil, err
	}
	k, err := s.anyKey(r, in.KeyId)
	if err != nil {
		return nil, err
	}
	if err := s.authorizeIn(r, "kms:GetKeyPolicy", k, nil); err != nil {
		return nil, err
	}
	action := in.Action
	if !strings.Contains(action, ":") {
		action = "kms:" + action
	}
	question := s.authz.Ask(asked, in.ViaService, r.time)
	question.On(&k.Resource, k.alias, in.EncryptionContext)
	v, err := s.authz.Decide(question, action)
	if err != nil {
		return nil, err
	}
	return v.Explain(k.ARN), nil
}

// userID is the UID of the user that a caller names as a principal.
func (s *Service) userID(member, name string) (uint32, error) {
	p, err := s.principal(member, name)
	if err != nil {
		return 0, err
	}
	switch p.Kind {
	case policy.Account:
		return s.facts.Owner, nil
	case policy.UID:
		return p.ID, nil
	case policy.User:
		found, err := user.Lookup(p.Name)
		if err != nil {
			return 0, kms.Errorf(kms.CodeValidation, "There is no user %s.", p.Name)
		}
		uid, err := strconv.ParseUint(found.Uid, 10, 32)
		return uint32(uid), err
	}
	return 0, kms.Errorf(kms.CodeValidation, "%s is not a user: want user:NAME or uid:N.", name)
}

// principal reads a principal in any of its forms.
func (s *Service) principal(member, text string) (policy.Principal, error) {
	if err := kms.CheckLength(member, len(text), 1, kms.MaxPrincipal); err != nil {
		return policy.Principal{}, err
	}
	p, err := policy.ParsePrincipal(text, s.facts.Account)
	if err != nil {
		return p, kms.Errorf(kms.CodeInvalidArn, "%v", err)
	}
	return p, nil
}
