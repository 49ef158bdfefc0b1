package keyservice

import (
	"context"
	"strings"
	"time"

	"kmsfs/keyservice/store"
)

// CreateAlias gives a KMS key a further name.
func (s *Service) CreateAlias(ctx context.Context, c Caller, in *CreateAliasInput) (*CreateAliasOutput, error) {
	return run(ctx, s, c, "CreateAlias", in, (*Service).createAlias)
}

// UpdateAlias has an alias name another KMS key.
func (s *Service) UpdateAlias(ctx context.Context, c Caller, in *UpdateAliasInput) (*UpdateAliasOutput, error) {
	return run(ctx, s, c, "UpdateAlias", in, (*Service).updateAlias)
}

// DeleteAlias removes an alias; the KMS key stays.
func (s *Service) DeleteAlias(ctx context.Context, c Caller, in *DeleteAliasInput) (*DeleteAliasOutput, error) {
	return run(ctx, s, c, "DeleteAlias", in, (*Service).deleteAlias)
}

// ListAliases lists aliases, a page at a time.
func (s *Service) ListAliases(ctx context.Context, c Caller, in *ListAliasesInput) (*ListAliasesOutput, error) {
	return run(ctx, s, c, "ListAliases", in, (*Service).listAliases)
}

func (s *Service) createAlias(r *request, in *CreateAliasInput) (*CreateAliasOutput, error) {
	s.changes.Lock()
	defer s.changes.Unlock()
	target, err := s.aliasTarget(r, "kms:CreateAlias", in.AliasName, in.TargetKeyId)
	if err != nil {
		return nil, err
	}
	if _, ok := s.index.alias(in.AliasName); ok {
		return nil, refuse(CodeAlreadyExists, "An alias with the name %s already exists", s.names.alias(in.AliasName))
	}
	if s.index.aliasCount(target.ID) >= maxKeyAliases {
		return nil, tooManyAliases(target)
	}
	now := r.time.UTC().Truncate(time.Millisecond)
	return &CreateAliasOutput{}, s.putAlias(r, store.Alias{Name: in.AliasName, Target: target.ID, Created: now, Updated: now})
}

func (s *Service) updateAlias(r *request, in *UpdateAliasInput) (*UpdateAliasOutput, error) {
	s.changes.Lock()
	defer s.changes.Unlock()
	target, err := s.aliasTarget(r, "kms:UpdateAlias", in.AliasName, in.TargetKeyId)
	if err != nil {
		return nil, err
	}
	alias, old, err := s.existingAlias(in.AliasName)
	if err != nil {
		return nil, err
	}
	if err := s.admit(r, "kms:UpdateAlias", old, false); err != nil {
		return nil, err
	}
	if old.ID != target.ID && s.index.aliasCount(target.ID) >= maxKeyAliases {
		return nil, tooManyAliases(target)
	}
	alias.Target, alias.Updated = target.ID, r.time.UTC().Truncate(time.Millisecond)
	return &UpdateAliasOutput{}, s.putAlias(r, alias)
}

func (s *Service) deleteAlias(r *request, in *DeleteAliasInput) (*DeleteAliasOutput, error) {
	s.changes.Lock()
	defer s.changes.Unlock()
	if err := s.admitAlias(r, "kms:DeleteAlias", in.AliasName); err != nil {
		return nil, err
	}
	alias, target, err := s.existingAlias(in.AliasName)
	if err != nil {
		return nil, err
	}
	if err := s.admit(r, "kms:DeleteAlias", target, false); err != nil {
		return nil, err
	}
	if err := s.change(r, func(tx *store.Tx) error { return tx.DeleteAlias(alias.Name) }); err != nil {
		return nil, err
	}
	s.index.deleteAlias(alias.Name)
	return &DeleteAliasOutput{}, nil
}

// admitAlias lets the caller perform the action on the alias.
func (s *Service) admitAlias(r *request, action, name string) error {
	r.readOnly = false
	r.textParam("aliasName", name)
	if err := checkAliasName(name); err != nil {
		return err
	}
	arn := s.names.alias(name)
	r.concerns(resourceAlias, arn)
	return s.authorize(r, action, arn)
}

// aliasTarget lets the caller have the alias name the key, and returns the key.
func (s *Service) aliasTarget(r *request, action, name, id string) (*key, error) {
	if err := s.admitAlias(r, action, name); err != nil {
		return nil, err
	}
	r.textParam("targetKeyId", id)
	if err := checkIdentifier("targetKeyId", id); err != nil {
		return nil, err
	}
	if strings.HasPrefix(id, aliasPrefix) {
		return nil, refuse(CodeValidation, "Aliases must refer to keys. Not aliases")
	}
	target, err := s.plainKey(id)
	if err != nil {
		return nil, err
	}
	return target, s.admit(r, action, target, false)
}

func (s *Service) existingAlias(name string) (store.Alias, *key, error) {
	alias, ok := s.index.alias(name)
	if !ok {
		return alias, nil, refuse(CodeNotFound, "Alias %s is not found.", s.names.alias(name))
	}
	target, err := s.existingKey(alias.Target)
	return alias, target, err
}

func (s *Service) putAlias(r *request, a store.Alias) error {
	if err := s.change(r, func(tx *store.Tx) error { return tx.PutAlias(&a) }); err != nil {
		return err
	}
	s.index.putAlias(a)
	return nil
}

func tooManyAliases(k *key) error {
	return refuse(CodeLimitExceeded, "Key %s has %d aliases, which is the limit.", k.ID, maxKeyAliases)
}

func (s *Service) listAliases(r *request, in *ListAliasesInput) (*ListAliasesOutput, error) {
	r.textParam("keyId", in.KeyId)
	limit, err := pageSize(in.Limit, 50, 100)
	if err != nil {
		return nil, err
	}
	if err := s.authorize(r, "kms:ListAliases", "*"); err != nil {
		return nil, err
	}
	match := func(store.Alias) bool { return true }
	if in.KeyId != "" {
		if err := checkIdentifier("keyId", in.KeyId); err != nil {
			return nil, err
		}
		k, err := s.plainKey(in.KeyId)
		if err != nil {
			return nil, err
		}
		match = func(a store.Alias) bool { return a.Target == k.ID }
	}
	var after []byte
	if in.Marker != "" {
		if after, err = s.ring.readMarker("ListAliases", in.Marker); err != nil {
			return nil, err
		}
	}
	return s.aliasPage(s.index.aliasesAfter(string(after), limit, match)), nil
}

func (s *Service) aliasPage(aliases []store.Alias, more bool) *ListAliasesOutput {
	out := &ListAliasesOutput{Aliases: make([]AliasListEntry, len(aliases)), Truncated: more}
	for i, a := range aliases {
		out.Aliases[i] = AliasListEntry{
			AliasName: a.Name, AliasArn: s.names.alias(a.Name), TargetKeyId: a.Target.String(),
			CreationDate: Timestamp{a.Created}, LastUpdatedDate: Timestamp{a.Updated},
		}
	}
	if more {
		out.NextMarker = s.ring.marker("ListAliases", []byte(aliases[len(aliases)-1].Name))
	}
	return out
}
