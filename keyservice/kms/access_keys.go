package kms

// The operations on access keys. They have the names and fields of AWS IAM's.
var (
	// CreateAccessKey makes an access key: for the caller, or for another user if the service policy allows it.
	CreateAccessKey = newChange[CreateAccessKeyInput, CreateAccessKeyOutput]("CreateAccessKey", "iam:CreateAccessKey")
	// ListAccessKeys lists a user's access keys.
	ListAccessKeys = newQuery[ListAccessKeysInput, ListAccessKeysOutput]("ListAccessKeys", "iam:ListAccessKeys")
	// DeleteAccessKey removes an access key. Calls that are signed with it are refused at once.
	DeleteAccessKey = newChange[DeleteAccessKeyInput, DeleteAccessKeyOutput]("DeleteAccessKey", "iam:DeleteAccessKey")
)

// CreateAccessKeyInput makes an access key for a user.
type CreateAccessKeyInput struct {
	// UserName is a user's name, or "uid:N"; empty for the caller.
	UserName string `json:",omitempty"`
}

// CreateAccessKeyOutput has the secret, which is told this once.
type CreateAccessKeyOutput struct {
	AccessKey AccessKey
}

// AccessKey is what a user signs calls with that come over a network.
type AccessKey struct {
	UserName        string
	AccessKeyId     string
	Status          string // "Active"
	SecretAccessKey string
	CreateDate      Timestamp
}

// ListAccessKeysInput asks for the access keys of a user.
type ListAccessKeysInput struct {
	// UserName is a user's name, or "uid:N"; empty for the caller, and "*" for all users.
	UserName string `json:",omitempty"`
}

// ListAccessKeysOutput is the whole list.
type ListAccessKeysOutput struct {
	AccessKeyMetadata []AccessKeyMetadata
	IsTruncated       bool
}

// AccessKeyMetadata is an access key without its secret.
type AccessKeyMetadata struct {
	UserName    string
	AccessKeyId string
	Status      string // "Active"
	CreateDate  Timestamp
}

// DeleteAccessKeyInput names an access key, which is refused from then on.
type DeleteAccessKeyInput struct {
	AccessKeyId string `json:",omitempty"`
}

// DeleteAccessKeyOutput is empty.
type DeleteAccessKeyOutput struct{}
