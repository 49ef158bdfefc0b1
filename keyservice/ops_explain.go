package keyservice

import (
	"cmp"
	"fmt"
	"os/user"
	"strconv"
	"strings"

	"kmsfs/keyservice/kms"
	"kmsfs/policy"
	"kmsfs/policy/caller"
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
	asked, err := s.subjectOf(r, "principal", in.Principal)
	if err != nil {
		return nil, err
	}
	k, err := s.anyKey(r, in.KeyId)
	if err != nil {
		return nil, err
	}
	if err := s.admit(r, "kms:GetKeyPolicy", k); err != nil {
		return nil, err
	}
	action := in.Action
	if !strings.Contains(action, ":") {
		action = actionPrefix + action
	}
	a := &attributes{s: s, key: k, context: in.EncryptionContext, alias: r.alias, subject: asked, time: r.time, via: in.ViaService}
	v, err := s.decide(&question{subject: asked, action: action, attributes: a, grants: true})
	if err != nil {
		return nil, err
	}
	return explanation(k, v), nil
}

// subjectOf is somebody whom a caller names, with the groups that the system knows.
func (s *Service) subjectOf(r *request, member, name string) (*subject, error) {
	p, err := s.principal(member, name)
	if err != nil {
		return nil, err
	}
	u := &subject{users: s.users, time: r.time}
	switch p.Kind {
	case policy.Account:
		u.uid, u.owns = s.facts.Owner, true
	case policy.UID:
		u.uid, u.owns = p.ID, p.ID == s.facts.Owner
	case policy.User:
		found, err := user.Lookup(p.Name)
		if err != nil {
			return nil, kms.Errorf(kms.CodeValidation, "There is no user %s.", p.Name)
		}
		uid, err := strconv.ParseUint(found.Uid, 10, 32)
		if err != nil {
			return nil, err
		}
		u.uid, u.owns = uint32(uid), uint32(uid) == s.facts.Owner
	default:
		return nil, kms.Errorf(kms.CodeValidation, "%s is not a user: want user:NAME or uid:N.", name)
	}
	u.groups = listedUser(u.uid)
	return u, nil
}

// listedUser is a user who has the groups that the system's user database says.
type listedUser uint32

func (u listedUser) groups() []uint32 {
	found, err := user.LookupId(decimal(uint32(u)))
	if err != nil {
		return nil
	}
	ids, err := found.GroupIds()
	if err != nil {
		return nil
	}
	return caller.ParseGroups(strings.Join(ids, " "))
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

// explanation is a verdict in words.
func explanation(k *key, v verdict) *kms.ExplainAccessOutput {
	out := &kms.ExplainAccessOutput{Allowed: v.allowed, DecidedBy: v.by, Sid: v.statement.Sid, KeyId: k.arn}
	verb := "denies"
	if v.allowed {
		verb = "allows"
	}
	statement := ""
	if v.by != byGrant && v.statement.Statement >= 0 && v.by != byDefault {
		number := int32(v.statement.Statement)
		out.Statement = &number
		statement = fmt.Sprintf("statement %d", number)
		if v.statement.Sid != "" {
			statement += fmt.Sprintf(" (%q)", v.statement.Sid)
		}
	}
	switch v.by {
	case byKeyPolicy:
		out.Reason = fmt.Sprintf("%s of the key policy %s it", statement, verb)
	case byServicePolicy:
		out.Reason = fmt.Sprintf("%s of the service policy %s it", statement, verb)
	case byGrant:
		out.GrantId = v.grant.ID.String()
		out.Reason = fmt.Sprintf("grant %s allows it", out.GrantId)
	default:
		out.Sid = ""
		out.Reason = "neither the key policy nor a grant allows it"
	}
	return out
}
