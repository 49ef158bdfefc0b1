package keyservice

import (
	"cmp"
	"slices"

	"github.com/google/uuid"

	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/catalog"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/store"
)

// ownedPrefix is what the names of owned keys begin with. They are kept with the aliases, and are none.
const ownedPrefix = "owned/"

// managedRotation is the period in days in which service managed keys are rotated, as AWS's are.
const managedRotation = 365

// managedAliases are those that there are. The key comes to be when its alias is first asked for.
func managedAliases() []string { return []string{kms.ManagedPrefix + "fs"} }

// managedKey makes the key of a predefined alias; false if the alias is none of them.
func (s *Service) managedKey(r *request, alias string) (store.KeyID, bool, error) {
	if !slices.Contains(managedAliases(), alias) {
		return store.KeyID{}, false, nil
	}
	id, err := s.internalKey(alias, store.Key{
		Description: "Default key that protects files when no other key is named", Manager: kms.ManagerService,
		RotationPeriod: managedRotation, NextRotation: millis(r.time).AddDate(0, 0, managedRotation),
	})
	return id, err == nil, err
}

// ownedKey is a key of the service's own, made when it is first needed: a symmetric one, unless like says otherwise.
func (s *Service) ownedKey(name string, like store.Key) (*catalog.Key, error) {
	like.Manager = kms.ManagerOwned
	id, err := s.internalKey(ownedPrefix+name, like)
	if err != nil {
		return nil, err
	}
	return s.catalog.Any(id)
}

// internalKey returns the key that a name stands for, and makes it, a symmetric one unless the record says otherwise, if need be.
func (s *Service) internalKey(name string, record store.Key) (store.KeyID, error) {
	s.changes.Lock()
	defer s.changes.Unlock()
	if id, ok, err := s.catalog.Target(name); ok || err != nil {
		return id, err
	}
	id, err := uuid.NewRandom()
	if err != nil {
		return id, err
	}
	r := s.internalRequest()
	r.name = "CreateKey"
	record.ID, record.Created, record.State = id, millis(r.time), kms.StateEnabled
	record.Spec, record.Usage, record.Origin = cmp.Or(record.Spec, kms.SpecSymmetric), cmp.Or(record.Usage, kms.UsageEncryption), kms.OriginKMS
	made, err := s.generateMaterial(r, &record)
	if err != nil {
		return id, err
	}
	defer made.Wipe()
	r.concerns(resourceKey, s.names.Key(id))
	r.details = append(r.details, audit.Text("keyId", id.String()), audit.Text("name", name))
	return id, s.changeMaterial(r, made, func(tx *store.Tx) error {
		return cmp.Or(
			tx.AddKey(&record),
			tx.PutAlias(&store.Alias{Name: name, Target: id, Created: record.Created, Updated: record.Created}),
			noteDue(tx, &record))
	}, id)
}
