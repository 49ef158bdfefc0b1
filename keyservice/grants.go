package keyservice

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/authz"
	"kmsfs/keyservice/catalog"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/store"
	"kmsfs/keyservice/token"
	"kmsfs/policy"
)

// grantOperations make and end grants.
type grantOperations struct{ *core }

func (o grantOperations) createGrant(r *request, in *kms.CreateGrantInput) (*kms.CreateGrantOutput, error) {
	r.readOnly = false
	g, err := o.newGrant(r, in)
	if err != nil {
		return nil, err
	}
	o.describeGrant(r, g)
	o.changes.Lock()
	defer o.changes.Unlock()
	// The caller needs to be allowed in the grant's own context: AWS compares policies' conditions with its constraints.
	k, err := o.namedIn(r, "kms:CreateGrant", in.KeyId, grantContext(g))
	if err != nil {
		return nil, err
	}
	g.Key = k.ID
	if err := cmp.Or(
		k.CheckGrantOperations(g.Operations), checkGrantConstraints(k, in.Constraints),
		k.NotIn(kms.StateDisabled, kms.StatePendingDeletion, kms.StatePendingImport)); err != nil {
		return nil, err
	}
	if parent := r.authz.Verdict.Grant; parent != nil && !authz.Narrows(g, parent) {
		return nil, kms.Errorf(kms.CodeAccessDenied, "User: %s may grant no more than grant %s allows.", o.users.User(r.caller.UID, r.time).ARN, parent.ID)
	}
	if err := dryRun(r, in.DryRun); err != nil {
		return nil, err
	}
	id, err := o.addGrant(r, k, g)
	if err != nil {
		return nil, err
	}
	return &kms.CreateGrantOutput{GrantToken: o.tokens.Grant(k.ID, id), GrantId: id.String()}, nil
}

// grantIsForService is the condition key that says whether one of AWS's services asks for a grant, of
// its own. None does here.
const grantIsForService = "kms:grantisforawsresource"

func checkGrantConstraints(k *catalog.Key, c *kms.GrantConstraints) error {
	if c == nil {
		return nil
	}
	return k.CheckConstraints(c)
}

// newGrant is the grant that is asked for, without an ID and a key.
func (o grantOperations) newGrant(r *request, in *kms.CreateGrantInput) (*store.Grant, error) {
	grantee, err := o.grantPrincipal("granteePrincipal", in.GranteePrincipal)
	if err != nil {
		return nil, err
	}
	g := &store.Grant{Name: in.Name, Created: millis(r.time), Grantee: grantee}
	if in.RetiringPrincipal != "" {
		if g.Retirer, err = o.grantPrincipal("retiringPrincipal", in.RetiringPrincipal); err != nil {
			return nil, err
		}
	}
	if err := cmp.Or(
		kms.CheckLength("operations", len(in.Operations), 1, 2*len(catalog.GrantOperations)),
		kms.CheckLength("name", len(in.Name), 0, kms.MaxGrantName),
		o.tokens.CheckGrants(in.GrantTokens)); err != nil {
		return nil, err
	}
	if !kms.ConsistsOf(in.Name, ":/_-") {
		return nil, kms.Invalid("name", "", "Member must satisfy regular expression pattern: ^[a-zA-Z0-9:/_-]+$")
	}
	g.Operations = slices.Compact(slices.Sorted(slices.Values(in.Operations)))
	if c := in.Constraints; c != nil {
		g.Equals, g.Subset, g.PathPrefix = c.EncryptionContextEquals, c.EncryptionContextSubset, c.PathPrefix
	}
	if in.ExpirationDate != nil {
		if g.Expires = millis(in.ExpirationDate.Time); !g.Expires.After(r.time) {
			return nil, kms.Errorf(kms.CodeValidation, "The expiration date must be in the future")
		}
	}
	return g, nil
}

// grantPrincipal is the ARN of a principal that a grant names.
func (o grantOperations) grantPrincipal(member, text string) (string, error) {
	p, err := o.principal(member, text)
	if err == nil && p.Kind == policy.Anyone {
		err = kms.Errorf(kms.CodeInvalidArn, "a grant can't be for everybody")
	}
	if err != nil {
		return "", err
	}
	return p.ARN(o.facts.Account), nil
}

// describeGrant tells the audit log and the policies what grant is asked for.
func (o grantOperations) describeGrant(r *request, g *store.Grant) {
	r.param("granteePrincipal", g.Grantee)
	r.textParam("retiringPrincipal", g.Retirer)
	r.param("operations", strings.Join(g.Operations, ","))
	r.textParam("name", g.Name)
	r.contextParam("encryptionContextEquals", g.Equals)
	r.contextParam("encryptionContextSubset", g.Subset)
	r.textParam("pathPrefix", g.PathPrefix)
	if !g.Expires.IsZero() {
		r.param("expirationDate", g.Expires.Format("2006-01-02T15:04:05.000Z"))
	}
	r.authz.SetPrincipal("kms:granteeprincipal", g.Grantee)
	r.authz.SetPrincipal("kms:retiringprincipal", g.Retirer)
	r.authz.SetBool(grantIsForService, false)
	r.authz.SetList("kms:grantoperations", g.Operations)
	var kinds []string
	if len(g.Equals) > 0 {
		kinds = append(kinds, "EncryptionContextEquals")
	}
	if len(g.Subset) > 0 {
		kinds = append(kinds, "EncryptionContextSubset")
	}
	if g.PathPrefix != "" {
		kinds = append(kinds, "PathPrefix")
	}
	r.authz.SetList("kms:grantconstrainttype", kinds)
}

// grantContext is the encryption context that a grant is sure to be used in.
func grantContext(g *store.Grant) map[string]string {
	context := map[string]string{}
	for _, pairs := range []map[string]string{g.Subset, g.Equals} {
		for name, value := range pairs {
			context[name] = value
		}
	}
	if _, ok := context[authz.ContextPath]; !ok && g.PathPrefix != "" {
		context[authz.ContextPath] = g.PathPrefix
	}
	return context
}

// addGrant stores a grant, unless one of that name with the same parameters is there. It returns the ID of the one that is.
func (o grantOperations) addGrant(r *request, k *catalog.Key, g *store.Grant) (store.GrantID, error) {
	same := *g
	same.Created = time.Time{} // whatever it is, the grant is the same
	parameters, err := json.Marshal(same)
	if err != nil {
		return g.ID, err
	}
	if g.Name != "" {
		var found *store.Grant
		if err := o.store.View(func(tx *store.Tx) (err error) {
			found, err = tx.NamedGrant(k.ID, string(parameters))
			return err
		}); err != nil {
			return g.ID, err
		}
		if found != nil && !authz.IsOver(found.Expires, r.time) {
			r.response = append(r.response, audit.Text("grantId", found.ID.String()))
			return found.ID, nil
		}
	}
	rand.Read(g.ID[:])
	r.response = append(r.response, audit.Text("grantId", g.ID.String()))
	defer o.scheduler.Wake()
	return g.ID, o.change(r, func(tx *store.Tx) error {
		if tx.GrantCount(k.ID) >= kms.MaxKeyGrants {
			return kms.Errorf(kms.CodeLimitExceeded, "%s has %d grants, which is the limit.", k.ARN, kms.MaxKeyGrants)
		}
		if !g.Expires.IsZero() {
			if err := tx.Remind(store.Due{Time: g.Expires, Kind: store.DueGrantExpiry, Key: k.ID, Grant: g.ID}); err != nil {
				return err
			}
		}
		return tx.AddGrant(g, string(parameters))
	}, k.ID)
}

func (o grantOperations) grantEntry(g *store.Grant) kms.GrantListEntry {
	e := kms.GrantListEntry{
		KeyId: o.names.Key(g.Key), GrantId: g.ID.String(), Name: g.Name, CreationDate: kms.Timestamp{Time: g.Created},
		GranteePrincipal: g.Grantee, RetiringPrincipal: g.Retirer, IssuingAccount: o.names.Root(), Operations: g.Operations,
		ExpirationDate: given(g.Expires),
	}
	if len(g.Equals) > 0 || len(g.Subset) > 0 || g.PathPrefix != "" {
		e.Constraints = &kms.GrantConstraints{EncryptionContextEquals: g.Equals, EncryptionContextSubset: g.Subset, PathPrefix: g.PathPrefix}
	}
	return e
}

// parseGrantID reads a grant's ID.
func parseGrantID(text string) (id store.GrantID, err error) {
	if err := kms.CheckLength("grantId", len(text), 1, kms.MaxGrantID); err != nil {
		return id, err
	}
	var digits store.MaterialID // which has the same form
	if err := digits.UnmarshalText([]byte(text)); err != nil || digits.String() != text {
		return id, kms.Errorf(kms.CodeInvalidGrantID, "The grant ID is malformed: want 64 hexadecimal digits.")
	}
	return store.GrantID(digits), nil
}

func (o grantOperations) listGrants(r *request, in *kms.ListGrantsInput) (*kms.ListGrantsOutput, error) {
	limit, err := kms.PageSize(in.Limit, 50, 100)
	if err != nil {
		return nil, err
	}
	r.authz.SetBool(grantIsForService, false)
	k, err := o.named(r, "kms:ListGrants", in.KeyId)
	if err != nil {
		return nil, err
	}
	after, err := o.readGrantMarker("ListGrants", in.Marker, k)
	if err != nil {
		return nil, err
	}
	list, err := o.grantLister(in, k.ID, after)
	if err != nil {
		return nil, err
	}
	out := &kms.ListGrantsOutput{Grants: []kms.GrantListEntry{}}
	var last store.GrantID
	err = o.store.View(func(tx *store.Tx) error {
		return list(tx, func(g *store.Grant) bool {
			if authz.IsOver(g.Expires, r.time) {
				return true
			}
			if len(out.Grants) == limit {
				out.Truncated = true
				return false
			}
			last = g.ID
			out.Grants = append(out.Grants, o.grantEntry(g))
			return true
		})
	})
	if out.Truncated {
		out.NextMarker = o.tokens.Marker("ListGrants", slices.Concat(k.ID[:], last[:]))
	}
	return out, err
}

// grantLister returns what lists the grants that are asked for.
func (o grantOperations) grantLister(in *kms.ListGrantsInput, key store.KeyID, after *store.GrantID) (func(*store.Tx, func(*store.Grant) bool) error, error) {
	switch {
	case in.GrantId != "":
		id, err := parseGrantID(in.GrantId)
		if err != nil {
			return nil, err
		}
		return func(tx *store.Tx, f func(*store.Grant) bool) error {
			g, err := tx.Grant(key, id)
			if g != nil {
				f(g)
			}
			return err
		}, nil
	case in.GranteePrincipal != "":
		grantee, err := o.grantPrincipal("granteePrincipal", in.GranteePrincipal)
		if err != nil {
			return nil, err
		}
		return func(tx *store.Tx, f func(*store.Grant) bool) error { return tx.GranteeGrants(key, grantee, after, f) }, nil
	}
	return func(tx *store.Tx, f func(*store.Grant) bool) error { return tx.Grants(key, after, f) }, nil
}

// readGrantMarker is the grant of the key that a marker names; nil for no marker.
func (o grantOperations) readGrantMarker(operation, marker string, k *catalog.Key) (*store.GrantID, error) {
	last, err := o.tokens.ReadKeyMarker(operation, marker, k.ID)
	if last == nil || err != nil {
		return nil, err
	}
	var id store.GrantID
	if len(last) != len(id) {
		return nil, token.ErrInvalidMarker()
	}
	copy(id[:], last)
	return &id, nil
}

func (o grantOperations) listRetirableGrants(r *request, in *kms.ListRetirableGrantsInput) (*kms.ListRetirableGrantsOutput, error) {
	r.textParam("retiringPrincipal", in.RetiringPrincipal)
	limit, err := kms.PageSize(in.Limit, 50, 100)
	if err != nil {
		return nil, err
	}
	retirer, err := o.grantPrincipal("retiringPrincipal", in.RetiringPrincipal)
	if err != nil {
		return nil, err
	}
	if err := o.authorizeAccount(r, "kms:ListRetirableGrants", retirer); err != nil {
		return nil, err
	}
	var afterKey *store.KeyID
	var after *store.GrantID
	if in.Marker != "" {
		last, err := o.tokens.ReadMarker("ListRetirableGrants", in.Marker)
		if err != nil || len(last) != 16+32 {
			return nil, token.ErrInvalidMarker()
		}
		key, id := store.KeyID(last[:16]), store.GrantID(last[16:])
		afterKey, after = &key, &id
	}
	out := &kms.ListRetirableGrantsOutput{Grants: []kms.GrantListEntry{}}
	var last []byte
	err = o.store.View(func(tx *store.Tx) error {
		return tx.RetirableGrants(retirer, afterKey, after, func(g *store.Grant) bool {
			if authz.IsOver(g.Expires, r.time) {
				return true
			}
			if len(out.Grants) == limit {
				out.Truncated = true
				return false
			}
			last = slices.Concat(g.Key[:], g.ID[:])
			out.Grants = append(out.Grants, o.grantEntry(g))
			return true
		})
	})
	if out.Truncated {
		out.NextMarker = o.tokens.Marker("ListRetirableGrants", last)
	}
	return out, err
}

func (o grantOperations) revokeGrant(r *request, in *kms.RevokeGrantInput) (*kms.RevokeGrantOutput, error) {
	r.readOnly = false
	r.textParam("grantId", in.GrantId)
	id, err := parseGrantID(in.GrantId)
	if err != nil {
		return nil, err
	}
	o.changes.Lock()
	defer o.changes.Unlock()
	r.authz.SetBool(grantIsForService, false)
	k, err := o.named(r, "kms:RevokeGrant", in.KeyId)
	if err != nil {
		return nil, err
	}
	if _, err := o.existingGrant(k.ID, id); err != nil {
		return nil, err
	}
	if err := dryRun(r, in.DryRun); err != nil {
		return nil, err
	}
	return &kms.RevokeGrantOutput{}, o.change(r, func(tx *store.Tx) error { return tx.DeleteGrant(k.ID, id) }, k.ID)
}

func (o grantOperations) existingGrant(key store.KeyID, id store.GrantID) (g *store.Grant, err error) {
	err = o.store.View(func(tx *store.Tx) (err error) {
		g, err = tx.Grant(key, id)
		return err
	})
	if err == nil && g == nil {
		err = kms.Errorf(kms.CodeNotFound, "Grant %s does not exist", id)
	}
	return g, err
}

func (o grantOperations) retireGrant(r *request, in *kms.RetireGrantInput) (*kms.RetireGrantOutput, error) {
	r.readOnly = false
	key, id, err := o.retiring(r, in)
	if err != nil {
		return nil, err
	}
	o.changes.Lock()
	defer o.changes.Unlock()
	k, err := o.catalog.Existing(key)
	if err != nil {
		return nil, err
	}
	r.concerns(resourceKey, k.ARN)
	g, err := o.existingGrant(key, id)
	if err != nil {
		return nil, err
	}
	if err := o.authz.AuthorizeRetire(&r.authz, &k.Resource, g); err != nil {
		return nil, err
	}
	if err := dryRun(r, in.DryRun); err != nil {
		return nil, err
	}
	return &kms.RetireGrantOutput{}, o.change(r, func(tx *store.Tx) error { return tx.DeleteGrant(key, id) }, key)
}

// retiring is the grant that a request to retire one names.
func (o grantOperations) retiring(r *request, in *kms.RetireGrantInput) (key store.KeyID, id store.GrantID, err error) {
	r.textParam("keyId", in.KeyId)
	r.textParam("grantId", in.GrantId)
	switch {
	case in.GrantToken != "" && in.KeyId == "" && in.GrantId == "":
		return o.tokens.ReadGrant(in.GrantToken)
	case in.GrantToken != "" || in.KeyId == "" || in.GrantId == "":
		return key, id, kms.Errorf(kms.CodeValidation, "Specify either a grant token, or a key ARN and a grant ID.")
	}
	if id, err = parseGrantID(in.GrantId); err != nil {
		return key, id, err
	}
	local, err := o.names.Local(in.KeyId)
	if err != nil {
		return key, id, err
	}
	key, err = kms.ParseKeyID(local)
	return key, id, err
}
