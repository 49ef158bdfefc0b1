package kms

import "time"

// The limits of AWS KMS on the members of inputs. Each line says its unit.
const (
	MaxIdentifier          = 2048  // characters of a KeyId
	maxAliasName           = 256   // characters
	MaxDescription         = 8192  // characters of a key's description
	MaxPlaintext           = 4096  // bytes that Encrypt takes
	MaxBlob                = 6144  // bytes of a ciphertext blob
	MaxDataKey             = 1024  // bytes
	MaxMessage             = 4096  // bytes to sign or to make a MAC of
	MaxSignature           = 6144  // bytes of a signature or MAC
	MaxPublicKey           = 8192  // bytes of a peer's public key
	MaxContext             = 8192  // bytes of an encryption context in canonical form
	MaxMarker              = 1024  // characters of a list's marker
	MaxGrantTokens         = 10    // in one call
	MaxTagKey              = 128   // characters
	MaxTagValue            = 256   // characters
	MaxPairs               = 8     // pairs of one grant constraint
	MaxConstraintValue     = 384   // characters of a name or value in a grant constraint
	MaxGrantName           = 256   // characters
	MaxGrantID             = 128   // characters
	MaxPrincipal           = 256   // characters of a principal's name
	MaxPolicy              = 32768 // bytes of a policy document
	MaxImport              = 6144  // bytes of wrapped key material, and of an import token
	MaxMaterialDescription = 256   // characters of a key material's description
)

// The quotas of AWS KMS, except for maxAccessKeys, which is ours.
const (
	MaxKeys              = 100_000 // in an account
	MaxKeyAliases        = 50      // of one key
	MaxTags              = 50      // of one key
	MaxKeyGrants         = 50_000  // of one key
	MaxOnDemandRotations = 25      // of one key
	MaxAccessKeys        = 16      // of one user
)

// The periods of AWS KMS.
const (
	MinPendingWindow      = 7    // days before a key is deleted
	MaxPendingWindow      = 30   // days
	MinRotationPeriod     = 90   // days between automatic rotations
	MaxRotationPeriod     = 2560 // days
	DefaultRotationPeriod = 365  // days

	// ImportTokenLife is how long an import token and its public key are valid.
	ImportTokenLife = 24 * time.Hour
	// MaxImportLife is how far ahead the expiry of imported key material may lie.
	MaxImportLife = 365 * 24 * time.Hour
)
