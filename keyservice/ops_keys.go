package keyservice

import (
	"context"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"kmsfs/keyservice/store"
)

// CreateKey makes a KMS key.
func (s *Service) CreateKey(ctx context.Context, c Caller, in *CreateKeyInput) (*CreateKeyOutput, error) {
	return run(ctx, s, c, "CreateKey", in, (*Service).createKey)
}

// DescribeKey describes a KMS key.
func (s *Service) DescribeKey(ctx context.Context, c Caller, in *DescribeKeyInput) (*DescribeKeyOutput, error) {
	return run(ctx, s, c, "DescribeKey", in, (*Service).describeKey)
}

// ListKeys lists all KMS keys, a page at a time.
func (s *Service) ListKeys(ctx context.Context, c Caller, in *ListKeysInput) (*ListKeysOutput, error) {
	return run(ctx, s, c, "ListKeys", in, (*Service).listKeys)
}

// EnableKey lets a KMS key be used.
func (s *Service) EnableKey(ctx context.Context, c Caller, in *EnableKeyInput) (*EnableKeyOutput, error) {
	return run(ctx, s, c, "EnableKey", in, func(s *Service, r *request, in *EnableKeyInput) (*EnableKeyOutput, error) {
		return &EnableKeyOutput{}, s.setState(r, "kms:EnableKey", in.KeyId, stateEnabled)
	})
}

// DisableKey forbids all use of a KMS key: no call that comes after its return uses the key.
func (s *Service) DisableKey(ctx context.Context, c Caller, in *DisableKeyInput) (*DisableKeyOutput, error) {
	return run(ctx, s, c, "DisableKey", in, func(s *Service, r *request, in *DisableKeyInput) (*DisableKeyOutput, error) {
		return &DisableKeyOutput{}, s.setState(r, "kms:DisableKey", in.KeyId, stateDisabled)
	})
}

func (s *Service) createKey(r *request, in *CreateKeyInput) (*CreateKeyOutput, error) {
	r.readOnly = false
	if err := checkNewKey(in); err != nil {
		return nil, err
	}
	r.param("keySpec", specSymmetric)
	r.param("keyUsage", usageEncryption)
	r.param("origin", originKMS)
	if in.Description != "" {
		r.param("description", in.Description)
	}
	if err := s.authorize(r, "kms:CreateKey", "*"); err != nil {
		return nil, err
	}
	id, err := uuid.NewRandom()
	if err != nil {
		return nil, err
	}
	s.changes.Lock()
	defer s.changes.Unlock()
	if s.index.keyCount() >= maxKeys {
		return nil, refuse(CodeLimitExceeded, "There are %d keys, which is the limit.", maxKeys)
	}
	k, err := s.addKey(r, id, in.Description)
	if err != nil {
		return nil, err
	}
	return &CreateKeyOutput{s.metadata(k)}, nil
}

// addKey makes a key and its first material.
func (s *Service) addKey(r *request, id store.KeyID, description string) (*key, error) {
	first := s.ring.generate(id)
	k := newKey(store.Key{
		ID: id, Description: description, Spec: specSymmetric, Usage: usageEncryption, Origin: originKMS,
		State: stateEnabled, Created: r.time.UTC().Truncate(time.Millisecond), Current: first.ID,
	}, s.names)
	k.materials[first.ID] = newMaterial(id, first.ID, first.Wrapped)
	r.concerns(resourceKey, k.arn)
	r.response = append(r.response, field("keyId", k.arn), field("keyMaterialId", k.currentID))
	err := s.change(r, func(tx *store.Tx) error {
		return firstError(tx.PutKey(&k.Key), tx.PutMaterial(first))
	})
	if err != nil {
		return nil, err
	}
	s.index.putKey(k)
	return k, nil
}

// checkNewKey refuses all but symmetric keys with nothing special.
func checkNewKey(in *CreateKeyInput) error {
	spec := in.KeySpec
	if spec == "" {
		spec = in.CustomerMasterKeySpec
	}
	switch {
	case in.KeySpec != "" && in.CustomerMasterKeySpec != "":
		return refuse(CodeValidation, "You cannot specify KeySpec and CustomerMasterKeySpec in the same request. CustomerMasterKeySpec is deprecated.")
	case !utf8.ValidString(in.Description):
		return invalid("description", "", "Member must be text")
	case spec != "" && spec != specSymmetric:
		return checkUnsupported("KeySpec "+printable(spec), true)
	case in.KeyUsage != "" && in.KeyUsage != usageEncryption:
		return refuse(CodeValidation, "KeyUsage %s is not compatible with KeySpec %s", printable(in.KeyUsage), specSymmetric)
	case in.Origin != "" && in.Origin != originKMS:
		return checkUnsupported("Origin "+printable(in.Origin), true)
	}
	return firstError(
		checkLength("description", utf8.RuneCountInString(in.Description), 0, maxDescription),
		checkUnsupported("Policy", in.Policy != ""),
		checkUnsupported("Tags", isGiven(in.Tags)),
		checkUnsupported("MultiRegion", in.MultiRegion),
		checkUnsupported("CustomKeyStoreId", in.CustomKeyStoreId != ""),
		checkUnsupported("XksKeyId", in.XksKeyId != ""))
}

func (s *Service) describeKey(r *request, in *DescribeKeyInput) (*DescribeKeyOutput, error) {
	r.textParam("keyId", in.KeyId)
	if err := firstError(checkIdentifier("keyId", in.KeyId), checkGrantTokens(in.GrantTokens)); err != nil {
		return nil, err
	}
	k, err := s.anyKey(in.KeyId)
	if err != nil {
		return nil, err
	}
	if err := s.admit(r, "kms:DescribeKey", k, false); err != nil {
		return nil, err
	}
	return &DescribeKeyOutput{s.metadata(k)}, nil
}

func (s *Service) metadata(k *key) KeyMetadata {
	return KeyMetadata{
		AWSAccountId: s.facts.Account, KeyId: k.ID.String(), Arn: k.arn,
		CreationDate: Timestamp{k.Created}, Enabled: k.State == stateEnabled, Description: k.Description,
		KeyUsage: k.Usage, KeyState: k.State, Origin: k.Origin, KeyManager: managerCustomer,
		CustomerMasterKeySpec: k.Spec, KeySpec: k.Spec, EncryptionAlgorithms: []string{specSymmetric},
		CurrentKeyMaterialId: k.currentID,
	}
}

func (s *Service) listKeys(r *request, in *ListKeysInput) (*ListKeysOutput, error) {
	limit, err := pageSize(in.Limit, 100, 1000)
	if err != nil {
		return nil, err
	}
	if err := s.authorize(r, "kms:ListKeys", "*"); err != nil {
		return nil, err
	}
	var after store.KeyID
	if in.Marker != "" {
		last, err := s.ring.readMarker("ListKeys", in.Marker)
		if err != nil {
			return nil, err
		}
		copy(after[:], last)
	}
	ids, more := s.index.keysAfter(after, limit)
	out := &ListKeysOutput{Keys: make([]KeyListEntry, len(ids)), Truncated: more}
	for i, id := range ids {
		out.Keys[i] = KeyListEntry{KeyId: id.String(), KeyArn: s.names.key(id)}
	}
	if more {
		last := ids[len(ids)-1]
		out.NextMarker = s.ring.marker("ListKeys", last[:])
	}
	return out, nil
}

// setState enables or disables a key. A key that is in the state already stays so.
func (s *Service) setState(r *request, action, id, state string) error {
	r.readOnly = false
	r.textParam("keyId", id)
	if err := checkIdentifier("keyId", id); err != nil {
		return err
	}
	s.changes.Lock()
	defer s.changes.Unlock()
	k, err := s.plainKey(id)
	if err != nil {
		return err
	}
	if err := s.admit(r, action, k, false); err != nil {
		return err
	}
	changed := k.withState(state)
	if err := s.change(r, func(tx *store.Tx) error { return tx.PutKey(&changed.Key) }); err != nil {
		return err
	}
	s.index.putKey(changed)
	return nil
}
