package keyservice

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"

	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/authz"
	"kmsfs/keyservice/catalog"
	"kmsfs/keyservice/forward"
	"kmsfs/keyservice/home"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/material"
	"kmsfs/keyservice/scheduler"
	"kmsfs/keyservice/store"
	"kmsfs/keyservice/token"
	"kmsfs/keyservice/usage"
	"kmsfs/keyservice/users"
	"kmsfs/policy"
)

// core is what the handlers of all operations need: an open home, and the ways to find keys in it, to
// authorize callers, to change it and to record that.
type core struct {
	home      *home.Home
	facts     *home.Facts
	names     kms.ARNs
	users     *users.Directory
	ring      *material.Keyring
	store     *store.Store
	slots     *store.Slots
	log       *audit.Log
	authz     *authz.Authorizer
	catalog   *catalog.Catalog
	tokens    token.Maker
	generator material.Generator
	usage     usage.Tracker
	scheduler *scheduler.Scheduler
	forwarder *forward.Forwarder
	requests  sync.Pool // of *request, for use again

	// changes is held by every change, from its checks to its end. It is taken after Service.life, and
	// before the catalog's and the grants' locks.
	changes sync.Mutex
}

// namedKey is a key and the alias that named it; no alias if an ID or ARN did.
type namedKey struct {
	*catalog.Key
	alias string
}

// anyKey finds the key that an ID, ARN, alias or alias ARN names.
func (c *core) anyKey(r *request, id string) (k namedKey, err error) {
	local, err := c.names.Local(id)
	if err != nil {
		return k, err
	}
	if !strings.HasPrefix(local, kms.AliasPrefix) {
		k.Key, err = c.catalog.ByID(local)
		return k, err
	}
	target, ok, err := c.catalog.Target(local)
	if err == nil && !ok {
		target, ok, err = internalKeys{c}.managed(r, local)
	}
	if err != nil {
		return k, err
	}
	if !ok {
		return k, kms.Errorf(kms.CodeNotFound, "Alias %s is not found.", c.names.Alias(local))
	}
	k.alias = local
	k.Key, err = c.catalog.Existing(target)
	return k, err
}

// authorize returns an error unless the caller may perform the action on a key that an ID or ARN named.
func (c *core) authorize(r *request, action string, k *catalog.Key) error {
	return c.authorizeIn(r, action, namedKey{Key: k}, nil)
}

// authorizeIn returns an error unless the caller may perform the action on the key in an encryption
// context; nil for none. Grants count where AWS has grants for the action.
func (c *core) authorizeIn(r *request, action string, k namedKey, context map[string]string) error {
	r.concerns(resourceKey, k.ARN)
	return c.authz.Authorize(&r.authz, action, &k.Resource, k.alias, context)
}

// authorizeAccount returns an error unless the caller may perform an action that concerns no key.
// resource is an alias's ARN, or "*".
func (c *core) authorizeAccount(r *request, action, resource string) error {
	return c.authz.AuthorizeAccount(&r.authz, action, resource)
}

// named finds the key that a request names by ID or ARN, and lets the caller perform the action on it.
func (c *core) named(r *request, action, id string) (*catalog.Key, error) {
	return c.namedIn(r, action, id, nil)
}

// namedIn is named for an action in an encryption context.
func (c *core) namedIn(r *request, action, id string, context map[string]string) (*catalog.Key, error) {
	r.textParam("keyId", id)
	if err := kms.CheckIdentifier("keyId", id); err != nil {
		return nil, err
	}
	k, err := c.catalog.Named(id)
	if err != nil {
		return nil, err
	}
	return k, c.authorizeIn(r, action, namedKey{Key: k}, context)
}

// alter lets the caller perform an action that changes the record of the key that a request names by ID or ARN. What f makes of the
// record, which is a copy, is stored, unless f returns an error.
func (c *core) alter(r *request, action, id string, f func(k *catalog.Key, changed *store.Key) error) error {
	r.readOnly = false
	c.changes.Lock()
	defer c.changes.Unlock()
	k, err := c.named(r, action, id)
	if err != nil {
		return err
	}
	changed := k.Key
	changed.Materials, changed.Tags = slices.Clone(k.Materials), slices.Clone(k.Tags)
	if err := f(k, &changed); err != nil {
		return err
	}
	defer c.scheduler.Wake()
	return c.change(r, func(tx *store.Tx) error {
		return cmp.Or(tx.PutKey(&changed), noteDue(tx, &changed))
	}, k.ID)
}

// principal reads a principal in any of its forms.
func (c *core) principal(member, text string) (policy.Principal, error) {
	if err := kms.CheckLength(member, len(text), 1, kms.MaxPrincipal); err != nil {
		return policy.Principal{}, err
	}
	p, err := policy.ParsePrincipal(text, c.facts.Account)
	if err != nil {
		return p, kms.Errorf(kms.CodeInvalidArn, "%v", err)
	}
	return p, nil
}

// internalRequest is a request of the service's own.
func (c *core) internalRequest() *request {
	r := &request{ctx: context.Background(), id: newID(), time: time.Now(), serviceEvent: true}
	r.caller.UID, r.caller.PID = c.facts.Owner, c.users.PID
	return r
}

// announce records an event of the service's own. A log that can't be written doesn't keep it from starting or ending: it refuses calls, which is how that
// is known.
func (c *core) announce(event string, details ...audit.Field) {
	r := c.internalRequest()
	r.name, r.details = event, details
	_ = c.record(r, nil)
}

// auditSettings are those in force.
func (c *core) auditSettings() (*kms.AuditSettings, error) {
	a := &kms.AuditSettings{SegmentKiB: usualSegmentKiB, SegmentHours: usualSegmentHours}
	var text []byte
	err := c.store.View(func(tx *store.Tx) (err error) {
		text, err = tx.AuditSettings()
		return err
	})
	if err == nil && text != nil {
		err = json.Unmarshal(text, a)
	}
	return a, home.AsError(err)
}
