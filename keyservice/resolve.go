package keyservice

import (
	"strings"

	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/store"
)

// namedKey is a key and the alias that named it; no alias if an ID or ARN did.
type namedKey struct {
	*key
	alias string
}

// anyKey finds the key that an ID, ARN, alias or alias ARN names.
func (s *Service) anyKey(r *request, id string) (k namedKey, err error) {
	local, err := s.names.Local(id)
	if err != nil {
		return k, err
	}
	if !strings.HasPrefix(local, kms.AliasPrefix) {
		k.key, err = s.keyByID(local)
		return k, err
	}
	target, ok, err := s.target(local)
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
	k.key, err = s.existingKey(target)
	return k, err
}

// plainKey finds the key that an ID or ARN names; aliases are refused, as by AWS's administrative operations.
func (s *Service) plainKey(id string) (*key, error) {
	local, err := s.names.Local(id)
	if err != nil {
		return nil, err
	}
	return s.keyByID(local)
}

func (s *Service) keyByID(id string) (*key, error) {
	parsed, err := kms.ParseKeyID(id)
	if err != nil {
		return nil, err
	}
	return s.existingKey(parsed)
}

func (s *Service) existingKey(id store.KeyID) (*key, error) {
	k, err := s.key(id)
	if err != nil {
		return nil, err
	}
	if k == nil || k.Manager == kms.ManagerOwned {
		return nil, kms.Errorf(kms.CodeNotFound, "Key '%s' does not exist", s.names.Key(id))
	}
	return k, nil
}

// authorize returns an error unless the caller may perform the action on a key that an ID or ARN named.
func (s *Service) authorize(r *request, action string, k *key) error {
	return s.authorizeIn(r, action, namedKey{key: k}, nil)
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
