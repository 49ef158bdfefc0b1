package kms

// SpecSymmetric is the spec of symmetric keys that encrypt, and the name of their algorithm.
const SpecSymmetric = "SYMMETRIC_DEFAULT"

// What keys are for.
const (
	UsageEncryption = "ENCRYPT_DECRYPT"
	UsageSigning    = "SIGN_VERIFY"
	UsageMAC        = "GENERATE_VERIFY_MAC"
	UsageAgreement  = "KEY_AGREEMENT"
)

// The states of keys.
const (
	StateEnabled         = "Enabled"
	StateDisabled        = "Disabled"
	StatePendingDeletion = "PendingDeletion"
	StatePendingImport   = "PendingImport"
)

// Who manages keys. Owned keys are for the key service's own use: no operation lists, describes or finds them.
const (
	ManagerCustomer = "CUSTOMER"
	ManagerService  = "AWS"
	ManagerOwned    = "OWNED"
)

// Where key material comes from.
const (
	OriginKMS      = "AWS_KMS"
	OriginExternal = "EXTERNAL"
)

// ManagedPrefix is what the aliases of the file system's own keys begin with, in the place of AWS's alias/aws/.
const ManagedPrefix = "alias/kmsfs/"
