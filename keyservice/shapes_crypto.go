package keyservice

import "encoding/json"

// EncryptInput asks for the encryption of 1 to 4096 bytes.
type EncryptInput struct {
	// KeyId is a key's ID, ARN, alias or alias ARN.
	KeyId               string
	Plaintext           []byte
	EncryptionContext   map[string]string `json:",omitempty"`
	EncryptionAlgorithm string            `json:",omitempty"`
	GrantTokens         []string          `json:",omitempty"`
	// DryRun has the call fail with DryRunOperationException where it would succeed.
	DryRun bool `json:",omitempty"`
}

// EncryptOutput is the ciphertext, and the ARN of the key it is under.
type EncryptOutput struct {
	CiphertextBlob      []byte
	KeyId               string
	EncryptionAlgorithm string
}

// DecryptInput asks for the plaintext of what Encrypt, ReEncrypt or GenerateDataKey returned.
type DecryptInput struct {
	CiphertextBlob []byte
	// EncryptionContext is the one that the ciphertext was made with, exactly.
	EncryptionContext map[string]string `json:",omitempty"`
	// KeyId is a key's ID, ARN, alias or alias ARN, which must be the ciphertext's; empty to take that.
	KeyId               string          `json:",omitempty"`
	EncryptionAlgorithm string          `json:",omitempty"`
	GrantTokens         []string        `json:",omitempty"`
	Recipient           json.RawMessage `json:",omitempty"`
	DryRun              bool            `json:",omitempty"`
	DryRunModifiers     []string        `json:",omitempty"`
}

// DecryptOutput is the plaintext, and the ARN and material of the key it was under.
type DecryptOutput struct {
	KeyId               string
	Plaintext           []byte
	EncryptionAlgorithm string
	KeyMaterialId       string
}

// ReEncryptInput asks for a ciphertext's encryption under another key, or in another context.
type ReEncryptInput struct {
	CiphertextBlob []byte
	// SourceKeyId is as DecryptInput's KeyId.
	SourceKeyId                    string            `json:",omitempty"`
	SourceEncryptionContext        map[string]string `json:",omitempty"`
	SourceEncryptionAlgorithm      string            `json:",omitempty"`
	DestinationKeyId               string
	DestinationEncryptionContext   map[string]string `json:",omitempty"`
	DestinationEncryptionAlgorithm string            `json:",omitempty"`
	GrantTokens                    []string          `json:",omitempty"`
	DryRun                         bool              `json:",omitempty"`
	DryRunModifiers                []string          `json:",omitempty"`
}

// ReEncryptOutput is the new ciphertext, and the ARNs and materials of the keys it was and is under.
type ReEncryptOutput struct {
	CiphertextBlob                 []byte
	SourceKeyId                    string
	KeyId                          string
	SourceEncryptionAlgorithm      string
	DestinationEncryptionAlgorithm string
	SourceKeyMaterialId            string
	DestinationKeyMaterialId       string
}

// GenerateDataKeyInput asks for a new data key. Exactly one of KeySpec and NumberOfBytes is set.
type GenerateDataKeyInput struct {
	// KeyId is a key's ID, ARN, alias or alias ARN.
	KeyId             string
	EncryptionContext map[string]string `json:",omitempty"`
	// KeySpec is "AES_256" or "AES_128".
	KeySpec string `json:",omitempty"`
	// NumberOfBytes is 1 to 1024.
	NumberOfBytes *int32          `json:",omitempty"`
	GrantTokens   []string        `json:",omitempty"`
	Recipient     json.RawMessage `json:",omitempty"`
	DryRun        bool            `json:",omitempty"`
}

// GenerateDataKeyOutput is the data key, in the clear and encrypted, and the ARN and material of the key it is under.
type GenerateDataKeyOutput struct {
	CiphertextBlob []byte
	Plaintext      []byte
	KeyId          string
	KeyMaterialId  string
}

// GenerateDataKeyWithoutPlaintextInput asks for a new data key that nobody sees yet. Its fields are GenerateDataKeyInput's.
type GenerateDataKeyWithoutPlaintextInput struct {
	KeyId             string
	EncryptionContext map[string]string `json:",omitempty"`
	KeySpec           string            `json:",omitempty"`
	NumberOfBytes     *int32            `json:",omitempty"`
	GrantTokens       []string          `json:",omitempty"`
	DryRun            bool              `json:",omitempty"`
}

// GenerateDataKeyWithoutPlaintextOutput is GenerateDataKeyOutput without the data key in the clear.
type GenerateDataKeyWithoutPlaintextOutput struct {
	CiphertextBlob []byte
	KeyId          string
	KeyMaterialId  string
}

// GenerateRandomInput asks for random bytes.
type GenerateRandomInput struct {
	// NumberOfBytes is 1 to 1024.
	NumberOfBytes    *int32          `json:",omitempty"`
	CustomKeyStoreId string          `json:",omitempty"`
	Recipient        json.RawMessage `json:",omitempty"`
}

// GenerateRandomOutput is the random bytes.
type GenerateRandomOutput struct{ Plaintext []byte }

// wiper is an output that holds secrets.
type wiper interface{ wipe() }

func (o *DecryptOutput) wipe()         { clear(o.Plaintext) }
func (o *GenerateDataKeyOutput) wipe() { clear(o.Plaintext) }
func (o *GenerateRandomOutput) wipe()  { clear(o.Plaintext) }

// withContexts is an input with encryption contexts.
type withContexts interface{ contexts() []map[string]string }

func (in *EncryptInput) contexts() []map[string]string {
	return []map[string]string{in.EncryptionContext}
}

func (in *DecryptInput) contexts() []map[string]string {
	return []map[string]string{in.EncryptionContext}
}

func (in *ReEncryptInput) contexts() []map[string]string {
	return []map[string]string{in.SourceEncryptionContext, in.DestinationEncryptionContext}
}

func (in *GenerateDataKeyInput) contexts() []map[string]string {
	return []map[string]string{in.EncryptionContext}
}

func (in *GenerateDataKeyWithoutPlaintextInput) contexts() []map[string]string {
	return []map[string]string{in.EncryptionContext}
}

func (e *Event) contexts() []map[string]string {
	return []map[string]string{e.EncryptionContext, e.Details}
}
