package kms

// The operations that import key material.
var (
	// GetParametersForImport makes a public key to wrap key material with, and the token that goes with it.
	GetParametersForImport = newQuery[GetParametersForImportInput, GetParametersForImportOutput]("GetParametersForImport")
	// ImportKeyMaterial imports key material that was wrapped so.
	ImportKeyMaterial = newChange[ImportKeyMaterialInput, ImportKeyMaterialOutput]("ImportKeyMaterial")
	// DeleteImportedKeyMaterial destroys imported key material. The same can be imported again.
	DeleteImportedKeyMaterial = newChange[DeleteImportedKeyMaterialInput, DeleteImportedKeyMaterialOutput]("DeleteImportedKeyMaterial")
)

// GetParametersForImportInput asks for what is needed to import key material into a key of origin EXTERNAL, named by ID or ARN.
type GetParametersForImportInput struct {
	KeyId string
	// WrappingAlgorithm is "RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256", "RSA_AES_KEY_WRAP_SHA_1" or "RSA_AES_KEY_WRAP_SHA_256".
	WrappingAlgorithm string
	// WrappingKeySpec is "RSA_2048", "RSA_3072" or "RSA_4096".
	WrappingKeySpec string
}

// GetParametersForImportOutput is a public key to encrypt the material with, and a token that goes with it, both for 24 hours.
type GetParametersForImportOutput struct {
	KeyId             string
	ImportToken       []byte
	PublicKey         []byte
	ParametersValidTo Timestamp
}

// ImportKeyMaterialInput imports key material: for the first time, the same again after it was deleted or has expired, or a symmetric key's next.
type ImportKeyMaterialInput struct {
	KeyId                string
	ImportToken          []byte
	EncryptedKeyMaterial []byte
	// ValidTo is at most 365 days ahead, and needed unless ExpirationModel is "KEY_MATERIAL_DOES_NOT_EXPIRE"; the default is "KEY_MATERIAL_EXPIRES".
	ValidTo         *Timestamp `json:",omitempty"`
	ExpirationModel string     `json:",omitempty"`
	// ImportType is "NEW_KEY_MATERIAL" or "EXISTING_KEY_MATERIAL"; the default is the former for a key without any, else the latter.
	ImportType             string `json:",omitempty"`
	KeyMaterialDescription string `json:",omitempty"`
	// KeyMaterialId is what the material's ID is expected to be; may be empty.
	KeyMaterialId string `json:",omitempty"`
}

// ImportKeyMaterialOutput names the key and the material.
type ImportKeyMaterialOutput struct{ KeyId, KeyMaterialId string }

// DeleteImportedKeyMaterialInput names the material; without an ID, the current one.
type DeleteImportedKeyMaterialInput struct {
	KeyId         string
	KeyMaterialId string `json:",omitempty"`
}

// DeleteImportedKeyMaterialOutput names the key and the material.
type DeleteImportedKeyMaterialOutput struct{ KeyId, KeyMaterialId string }
