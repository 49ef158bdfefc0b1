package catalog

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"kmsfs/keyservice/kms"
)

// GrantOperations are the operations that grants can be for, with the usage of the keys that they are for; empty for all keys.
var GrantOperations = map[string]string{
	"Decrypt": kms.UsageEncryption, "Encrypt": kms.UsageEncryption, "ReEncryptFrom": kms.UsageEncryption, "ReEncryptTo": kms.UsageEncryption,
	"GenerateDataKey": kms.UsageEncryption, "GenerateDataKeyWithoutPlaintext": kms.UsageEncryption,
	"GenerateDataKeyPair": kms.UsageEncryption, "GenerateDataKeyPairWithoutPlaintext": kms.UsageEncryption,
	"Sign": kms.UsageSigning, "Verify": kms.UsageSigning, "GenerateMac": kms.UsageMAC, "VerifyMac": kms.UsageMAC, "DeriveSharedSecret": kms.UsageAgreement,
	"GetPublicKey": "", "CreateGrant": "", "RetireGrant": "", "DescribeKey": "",
}

// CheckGrantOperations says whether a grant for the key can be for the operations.
func (k *Key) CheckGrantOperations(operations []string) error {
	for _, operation := range operations {
		usage, ok := GrantOperations[operation]
		if !ok {
			return kms.Invalid("operations", kms.Printable(operation), "Member must satisfy enum value set: [%s]", strings.Join(slices.Sorted(maps.Keys(GrantOperations)), ", "))
		}
		unfit := usage != "" && usage != k.Usage ||
			operation == "GetPublicKey" && !k.KeySpec.Asymmetric() || strings.HasPrefix(operation, "GenerateDataKey") && !k.KeySpec.Symmetric()
		if unfit {
			return kms.Errorf(kms.CodeValidation, "Grant operation %s is not valid for a key of key spec %s and usage %s.", operation, k.Spec, k.Usage)
		}
	}
	return nil
}

// CheckConstraints says whether the key can be granted under the constraints.
func (k *Key) CheckConstraints(c *kms.GrantConstraints) error {
	if !k.KeySpec.Symmetric() {
		return kms.Errorf(kms.CodeValidation, "Grant constraints are valid for symmetric encryption keys only.")
	}
	for _, pairs := range []map[string]string{c.EncryptionContextEquals, c.EncryptionContextSubset} {
		if err := kms.CheckLength("constraints", len(pairs), 0, kms.MaxPairs); err != nil {
			return err
		}
		for name, value := range pairs {
			if err := cmp.Or(
				kms.CheckLength("constraints", len(name), 1, kms.MaxConstraintValue),
				kms.CheckLength("constraints", utf8.RuneCountInString(value), 0, kms.MaxConstraintValue)); err != nil {
				return err
			}
		}
	}
	if c.PathPrefix != "" && (c.PathPrefix[0] != '/' || len(c.PathPrefix) > kms.MaxConstraintValue) {
		return kms.Invalid("constraints.pathPrefix", "", "Member must begin with / and have at most %d bytes", kms.MaxConstraintValue)
	}
	return nil
}
