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

// internalKeys make keys that no caller creates.
type internalKeys struct{ *core }

// managed makes the key of a predefined alias; false if the alias is none of them.
func (o internalKeys) managed(r *request, alias string) (store.KeyID, bool, error) {
	if !slices.Contains(managedAliases(), alias) {
		return store.KeyID{}, false, nil
	}
	id, err := o.find(alias, store.Key{
		Description: "Default key that protects files when no other key is named", Manager: kms.ManagerService,
		RotationPeriod: managedRotation, NextRotation: millis(r.time).AddDate(0, 0, managedRotation),
	})
	return id, err == nil, err
}

// owned is a key of the service's own, made when it is first needed: a symmetric one, unless like says otherwise.
func (o internalKeys) owned(name string, like store.Key) (*catalog.Key, error) {
	like.Manager = kms.ManagerOwned
	id, err := o.find(ownedPrefix+name, like)
	if err != nil {
		return nil, err
	}
	return o.catalog.Any(id)
}

// find returns the key that a name stands for, and makes it, a symmetric one unless the record says otherwise, if need be.
func (o internalKeys) find(name string, record store.Key) (store.KeyID, error) {
	o.changes.Lock()
	defer o.changes.Unlock()
	if id, ok, err := o.catalog.Target(name); ok || err != nil {
		return id, err
	}
	id, err := uuid.NewRandom()
	if err != nil {
		return id, err
	}
	r := o.internalRequest()
	r.name = "CreateKey"
	record.ID, record.Created, record.State = id, millis(r.time), kms.StateEnabled
	record.Spec, record.Usage, record.Origin = cmp.Or(record.Spec, kms.SpecSymmetric), cmp.Or(record.Usage, kms.UsageEncryption), kms.OriginKMS
	made, err := o.generateMaterial(r, &record)
	if err != nil {
		return id, err
	}
	defer made.Wipe()
	r.concerns(resourceKey, o.names.Key(id))
	r.details = append(r.details, audit.Text("keyId", id.String()), audit.Text("name", name))
	return id, o.changeMaterial(r, made, func(tx *store.Tx) error {
		return cmp.Or(
			tx.AddKey(&record),
			tx.PutAlias(&store.Alias{Name: name, Target: id, Created: record.Created, Updated: record.Created}),
			noteDue(tx, &record))
	}, id)
}
