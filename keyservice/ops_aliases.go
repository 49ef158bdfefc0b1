package keyservice

import (
	"cmp"
	"strings"

	"kmsfs/keyservice/catalog"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/store"
)

func (s *Service) createAlias(r *request, in *kms.CreateAliasInput) (*kms.CreateAliasOutput, error) {
	s.changes.Lock()
	defer s.changes.Unlock()
	target, err := s.aliasTarget(r, "kms:CreateAlias", in.AliasName, in.TargetKeyId)
	if err != nil {
		return nil, err
	}
	if _, ok, err := s.catalog.Target(in.AliasName); ok || err != nil {
		return nil, cmp.Or[error](err, kms.Errorf(kms.CodeAlreadyExists, "An alias with the name %s already exists", s.names.Alias(in.AliasName)))
	}
	now := millis(r.time)
	return &kms.CreateAliasOutput{}, s.putAlias(r, &store.Alias{Name: in.AliasName, Target: target.ID, Created: now, Updated: now})
}

func (s *Service) updateAlias(r *request, in *kms.UpdateAliasInput) (*kms.UpdateAliasOutput, error) {
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
	if err := s.authorize(r, "kms:UpdateAlias", old); err != nil {
		return nil, err
	}
	if old.Usage != target.Usage || old.KeySpec.Symmetric() != target.KeySpec.Symmetric() || old.KeySpec.MAC() != target.KeySpec.MAC() {
		return nil, kms.Errorf(kms.CodeValidation, "Alias %s cannot be changed from a KMS key of usage %s to one of another type or usage.", in.AliasName, old.Usage)
	}
	alias.Target, alias.Updated = target.ID, millis(r.time)
	return &kms.UpdateAliasOutput{}, s.putAlias(r, alias, old.ID)
}

func (s *Service) deleteAlias(r *request, in *kms.DeleteAliasInput) (*kms.DeleteAliasOutput, error) {
	s.changes.Lock()
	defer s.changes.Unlock()
	if err := s.admitAlias(r, "kms:DeleteAlias", in.AliasName); err != nil {
		return nil, err
	}
	alias, target, err := s.existingAlias(in.AliasName)
	if err != nil {
		return nil, err
	}
	if err := s.authorize(r, "kms:DeleteAlias", target); err != nil {
		return nil, err
	}
	err = s.change(r, func(tx *store.Tx) error { return tx.DeleteAlias(alias.Name) }, target.ID)
	s.catalog.Forget(nil, alias.Name)
	return &kms.DeleteAliasOutput{}, err
}

// admitAlias lets the caller perform the action on the alias.
func (s *Service) admitAlias(r *request, action, name string) error {
	r.readOnly = false
	r.textParam("aliasName", name)
	if err := kms.CheckAliasName(name); err != nil {
		return err
	}
	arn := s.names.Alias(name)
	r.concerns(resourceAlias, arn)
	return s.authorizeAccount(r, action, arn)
}

// aliasTarget lets the caller have the alias name the key, and returns the key.
func (s *Service) aliasTarget(r *request, action, name, id string) (*catalog.Key, error) {
	if err := s.admitAlias(r, action, name); err != nil {
		return nil, err
	}
	r.textParam("targetKeyId", id)
	if err := kms.CheckIdentifier("targetKeyId", id); err != nil {
		return nil, err
	}
	if strings.HasPrefix(id, kms.AliasPrefix) {
		return nil, kms.Errorf(kms.CodeValidation, "Aliases must refer to keys. Not aliases")
	}
	target, err := s.catalog.Named(id)
	if err != nil {
		return nil, err
	}
	return target, cmp.Or(s.authorize(r, action, target), target.NotIn(kms.StatePendingDeletion))
}

func (s *Service) existingAlias(name string) (*store.Alias, *catalog.Key, error) {
	var alias *store.Alias
	err := s.store.View(func(tx *store.Tx) (err error) {
		alias, err = tx.Alias(name)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	if alias == nil {
		return nil, nil, kms.Errorf(kms.CodeNotFound, "Alias %s is not found.", s.names.Alias(name))
	}
	target, err := s.catalog.Existing(alias.Target)
	return alias, target, err
}

// putAlias stores an alias; the keys are those that it named before.
func (s *Service) putAlias(r *request, a *store.Alias, before ...store.KeyID) error {
	err := s.change(r, func(tx *store.Tx) error {
		if err := tx.PutAlias(a); err != nil {
			return err
		}
		if tx.AliasCount(a.Target) > kms.MaxKeyAliases {
			return kms.Errorf(kms.CodeLimitExceeded, "Key %s has %d aliases, which is the limit.", a.Target, kms.MaxKeyAliases)
		}
		return nil
	}, append(before, a.Target)...)
	s.catalog.Forget(nil, a.Name)
	return err
}

func (s *Service) listAliases(r *request, in *kms.ListAliasesInput) (*kms.ListAliasesOutput, error) {
	r.textParam("keyId", in.KeyId)
	limit, err := kms.PageSize(in.Limit, 50, 100)
	if err != nil {
		return nil, err
	}
	if err := s.authorizeAccount(r, "kms:ListAliases", "*"); err != nil {
		return nil, err
	}
	var of *catalog.Key
	if in.KeyId != "" {
		if err := kms.CheckIdentifier("keyId", in.KeyId); err != nil {
			return nil, err
		}
		if of, err = s.catalog.Named(in.KeyId); err != nil {
			return nil, err
		}
	}
	var after []byte
	if in.Marker != "" {
		if after, err = s.tokens.ReadMarker("ListAliases", in.Marker); err != nil {
			return nil, err
		}
	}
	return s.aliasPage(of, string(after), limit)
}

// aliasPage lists a key's aliases, or all.
func (s *Service) aliasPage(of *catalog.Key, after string, limit int) (*kms.ListAliasesOutput, error) {
	out := &kms.ListAliasesOutput{Aliases: []kms.AliasListEntry{}}
	add := func(a *store.Alias) bool {
		if !strings.HasPrefix(a.Name, kms.AliasPrefix) {
			return true // an owned key's name
		}
		if len(out.Aliases) == limit {
			out.Truncated = true
			return false
		}
		out.Aliases = append(out.Aliases, kms.AliasListEntry{
			AliasName: a.Name, AliasArn: s.names.Alias(a.Name), TargetKeyId: a.Target.String(),
			CreationDate: kms.Timestamp{Time: a.Created}, LastUpdatedDate: kms.Timestamp{Time: a.Updated},
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
		out.NextMarker = s.tokens.Marker("ListAliases", []byte(out.Aliases[limit-1].AliasName))
	}
	return out, err
}
