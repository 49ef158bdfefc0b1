package kms

// The operations on policies.
var (
	// PutKeyPolicy gives a KMS key another key policy.
	PutKeyPolicy = newChange[PutKeyPolicyInput, PutKeyPolicyOutput]("PutKeyPolicy")
	// GetKeyPolicy returns a KMS key's policy.
	GetKeyPolicy = newQuery[GetKeyPolicyInput, GetKeyPolicyOutput]("GetKeyPolicy")
	// ListKeyPolicies lists the names of a KMS key's policies: "default" alone.
	ListKeyPolicies = newQuery[ListKeyPoliciesInput, ListKeyPoliciesOutput]("ListKeyPolicies")
	// PutServicePolicy gives the home another service policy.
	PutServicePolicy = newChange[PutServicePolicyInput, PutServicePolicyOutput]("PutServicePolicy", "kmsfs:PutServicePolicy")
	// GetServicePolicy returns the home's service policy.
	GetServicePolicy = newQuery[GetServicePolicyInput, GetServicePolicyOutput]("GetServicePolicy", "kmsfs:GetServicePolicy")
	// ExplainAccess says whether somebody may do something with a KMS key, and what decides so.
	ExplainAccess = newQuery[ExplainAccessInput, ExplainAccessOutput]("ExplainAccess", "kms:GetKeyPolicy")
)

// PutKeyPolicyInput gives a key, named by ID or ARN, another key policy.
type PutKeyPolicyInput struct {
	KeyId string
	// PolicyName is "default", which is the default.
	PolicyName string `json:",omitempty"`
	// Policy is a policy document of at most 32768 bytes.
	Policy string
	// BypassPolicyLockoutSafetyCheck allows a policy that forbids the caller to change it again.
	BypassPolicyLockoutSafetyCheck bool `json:",omitempty"`
}

// PutKeyPolicyOutput is empty.
type PutKeyPolicyOutput struct{}

// GetKeyPolicyInput names a key by ID or ARN.
type GetKeyPolicyInput struct {
	KeyId      string
	PolicyName string `json:",omitempty"`
}

// GetKeyPolicyOutput is the key policy, as it was given.
type GetKeyPolicyOutput struct{ Policy, PolicyName string }

// ListKeyPoliciesInput asks for the names of the policies of a key, named by ID or ARN.
type ListKeyPoliciesInput struct {
	KeyId  string
	Limit  *int32 `json:",omitempty"`
	Marker string `json:",omitempty"`
}

// ListKeyPoliciesOutput is the one name "default".
type ListKeyPoliciesOutput struct {
	PolicyNames []string
	NextMarker  string `json:",omitempty"`
	Truncated   bool
}

// PutServicePolicyInput gives the home another service policy: it governs what concerns no key, and what key policies delegate to the account.
// kmsfs's own.
type PutServicePolicyInput struct {
	// Policy is a policy document of at most 32768 bytes.
	Policy                         string
	BypassPolicyLockoutSafetyCheck bool `json:",omitempty"`
}

// PutServicePolicyOutput is empty.
type PutServicePolicyOutput struct{}

// GetServicePolicyInput is empty. kmsfs's own.
type GetServicePolicyInput struct{}

// GetServicePolicyOutput is the service policy, as it was given.
type GetServicePolicyOutput struct{ Policy string }

// ExplainAccessInput asks whether somebody may do something with a key, and why. kmsfs's own.
type ExplainAccessInput struct {
	// KeyId is a key's ID, ARN, alias or alias ARN.
	KeyId string
	// Principal is an ARN or a short form: "user:alice", "uid:1000", "group:finance", "gid:100".
	Principal string
	// Action is an operation, such as "kms:Decrypt" or "Decrypt".
	Action            string
	EncryptionContext map[string]string `json:",omitempty"`
	// ViaService is what the condition key kms:ViaService is to be; may be empty.
	ViaService string `json:",omitempty"`
}

// ExplainAccessOutput says what decides.
type ExplainAccessOutput struct {
	Allowed bool
	// DecidedBy is "KeyPolicy", "ServicePolicy", "Grant" or, if nothing allows it, "Default".
	DecidedBy string
	// Statement is the deciding statement's place in its policy, from 0, and Sid its name, if it has one; nil if no statement decided.
	Statement *int32 `json:",omitempty"`
	Sid       string `json:",omitempty"`
	// GrantId names the deciding grant.
	GrantId string `json:",omitempty"`
	// Reason says the same in words.
	Reason string
	KeyId  string
}
