package kms

// The operations on aliases.
var (
	// CreateAlias gives a KMS key a further name.
	CreateAlias = newChange[CreateAliasInput, CreateAliasOutput]("CreateAlias")
	// UpdateAlias has an alias name another KMS key.
	UpdateAlias = newChange[UpdateAliasInput, UpdateAliasOutput]("UpdateAlias")
	// DeleteAlias removes an alias; the KMS key stays.
	DeleteAlias = newChange[DeleteAliasInput, DeleteAliasOutput]("DeleteAlias")
	// ListAliases lists aliases, a page at a time.
	ListAliases = newQuery[ListAliasesInput, ListAliasesOutput]("ListAliases")
)

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
