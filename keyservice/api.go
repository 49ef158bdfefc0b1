package keyservice

import (
	"context"

	"github.com/google/uuid"

	"kmsfs/policy/caller"
)

// Caller is who makes a request, and how it came.
type Caller struct {
	caller.Caller
	// ViaFileSystem says that a mount calls for the process in Caller, which uses a file. Over the wire only root's processes can say so: they could
	// become any user anyway.
	ViaFileSystem bool
	// Own says that the mount calls of itself, to keep its volume's headers true: it may use keys whatever policies say, if their state allows it. What users
	// get to see by that, calls on their behalf decide.
	Own bool
	// Operation is the file operation behind the call ("open for read", "create", "rename", ...), Path the file's path as the process behind it sees it,
	// and Behind that process where the caller isn't it. They are for the audit record alone, and may be empty.
	Operation, Path string
	Behind          *caller.Caller
	// SharedEventID is what the calls of one file operation have in common; zero for none.
	SharedEventID uuid.UUID
	// Executable is the path of the caller's program when it connected; empty for one to be asked for.
	Executable string
	// SpokenBy is the process of root that calls on the caller's behalf over the wire; 0 for none.
	SpokenBy int32
	// AccessKeyID is the access key that the call was signed with, and Address where it came from; empty for processes of this machine.
	AccessKeyID, Address string
	// RequestID names the call; zero for one to be made up.
	RequestID uuid.UUID
}

// API is every operation of the key service, with AWS KMS's names and semantics. Implementations are safe for concurrent
// use. What an operation refuses is an *Error. Slices in inputs are only read, and not kept; those in outputs belong to the
// caller, who wipes plaintexts.
type API interface {
	CreateKey(ctx context.Context, c Caller, in *CreateKeyInput) (*CreateKeyOutput, error)
	DescribeKey(ctx context.Context, c Caller, in *DescribeKeyInput) (*DescribeKeyOutput, error)
	ListKeys(ctx context.Context, c Caller, in *ListKeysInput) (*ListKeysOutput, error)
	UpdateKeyDescription(ctx context.Context, c Caller, in *UpdateKeyDescriptionInput) (*UpdateKeyDescriptionOutput, error)
	EnableKey(ctx context.Context, c Caller, in *EnableKeyInput) (*EnableKeyOutput, error)
	DisableKey(ctx context.Context, c Caller, in *DisableKeyInput) (*DisableKeyOutput, error)
	ScheduleKeyDeletion(ctx context.Context, c Caller, in *ScheduleKeyDeletionInput) (*ScheduleKeyDeletionOutput, error)
	CancelKeyDeletion(ctx context.Context, c Caller, in *CancelKeyDeletionInput) (*CancelKeyDeletionOutput, error)
	TagResource(ctx context.Context, c Caller, in *TagResourceInput) (*TagResourceOutput, error)
	UntagResource(ctx context.Context, c Caller, in *UntagResourceInput) (*UntagResourceOutput, error)
	ListResourceTags(ctx context.Context, c Caller, in *ListResourceTagsInput) (*ListResourceTagsOutput, error)
	GetKeyLastUsage(ctx context.Context, c Caller, in *GetKeyLastUsageInput) (*GetKeyLastUsageOutput, error)

	CreateAccessKey(ctx context.Context, c Caller, in *CreateAccessKeyInput) (*CreateAccessKeyOutput, error)
	ListAccessKeys(ctx context.Context, c Caller, in *ListAccessKeysInput) (*ListAccessKeysOutput, error)
	DeleteAccessKey(ctx context.Context, c Caller, in *DeleteAccessKeyInput) (*DeleteAccessKeyOutput, error)

	CreateAlias(ctx context.Context, c Caller, in *CreateAliasInput) (*CreateAliasOutput, error)
	UpdateAlias(ctx context.Context, c Caller, in *UpdateAliasInput) (*UpdateAliasOutput, error)
	DeleteAlias(ctx context.Context, c Caller, in *DeleteAliasInput) (*DeleteAliasOutput, error)
	ListAliases(ctx context.Context, c Caller, in *ListAliasesInput) (*ListAliasesOutput, error)

	PutKeyPolicy(ctx context.Context, c Caller, in *PutKeyPolicyInput) (*PutKeyPolicyOutput, error)
	GetKeyPolicy(ctx context.Context, c Caller, in *GetKeyPolicyInput) (*GetKeyPolicyOutput, error)
	ListKeyPolicies(ctx context.Context, c Caller, in *ListKeyPoliciesInput) (*ListKeyPoliciesOutput, error)
	PutServicePolicy(ctx context.Context, c Caller, in *PutServicePolicyInput) (*PutServicePolicyOutput, error)
	GetServicePolicy(ctx context.Context, c Caller, in *GetServicePolicyInput) (*GetServicePolicyOutput, error)
	ExplainAccess(ctx context.Context, c Caller, in *ExplainAccessInput) (*ExplainAccessOutput, error)

	CreateGrant(ctx context.Context, c Caller, in *CreateGrantInput) (*CreateGrantOutput, error)
	ListGrants(ctx context.Context, c Caller, in *ListGrantsInput) (*ListGrantsOutput, error)
	ListRetirableGrants(ctx context.Context, c Caller, in *ListRetirableGrantsInput) (*ListRetirableGrantsOutput, error)
	RetireGrant(ctx context.Context, c Caller, in *RetireGrantInput) (*RetireGrantOutput, error)
	RevokeGrant(ctx context.Context, c Caller, in *RevokeGrantInput) (*RevokeGrantOutput, error)

	EnableKeyRotation(ctx context.Context, c Caller, in *EnableKeyRotationInput) (*EnableKeyRotationOutput, error)
	DisableKeyRotation(ctx context.Context, c Caller, in *DisableKeyRotationInput) (*DisableKeyRotationOutput, error)
	GetKeyRotationStatus(ctx context.Context, c Caller, in *GetKeyRotationStatusInput) (*GetKeyRotationStatusOutput, error)
	RotateKeyOnDemand(ctx context.Context, c Caller, in *RotateKeyOnDemandInput) (*RotateKeyOnDemandOutput, error)
	ListKeyRotations(ctx context.Context, c Caller, in *ListKeyRotationsInput) (*ListKeyRotationsOutput, error)
	GetParametersForImport(ctx context.Context, c Caller, in *GetParametersForImportInput) (*GetParametersForImportOutput, error)
	ImportKeyMaterial(ctx context.Context, c Caller, in *ImportKeyMaterialInput) (*ImportKeyMaterialOutput, error)
	DeleteImportedKeyMaterial(ctx context.Context, c Caller, in *DeleteImportedKeyMaterialInput) (*DeleteImportedKeyMaterialOutput, error)

	Encrypt(ctx context.Context, c Caller, in *EncryptInput) (*EncryptOutput, error)
	Decrypt(ctx context.Context, c Caller, in *DecryptInput) (*DecryptOutput, error)
	ReEncrypt(ctx context.Context, c Caller, in *ReEncryptInput) (*ReEncryptOutput, error)
	GenerateDataKey(ctx context.Context, c Caller, in *GenerateDataKeyInput) (*GenerateDataKeyOutput, error)
	GenerateDataKeyWithoutPlaintext(ctx context.Context, c Caller, in *GenerateDataKeyWithoutPlaintextInput) (*GenerateDataKeyWithoutPlaintextOutput, error)
	GenerateDataKeyPair(ctx context.Context, c Caller, in *GenerateDataKeyPairInput) (*GenerateDataKeyPairOutput, error)
	GenerateDataKeyPairWithoutPlaintext(ctx context.Context, c Caller, in *GenerateDataKeyPairWithoutPlaintextInput) (*GenerateDataKeyPairWithoutPlaintextOutput, error)
	GenerateRandom(ctx context.Context, c Caller, in *GenerateRandomInput) (*GenerateRandomOutput, error)
	GenerateMac(ctx context.Context, c Caller, in *GenerateMacInput) (*GenerateMacOutput, error)
	VerifyMac(ctx context.Context, c Caller, in *VerifyMacInput) (*VerifyMacOutput, error)
	Sign(ctx context.Context, c Caller, in *SignInput) (*SignOutput, error)
	Verify(ctx context.Context, c Caller, in *VerifyInput) (*VerifyOutput, error)
	GetPublicKey(ctx context.Context, c Caller, in *GetPublicKeyInput) (*GetPublicKeyOutput, error)
	DeriveSharedSecret(ctx context.Context, c Caller, in *DeriveSharedSecretInput) (*DeriveSharedSecretOutput, error)

	PutAuditSettings(ctx context.Context, c Caller, in *AuditSettings) (*PutAuditSettingsOutput, error)
	GetAuditSettings(ctx context.Context, c Caller, in *GetAuditSettingsInput) (*AuditSettings, error)
	ReadAudit(ctx context.Context, c Caller, in *ReadAuditInput) (*ReadAuditOutput, error)

	// CheckUses says of uses of keys that were authorised once whether they still would be. It isn't recorded.
	CheckUses(ctx context.Context, c Caller, in *CheckUsesInput) (*CheckUsesOutput, error)

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
