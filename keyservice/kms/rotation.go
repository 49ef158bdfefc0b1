package kms

// The operations that rotate keys.
var (
	// EnableKeyRotation has a KMS key rotated by itself.
	EnableKeyRotation = newChange[EnableKeyRotationInput, EnableKeyRotationOutput]("EnableKeyRotation")
	// DisableKeyRotation ends that.
	DisableKeyRotation = newChange[DisableKeyRotationInput, DisableKeyRotationOutput]("DisableKeyRotation")
	// GetKeyRotationStatus says whether a KMS key is rotated by itself.
	GetKeyRotationStatus = newQuery[GetKeyRotationStatusInput, GetKeyRotationStatusOutput]("GetKeyRotationStatus")
	// RotateKeyOnDemand gives a KMS key new material, or the imported material that awaits it. What the old material encrypted stays readable.
	RotateKeyOnDemand = newChange[RotateKeyOnDemandInput, RotateKeyOnDemandOutput]("RotateKeyOnDemand")
	// ListKeyRotations lists a KMS key's rotations, a page at a time.
	ListKeyRotations = newQuery[ListKeyRotationsInput, ListKeyRotationsOutput]("ListKeyRotations")
)

// EnableKeyRotationInput has a symmetric key, named by ID or ARN, rotated by itself.
type EnableKeyRotationInput struct {
	KeyId string
	// RotationPeriodInDays is 90 to 2560; nil stands for 365.
	RotationPeriodInDays *int32 `json:",omitempty"`
}

// EnableKeyRotationOutput is empty.
type EnableKeyRotationOutput struct{}

// DisableKeyRotationInput names a key by ID or ARN.
type DisableKeyRotationInput struct{ KeyId string }

// DisableKeyRotationOutput is empty.
type DisableKeyRotationOutput struct{}

// GetKeyRotationStatusInput names a key by ID or ARN.
type GetKeyRotationStatusInput struct{ KeyId string }

// GetKeyRotationStatusOutput says whether, and when next, the key is rotated by itself.
type GetKeyRotationStatusOutput struct {
	KeyId                string
	KeyRotationEnabled   bool
	RotationPeriodInDays int32      `json:",omitempty"`
	NextRotationDate     *Timestamp `json:",omitempty"`
}

// RotateKeyOnDemandInput names a symmetric key by ID or ARN.
type RotateKeyOnDemandInput struct{ KeyId string }

// RotateKeyOnDemandOutput names the key.
type RotateKeyOnDemandOutput struct{ KeyId string }

// ListKeyRotationsInput asks for a page of the rotations of a key, named by ID or ARN.
type ListKeyRotationsInput struct {
	KeyId string
	// IncludeKeyMaterial is "ROTATIONS_ONLY", which is the default, or "ALL_KEY_MATERIAL", which adds the first material and such as awaits its rotation.
	IncludeKeyMaterial string `json:",omitempty"`
	// Limit is 1 to 1000; nil stands for 100.
	Limit  *int32 `json:",omitempty"`
	Marker string `json:",omitempty"`
}

// ListKeyRotationsOutput is a page of rotations, the oldest first.
type ListKeyRotationsOutput struct {
	Rotations  []RotationsListEntry
	NextMarker string `json:",omitempty"`
	Truncated  bool
}

// RotationsListEntry is one of a key's materials, and the rotation that made it the current one.
type RotationsListEntry struct {
	KeyId         string
	KeyMaterialId string
	// KeyMaterialState is "CURRENT", "NON_CURRENT" or "PENDING_ROTATION".
	KeyMaterialState       string
	KeyMaterialDescription string `json:",omitempty"`
	// ImportState is "IMPORTED" or "PENDING_IMPORT", and ExpirationModel and ValidTo say how long; all for imported material only.
	ImportState     string     `json:",omitempty"`
	ExpirationModel string     `json:",omitempty"`
	ValidTo         *Timestamp `json:",omitempty"`
	RotationDate    *Timestamp `json:",omitempty"`
	// RotationType is "AUTOMATIC" or "ON_DEMAND".
	RotationType string `json:",omitempty"`
}
