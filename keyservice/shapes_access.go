package keyservice

import "kmsfs/policy/caller"

// CheckUsesInput asks about uses of KMS keys: at most 500 in a call over the wire.
type CheckUsesInput struct {
	Uses []KeyUse
}

// KeyUse is a use of a KMS key on somebody's account: of a data key that is in memory, say, for a file that is open.
type KeyUse struct {
	// Caller is who uses the key. Over the wire it is the peer, unless the call is ViaFileSystem.
	Caller caller.Caller
	// Action is "Decrypt" or "GenerateDataKey".
	Action            string
	KeyId             string
	EncryptionContext map[string]string `json:",omitempty"`
	// CiphertextBlob is the wrapped data key; empty for none.
	CiphertextBlob []byte `json:",omitempty"`
}

// CheckUsesOutput answers for each use, in order.
type CheckUsesOutput struct {
	Uses []KeyUseVerdict
}

// KeyUseVerdict says whether a use would be let through now.
type KeyUseVerdict struct {
	// Code and Message are of the exception that would be the answer; empty if it would be let through.
	Code    string `json:",omitempty"`
	Message string `json:",omitempty"`
	// Current says that the data key is wrapped under that very key's current material.
	Current bool `json:",omitempty"`
}
