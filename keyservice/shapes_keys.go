package keyservice

import (
	"encoding/json"
	"strconv"
	"time"
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

// KeyMetadata describes a KMS key.
type KeyMetadata struct {
	AWSAccountId string
	KeyId        string
	Arn          string
	CreationDate Timestamp
	Enabled      bool
	Description  string
	KeyUsage     string
	// KeyState is "Enabled" or "Disabled".
	KeyState              string
	Origin                string
	KeyManager            string
	CustomerMasterKeySpec string
	KeySpec               string
	EncryptionAlgorithms  []string
	MultiRegion           bool
	// CurrentKeyMaterialId names the material that encrypts: 64 hexadecimal digits.
	CurrentKeyMaterialId string
}

// CreateKeyInput asks for a new KMS key. Empty fields stand for AWS's defaults; of what has no place here yet, nothing but the default is accepted.
type CreateKeyInput struct {
	// Description has at most 8192 characters.
	Description           string          `json:",omitempty"`
	KeySpec               string          `json:",omitempty"`
	CustomerMasterKeySpec string          `json:",omitempty"`
	KeyUsage              string          `json:",omitempty"`
	Origin                string          `json:",omitempty"`
	MultiRegion           bool            `json:",omitempty"`
	Policy                string          `json:",omitempty"`
	Tags                  json.RawMessage `json:",omitempty"`
	CustomKeyStoreId      string          `json:",omitempty"`
	XksKeyId              string          `json:",omitempty"`
	// BypassPolicyLockoutSafetyCheck has no effect without a policy.
	BypassPolicyLockoutSafetyCheck bool `json:",omitempty"`
}

// CreateKeyOutput describes the new key.
type CreateKeyOutput struct{ KeyMetadata KeyMetadata }

// DescribeKeyInput names a key by ID, ARN, alias or alias ARN.
type DescribeKeyInput struct {
	KeyId       string   `json:",omitempty"`
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

// CreateAliasInput gives a key a new alias.
type CreateAliasInput struct {
	// AliasName begins with "alias/".
	AliasName string `json:",omitempty"`
	// TargetKeyId is a key's ID or ARN.
	TargetKeyId string `json:",omitempty"`
}

// CreateAliasOutput is empty.
type CreateAliasOutput struct{}

// UpdateAliasInput has an alias name another key. Its fields are CreateAliasInput's.
type UpdateAliasInput struct {
	AliasName   string `json:",omitempty"`
	TargetKeyId string `json:",omitempty"`
}

// UpdateAliasOutput is empty.
type UpdateAliasOutput struct{}

// DeleteAliasInput names an alias.
type DeleteAliasInput struct {
	AliasName string `json:",omitempty"`
}

// DeleteAliasOutput is empty.
type DeleteAliasOutput struct{}

// ListAliasesInput asks for a page of all aliases, or of one key's.
type ListAliasesInput struct {
	// KeyId is a key's ID or ARN, and empty for all aliases.
	KeyId string `json:",omitempty"`
	// Limit is 1 to 100 aliases; nil stands for 50.
	Limit  *int32 `json:",omitempty"`
	Marker string `json:",omitempty"`
}

// ListAliasesOutput is a page of aliases, in the order of their names.
type ListAliasesOutput struct {
	Aliases    []AliasListEntry
	NextMarker string `json:",omitempty"`
	Truncated  bool
}

// AliasListEntry is an alias.
type AliasListEntry struct {
	AliasName, AliasArn string
	// TargetKeyId is a key's ID.
	TargetKeyId                   string
	CreationDate, LastUpdatedDate Timestamp
}
