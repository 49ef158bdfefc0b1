package keyservice

import (
	"cmp"
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

// keyOperations create, describe, list and change KMS keys.
type keyOperations struct{ *core }

func (o keyOperations) createKey(r *request, in *kms.CreateKeyInput) (*kms.CreateKeyOutput, error) {
	r.readOnly = false
	record, err := newKeyRecord(in)
	if err != nil {
		return nil, err
	}
	o.describeNewKey(r, record, in)
	if err := o.admitNewKey(r, in); err != nil {
		return nil, err
	}
	if err := policyOperations(o).checkNew(r, record, in); err != nil {
		return nil, err
	}
	k, err := o.addKey(r, record, in.Policy)
	if err != nil {
		return nil, err
	}
	return &kms.CreateKeyOutput{KeyMetadata: metadata(k, o.facts.Account)}, nil
}

// describeNewKey tells the audit log and the policies what key is asked for.
func (o keyOperations) describeNewKey(r *request, k *store.Key, in *kms.CreateKeyInput) {
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
func (o keyOperations) admitNewKey(r *request, in *kms.CreateKeyInput) error {
	if err := o.authorizeAccount(r, "kms:CreateKey", "*"); err != nil {
		return err
	}
	if in.Policy != "" {
		if err := o.authorizeAccount(r, "kms:PutKeyPolicy", "*"); err != nil {
			return err
		}
	}
	if len(in.Tags) > 0 {
		return o.authorizeAccount(r, "kms:TagResource", "*")
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
func (o keyOperations) addKey(r *request, record *store.Key, policy string) (*catalog.Key, error) {
	id, err := uuid.NewRandom()
	if err != nil {
		return nil, err
	}
	record.ID, record.Created, record.State = id, millis(r.time), kms.StatePendingImport
	var made *material.Plain
	if record.Origin == kms.OriginKMS {
		record.State = kms.StateEnabled
		if made, err = o.generateMaterial(r, record); err != nil {
			return nil, err
		}
		defer made.Wipe()
	}
	o.changes.Lock()
	defer o.changes.Unlock()
	arn := o.names.Key(id)
	r.concerns(resourceKey, arn)
	r.response = append(r.response, audit.Text("keyId", arn))
	err = o.changeMaterial(r, made, func(tx *store.Tx) error {
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
	return o.catalog.Any(id)
}

func (o keyOperations) describeKey(r *request, in *kms.DescribeKeyInput) (*kms.DescribeKeyOutput, error) {
	r.textParam("keyId", in.KeyId)
	if err := cmp.Or(kms.CheckIdentifier("keyId", in.KeyId), o.tokens.CheckGrants(in.GrantTokens)); err != nil {
		return nil, err
	}
	k, err := o.anyKey(r, in.KeyId)
	if err != nil {
		return nil, err
	}
	if err := o.authorizeIn(r, "kms:DescribeKey", k, nil); err != nil {
		return nil, err
	}
	return &kms.DescribeKeyOutput{KeyMetadata: metadata(k.Key, o.facts.Account)}, nil
}

// metadata describes a key of the account.
func metadata(k *catalog.Key, account string) kms.KeyMetadata {
	m := kms.KeyMetadata{
		AWSAccountId: account, KeyId: k.ID.String(), Arn: k.ARN,
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

func (o keyOperations) listKeys(r *request, in *kms.ListKeysInput) (*kms.ListKeysOutput, error) {
	limit, err := kms.PageSize(in.Limit, 100, 1000)
	if err != nil {
		return nil, err
	}
	if err := o.authorizeAccount(r, "kms:ListKeys", "*"); err != nil {
		return nil, err
	}
	after, err := o.readKeyMarker("ListKeys", in.Marker)
	if err != nil {
		return nil, err
	}
	out := &kms.ListKeysOutput{Keys: []kms.KeyListEntry{}}
	var last store.KeyID
	err = o.store.View(func(tx *store.Tx) error {
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
			out.Keys = append(out.Keys, kms.KeyListEntry{KeyId: id.String(), KeyArn: o.names.Key(id)})
			return true
		})
		return cmp.Or(err, readErr)
	})
	if out.Truncated {
		out.NextMarker = o.tokens.Marker("ListKeys", last[:])
	}
	return out, err
}

// readKeyMarker is the key that a marker names; nil for no marker.
func (o keyOperations) readKeyMarker(operation, marker string) (*store.KeyID, error) {
	if marker == "" {
		return nil, nil
	}
	last, err := o.tokens.ReadMarker(operation, marker)
	if err != nil {
		return nil, err
	}
	var id store.KeyID
	if copy(id[:], last) != len(last) {
		return nil, token.ErrInvalidMarker()
	}
	return &id, nil
}

func (o keyOperations) updateKeyDescription(r *request, in *kms.UpdateKeyDescriptionInput) (*kms.UpdateKeyDescriptionOutput, error) {
	if err := checkDescription(in.Description); err != nil {
		return nil, err
	}
	r.param("description", in.Description)
	return &kms.UpdateKeyDescriptionOutput{}, o.alter(r, "kms:UpdateKeyDescription", in.KeyId, func(k *catalog.Key, changed *store.Key) error {
		changed.Description = in.Description
		return k.NotIn(kms.StatePendingDeletion)
	})
}

func (o keyOperations) enableKey(r *request, in *kms.EnableKeyInput) (*kms.EnableKeyOutput, error) {
	return &kms.EnableKeyOutput{}, o.setState(r, "kms:EnableKey", in.KeyId, kms.StateEnabled)
}

func (o keyOperations) disableKey(r *request, in *kms.DisableKeyInput) (*kms.DisableKeyOutput, error) {
	return &kms.DisableKeyOutput{}, o.setState(r, "kms:DisableKey", in.KeyId, kms.StateDisabled)
}

// setState enables or disables a key. A key that is in the state already stays so.
func (o keyOperations) setState(r *request, action, id, state string) error {
	return o.alter(r, action, id, func(k *catalog.Key, changed *store.Key) error {
		changed.State = state
		return k.NotIn(kms.StatePendingDeletion, kms.StatePendingImport)
	})
}

func (o keyOperations) getKeyLastUsage(r *request, in *kms.GetKeyLastUsageInput) (*kms.GetKeyLastUsageOutput, error) {
	k, err := o.named(r, "kms:GetKeyLastUsage", in.KeyId)
	if err != nil {
		return nil, err
	}
	out := &kms.GetKeyLastUsageOutput{KeyId: k.ARN, TrackingStartDate: kms.Timestamp{Time: k.Created}, KeyCreationDate: kms.Timestamp{Time: k.Created}}
	use, ok, err := o.usage.Last(o.store, k.ID)
	if ok {
		out.KeyLastUsage = kms.KeyLastUsage{CloudTrailEventId: use.EventID.String(), KmsRequestId: use.RequestID.String(), Operation: use.Operation, Timestamp: &kms.Timestamp{Time: use.Time}}
	}
	return out, err
}

func (o keyOperations) scheduleKeyDeletion(r *request, in *kms.ScheduleKeyDeletionInput) (*kms.ScheduleKeyDeletionOutput, error) {
	window := int32(kms.MaxPendingWindow)
	if in.PendingWindowInDays != nil {
		window = *in.PendingWindowInDays
	}
	r.paramNumber("pendingWindowInDays", int64(window))
	r.authz.SetNumber("kms:schedulekeydeletionpendingwindowindays", int64(window))
	if err := kms.CheckNumber("pendingWindowInDays", &window, kms.MinPendingWindow, kms.MaxPendingWindow); err != nil {
		return nil, err
	}
	out := &kms.ScheduleKeyDeletionOutput{KeyState: kms.StatePendingDeletion, PendingWindowInDays: window}
	err := o.alter(r, "kms:ScheduleKeyDeletion", in.KeyId, func(k *catalog.Key, changed *store.Key) error {
		changed.State, changed.Deletion = kms.StatePendingDeletion, millis(r.time).AddDate(0, 0, int(window))
		out.KeyId, out.DeletionDate = k.ARN, kms.Timestamp{Time: changed.Deletion}
		r.response = append(r.response, audit.Text("keyId", k.ARN), audit.Text("keyState", changed.State),
			audit.Text("deletionDate", changed.Deletion.Format(time.RFC3339)), audit.Number("pendingWindowInDays", int64(window)))
		return k.NotIn(kms.StatePendingDeletion)
	})
	return out, err
}

func (o keyOperations) cancelKeyDeletion(r *request, in *kms.CancelKeyDeletionInput) (*kms.CancelKeyDeletionOutput, error) {
	out := &kms.CancelKeyDeletionOutput{}
	err := o.alter(r, "kms:CancelKeyDeletion", in.KeyId, func(k *catalog.Key, changed *store.Key) error {
		if !k.IsIn(kms.StatePendingDeletion) {
			return kms.Errorf(kms.CodeKMSInvalidState, "%s is not pending deletion.", k.ARN)
		}
		changed.State, changed.Deletion = kms.StateDisabled, time.Time{}
		if catalog.LacksMaterial(&k.Key) {
			changed.State = kms.StatePendingImport
		}
		out.KeyId = k.ARN
		r.response = append(r.response, audit.Text("keyId", k.ARN))
		return nil
	})
	return out, err
}
