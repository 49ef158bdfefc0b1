package kms

import "encoding/json"

// The operations that use keys.
var (
	// Encrypt encrypts up to 4096 bytes under a KMS key.
	Encrypt = newQuery[EncryptInput, EncryptOutput]("Encrypt")
	// Decrypt decrypts what was encrypted under a KMS key, in the same encryption context.
	Decrypt = newForMounts[DecryptInput, DecryptOutput]("Decrypt")
	// ReEncrypt encrypts anew what was encrypted under a KMS key: the plaintext stays inside.
	ReEncrypt = newForMounts[ReEncryptInput, ReEncryptOutput]("ReEncrypt", "kms:ReEncryptFrom", "kms:ReEncryptTo")
	// GenerateDataKey makes a data key.
	GenerateDataKey = newForMounts[GenerateDataKeyInput, GenerateDataKeyOutput]("GenerateDataKey")
	// GenerateDataKeyWithoutPlaintext makes a data key for later use.
	GenerateDataKeyWithoutPlaintext = newQuery[GenerateDataKeyWithoutPlaintextInput, GenerateDataKeyWithoutPlaintextOutput]("GenerateDataKeyWithoutPlaintext")
	// GenerateDataKeyPair makes a key pair, whose private key is encrypted like a data key.
	GenerateDataKeyPair = newQuery[GenerateDataKeyPairInput, GenerateDataKeyPairOutput]("GenerateDataKeyPair")
	// GenerateDataKeyPairWithoutPlaintext makes a key pair for later use.
	GenerateDataKeyPairWithoutPlaintext = newQuery[GenerateDataKeyPairWithoutPlaintextInput, GenerateDataKeyPairWithoutPlaintextOutput]("GenerateDataKeyPairWithoutPlaintext")
	// GenerateRandom makes random bytes.
	GenerateRandom = newQuery[GenerateRandomInput, GenerateRandomOutput]("GenerateRandom")
	// GenerateMac makes a message's MAC.
	GenerateMac = newQuery[GenerateMacInput, GenerateMacOutput]("GenerateMac")
	// VerifyMac verifies a MAC.
	VerifyMac = newQuery[VerifyMacInput, VerifyMacOutput]("VerifyMac")
	// Sign signs a message or a digest.
	Sign = newQuery[SignInput, SignOutput]("Sign")
	// Verify verifies a signature.
	Verify = newQuery[VerifyInput, VerifyOutput]("Verify")
	// GetPublicKey returns a KMS key's public key.
	GetPublicKey = newQuery[GetPublicKeyInput, GetPublicKeyOutput]("GetPublicKey")
	// DeriveSharedSecret is the key agreement of a KMS key and a peer's public key.
	DeriveSharedSecret = newQuery[DeriveSharedSecretInput, DeriveSharedSecretOutput]("DeriveSharedSecret")
)

// EncryptInput asks for the encryption of 1 to 4096 bytes; RSA keys take fewer.
type EncryptInput struct {
	// KeyId is a key's ID, ARN, alias or alias ARN.
	KeyId     string
	Plaintext []byte
	// EncryptionContext is for symmetric keys only.
	EncryptionContext map[string]string `json:",omitempty"`
	// EncryptionAlgorithm is "SYMMETRIC_DEFAULT", which is the default, "RSAES_OAEP_SHA_1" or "RSAES_OAEP_SHA_256".
	EncryptionAlgorithm string   `json:",omitempty"`
	GrantTokens         []string `json:",omitempty"`
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
	// KeyId is a key's ID, ARN, alias or alias ARN, which must be the ciphertext's; empty to take that, unless the key is asymmetric.
	KeyId               string          `json:",omitempty"`
	EncryptionAlgorithm string          `json:",omitempty"`
	GrantTokens         []string        `json:",omitempty"`
	Recipient           json.RawMessage `json:",omitempty"`
	DryRun              bool            `json:",omitempty"`
	// DryRunModifiers may have "IGNORE_CIPHERTEXT": a dry run then needs a KeyId, and no ciphertext.
	DryRunModifiers []string `json:",omitempty"`
}

// DecryptOutput is the plaintext, and the ARN and, of a symmetric key, the material of the key it was under.
type DecryptOutput struct {
	KeyId               string
	Plaintext           []byte
	EncryptionAlgorithm string
	KeyMaterialId       string `json:",omitempty"`
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
	SourceKeyMaterialId            string `json:",omitempty"`
	DestinationKeyMaterialId       string `json:",omitempty"`
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

// GenerateDataKeyPairInput asks for a new key pair, whose private key is encrypted under a symmetric key.
type GenerateDataKeyPairInput struct {
	// KeyId is a key's ID, ARN, alias or alias ARN.
	KeyId             string
	EncryptionContext map[string]string `json:",omitempty"`
	// KeyPairSpec is an asymmetric key spec, such as "RSA_2048" or "ECC_NIST_P256".
	KeyPairSpec string
	GrantTokens []string        `json:",omitempty"`
	Recipient   json.RawMessage `json:",omitempty"`
	DryRun      bool            `json:",omitempty"`
}

// GenerateDataKeyPairOutput is the key pair: the private key as PKCS #8 in DER, in the clear and encrypted, the public one as SubjectPublicKeyInfo in DER.
type GenerateDataKeyPairOutput struct {
	PrivateKeyCiphertextBlob []byte
	PrivateKeyPlaintext      []byte
	PublicKey                []byte
	KeyId                    string
	KeyPairSpec              string
	KeyMaterialId            string
}

// GenerateDataKeyPairWithoutPlaintextInput asks for a key pair whose private key nobody sees yet. Its fields are GenerateDataKeyPairInput's.
type GenerateDataKeyPairWithoutPlaintextInput struct {
	KeyId             string
	EncryptionContext map[string]string `json:",omitempty"`
	KeyPairSpec       string
	GrantTokens       []string `json:",omitempty"`
	DryRun            bool     `json:",omitempty"`
}

// GenerateDataKeyPairWithoutPlaintextOutput is GenerateDataKeyPairOutput without the private key in the clear.
type GenerateDataKeyPairWithoutPlaintextOutput struct {
	PrivateKeyCiphertextBlob []byte
	PublicKey                []byte
	KeyId                    string
	KeyPairSpec              string
	KeyMaterialId            string
}

// GenerateMacInput asks for a MAC of 1 to 4096 bytes.
type GenerateMacInput struct {
	// KeyId is an HMAC key's ID, ARN, alias or alias ARN.
	KeyId   string
	Message []byte
	// MacAlgorithm is the key's, such as "HMAC_SHA_256".
	MacAlgorithm string
	GrantTokens  []string `json:",omitempty"`
	DryRun       bool     `json:",omitempty"`
}

// GenerateMacOutput is the MAC.
type GenerateMacOutput struct {
	Mac          []byte
	MacAlgorithm string
	KeyId        string
}

// VerifyMacInput asks whether a MAC is a message's. Its fields are GenerateMacInput's, and the MAC.
type VerifyMacInput struct {
	KeyId        string
	Message      []byte
	MacAlgorithm string
	Mac          []byte
	GrantTokens  []string `json:",omitempty"`
	DryRun       bool     `json:",omitempty"`
}

// VerifyMacOutput says that the MAC is right: a wrong one gives KMSInvalidMacException.
type VerifyMacOutput struct {
	KeyId        string
	MacValid     bool
	MacAlgorithm string
}

// SignInput asks for a signature of 1 to 4096 bytes, or of a digest.
type SignInput struct {
	// KeyId is an asymmetric key's ID, ARN, alias or alias ARN.
	KeyId   string
	Message []byte
	// MessageType is "RAW", which is the default, or "DIGEST".
	MessageType      string `json:",omitempty"`
	SigningAlgorithm string
	GrantTokens      []string `json:",omitempty"`
	DryRun           bool     `json:",omitempty"`
}

// SignOutput is the signature; ECDSA's in DER.
type SignOutput struct {
	KeyId            string
	Signature        []byte
	SigningAlgorithm string
}

// VerifyInput asks whether a signature is a message's. Its fields are SignInput's, and the signature.
type VerifyInput struct {
	KeyId            string
	Message          []byte
	MessageType      string `json:",omitempty"`
	Signature        []byte
	SigningAlgorithm string
	GrantTokens      []string `json:",omitempty"`
	DryRun           bool     `json:",omitempty"`
}

// VerifyOutput says that the signature is right: a wrong one gives KMSInvalidSignatureException.
type VerifyOutput struct {
	KeyId            string
	SignatureValid   bool
	SigningAlgorithm string
}

// GetPublicKeyInput names an asymmetric key by ID, ARN, alias or alias ARN.
type GetPublicKeyInput struct {
	KeyId       string
	GrantTokens []string `json:",omitempty"`
}

// GetPublicKeyOutput is the public key as SubjectPublicKeyInfo in DER, and what it is for.
type GetPublicKeyOutput struct {
	KeyId                  string
	PublicKey              []byte
	CustomerMasterKeySpec  string
	KeySpec                string
	KeyUsage               string
	EncryptionAlgorithms   []string `json:",omitempty"`
	SigningAlgorithms      []string `json:",omitempty"`
	KeyAgreementAlgorithms []string `json:",omitempty"`
}

// DeriveSharedSecretInput asks for the secret that the key shares with a peer.
type DeriveSharedSecretInput struct {
	// KeyId is a key agreement key's ID, ARN, alias or alias ARN.
	KeyId string
	// KeyAgreementAlgorithm is "ECDH".
	KeyAgreementAlgorithm string
	// PublicKey is the peer's, of the same curve, as SubjectPublicKeyInfo in DER.
	PublicKey   []byte
	GrantTokens []string        `json:",omitempty"`
	DryRun      bool            `json:",omitempty"`
	Recipient   json.RawMessage `json:",omitempty"`
}

// DeriveSharedSecretOutput is the raw secret, the shared point's x coordinate.
type DeriveSharedSecretOutput struct {
	KeyId                 string
	SharedSecret          []byte
	KeyAgreementAlgorithm string
	KeyOrigin             string
}

// Secret is an output that holds plaintexts or keys.
type Secret interface {
	// Wipe clears them.
	Wipe()
}

// Wipe clears the plaintext.
func (o *DecryptOutput) Wipe() { clear(o.Plaintext) }

// Wipe clears the data key.
func (o *GenerateDataKeyOutput) Wipe() { clear(o.Plaintext) }

// Wipe clears the random bytes.
func (o *GenerateRandomOutput) Wipe() { clear(o.Plaintext) }

// Wipe clears the private key.
func (o *GenerateDataKeyPairOutput) Wipe() { clear(o.PrivateKeyPlaintext) }

// Wipe clears the shared secret.
func (o *DeriveSharedSecretOutput) Wipe() { clear(o.SharedSecret) }
