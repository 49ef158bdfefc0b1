package keyservice

import (
	"context"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/keyspec"
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

// UpdateKeyDescription changes a KMS key's description.
func (s *Service) UpdateKeyDescription(ctx context.Context, c Caller, in *UpdateKeyDescriptionInput) (*UpdateKeyDescriptionOutput, error) {
	return run(ctx, s, c, "UpdateKeyDescription", in, (*Service).updateKeyDescription)
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

// millis is a time as it is stored: in UTC, with whole milliseconds.
func millis(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

func (s *Service) createKey(r *request, in *CreateKeyInput) (*CreateKeyOutput, error) {
	r.readOnly = false
	record, err := newKeyRecord(in)
	if err != nil {
		return nil, err
	}
	s.describeNewKey(r, record, in)
	if err := s.admitNewKey(r, in); err != nil {
		return nil, err
	}
	if err := s.checkNewPolicy(r, record, in); err != nil {
		return nil, err
	}
	k, err := s.addKey(r, record, in.Policy)
	if err != nil {
		return nil, err
	}
	return &CreateKeyOutput{s.metadata(k)}, nil
}

// describeNewKey tells the audit log and the policies what key is asked for.
func (s *Service) describeNewKey(r *request, k *store.Key, in *CreateKeyInput) {
	r.param("keySpec", k.Spec)
	r.param("keyUsage", k.Usage)
	r.param("origin", k.Origin)
	if k.Description != "" {
		r.param("description", k.Description)
	}
	r.about("kms:keyspec", k.Spec)
	r.about("kms:keyusage", k.Usage)
	r.about("kms:keyorigin", k.Origin)
	r.about("kms:multiregion", "false")
	r.aboutBool("kms:bypasspolicylockoutsafetycheck", in.BypassPolicyLockoutSafetyCheck)
	r.aboutTags(in.Tags)
}

// admitNewKey lets the caller make the key, with the policy and the tags that it is to have.
func (s *Service) admitNewKey(r *request, in *CreateKeyInput) error {
	if err := s.admitAccount(r, "kms:CreateKey", "*"); err != nil {
		return err
	}
	if in.Policy != "" {
		if err := s.admitAccount(r, "kms:PutKeyPolicy", "*"); err != nil {
			return err
		}
	}
	if len(in.Tags) > 0 {
		return s.admitAccount(r, "kms:TagResource", "*")
	}
	return nil
}

// newKeyRecord is the key that is asked for.
func newKeyRecord(in *CreateKeyInput) (*store.Key, error) {
	spec, err := requestedSpec(in)
	if err != nil {
		return nil, err
	}
	usage, err := requestedUsage(in, spec)
	if err != nil {
		return nil, err
	}
	origin := in.Origin
	if origin == "" {
		origin = originKMS
	}
	if err := firstError(
		checkEnum("origin", origin, originKMS, originExternal, "AWS_CLOUDHSM", "EXTERNAL_KEY_STORE"),
		checkUnsupported("Origin "+printable(origin), origin != originKMS && origin != originExternal),
		checkDescription(in.Description),
		checkUnsupported("MultiRegion", in.MultiRegion),
		checkUnsupported("CustomKeyStoreId", in.CustomKeyStoreId != ""),
		checkUnsupported("XksKeyId", in.XksKeyId != "")); err != nil {
		return nil, err
	}
	tags, err := newTags(in.Tags)
	if err != nil {
		return nil, err
	}
	return &store.Key{
		Description: in.Description, Manager: managerCustomer, Spec: spec.Name, Usage: usage, Origin: origin, Current: -1, Tags: tags,
	}, nil
}

func requestedSpec(in *CreateKeyInput) (*keyspec.Spec, error) {
	name := in.KeySpec
	if name == "" {
		name = in.CustomerMasterKeySpec
	}
	switch {
	case in.KeySpec != "" && in.CustomerMasterKeySpec != "":
		return nil, refuse(CodeValidation, "You cannot specify KeySpec and CustomerMasterKeySpec in the same request. CustomerMasterKeySpec is deprecated.")
	case name == "":
		name = specSymmetric
	}
	spec, ok := keyspec.Find(name)
	switch {
	case ok:
		return spec, nil
	case keyspec.IsKnown(name):
		return nil, checkUnsupported("KeySpec "+name, true)
	}
	return nil, invalid("keySpec", printable(name), "Member must satisfy enum value set: AWS KMS's key specs")
}

func requestedUsage(in *CreateKeyInput, spec *keyspec.Spec) (string, error) {
	usage := in.KeyUsage
	if err := checkEnum("keyUsage", usage, usageEncryption, usageSigning, usageMAC, usageAgreement); err != nil {
		return "", err
	}
	switch {
	case usage == "" && spec.Symmetric():
		return usageEncryption, nil
	case usage == "":
		return "", refuse(CodeValidation, "You must specify a KeyUsage value for all KMS keys except for symmetric encryption keys.")
	case !spec.Allows(usage):
		return "", refuse(CodeValidation, "KeyUsage %s is not compatible with KeySpec %s", usage, spec.Name)
	}
	return usage, nil
}

func checkDescription(text string) error {
	if !utf8.ValidString(text) {
		return invalid("description", "", "Member must be text")
	}
	return checkLength("description", utf8.RuneCountInString(text), 0, maxDescription)
}

// addKey makes a key, with its first material unless that is to be imported.
func (s *Service) addKey(r *request, record *store.Key, policy string) (*key, error) {
	id, err := uuid.NewRandom()
	if err != nil {
		return nil, err
	}
	record.ID, record.Created, record.State = id, millis(r.time), statePendingImport
	var made *newMaterial
	if record.Origin == originKMS {
		record.State = stateEnabled
		if made, err = s.generateMaterial(r, record); err != nil {
			return nil, err
		}
		defer made.wipe()
	}
	s.changes.Lock()
	defer s.changes.Unlock()
	arn := s.names.key(id)
	r.concerns(resourceKey, arn)
	r.response = append(r.response, audit.Text("keyId", arn))
	err = s.changeMaterial(r, made, func(tx *store.Tx) error {
		if tx.KeyCount() >= maxKeys {
			return refuse(CodeLimitExceeded, "There are %d keys, which is the limit.", maxKeys)
		}
		if policy != "" {
			if err := tx.PutKeyPolicy(id, []byte(policy)); err != nil {
				return err
			}
		}
		return tx.AddKey(record)
	}, id)
	if err != nil {
		return nil, err
	}
	return s.existing(id)
}

// existing is a key that is there, whoever manages it.
func (s *Service) existing(id store.KeyID) (*key, error) {
	k, err := s.key(id)
	if err == nil && k == nil {
		err = refuse(CodeNotFound, "Key '%s' does not exist", s.names.key(id))
	}
	return k, err
}

func (s *Service) describeKey(r *request, in *DescribeKeyInput) (*DescribeKeyOutput, error) {
	r.textParam("keyId", in.KeyId)
	if err := firstError(checkIdentifier("keyId", in.KeyId), s.checkGrantTokens(in.GrantTokens)); err != nil {
		return nil, err
	}
	k, err := s.anyKey(r, in.KeyId)
	if err != nil {
		return nil, err
	}
	if err := s.admit(r, "kms:DescribeKey", k); err != nil {
		return nil, err
	}
	return &DescribeKeyOutput{s.metadata(k)}, nil
}

func (s *Service) metadata(k *key) KeyMetadata {
	m := KeyMetadata{
		AWSAccountId: s.facts.Account, KeyId: k.ID.String(), Arn: k.arn,
		CreationDate: Timestamp{k.Created}, Enabled: k.State == stateEnabled, Description: k.Description,
		KeyUsage: k.Usage, KeyState: k.State, DeletionDate: given(k.Deletion), Origin: k.Origin, KeyManager: k.Manager,
		CustomerMasterKeySpec: k.Spec, KeySpec: k.Spec, CurrentKeyMaterialId: k.currentID,
	}
	switch k.Usage {
	case usageEncryption:
		m.EncryptionAlgorithms = k.spec.EncryptionAlgorithms
	case usageSigning:
		m.SigningAlgorithms = k.spec.SigningAlgorithms
	case usageMAC:
		m.MacAlgorithms = k.spec.MacAlgorithms
	case usageAgreement:
		m.KeyAgreementAlgorithms = k.spec.KeyAgreementAlgorithms
	}
	if current := k.current(); k.Origin == originExternal && current != nil {
		m.ExpirationModel, m.ValidTo = expirationModel(current.ValidTo), given(current.ValidTo)
	}
	return m
}

// given is a time as the wire has it; nil for the zero time.
func given(t time.Time) *Timestamp {
	if t.IsZero() {
		return nil
	}
	return &Timestamp{t}
}

func (s *Service) listKeys(r *request, in *ListKeysInput) (*ListKeysOutput, error) {
	limit, err := pageSize(in.Limit, 100, 1000)
	if err != nil {
		return nil, err
	}
	if err := s.admitAccount(r, "kms:ListKeys", "*"); err != nil {
		return nil, err
	}
	after, err := s.readKeyMarker("ListKeys", in.Marker)
	if err != nil {
		return nil, err
	}
	out := &ListKeysOutput{Keys: []KeyListEntry{}}
	var last store.KeyID
	err = s.store.View(func(tx *store.Tx) error {
		var readErr error
		err := tx.Keys(after, func(id store.KeyID) bool {
			var k *store.Key
			if k, readErr = tx.Key(id); readErr != nil || k.Manager == managerOwned {
				return readErr == nil
			}
			if len(out.Keys) == limit {
				out.Truncated = true
				return false
			}
			last = id
			out.Keys = append(out.Keys, KeyListEntry{KeyId: id.String(), KeyArn: s.names.key(id)})
			return true
		})
		return firstError(err, readErr)
	})
	if out.Truncated {
		out.NextMarker = s.ring.marker("ListKeys", last[:])
	}
	return out, err
}

// readKeyMarker is the key that a marker names; nil for no marker.
func (s *Service) readKeyMarker(operation, marker string) (*store.KeyID, error) {
	if marker == "" {
		return nil, nil
	}
	last, err := s.ring.readMarker(operation, marker)
	if err != nil {
		return nil, err
	}
	var id store.KeyID
	if copy(id[:], last) != len(last) {
		return nil, errInvalidMarker()
	}
	return &id, nil
}

func (s *Service) updateKeyDescription(r *request, in *UpdateKeyDescriptionInput) (*UpdateKeyDescriptionOutput, error) {
	if err := checkDescription(in.Description); err != nil {
		return nil, err
	}
	r.param("description", in.Description)
	return &UpdateKeyDescriptionOutput{}, s.alter(r, "kms:UpdateKeyDescription", in.KeyId, func(k *key, changed *store.Key) error {
		changed.Description = in.Description
		return k.notIn(statePendingDeletion)
	})
}

// setState enables or disables a key. A key that is in the state already stays so.
func (s *Service) setState(r *request, action, id, state string) error {
	return s.alter(r, action, id, func(k *key, changed *store.Key) error {
		changed.State = state
		return k.notIn(statePendingDeletion, statePendingImport)
	})
}

// named finds the key that a request names by ID or ARN, and lets the caller perform the action on it.
func (s *Service) named(r *request, action, id string) (*key, error) {
	return s.namedIn(r, action, id, nil)
}

// namedIn is named for an action in an encryption context.
func (s *Service) namedIn(r *request, action, id string, context map[string]string) (*key, error) {
	r.textParam("keyId", id)
	if err := checkIdentifier("keyId", id); err != nil {
		return nil, err
	}
	k, err := s.plainKey(id)
	if err != nil {
		return nil, err
	}
	return k, s.admitIn(r, action, k, context)
}

// alter lets the caller perform an action that changes the record of the key that a request names by ID or ARN. What f makes of the
// record, which is a copy, is stored, unless f returns an error.
func (s *Service) alter(r *request, action, id string, f func(k *key, changed *store.Key) error) error {
	r.readOnly = false
	s.changes.Lock()
	defer s.changes.Unlock()
	k, err := s.named(r, action, id)
	if err != nil {
		return err
	}
	changed := k.Key
	changed.Materials, changed.Tags = slices.Clone(k.Materials), slices.Clone(k.Tags)
	if err := f(k, &changed); err != nil {
		return err
	}
	defer s.remind()
	return s.change(r, func(tx *store.Tx) error {
		return firstError(tx.PutKey(&changed), noteDue(tx, &changed))
	}, k.ID)
}

// noteDue puts on the agenda what is to happen to a key. What is there already, or holds no more, does no harm.
func noteDue(tx *store.Tx, k *store.Key) error {
	var err error
	if k.State == statePendingDeletion {
		err = tx.Remind(store.Due{Time: k.Deletion, Kind: store.DueDeletion, Key: k.ID})
	}
	if k.State == stateEnabled && k.RotationPeriod > 0 {
		err = firstError(err, tx.Remind(store.Due{Time: k.NextRotation, Kind: store.DueRotation, Key: k.ID}))
	}
	for _, m := range k.Materials {
		if m.Present && !m.ValidTo.IsZero() {
			err = firstError(err, tx.Remind(store.Due{Time: m.ValidTo, Kind: store.DueExpiry, Key: k.ID}))
		}
	}
	return err
}
