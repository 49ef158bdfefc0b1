package keyservice

import (
	"context"
	"strings"

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
	if _, ok, err := s.target(in.AliasName); ok || err != nil {
		return nil, firstError(err, refuse(CodeAlreadyExists, "An alias with the name %s already exists", s.names.alias(in.AliasName)))
	}
	now := millis(r.time)
	return &CreateAliasOutput{}, s.putAlias(r, &store.Alias{Name: in.AliasName, Target: target.ID, Created: now, Updated: now})
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
	if err := s.admit(r, "kms:UpdateAlias", old); err != nil {
		return nil, err
	}
	if old.Usage != target.Usage || old.spec.Symmetric() != target.spec.Symmetric() || old.spec.MAC() != target.spec.MAC() {
		return nil, refuse(CodeValidation, "Alias %s cannot be changed from a KMS key of usage %s to one of another type or usage.", in.AliasName, old.Usage)
	}
	alias.Target, alias.Updated = target.ID, millis(r.time)
	return &UpdateAliasOutput{}, s.putAlias(r, alias, old.ID)
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
	if err := s.admit(r, "kms:DeleteAlias", target); err != nil {
		return nil, err
	}
	err = s.change(r, func(tx *store.Tx) error { return tx.DeleteAlias(alias.Name) }, target.ID)
	s.cache.forget(nil, alias.Name)
	return &DeleteAliasOutput{}, err
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
	return s.admitAccount(r, action, arn)
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
	return target, firstError(s.admit(r, action, target), target.notIn(statePendingDeletion))
}

func (s *Service) existingAlias(name string) (*store.Alias, *key, error) {
	var alias *store.Alias
	err := s.store.View(func(tx *store.Tx) (err error) {
		alias, err = tx.Alias(name)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	if alias == nil {
		return nil, nil, refuse(CodeNotFound, "Alias %s is not found.", s.names.alias(name))
	}
	target, err := s.existingKey(alias.Target)
	return alias, target, err
}

// putAlias stores an alias; the keys are those that it named before.
func (s *Service) putAlias(r *request, a *store.Alias, before ...store.KeyID) error {
	err := s.change(r, func(tx *store.Tx) error {
		if err := tx.PutAlias(a); err != nil {
			return err
		}
		if tx.AliasCount(a.Target) > maxKeyAliases {
			return refuse(CodeLimitExceeded, "Key %s has %d aliases, which is the limit.", a.Target, maxKeyAliases)
		}
		return nil
	}, append(before, a.Target)...)
	s.cache.forget(nil, a.Name)
	return err
}

func (s *Service) listAliases(r *request, in *ListAliasesInput) (*ListAliasesOutput, error) {
	r.textParam("keyId", in.KeyId)
	limit, err := pageSize(in.Limit, 50, 100)
	if err != nil {
		return nil, err
	}
	if err := s.admitAccount(r, "kms:ListAliases", "*"); err != nil {
		return nil, err
	}
	var of *key
	if in.KeyId != "" {
		if err := checkIdentifier("keyId", in.KeyId); err != nil {
			return nil, err
		}
		if of, err = s.plainKey(in.KeyId); err != nil {
			return nil, err
		}
	}
	var after []byte
	if in.Marker != "" {
		if after, err = s.ring.readMarker("ListAliases", in.Marker); err != nil {
			return nil, err
		}
	}
	return s.aliasPage(of, string(after), limit)
}

// aliasPage lists a key's aliases, or all.
func (s *Service) aliasPage(of *key, after string, limit int) (*ListAliasesOutput, error) {
	out := &ListAliasesOutput{Aliases: []AliasListEntry{}}
	add := func(a *store.Alias) bool {
		if !strings.HasPrefix(a.Name, aliasPrefix) {
			return true // an owned key's name
		}
		if len(out.Aliases) == limit {
			out.Truncated = true
			return false
		}
		out.Aliases = append(out.Aliases, AliasListEntry{
			AliasName: a.Name, AliasArn: s.names.alias(a.Name), TargetKeyId: a.Target.String(),
			CreationDate: Timestamp{a.Created}, LastUpdatedDate: Timestamp{a.Updated},
		})
		return true
	}
	err := s.store.View(func(tx *store.Tx) error {
		if of != nil {
			return tx.KeyAliases(of.ID, after, add)
		}
		return tx.Aliases(after, add)
	})
	if out.Truncated {
		out.NextMarker = s.ring.marker("ListAliases", []byte(out.Aliases[limit-1].AliasName))
	}
	return out, err
}
