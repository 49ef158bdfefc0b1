package authz

import (
	"strings"

	"kmsfs/keyservice/kms"
	"kmsfs/policy"
)

// Scope returns what key policies and the service policy can speak of. exists says whether there is
// a user or a group; nil for policies that were checked when they were written.
func Scope(names kms.ARNs, exists func(policy.Principal) bool) *policy.Scope {
	return &policy.Scope{
		Account: names.Account,
		Resources: []string{
			names.Resource(kms.KeyPrefix + strings.Repeat("?", 36)), names.Resource(kms.AliasPrefix + "*"),
			names.Root(), names.User("*"), names.User("uid:*"), // of access keys and retirable grants
		},
		Actions: actions,
		Keys:    conditionKeys,
		Exists:  exists,
	}
}

// actions are AWS KMS's, those of operations that the service doesn't have among them, as policies
// may well deny them, and the home's own.
var actions = []string{
	"kms:CancelKeyDeletion", "kms:ConnectCustomKeyStore", "kms:CreateAlias", "kms:CreateCustomKeyStore", "kms:CreateGrant", "kms:CreateKey",
	"kms:Decrypt", "kms:DeleteAlias", "kms:DeleteCustomKeyStore", "kms:DeleteImportedKeyMaterial", "kms:DeriveSharedSecret",
	"kms:DescribeCustomKeyStores", "kms:DescribeKey", "kms:DisableKey", "kms:DisableKeyRotation", "kms:DisconnectCustomKeyStore",
	"kms:EnableKey", "kms:EnableKeyRotation", "kms:Encrypt", "kms:GenerateDataKey", "kms:GenerateDataKeyPair",
	"kms:GenerateDataKeyPairWithoutPlaintext", "kms:GenerateDataKeyWithoutPlaintext", "kms:GenerateMac", "kms:GenerateRandom",
	"kms:GetKeyLastUsage", "kms:GetKeyPolicy", "kms:GetKeyRotationStatus", "kms:GetParametersForImport", "kms:GetPublicKey", "kms:ImportKeyMaterial",
	"kms:ListAliases", "kms:ListGrants", "kms:ListKeyPolicies", "kms:ListKeyRotations", "kms:ListKeys", "kms:ListResourceTags",
	"kms:ListRetirableGrants", "kms:PutKeyPolicy", "kms:ReEncryptFrom", "kms:ReEncryptTo", "kms:ReplicateKey", "kms:RetireGrant",
	"kms:RevokeGrant", "kms:RotateKeyOnDemand", "kms:ScheduleKeyDeletion", "kms:Sign", "kms:SynchronizeMultiRegionKey", "kms:TagResource",
	"kms:UntagResource", "kms:UpdateAlias", "kms:UpdateCustomKeyStore", "kms:UpdateKeyDescription", "kms:UpdatePrimaryRegion",
	"kms:Verify", "kms:VerifyMac",

	"iam:CreateAccessKey", "iam:DeleteAccessKey", "iam:ListAccessKeys",
	"kmsfs:GetAuditSettings", "kmsfs:GetServicePolicy", "kmsfs:PutAuditSettings", "kmsfs:PutServicePolicy", "kmsfs:ReadAudit", "kmsfs:RecordEvent",
}

// conditionKeys are the keys that requests have values for. AWS's keys that no request here has are
// left out, such as aws:PrincipalTag/..., so that policies with them are refused. aws:SourceAccount
// and aws:SourceArn are absent, as AWS documents for calls that no service makes of itself.
var conditionKeys = []policy.Key{
	{Name: "aws:CurrentTime", Type: policy.Date},
	{Name: "aws:EpochTime", Type: policy.Date},
	{Name: "aws:PrincipalAccount"},
	{Name: "aws:PrincipalArn", Type: policy.PrincipalARN},
	{Name: "aws:PrincipalIsAWSService", Type: policy.Bool},
	{Name: "aws:PrincipalType"},
	{Name: "aws:RequestTag/"},
	{Name: "aws:RequestedRegion"},
	{Name: "aws:ResourceAccount"},
	{Name: "aws:ResourceTag/"},
	{Name: "aws:SecureTransport", Type: policy.Bool},
	{Name: "aws:SourceAccount"},
	{Name: "aws:SourceArn", Type: policy.ARN},
	{Name: "aws:SourceIp", Type: policy.Address},
	{Name: "aws:TagKeys", Type: policy.Texts},
	{Name: "aws:UserAgent"},
	{Name: "aws:ViaAWSService", Type: policy.Bool},
	{Name: "aws:userid"},
	{Name: "aws:username"},

	{Name: "kms:BypassPolicyLockoutSafetyCheck", Type: policy.Bool},
	{Name: "kms:CallerAccount"},
	{Name: "kms:CustomerMasterKeySpec"},
	{Name: "kms:CustomerMasterKeyUsage"},
	{Name: "kms:DataKeyPairSpec"},
	{Name: "kms:EncryptionAlgorithm"},
	{Name: "kms:EncryptionContext:"},
	{Name: "kms:EncryptionContextKeys", Type: policy.Texts},
	{Name: "kms:ExpirationModel"},
	{Name: "kms:GrantConstraintType"},
	{Name: "kms:GrantIsForAWSResource", Type: policy.Bool},
	{Name: "kms:GrantOperations", Type: policy.Texts},
	{Name: "kms:GranteePrincipal", Type: policy.PrincipalARN, Groups: true},
	{Name: "kms:KeyAgreementAlgorithm"},
	{Name: "kms:KeyOrigin"},
	{Name: "kms:KeySpec"},
	{Name: "kms:KeyUsage"},
	{Name: "kms:MacAlgorithm"},
	{Name: "kms:MessageType"},
	{Name: "kms:MultiRegion", Type: policy.Bool},
	{Name: "kms:ReEncryptOnSameKey", Type: policy.Bool},
	{Name: "kms:RequestAlias", Form: kms.AliasPrefix + "*"},
	{Name: "kms:ResourceAliases", Type: policy.Texts, Form: kms.AliasPrefix + "*"},
	{Name: "kms:RetiringPrincipal", Type: policy.PrincipalARN, Groups: true},
	{Name: "kms:RotationPeriodInDays", Type: policy.Number},
	{Name: "kms:ScheduleKeyDeletionPendingWindowInDays", Type: policy.Number},
	{Name: "kms:SigningAlgorithm"},
	{Name: "kms:ValidTo", Type: policy.Date},
	{Name: "kms:ViaService"},
	{Name: "kms:WrappingAlgorithm"},
	{Name: "kms:WrappingKeySpec"},

	{Name: "kmsfs:Executable"},
	{Name: "kmsfs:Gid", Type: policy.Texts},
	{Name: "kmsfs:Uid"},
}
