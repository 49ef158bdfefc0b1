package keyservice

import (
	"strings"

	"kmsfs/keyservice/store"
)

// anyKey finds the key that an ID, ARN, alias or alias ARN names.
func (s *Service) anyKey(id string) (*key, error) {
	local, err := s.names.local(id)
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(local, aliasPrefix) {
		return s.keyByID(local)
	}
	alias, ok := s.index.alias(local)
	if !ok {
		return nil, refuse(CodeNotFound, "Alias %s is not found.", s.names.alias(local))
	}
	return s.existingKey(alias.Target)
}

// plainKey finds the key that an ID or ARN names; aliases are refused, as by AWS's administrative operations.
func (s *Service) plainKey(id string) (*key, error) {
	local, err := s.names.local(id)
	if err != nil {
		return nil, err
	}
	return s.keyByID(local)
}

func (s *Service) keyByID(id string) (*key, error) {
	parsed, err := parseKeyID(id)
	if err != nil {
		return nil, err
	}
	return s.existingKey(parsed)
}

func (s *Service) existingKey(id store.KeyID) (*key, error) {
	if k := s.index.key(id); k != nil {
		return k, nil
	}
	return nil, refuse(CodeNotFound, "Key '%s' does not exist", s.names.key(id))
}

// usable says whether the key's state allows its use.
func (k *key) usable() error {
	if k.State == stateDisabled {
		return refuse(CodeDisabled, "%s is disabled.", k.arn)
	}
	return nil
}

// admit lets the caller perform the action on the key, and then looks at the key's state if the action uses the key.
func (s *Service) admit(r *request, action string, k *key, uses bool) error {
	r.concerns(resourceKey, k.arn)
	if err := s.authorize(r, action, k.arn); err != nil {
		return err
	}
	if !uses {
		return nil
	}
	return k.usable()
}
