package keyservice

import (
	"cmp"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/catalog"
	"kmsfs/keyservice/keyspec"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/material"
	"kmsfs/keyservice/store"
	"kmsfs/keyservice/token"
)

// millis is a time as it is stored: in UTC, with whole milliseconds.
func millis(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

func (s *Service) createKey(r *request, in *kms.CreateKeyInput) (*kms.CreateKeyOutput, error) {
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
	return &kms.CreateKeyOutput{KeyMetadata: s.metadata(k)}, nil
}

// describeNewKey tells the audit log and the policies what key is asked for.
func (s *Service) describeNewKey(r *request, k *store.Key, in *kms.CreateKeyInput) {
	r.param("keySpec", k.Spec)
	r.param("keyUsage", k.Usage)
	r.param("origin", k.Origin)
	if k.Description != "" {
		r.param("description", k.Description)
	}
	r.authz.Set("kms:keyspec", k.Spec)
	r.authz.Set("kms:keyusage", k.Usage)
	r.authz.Set("kms:keyorigin", k.Origin)
	r.authz.Set("kms:multiregion", "false")
	r.authz.SetBool("kms:bypasspolicylockoutsafetycheck", in.BypassPolicyLockoutSafetyCheck)
	r.aboutTags(in.Tags)
}

// admitNewKey lets the caller make the key, with the policy and the tags that it is to have.
func (s *Service) admitNewKey(r *request, in *kms.CreateKeyInput) error {
	if err := s.authorizeAccount(r, "kms:CreateKey", "*"); err != nil {
		return err
	}
	if in.Policy != "" {
		if err := s.authorizeAccount(r, "kms:PutKeyPolicy", "*"); err != nil {
			return err
		}
	}
	if len(in.Tags) > 0 {
		return s.authorizeAccount(r, "kms:TagResource", "*")
	}
	return nil
}

// newKeyRecord is the key that is asked for.
func newKeyRecord(in *kms.CreateKeyInput) (*store.Key, error) {
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
		origin = kms.OriginKMS
	}
	if err := cmp.Or(
		kms.CheckEnum("origin", origin, kms.OriginKMS, kms.OriginExternal, "AWS_CLOUDHSM", "EXTERNAL_KEY_STORE"),
		kms.CheckUnsupported("Origin "+kms.Printable(origin), origin != kms.OriginKMS && origin != kms.OriginExternal),
		checkDescription(in.Description),
		kms.CheckUnsupported("MultiRegion", in.MultiRegion),
		kms.CheckUnsupported("CustomKeyStoreId", in.CustomKeyStoreId != ""),
		kms.CheckUnsupported("XksKeyId", in.XksKeyId != "")); err != nil {
		return nil, err
	}
	tags, err := newTags(in.Tags)
	if err != nil {
		return nil, err
	}
	return &store.Key{
		Description: in.Description, Manager: kms.ManagerCustomer, Spec: spec.Name, Usage: usage, Origin: origin, Current: -1, Tags: tags,
	}, nil
}

func requestedSpec(in *kms.CreateKeyInput) (*keyspec.Spec, error) {
	name := in.KeySpec
	if name == "" {
		name = in.CustomerMasterKeySpec
	}
	switch {
	case in.KeySpec != "" && in.CustomerMasterKeySpec != "":
		return nil, kms.Errorf(kms.CodeValidation, "You cannot specify KeySpec and CustomerMasterKeySpec in the same request. CustomerMasterKeySpec is deprecated.")
	case name == "":
		name = kms.SpecSymmetric
	}
	spec, ok := keyspec.Find(name)
	switch {
	case ok:
		return spec, nil
	case keyspec.IsKnown(name):
		return nil, kms.CheckUnsupported("KeySpec "+name, true)
	}
	return nil, kms.Invalid("keySpec", kms.Printable(name), "Member must satisfy enum value set: AWS KMS's key specs")
}

func requestedUsage(in *kms.CreateKeyInput, spec *keyspec.Spec) (string, error) {
	usage := in.KeyUsage
	if err := kms.CheckEnum("keyUsage", usage, kms.UsageEncryption, kms.UsageSigning, kms.UsageMAC, kms.UsageAgreement); err != nil {
		return "", err
	}
	switch {
	case usage == "" && spec.Symmetric():
		return kms.UsageEncryption, nil
	case usage == "":
		return "", kms.Errorf(kms.CodeValidation, "You must specify a KeyUsage value for all KMS keys except for symmetric encryption keys.")
	case !spec.Allows(usage):
		return "", kms.Errorf(kms.CodeValidation, "KeyUsage %s is not compatible with KeySpec %s", usage, spec.Name)
	}
	return usage, nil
}

func checkDescription(text string) error {
	if !utf8.ValidString(text) {
		return kms.Invalid("description", "", "Member must be text")
	}
	return kms.CheckLength("description", utf8.RuneCountInString(text), 0, kms.MaxDescription)
}

// addKey makes a key, with its first material unless that is to be imported.
func (s *Service) addKey(r *request, record *store.Key, policy string) (*catalog.Key, error) {
	id, err := uuid.NewRandom()
	if err != nil {
		return nil, err
	}
	record.ID, record.Created, record.State = id, millis(r.time), kms.StatePendingImport
	var made *material.Plain
	if record.Origin == kms.OriginKMS {
		record.State = kms.StateEnabled
		if made, err = s.generateMaterial(r, record); err != nil {
			return nil, err
		}
		defer made.Wipe()
	}
	s.changes.Lock()
	defer s.changes.Unlock()
	arn := s.names.Key(id)
	r.concerns(resourceKey, arn)
	r.response = append(r.response, audit.Text("keyId", arn))
	err = s.changeMaterial(r, made, func(tx *store.Tx) error {
		if tx.KeyCount() >= kms.MaxKeys {
			return kms.Errorf(kms.CodeLimitExceeded, "There are %d keys, which is the limit.", kms.MaxKeys)
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
	return s.catalog.Any(id)
}

func (s *Service) describeKey(r *request, in *kms.DescribeKeyInput) (*kms.DescribeKeyOutput, error) {
	r.textParam("keyId", in.KeyId)
	if err := cmp.Or(kms.CheckIdentifier("keyId", in.KeyId), s.tokens.CheckGrants(in.GrantTokens)); err != nil {
		return nil, err
	}
	k, err := s.anyKey(r, in.KeyId)
	if err != nil {
		return nil, err
	}
	if err := s.authorizeIn(r, "kms:DescribeKey", k, nil); err != nil {
		return nil, err
	}
	return &kms.DescribeKeyOutput{KeyMetadata: s.metadata(k.Key)}, nil
}

func (s *Service) metadata(k *catalog.Key) kms.KeyMetadata {
	m := kms.KeyMetadata{
		AWSAccountId: s.facts.Account, KeyId: k.ID.String(), Arn: k.ARN,
		CreationDate: kms.Timestamp{Time: k.Created}, Enabled: k.State == kms.StateEnabled, Description: k.Description,
		KeyUsage: k.Usage, KeyState: k.State, DeletionDate: given(k.Deletion), Origin: k.Origin, KeyManager: k.Manager,
		CustomerMasterKeySpec: k.Spec, KeySpec: k.Spec, CurrentKeyMaterialId: k.CurrentID,
	}
	switch k.Usage {
	case kms.UsageEncryption:
		m.EncryptionAlgorithms = k.KeySpec.EncryptionAlgorithms
	case kms.UsageSigning:
		m.SigningAlgorithms = k.KeySpec.SigningAlgorithms
	case kms.UsageMAC:
		m.MacAlgorithms = k.KeySpec.MacAlgorithms
	case kms.UsageAgreement:
		m.KeyAgreementAlgorithms = k.KeySpec.KeyAgreementAlgorithms
	}
	if current := k.CurrentMaterial(); k.Origin == kms.OriginExternal && current != nil {
		m.ExpirationModel, m.ValidTo = expirationModel(current.ValidTo), given(current.ValidTo)
	}
	return m
}

// given is a time as the wire has it; nil for the zero time.
func given(t time.Time) *kms.Timestamp {
	if t.IsZero() {
		return nil
	}
	return &kms.Timestamp{Time: t}
}

func (s *Service) listKeys(r *request, in *kms.ListKeysInput) (*kms.ListKeysOutput, error) {
	limit, err := kms.PageSize(in.Limit, 100, 1000)
	if err != nil {
		return nil, err
	}
	if err := s.authorizeAccount(r, "kms:ListKeys", "*"); err != nil {
		return nil, err
	}
	after, err := s.readKeyMarker("ListKeys", in.Marker)
	if err != nil {
		return nil, err
	}
	out := &kms.ListKeysOutput{Keys: []kms.KeyListEntry{}}
	var last store.KeyID
	err = s.store.View(func(tx *store.Tx) error {
		var readErr error
		err := tx.Keys(after, func(id store.KeyID) bool {
			var k *store.Key
			if k, readErr = tx.Key(id); readErr != nil || k.Manager == kms.ManagerOwned {
				return readErr == nil
			}
			if len(out.Keys) == limit {
				out.Truncated = true
				return false
			}
			last = id
			out.Keys = append(out.Keys, kms.KeyListEntry{KeyId: id.String(), KeyArn: s.names.Key(id)})
			return true
		})
		return cmp.Or(err, readErr)
	})
	if out.Truncated {
		out.NextMarker = s.tokens.Marker("ListKeys", last[:])
	}
	return out, err
}

// readKeyMarker is the key that a marker names; nil for no marker.
func (s *Service) readKeyMarker(operation, marker string) (*store.KeyID, error) {
	if marker == "" {
		return nil, nil
	}
	last, err := s.tokens.ReadMarker(operation, marker)
	if err != nil {
		return nil, err
	}
	var id store.KeyID
	if copy(id[:], last) != len(last) {
		return nil, token.ErrInvalidMarker()
	}
	return &id, nil
}

func (s *Service) updateKeyDescription(r *request, in *kms.UpdateKeyDescriptionInput) (*kms.UpdateKeyDescriptionOutput, error) {
	if err := checkDescription(in.Description); err != nil {
		return nil, err
	}
	r.param("description", in.Description)
	return &kms.UpdateKeyDescriptionOutput{}, s.alter(r, "kms:UpdateKeyDescription", in.KeyId, func(k *catalog.Key, changed *store.Key) error {
		changed.Description = in.Description
		return k.NotIn(kms.StatePendingDeletion)
	})
}

func (s *Service) enableKey(r *request, in *kms.EnableKeyInput) (*kms.EnableKeyOutput, error) {
	return &kms.EnableKeyOutput{}, s.setState(r, "kms:EnableKey", in.KeyId, kms.StateEnabled)
}

func (s *Service) disableKey(r *request, in *kms.DisableKeyInput) (*kms.DisableKeyOutput, error) {
	return &kms.DisableKeyOutput{}, s.setState(r, "kms:DisableKey", in.KeyId, kms.StateDisabled)
}

// setState enables or disables a key. A key that is in the state already stays so.
func (s *Service) setState(r *request, action, id, state string) error {
	return s.alter(r, action, id, func(k *catalog.Key, changed *store.Key) error {
		changed.State = state
		return k.NotIn(kms.StatePendingDeletion, kms.StatePendingImport)
	})
}

// named finds the key that a request names by ID or ARN, and lets the caller perform the action on it.
func (s *Service) named(r *request, action, id string) (*catalog.Key, error) {
	return s.namedIn(r, action, id, nil)
}

// namedIn is named for an action in an encryption context.
func (s *Service) namedIn(r *request, action, id string, context map[string]string) (*catalog.Key, error) {
	r.textParam("keyId", id)
	if err := kms.CheckIdentifier("keyId", id); err != nil {
		return nil, err
	}
	k, err := s.catalog.Named(id)
	if err != nil {
		return nil, err
	}
	return k, s.authorizeIn(r, action, namedKey{Key: k}, context)
}

// alter lets the caller perform an action that changes the record of the key that a request names by ID or ARN. What f makes of the
// record, which is a copy, is stored, unless f returns an error.
func (s *Service) alter(r *request, action, id string, f func(k *catalog.Key, changed *store.Key) error) error {
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
	defer s.scheduler.Wake()
	return s.change(r, func(tx *store.Tx) error {
		return cmp.Or(tx.PutKey(&changed), noteDue(tx, &changed))
	}, k.ID)
}

// noteDue schedules what is to happen to a key. What is there already, or holds no more, does no harm.
func noteDue(tx *store.Tx, k *store.Key) error {
	var err error
	if k.State == kms.StatePendingDeletion {
		err = tx.Remind(store.Due{Time: k.Deletion, Kind: store.DueDeletion, Key: k.ID})
	}
	if k.State == kms.StateEnabled && k.RotationPeriod > 0 {
		err = cmp.Or(err, tx.Remind(store.Due{Time: k.NextRotation, Kind: store.DueRotation, Key: k.ID}))
	}
	for _, m := range k.Materials {
		if m.Present && !m.ValidTo.IsZero() {
			err = cmp.Or(err, tx.Remind(store.Due{Time: m.ValidTo, Kind: store.DueExpiry, Key: k.ID}))
		}
	}
	return err
}

func (s *Service) getKeyLastUsage(r *request, in *kms.GetKeyLastUsageInput) (*kms.GetKeyLastUsageOutput, error) {
	k, err := s.named(r, "kms:GetKeyLastUsage", in.KeyId)
	if err != nil {
		return nil, err
	}
	out := &kms.GetKeyLastUsageOutput{KeyId: k.ARN, TrackingStartDate: kms.Timestamp{Time: k.Created}, KeyCreationDate: kms.Timestamp{Time: k.Created}}
	use, ok, err := s.usage.Last(s.store, k.ID)
	if ok {
		out.KeyLastUsage = kms.KeyLastUsage{CloudTrailEventId: use.EventID.String(), KmsRequestId: use.RequestID.String(), Operation: use.Operation, Timestamp: &kms.Timestamp{Time: use.Time}}
	}
	return out, err
}
