package keyservice

import (
	"context"

	"kmsfs/policy"
)

// Caller is who makes a request, and how it came.
type Caller struct {
	policy.Caller
	// ViaFileSystem says that a mount in this very process calls for a process that opened a file. It is never taken from a
	// wire.
	ViaFileSystem bool
	// Operation is the file operation behind the call ("open", "create", "rename", ...), for the audit record; may be empty.
	Operation string
}

// API is every operation of the key service, with AWS KMS's names and semantics. Implementations are safe for concurrent
// use. What an operation refuses is an *Error. Slices in inputs are only read, and not kept; those in outputs belong to the
// caller, who wipes plaintexts.
type API interface {
	CreateKey(ctx context.Context, c Caller, in *CreateKeyInput) (*CreateKeyOutput, error)
	DescribeKey(ctx context.Context, c Caller, in *DescribeKeyInput) (*DescribeKeyOutput, error)
	ListKeys(ctx context.Context, c Caller, in *ListKeysInput) (*ListKeysOutput, error)
	EnableKey(ctx context.Context, c Caller, in *EnableKeyInput) (*EnableKeyOutput, error)
	DisableKey(ctx context.Context, c Caller, in *DisableKeyInput) (*DisableKeyOutput, error)

	CreateAlias(ctx context.Context, c Caller, in *CreateAliasInput) (*CreateAliasOutput, error)
	UpdateAlias(ctx context.Context, c Caller, in *UpdateAliasInput) (*UpdateAliasOutput, error)
	DeleteAlias(ctx context.Context, c Caller, in *DeleteAliasInput) (*DeleteAliasOutput, error)
	ListAliases(ctx context.Context, c Caller, in *ListAliasesInput) (*ListAliasesOutput, error)

	Encrypt(ctx context.Context, c Caller, in *EncryptInput) (*EncryptOutput, error)
	Decrypt(ctx context.Context, c Caller, in *DecryptInput) (*DecryptOutput, error)
	ReEncrypt(ctx context.Context, c Caller, in *ReEncryptInput) (*ReEncryptOutput, error)
	GenerateDataKey(ctx context.Context, c Caller, in *GenerateDataKeyInput) (*GenerateDataKeyOutput, error)
	GenerateDataKeyWithoutPlaintext(ctx context.Context, c Caller, in *GenerateDataKeyWithoutPlaintextInput) (*GenerateDataKeyWithoutPlaintextOutput, error)
	GenerateRandom(ctx context.Context, c Caller, in *GenerateRandomInput) (*GenerateRandomOutput, error)

	// RecordEvent writes an event of the file system's own into the audit log: for the home's owner and the file system only.
	RecordEvent(ctx context.Context, c Caller, e Event) error

	// Close ends the use of the service. Calls that come later fail.
	Close() error
}

// Event is something that the file system found or did of itself.
type Event struct {
	// Name is letters: "ContextMismatch", "UncleanShutdownFound", "VolumeMounted", "VolumeUnmounted", "BlockRepaired", "Rewrapped", ...
	Name string
	// KeyARN and EncryptionContext are those of the file concerned, if there is one.
	KeyARN            string            `json:",omitempty"`
	EncryptionContext map[string]string `json:",omitempty"`
	// Details are further facts, such as the two places of a ContextMismatch.
	Details map[string]string `json:",omitempty"`
	// ErrorCode and ErrorMessage say what was refused because of it; empty if nothing was.
	ErrorCode    string `json:",omitempty"`
	ErrorMessage string `json:",omitempty"`
}
