package keyservice

import (
	"strings"

	"kmsfs/keyservice/catalog"
	"kmsfs/keyservice/kms"
)

// namedKey is a key and the alias that named it; no alias if an ID or ARN did.
type namedKey struct {
	*catalog.Key
	alias string
}

// anyKey finds the key that an ID, ARN, alias or alias ARN names.
func (s *Service) anyKey(r *request, id string) (k namedKey, err error) {
	local, err := s.names.Local(id)
	if err != nil {
		return k, err
	}
	if !strings.HasPrefix(local, kms.AliasPrefix) {
		k.Key, err = s.catalog.ByID(local)
		return k, err
	}
	target, ok, err := s.catalog.Target(local)
	if err == nil && !ok {
		target, ok, err = s.managedKey(r, local)
	}
	if err != nil {
		return k, err
	}
	if !ok {
		return k, kms.Errorf(kms.CodeNotFound, "Alias %s is not found.", s.names.Alias(local))
	}
	k.alias = local
	k.Key, err = s.catalog.Existing(target)
	return k, err
}

// authorize returns an error unless the caller may perform the action on a key that an ID or ARN named.
func (s *Service) authorize(r *request, action string, k *catalog.Key) error {
	return s.authorizeIn(r, action, namedKey{Key: k}, nil)
}

// authorizeIn returns an error unless the caller may perform the action on the key in an encryption
// context; nil for none. Grants count where AWS has grants for the action.
func (s *Service) authorizeIn(r *request, action string, k namedKey, context map[string]string) error {
	r.concerns(resourceKey, k.ARN)
	return s.authz.Authorize(&r.authz, action, &k.Resource, k.alias, context)
}

// authorizeAccount returns an error unless the caller may perform an action that concerns no key.
// resource is an alias's ARN, or "*".
func (s *Service) authorizeAccount(r *request, action, resource string) error {
	return s.authz.AuthorizeAccount(&r.authz, action, resource)
}
