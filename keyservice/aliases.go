package keyservice

import (
	"cmp"
	"strings"

	"kmsfs/keyservice/catalog"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/store"
)

// aliasOperations give KMS keys further names.
type aliasOperations struct{ *core }

func (o aliasOperations) createAlias(r *request, in *kms.CreateAliasInput) (*kms.CreateAliasOutput, error) {
	o.changes.Lock()
	defer o.changes.Unlock()
	target, err := o.aliasTarget(r, "kms:CreateAlias", in.AliasName, in.TargetKeyId)
	if err != nil {
		return nil, err
	}
	if _, ok, err := o.catalog.Target(in.AliasName); ok || err != nil {
		return nil, cmp.Or[error](err, kms.Errorf(kms.CodeAlreadyExists, "An alias with the name %s already exists", o.names.Alias(in.AliasName)))
	}
	now := millis(r.time)
	return &kms.CreateAliasOutput{}, o.putAlias(r, &store.Alias{Name: in.AliasName, Target: target.ID, Created: now, Updated: now})
}

func (o aliasOperations) updateAlias(r *request, in *kms.UpdateAliasInput) (*kms.UpdateAliasOutput, error) {
	o.changes.Lock()
	defer o.changes.Unlock()
	target, err := o.aliasTarget(r, "kms:UpdateAlias", in.AliasName, in.TargetKeyId)
	if err != nil {
		return nil, err
	}
	alias, old, err := o.existingAlias(in.AliasName)
	if err != nil {
		return nil, err
	}
	if err := o.authorize(r, "kms:UpdateAlias", old); err != nil {
		return nil, err
	}
	if old.Usage != target.Usage || old.KeySpec.Symmetric() != target.KeySpec.Symmetric() || old.KeySpec.MAC() != target.KeySpec.MAC() {
		return nil, kms.Errorf(kms.CodeValidation, "Alias %s cannot be changed from a KMS key of usage %s to one of another type or usage.", in.AliasName, old.Usage)
	}
	alias.Target, alias.Updated = target.ID, millis(r.time)
	return &kms.UpdateAliasOutput{}, o.putAlias(r, alias, old.ID)
}

func (o aliasOperations) deleteAlias(r *request, in *kms.DeleteAliasInput) (*kms.DeleteAliasOutput, error) {
	o.changes.Lock()
	defer o.changes.Unlock()
	if err := o.admitAlias(r, "kms:DeleteAlias", in.AliasName); err != nil {
		return nil, err
	}
	alias, target, err := o.existingAlias(in.AliasName)
	if err != nil {
		return nil, err
	}
	if err := o.authorize(r, "kms:DeleteAlias", target); err != nil {
		return nil, err
	}
	err = o.change(r, func(tx *store.Tx) error { return tx.DeleteAlias(alias.Name) }, target.ID)
	o.catalog.Forget(nil, alias.Name)
	return &kms.DeleteAliasOutput{}, err
}

// admitAlias lets the caller perform the action on the alias.
func (o aliasOperations) admitAlias(r *request, action, name string) error {
	r.readOnly = false
	r.textParam("aliasName", name)
	if err := kms.CheckAliasName(name); err != nil {
		return err
	}
	arn := o.names.Alias(name)
	r.concerns(resourceAlias, arn)
	return o.authorizeAccount(r, action, arn)
}

// aliasTarget lets the caller have the alias name the key, and returns the key.
func (o aliasOperations) aliasTarget(r *request, action, name, id string) (*catalog.Key, error) {
	if err := o.admitAlias(r, action, name); err != nil {
		return nil, err
	}
	r.textParam("targetKeyId", id)
	if err := kms.CheckIdentifier("targetKeyId", id); err != nil {
		return nil, err
	}
	if strings.HasPrefix(id, kms.AliasPrefix) {
		return nil, kms.Errorf(kms.CodeValidation, "Aliases must refer to keys. Not aliases")
	}
	target, err := o.catalog.Named(id)
	if err != nil {
		return nil, err
	}
	return target, cmp.Or(o.authorize(r, action, target), target.NotIn(kms.StatePendingDeletion))
}

func (o aliasOperations) existingAlias(name string) (*store.Alias, *catalog.Key, error) {
	var alias *store.Alias
	err := o.store.View(func(tx *store.Tx) (err error) {
		alias, err = tx.Alias(name)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	if alias == nil {
		return nil, nil, kms.Errorf(kms.CodeNotFound, "Alias %s is not found.", o.names.Alias(name))
	}
	target, err := o.catalog.Existing(alias.Target)
	return alias, target, err
}

// putAlias stores an alias; the keys are those that it named before.
func (o aliasOperations) putAlias(r *request, a *store.Alias, before ...store.KeyID) error {
	err := o.change(r, func(tx *store.Tx) error {
		if err := tx.PutAlias(a); err != nil {
			return err
		}
		if tx.AliasCount(a.Target) > kms.MaxKeyAliases {
			return kms.Errorf(kms.CodeLimitExceeded, "Key %s has %d aliases, which is the limit.", a.Target, kms.MaxKeyAliases)
		}
		return nil
	}, append(before, a.Target)...)
	o.catalog.Forget(nil, a.Name)
	return err
}

func (o aliasOperations) listAliases(r *request, in *kms.ListAliasesInput) (*kms.ListAliasesOutput, error) {
	r.textParam("keyId", in.KeyId)
	limit, err := kms.PageSize(in.Limit, 50, 100)
	if err != nil {
		return nil, err
	}
	if err := o.authorizeAccount(r, "kms:ListAliases", "*"); err != nil {
		return nil, err
	}
	var of *catalog.Key
	if in.KeyId != "" {
		if err := kms.CheckIdentifier("keyId", in.KeyId); err != nil {
			return nil, err
		}
		if of, err = o.catalog.Named(in.KeyId); err != nil {
			return nil, err
		}
	}
	var after []byte
	if in.Marker != "" {
		if after, err = o.tokens.ReadMarker("ListAliases", in.Marker); err != nil {
			return nil, err
		}
	}
	return o.aliasPage(of, string(after), limit)
}

// aliasPage lists a key's aliases, or all.
func (o aliasOperations) aliasPage(of *catalog.Key, after string, limit int) (*kms.ListAliasesOutput, error) {
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
			AliasName: a.Name, AliasArn: o.names.Alias(a.Name), TargetKeyId: a.Target.String(),
			CreationDate: kms.Timestamp{Time: a.Created}, LastUpdatedDate: kms.Timestamp{Time: a.Updated},
		})
		return true
	}
	err := o.store.View(func(tx *store.Tx) error {
		if of != nil {
			return tx.KeyAliases(of.ID, after, add)
		}
		return tx.Aliases(after, add)
	})
	if out.Truncated {
		out.NextMarker = o.tokens.Marker("ListAliases", []byte(out.Aliases[limit-1].AliasName))
	}
	return out, err
}
