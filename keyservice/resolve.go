package keyservice

import (
	"strings"

	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/store"
)

// anyKey finds the key that an ID, ARN, alias or alias ARN names.
func (s *Service) anyKey(r *request, id string) (*key, error) {
	local, err := s.names.Local(id)
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(local, kms.AliasPrefix) {
		return s.keyByID(local)
	}
	r.alias = local
	target, ok, err := s.target(local)
	if err == nil && !ok {
		target, ok, err = s.managedKey(r, local)
	}
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, kms.Errorf(kms.CodeNotFound, "Alias %s is not found.", s.names.Alias(local))
	}
	return s.existingKey(target)
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
