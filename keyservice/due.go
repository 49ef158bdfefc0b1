package keyservice

import (
	"cmp"
	"slices"
	"time"

	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/authz"
	"kmsfs/keyservice/catalog"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/material"
	"kmsfs/keyservice/store"
)

// dueInterval is how often the clock is looked at, which may be set, and stands still for timers while the machine sleeps. Uses of keys are
// stored at the same time.
const dueInterval = time.Minute

// tendInterval is how often old segments of the audit log are seen to: their ages are settled in hours and days.
const tendInterval = 10 * time.Minute

// dueWork do what falls due.
type dueWork struct{ *core }

// run does all that is due, and returns how long to wait for more. What can't be done, as when no record of it can be written, stays due.
func (o dueWork) run() time.Duration {
	o.changes.Lock()
	defer o.changes.Unlock()
	for {
		var next store.Due
		var ok bool
		err := o.store.View(func(tx *store.Tx) (err error) {
			next, ok, err = tx.Next()
			return err
		})
		wait := time.Until(next.Time)
		if err != nil || !ok || wait > dueInterval {
			return dueInterval
		}
		if wait > 0 {
			return wait
		}
		if err := o.do(next); err != nil {
			return dueInterval
		}
	}
}

// do does what is due, unless it holds no more, and takes it off the schedule.
func (o dueWork) do(d store.Due) error {
	r := o.internalRequest()
	k, err := o.catalog.Find(d.Key)
	if err != nil {
		return err
	}
	if k != nil {
		switch d.Kind {
		case store.DueDeletion:
			err = o.deleteDueKey(r, k)
		case store.DueExpiry:
			err = o.expireMaterials(r, k)
		case store.DueRotation:
			err = rotationOperations(o).rotateDue(r, k)
		case store.DueGrantExpiry:
			err = o.expireGrant(r, k, d.Grant)
		}
	}
	if err != nil {
		return err
	}
	return o.store.Update(func(tx *store.Tx) error { return tx.Forget(d) })
}

// deleteDueKey deletes a key whose waiting period is over: first what its material can't be unwrapped without, and then all there is of it.
func (o dueWork) deleteDueKey(r *request, k *catalog.Key) error {
	if k.State != kms.StatePendingDeletion || r.time.Before(k.Deletion) {
		return nil
	}
	var slots []uint32
	err := o.store.View(func(tx *store.Tx) error {
		return tx.Secrets(k.ID, func(_ store.MaterialID, wrapped []byte) error {
			slot, _, err := material.Slot(wrapped)
			slots = append(slots, slot)
			return err
		})
	})
	if err != nil {
		return err
	}
	for _, slot := range slots {
		if err := o.slots.Erase(slot); err != nil {
			return err
		}
	}
	r.name = "DeleteKey"
	r.concerns(resourceKey, k.ARN)
	r.details = append(r.details, audit.Text("keyId", k.ID.String()))
	err = o.change(r, func(tx *store.Tx) error { return tx.DeleteKey(k.ID) }, k.ID)
	o.catalog.Forget(nil, k.Aliases...)
	return err
}

// expireMaterials destroys imported material whose time is over.
func (o dueWork) expireMaterials(r *request, k *catalog.Key) error {
	for _, m := range k.Materials {
		if !m.Present || !authz.IsOver(m.ValidTo, r.time) {
			continue
		}
		event := *r
		event.name = "DeleteExpiredKeyMaterial"
		event.concerns(resourceKey, k.ARN)
		event.details = append(event.details, audit.Text("keyId", k.ID.String()), audit.Text("keyMaterialId", m.ID.String()))
		if err := o.dropMaterial(&event, k, m.ID); err != nil {
			return err
		}
		changed, err := o.catalog.Find(k.ID)
		if err != nil {
			return err
		}
		k = changed
	}
	return nil
}

// dropMaterial destroys imported material, so that the same can be imported again. Unless it only awaited its rotation, the key is good for nothing meanwhile.
func (o dueWork) dropMaterial(r *request, k *catalog.Key, id store.MaterialID) error {
	changed := k.Key
	changed.Materials = slices.Clone(k.Materials)
	for i := range changed.Materials {
		m := &changed.Materials[i]
		if m.ID != id {
			continue
		}
		m.Present, m.ValidTo = false, time.Time{}
		if !m.Pending && k.IsIn(kms.StateEnabled, kms.StateDisabled) {
			changed.State = kms.StatePendingImport
		}
	}
	var wrapped []byte
	if err := o.store.View(func(tx *store.Tx) (err error) {
		wrapped, err = tx.Secret(k.ID, id)
		return err
	}); err != nil {
		return err
	}
	if wrapped != nil {
		slot, _, err := material.Slot(wrapped)
		if err != nil {
			return err
		}
		if err := o.slots.Erase(slot); err != nil {
			return err
		}
	}
	return o.change(r, func(tx *store.Tx) error {
		return cmp.Or(tx.DeleteSecret(k.ID, id), tx.PutKey(&changed))
	}, k.ID)
}

// expireGrant removes a grant whose time is over; it allows nothing by then.
func (o dueWork) expireGrant(r *request, k *catalog.Key, id store.GrantID) error {
	var g *store.Grant
	err := o.store.View(func(tx *store.Tx) (err error) {
		g, err = tx.Grant(k.ID, id)
		return err
	})
	if g == nil || err != nil || !authz.IsOver(g.Expires, r.time) {
		return err
	}
	r.name = "DeleteExpiredGrant"
	r.concerns(resourceKey, k.ARN)
	r.details = append(r.details, audit.Text("keyId", k.ID.String()), audit.Text("grantId", id.String()))
	return o.change(r, func(tx *store.Tx) error { return tx.DeleteGrant(k.ID, id) }, k.ID)
}
