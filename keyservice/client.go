package keyservice

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"unicode/utf8"

	"kmsfs/keyservice/wire"
)

// client is the key service of another process.
type client struct {
	wire *wire.Client
}

var _ API = (*client)(nil)

// ErrNotServed says that no process serves a home.
var ErrNotServed = errors.New("no process serves the key service home")

// DialHome returns the key service of the process that has the home open and serves it. That process knows its callers from the kernel:
// it takes every call for this process's own, unless this is a process of root and calls for another (ViaFileSystem). Closing it is not needed for it to be garbage.
func DialHome(dir string) (API, error) {
	dialled, err := dialHome(dir)
	if err != nil {
		return nil, err
	}
	return &client{dialled}, nil
}

// Health asks the process that serves a home how its key service is: why it fails, and what is wrong besides. It returns ErrNotServed if there is none.
func Health(ctx context.Context, dir string) (wire.Health, error) {
	dialled, err := dialHome(dir)
	if err != nil {
		return wire.Health{}, err
	}
	defer dialled.Close()
	return dialled.Health(ctx)
}

func dialHome(dir string) (*wire.Client, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	// Whether somebody is there is found out now, and not at the first call.
	conn, err := dialSocket(context.Background(), dir)
	if err != nil {
		return nil, err
	}
	if err := conn.Close(); err != nil {
		return nil, err
	}
	return wire.NewClient(func(ctx context.Context) (net.Conn, error) { return dialSocket(ctx, dir) }), nil
}

// callFor performs an operation on the caller's account. Who a mount calls for, the service believes of root's processes only.
func callFor[I, O any](ctx context.Context, c *client, caller Caller, operation string, in *I, out *O) (*O, error) {
	if caller.ViaFileSystem && os.Geteuid() == 0 {
		ctx = wire.WithBehalf(ctx, wire.Behalf{
			Caller: caller.Caller, Operation: caller.Operation, Path: caller.Path, Behind: caller.Behind, SharedEventID: caller.SharedEventID, Own: caller.Own,
		})
	}
	return call(ctx, c, operation, in, out)
}

// call performs an operation.
func call[I, O any](ctx context.Context, c *client, operation string, in *I, out *O) (*O, error) {
	if in == nil {
		in = new(I)
	}
	if with, ok := any(in).(withContexts); ok {
		for _, context := range with.contexts() {
			if err := checkWireContext(context); err != nil {
				return nil, err
			}
		}
	}
	if err := c.wire.Call(ctx, operation, in, out); err != nil {
		return nil, err
	}
	return out, nil
}

// checkWireContext refuses what the wire can't carry and would turn into another context.
func checkWireContext(context map[string]string) error {
	for key, value := range context {
		if !utf8.ValidString(key) || !utf8.ValidString(value) {
			return refuse(CodeValidation, "the encryption context is not valid UTF-8: %q=%q", key, value)
		}
	}
	return nil
}

func (c *client) CreateKey(ctx context.Context, _ Caller, in *CreateKeyInput) (*CreateKeyOutput, error) {
	return call(ctx, c, "CreateKey", in, &CreateKeyOutput{})
}

func (c *client) DescribeKey(ctx context.Context, _ Caller, in *DescribeKeyInput) (*DescribeKeyOutput, error) {
	return call(ctx, c, "DescribeKey", in, &DescribeKeyOutput{})
}

func (c *client) ListKeys(ctx context.Context, _ Caller, in *ListKeysInput) (*ListKeysOutput, error) {
	return call(ctx, c, "ListKeys", in, &ListKeysOutput{})
}

func (c *client) UpdateKeyDescription(ctx context.Context, _ Caller, in *UpdateKeyDescriptionInput) (*UpdateKeyDescriptionOutput, error) {
	return call(ctx, c, "UpdateKeyDescription", in, &UpdateKeyDescriptionOutput{})
}

func (c *client) EnableKey(ctx context.Context, _ Caller, in *EnableKeyInput) (*EnableKeyOutput, error) {
	return call(ctx, c, "EnableKey", in, &EnableKeyOutput{})
}

func (c *client) DisableKey(ctx context.Context, _ Caller, in *DisableKeyInput) (*DisableKeyOutput, error) {
	return call(ctx, c, "DisableKey", in, &DisableKeyOutput{})
}

func (c *client) ScheduleKeyDeletion(ctx context.Context, _ Caller, in *ScheduleKeyDeletionInput) (*ScheduleKeyDeletionOutput, error) {
	return call(ctx, c, "ScheduleKeyDeletion", in, &ScheduleKeyDeletionOutput{})
}

func (c *client) CancelKeyDeletion(ctx context.Context, _ Caller, in *CancelKeyDeletionInput) (*CancelKeyDeletionOutput, error) {
	return call(ctx, c, "CancelKeyDeletion", in, &CancelKeyDeletionOutput{})
}

func (c *client) TagResource(ctx context.Context, _ Caller, in *TagResourceInput) (*TagResourceOutput, error) {
	return call(ctx, c, "TagResource", in, &TagResourceOutput{})
}

func (c *client) UntagResource(ctx context.Context, _ Caller, in *UntagResourceInput) (*UntagResourceOutput, error) {
	return call(ctx, c, "UntagResource", in, &UntagResourceOutput{})
}

func (c *client) ListResourceTags(ctx context.Context, _ Caller, in *ListResourceTagsInput) (*ListResourceTagsOutput, error) {
	return call(ctx, c, "ListResourceTags", in, &ListResourceTagsOutput{})
}

func (c *client) GetKeyLastUsage(ctx context.Context, _ Caller, in *GetKeyLastUsageInput) (*GetKeyLastUsageOutput, error) {
	return call(ctx, c, "GetKeyLastUsage", in, &GetKeyLastUsageOutput{})
}

func (c *client) CreateAlias(ctx context.Context, _ Caller, in *CreateAliasInput) (*CreateAliasOutput, error) {
	return call(ctx, c, "CreateAlias", in, &CreateAliasOutput{})
}

func (c *client) UpdateAlias(ctx context.Context, _ Caller, in *UpdateAliasInput) (*UpdateAliasOutput, error) {
	return call(ctx, c, "UpdateAlias", in, &UpdateAliasOutput{})
}

func (c *client) DeleteAlias(ctx context.Context, _ Caller, in *DeleteAliasInput) (*DeleteAliasOutput, error) {
	return call(ctx, c, "DeleteAlias", in, &DeleteAliasOutput{})
}

func (c *client) ListAliases(ctx context.Context, _ Caller, in *ListAliasesInput) (*ListAliasesOutput, error) {
	return call(ctx, c, "ListAliases", in, &ListAliasesOutput{})
}

func (c *client) PutKeyPolicy(ctx context.Context, _ Caller, in *PutKeyPolicyInput) (*PutKeyPolicyOutput, error) {
	return call(ctx, c, "PutKeyPolicy", in, &PutKeyPolicyOutput{})
}

func (c *client) GetKeyPolicy(ctx context.Context, _ Caller, in *GetKeyPolicyInput) (*GetKeyPolicyOutput, error) {
	return call(ctx, c, "GetKeyPolicy", in, &GetKeyPolicyOutput{})
}

func (c *client) ListKeyPolicies(ctx context.Context, _ Caller, in *ListKeyPoliciesInput) (*ListKeyPoliciesOutput, error) {
	return call(ctx, c, "ListKeyPolicies", in, &ListKeyPoliciesOutput{})
}

func (c *client) PutServicePolicy(ctx context.Context, _ Caller, in *PutServicePolicyInput) (*PutServicePolicyOutput, error) {
	return call(ctx, c, "PutServicePolicy", in, &PutServicePolicyOutput{})
}

func (c *client) GetServicePolicy(ctx context.Context, _ Caller, in *GetServicePolicyInput) (*GetServicePolicyOutput, error) {
	return call(ctx, c, "GetServicePolicy", in, &GetServicePolicyOutput{})
}

func (c *client) ExplainAccess(ctx context.Context, _ Caller, in *ExplainAccessInput) (*ExplainAccessOutput, error) {
	return call(ctx, c, "ExplainAccess", in, &ExplainAccessOutput{})
}

func (c *client) CreateGrant(ctx context.Context, _ Caller, in *CreateGrantInput) (*CreateGrantOutput, error) {
	return call(ctx, c, "CreateGrant", in, &CreateGrantOutput{})
}

func (c *client) ListGrants(ctx context.Context, _ Caller, in *ListGrantsInput) (*ListGrantsOutput, error) {
	return call(ctx, c, "ListGrants", in, &ListGrantsOutput{})
}

func (c *client) ListRetirableGrants(ctx context.Context, _ Caller, in *ListRetirableGrantsInput) (*ListRetirableGrantsOutput, error) {
	return call(ctx, c, "ListRetirableGrants", in, &ListRetirableGrantsOutput{})
}

func (c *client) RetireGrant(ctx context.Context, _ Caller, in *RetireGrantInput) (*RetireGrantOutput, error) {
	return call(ctx, c, "RetireGrant", in, &RetireGrantOutput{})
}

func (c *client) RevokeGrant(ctx context.Context, _ Caller, in *RevokeGrantInput) (*RevokeGrantOutput, error) {
	return call(ctx, c, "RevokeGrant", in, &RevokeGrantOutput{})
}

func (c *client) EnableKeyRotation(ctx context.Context, _ Caller, in *EnableKeyRotationInput) (*EnableKeyRotationOutput, error) {
	return call(ctx, c, "EnableKeyRotation", in, &EnableKeyRotationOutput{})
}

func (c *client) DisableKeyRotation(ctx context.Context, _ Caller, in *DisableKeyRotationInput) (*DisableKeyRotationOutput, error) {
	return call(ctx, c, "DisableKeyRotation", in, &DisableKeyRotationOutput{})
}

func (c *client) GetKeyRotationStatus(ctx context.Context, _ Caller, in *GetKeyRotationStatusInput) (*GetKeyRotationStatusOutput, error) {
	return call(ctx, c, "GetKeyRotationStatus", in, &GetKeyRotationStatusOutput{})
}

func (c *client) RotateKeyOnDemand(ctx context.Context, _ Caller, in *RotateKeyOnDemandInput) (*RotateKeyOnDemandOutput, error) {
	return call(ctx, c, "RotateKeyOnDemand", in, &RotateKeyOnDemandOutput{})
}

func (c *client) ListKeyRotations(ctx context.Context, _ Caller, in *ListKeyRotationsInput) (*ListKeyRotationsOutput, error) {
	return call(ctx, c, "ListKeyRotations", in, &ListKeyRotationsOutput{})
}

func (c *client) GetParametersForImport(ctx context.Context, _ Caller, in *GetParametersForImportInput) (*GetParametersForImportOutput, error) {
	return call(ctx, c, "GetParametersForImport", in, &GetParametersForImportOutput{})
}

func (c *client) ImportKeyMaterial(ctx context.Context, _ Caller, in *ImportKeyMaterialInput) (*ImportKeyMaterialOutput, error) {
	return call(ctx, c, "ImportKeyMaterial", in, &ImportKeyMaterialOutput{})
}

func (c *client) DeleteImportedKeyMaterial(ctx context.Context, _ Caller, in *DeleteImportedKeyMaterialInput) (*DeleteImportedKeyMaterialOutput, error) {
	return call(ctx, c, "DeleteImportedKeyMaterial", in, &DeleteImportedKeyMaterialOutput{})
}

func (c *client) Encrypt(ctx context.Context, _ Caller, in *EncryptInput) (*EncryptOutput, error) {
	return call(ctx, c, "Encrypt", in, &EncryptOutput{})
}

func (c *client) Decrypt(ctx context.Context, caller Caller, in *DecryptInput) (*DecryptOutput, error) {
	return callFor(ctx, c, caller, "Decrypt", in, &DecryptOutput{})
}

func (c *client) ReEncrypt(ctx context.Context, caller Caller, in *ReEncryptInput) (*ReEncryptOutput, error) {
	return callFor(ctx, c, caller, "ReEncrypt", in, &ReEncryptOutput{})
}

func (c *client) GenerateDataKey(ctx context.Context, caller Caller, in *GenerateDataKeyInput) (*GenerateDataKeyOutput, error) {
	return callFor(ctx, c, caller, "GenerateDataKey", in, &GenerateDataKeyOutput{})
}

func (c *client) GenerateDataKeyWithoutPlaintext(ctx context.Context, _ Caller, in *GenerateDataKeyWithoutPlaintextInput) (*GenerateDataKeyWithoutPlaintextOutput, error) {
	return call(ctx, c, "GenerateDataKeyWithoutPlaintext", in, &GenerateDataKeyWithoutPlaintextOutput{})
}

func (c *client) GenerateDataKeyPair(ctx context.Context, _ Caller, in *GenerateDataKeyPairInput) (*GenerateDataKeyPairOutput, error) {
	return call(ctx, c, "GenerateDataKeyPair", in, &GenerateDataKeyPairOutput{})
}

func (c *client) GenerateDataKeyPairWithoutPlaintext(ctx context.Context, _ Caller, in *GenerateDataKeyPairWithoutPlaintextInput) (*GenerateDataKeyPairWithoutPlaintextOutput, error) {
	return call(ctx, c, "GenerateDataKeyPairWithoutPlaintext", in, &GenerateDataKeyPairWithoutPlaintextOutput{})
}

func (c *client) GenerateRandom(ctx context.Context, _ Caller, in *GenerateRandomInput) (*GenerateRandomOutput, error) {
	return call(ctx, c, "GenerateRandom", in, &GenerateRandomOutput{})
}

func (c *client) GenerateMac(ctx context.Context, _ Caller, in *GenerateMacInput) (*GenerateMacOutput, error) {
	return call(ctx, c, "GenerateMac", in, &GenerateMacOutput{})
}

func (c *client) VerifyMac(ctx context.Context, _ Caller, in *VerifyMacInput) (*VerifyMacOutput, error) {
	return call(ctx, c, "VerifyMac", in, &VerifyMacOutput{})
}

func (c *client) Sign(ctx context.Context, _ Caller, in *SignInput) (*SignOutput, error) {
	return call(ctx, c, "Sign", in, &SignOutput{})
}

func (c *client) Verify(ctx context.Context, _ Caller, in *VerifyInput) (*VerifyOutput, error) {
	return call(ctx, c, "Verify", in, &VerifyOutput{})
}

func (c *client) GetPublicKey(ctx context.Context, _ Caller, in *GetPublicKeyInput) (*GetPublicKeyOutput, error) {
	return call(ctx, c, "GetPublicKey", in, &GetPublicKeyOutput{})
}

func (c *client) DeriveSharedSecret(ctx context.Context, _ Caller, in *DeriveSharedSecretInput) (*DeriveSharedSecretOutput, error) {
	return call(ctx, c, "DeriveSharedSecret", in, &DeriveSharedSecretOutput{})
}

func (c *client) CreateAccessKey(ctx context.Context, _ Caller, in *CreateAccessKeyInput) (*CreateAccessKeyOutput, error) {
	return call(ctx, c, "CreateAccessKey", in, &CreateAccessKeyOutput{})
}

func (c *client) ListAccessKeys(ctx context.Context, _ Caller, in *ListAccessKeysInput) (*ListAccessKeysOutput, error) {
	return call(ctx, c, "ListAccessKeys", in, &ListAccessKeysOutput{})
}

func (c *client) DeleteAccessKey(ctx context.Context, _ Caller, in *DeleteAccessKeyInput) (*DeleteAccessKeyOutput, error) {
	return call(ctx, c, "DeleteAccessKey", in, &DeleteAccessKeyOutput{})
}

func (c *client) PutAuditSettings(ctx context.Context, _ Caller, in *AuditSettings) (*PutAuditSettingsOutput, error) {
	return call(ctx, c, "PutAuditSettings", in, &PutAuditSettingsOutput{})
}

func (c *client) GetAuditSettings(ctx context.Context, _ Caller, in *GetAuditSettingsInput) (*AuditSettings, error) {
	return call(ctx, c, "GetAuditSettings", in, &AuditSettings{})
}

func (c *client) ReadAudit(ctx context.Context, _ Caller, in *ReadAuditInput) (*ReadAuditOutput, error) {
	return call(ctx, c, "ReadAudit", in, &ReadAuditOutput{})
}

func (c *client) CheckUses(ctx context.Context, caller Caller, in *CheckUsesInput) (*CheckUsesOutput, error) {
	all := &CheckUsesOutput{}
	for part := range slices.Chunk(in.Uses, maxChecks) {
		out, err := callFor(ctx, c, caller, "CheckUses", &CheckUsesInput{Uses: part}, &CheckUsesOutput{})
		if err != nil {
			return nil, err
		}
		all.Uses = append(all.Uses, out.Uses...)
	}
	return all, nil
}

func (c *client) RecordEvent(ctx context.Context, caller Caller, e Event) error {
	_, err := callFor(ctx, c, caller, "RecordEvent", &e, &struct{}{})
	return err
}

// Close closes the connections to the process.
func (c *client) Close() error {
	c.wire.Close()
	return nil
}
