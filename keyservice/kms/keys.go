package kms

import (
	"encoding/json"
	"strconv"
	"time"
)

// The operations on KMS keys.
var (
	// CreateKey makes a KMS key.
	CreateKey = newChange[CreateKeyInput, CreateKeyOutput]("CreateKey")
	// DescribeKey describes a KMS key.
	DescribeKey = newQuery[DescribeKeyInput, DescribeKeyOutput]("DescribeKey")
	// ListKeys lists all KMS keys, a page at a time.
	ListKeys = newQuery[ListKeysInput, ListKeysOutput]("ListKeys")
	// UpdateKeyDescription changes a KMS key's description.
	UpdateKeyDescription = newChange[UpdateKeyDescriptionInput, UpdateKeyDescriptionOutput]("UpdateKeyDescription")
	// EnableKey lets a KMS key be used.
	EnableKey = newChange[EnableKeyInput, EnableKeyOutput]("EnableKey")
	// DisableKey forbids all use of a KMS key: no call that comes after its return uses the key.
	DisableKey = newChange[DisableKeyInput, DisableKeyOutput]("DisableKey")
	// ScheduleKeyDeletion has a KMS key deleted after a waiting period, during which it can't be used.
	ScheduleKeyDeletion = newChange[ScheduleKeyDeletionInput, ScheduleKeyDeletionOutput]("ScheduleKeyDeletion")
	// CancelKeyDeletion keeps a KMS key that is pending deletion. It is disabled then.
	CancelKeyDeletion = newChange[CancelKeyDeletionInput, CancelKeyDeletionOutput]("CancelKeyDeletion")
	// TagResource gives a KMS key tags.
	TagResource = newChange[TagResourceInput, TagResourceOutput]("TagResource")
	// UntagResource takes tags from a KMS key. Those that it doesn't have are no error.
	UntagResource = newChange[UntagResourceInput, UntagResourceOutput]("UntagResource")
	// ListResourceTags lists a KMS key's tags, a page at a time.
	ListResourceTags = newQuery[ListResourceTagsInput, ListResourceTagsOutput]("ListResourceTags")
	// GetKeyLastUsage says when a KMS key was last used.
	GetKeyLastUsage = newQuery[GetKeyLastUsageInput, GetKeyLastUsageOutput]("GetKeyLastUsage")
)

// Timestamp is a time that goes over the wire as AWS KMS's do, in seconds since 1970 with a fraction.
type Timestamp struct{ time.Time }

// MarshalJSON gives a number with milliseconds.
func (t Timestamp) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, float64(t.UnixMilli())/1000, 'f', 3, 64), nil
}

// UnmarshalJSON takes a number.
func (t *Timestamp) UnmarshalJSON(text []byte) error {
	var seconds float64
	if err := json.Unmarshal(text, &seconds); err != nil {
		return err
	}
	t.Time = time.UnixMilli(int64(seconds * 1000)).UTC()
	return nil
}

// KeyMetadata describes a KMS key. Of the lists of algorithms it has the one that fits the key's usage.
type KeyMetadata struct {
	AWSAccountId string
	KeyId        string
	Arn          string
	CreationDate Timestamp
	Enabled      bool
	Description  string
	KeyUsage     string
	// KeyState is "Enabled", "Disabled", "PendingDeletion", "PendingImport" or "Unavailable".
	KeyState string
	// DeletionDate is set while the key is pending deletion.
	DeletionDate *Timestamp `json:",omitempty"`
	// ValidTo is when imported key material expires.
	ValidTo *Timestamp `json:",omitempty"`
	// Origin is "AWS_KMS" for material made here, and "EXTERNAL" for imported.
	Origin          string
	ExpirationModel string `json:",omitempty"`
	// KeyManager is "CUSTOMER", or "AWS" for the file system's own keys.
	KeyManager             string
	CustomerMasterKeySpec  string
	KeySpec                string
	EncryptionAlgorithms   []string `json:",omitempty"`
	SigningAlgorithms      []string `json:",omitempty"`
	KeyAgreementAlgorithms []string `json:",omitempty"`
	MacAlgorithms          []string `json:",omitempty"`
	MultiRegion            bool
	// CurrentKeyMaterialId names the material of a symmetric key that encrypts: 64 hexadecimal digits.
	CurrentKeyMaterialId string `json:",omitempty"`
}

// Tag is a name and value that a key's owner gives it.
type Tag struct{ TagKey, TagValue string }

// CreateKeyInput asks for a new KMS key. Empty fields stand for AWS's defaults.
type CreateKeyInput struct {
	// Policy is the key policy; empty for the default one, by which the home's owner may do everything.
	Policy string `json:",omitempty"`
	// Description has at most 8192 characters.
	Description string `json:",omitempty"`
	// KeySpec is "SYMMETRIC_DEFAULT", "RSA_2048", "ECC_NIST_P256", "HMAC_256", ...; CustomerMasterKeySpec is its old name.
	KeySpec               string `json:",omitempty"`
	CustomerMasterKeySpec string `json:",omitempty"`
	// KeyUsage is "ENCRYPT_DECRYPT", "SIGN_VERIFY", "GENERATE_VERIFY_MAC" or "KEY_AGREEMENT". Only symmetric keys have a default.
	KeyUsage string `json:",omitempty"`
	// Origin is "AWS_KMS" or, for material that is imported later, "EXTERNAL".
	Origin                         string `json:",omitempty"`
	Tags                           []Tag  `json:",omitempty"`
	MultiRegion                    bool   `json:",omitempty"`
	BypassPolicyLockoutSafetyCheck bool   `json:",omitempty"`
	// CustomKeyStoreId and XksKeyId have no place here.
	CustomKeyStoreId string `json:",omitempty"`
	XksKeyId         string `json:",omitempty"`
}

// CreateKeyOutput describes the new key.
type CreateKeyOutput struct{ KeyMetadata KeyMetadata }

// DescribeKeyInput names a key by ID, ARN, alias or alias ARN.
type DescribeKeyInput struct {
	KeyId       string
	GrantTokens []string `json:",omitempty"`
}

// DescribeKeyOutput describes the key.
type DescribeKeyOutput struct{ KeyMetadata KeyMetadata }

// ListKeysInput asks for a page of all keys.
type ListKeysInput struct {
	// Limit is 1 to 1000 keys; nil stands for 100.
	Limit *int32 `json:",omitempty"`
	// Marker is the last page's NextMarker, and empty for the first.
	Marker string `json:",omitempty"`
}

// ListKeysOutput is a page of keys, in the order of their IDs.
type ListKeysOutput struct {
	Keys       []KeyListEntry
	NextMarker string `json:",omitempty"`
	Truncated  bool
}

// KeyListEntry names a key.
type KeyListEntry struct{ KeyId, KeyArn string }

// EnableKeyInput names a key by ID or ARN.
type EnableKeyInput struct {
	KeyId string `json:",omitempty"`
}

// EnableKeyOutput is empty.
type EnableKeyOutput struct{}

// DisableKeyInput names a key by ID or ARN.
type DisableKeyInput struct {
	KeyId string `json:",omitempty"`
}

// DisableKeyOutput is empty.
type DisableKeyOutput struct{}

// UpdateKeyDescriptionInput gives a key, named by ID or ARN, another description of at most 8192 characters.
type UpdateKeyDescriptionInput struct {
	KeyId       string
	Description string
}

// UpdateKeyDescriptionOutput is empty.
type UpdateKeyDescriptionOutput struct{}

// ScheduleKeyDeletionInput has a key, named by ID or ARN, deleted after a waiting period.
type ScheduleKeyDeletionInput struct {
	KeyId string
	// PendingWindowInDays is 7 to 30; nil stands for 30.
	PendingWindowInDays *int32 `json:",omitempty"`
}

// ScheduleKeyDeletionOutput says when the key's material is destroyed.
type ScheduleKeyDeletionOutput struct {
	KeyId               string
	DeletionDate        Timestamp
	KeyState            string
	PendingWindowInDays int32
}

// CancelKeyDeletionInput names a key that is pending deletion by ID or ARN.
type CancelKeyDeletionInput struct{ KeyId string }

// CancelKeyDeletionOutput names the key, which is disabled.
type CancelKeyDeletionOutput struct{ KeyId string }

// TagResourceInput gives a key, named by ID or ARN, tags, or tags that it has other values.
type TagResourceInput struct {
	KeyId string
	Tags  []Tag
}

// TagResourceOutput is empty.
type TagResourceOutput struct{}

// UntagResourceInput takes tags from a key, named by ID or ARN.
type UntagResourceInput struct {
	KeyId   string
	TagKeys []string
}

// UntagResourceOutput is empty.
type UntagResourceOutput struct{}

// ListResourceTagsInput asks for a page of the tags of a key, named by ID or ARN.
type ListResourceTagsInput struct {
	KeyId string
	// Limit is 1 to 50 tags; nil stands for 50.
	Limit  *int32 `json:",omitempty"`
	Marker string `json:",omitempty"`
}

// ListResourceTagsOutput is a page of tags, in the order of their keys.
type ListResourceTagsOutput struct {
	Tags       []Tag
	NextMarker string `json:",omitempty"`
	Truncated  bool
}

// GetKeyLastUsageInput names a key by ID or ARN.
type GetKeyLastUsageInput struct{ KeyId string }

// GetKeyLastUsageOutput says when the key was last used for a cryptographic operation that succeeded.
type GetKeyLastUsageOutput struct {
	KeyId        string
	KeyLastUsage KeyLastUsage
	// TrackingStartDate is since when uses are noted.
	TrackingStartDate Timestamp
	KeyCreationDate   Timestamp
}

// KeyLastUsage is the use; empty if there was none.
type KeyLastUsage struct {
	CloudTrailEventId string     `json:",omitempty"`
	KmsRequestId      string     `json:",omitempty"`
	Operation         string     `json:",omitempty"`
	Timestamp         *Timestamp `json:",omitempty"`
}
