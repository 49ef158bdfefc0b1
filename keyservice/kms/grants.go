package kms

// The operations on grants.
var (
	// CreateGrant lets a principal use a KMS key.
	CreateGrant = newChange[CreateGrantInput, CreateGrantOutput]("CreateGrant")
	// ListGrants lists a KMS key's grants, a page at a time.
	ListGrants = newQuery[ListGrantsInput, ListGrantsOutput]("ListGrants")
	// ListRetirableGrants lists the grants that a principal may retire, a page at a time.
	ListRetirableGrants = newQuery[ListRetirableGrantsInput, ListRetirableGrantsOutput]("ListRetirableGrants")
	// RetireGrant ends a grant, for the one who has done with it. No call that comes after its return is allowed by the grant.
	RetireGrant = newChange[RetireGrantInput, RetireGrantOutput]("RetireGrant")
	// RevokeGrant ends a grant, for the one who administers the key. No call that comes after its return is allowed by the grant.
	RevokeGrant = newChange[RevokeGrantInput, RevokeGrantOutput]("RevokeGrant")
)

// GrantConstraints limit a grant to encryption contexts: all that are given must hold. For symmetric keys only.
type GrantConstraints struct {
	// EncryptionContextEquals is the whole context, EncryptionContextSubset a part of it; each has at most 8 pairs.
	EncryptionContextEquals map[string]string `json:",omitempty"`
	EncryptionContextSubset map[string]string `json:",omitempty"`
	// PathPrefix is kmsfs's own: the context's kmsfs:path must be it, or lie beneath it. It begins with "/".
	PathPrefix string `json:",omitempty"`
}

// CreateGrantInput lets a principal use a key.
type CreateGrantInput struct {
	// KeyId is a key's ID or ARN.
	KeyId string
	// GranteePrincipal and RetiringPrincipal are ARNs or short forms: "user:alice", "uid:1000", "group:finance", "gid:100".
	GranteePrincipal  string
	RetiringPrincipal string `json:",omitempty"`
	// Operations are such as "Decrypt" and "GenerateDataKey".
	Operations  []string
	Constraints *GrantConstraints `json:",omitempty"`
	GrantTokens []string          `json:",omitempty"`
	// Name makes the call idempotent: with the same name and parameters, the grant that is there is returned.
	Name string `json:",omitempty"`
	// ExpirationDate is kmsfs's own: when the grant ends by itself; nil for never.
	ExpirationDate *Timestamp `json:",omitempty"`
	DryRun         bool       `json:",omitempty"`
}

// CreateGrantOutput names the grant: 64 hexadecimal digits. The token is another name, for the calls of those who use it at once.
type CreateGrantOutput struct{ GrantToken, GrantId string }

// ListGrantsInput asks for a page of the grants of a key, named by ID or ARN: all, the one of an ID, or those of a grantee.
type ListGrantsInput struct {
	KeyId            string
	GrantId          string `json:",omitempty"`
	GranteePrincipal string `json:",omitempty"`
	// Limit is 1 to 100; nil stands for 50.
	Limit  *int32 `json:",omitempty"`
	Marker string `json:",omitempty"`
}

// ListGrantsOutput is a page of grants, in the order of their IDs.
type ListGrantsOutput struct {
	Grants     []GrantListEntry
	NextMarker string `json:",omitempty"`
	Truncated  bool
}

// GrantListEntry is a grant.
type GrantListEntry struct {
	KeyId             string
	GrantId           string
	Name              string
	CreationDate      Timestamp
	GranteePrincipal  string
	RetiringPrincipal string `json:",omitempty"`
	IssuingAccount    string
	Operations        []string
	Constraints       *GrantConstraints `json:",omitempty"`
	// ExpirationDate is kmsfs's own; nil if the grant does not end by itself.
	ExpirationDate *Timestamp `json:",omitempty"`
}

// ListRetirableGrantsInput asks for a page of the grants of all keys that a principal may retire.
type ListRetirableGrantsInput struct {
	RetiringPrincipal string
	// Limit is 1 to 100; nil stands for 50.
	Limit  *int32 `json:",omitempty"`
	Marker string `json:",omitempty"`
}

// ListRetirableGrantsOutput is a page of grants.
type ListRetirableGrantsOutput struct {
	Grants     []GrantListEntry
	NextMarker string `json:",omitempty"`
	Truncated  bool
}

// RetireGrantInput names a grant by its token, or by its key's ARN and its ID.
type RetireGrantInput struct {
	GrantToken string `json:",omitempty"`
	KeyId      string `json:",omitempty"`
	GrantId    string `json:",omitempty"`
	DryRun     bool   `json:",omitempty"`
}

// RetireGrantOutput is empty.
type RetireGrantOutput struct{}

// RevokeGrantInput names a grant by its key's ID or ARN, and its own ID.
type RevokeGrantInput struct {
	KeyId   string
	GrantId string
	DryRun  bool `json:",omitempty"`
}

// RevokeGrantOutput is empty.
type RevokeGrantOutput struct{}
