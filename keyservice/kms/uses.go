package kms

import (
	"context"
	"slices"

	"kmsfs/policy/caller"
)

// CheckUses says whether uses of keys that were authorized before still are. It unwraps nothing, and
// its calls are not recorded. kmsfs's own.
var CheckUses = &Operation[CheckUsesInput, CheckUsesOutput]{Description{
	Name: "CheckUses", Unrecorded: true, ForMounts: true,
}}

// maxChecks bounds the uses in one call of CheckUses: with encryption contexts of usual size, so many
// fit into a request of 1 MiB.
const maxChecks = 500

// CheckAllUses calls CheckUses for any number of uses.
func CheckAllUses(ctx context.Context, s Invoker, c Caller, uses []KeyUse) ([]KeyUseVerdict, error) {
	var all []KeyUseVerdict
	for part := range slices.Chunk(uses, maxChecks) {
		out, err := CheckUses.Call(ctx, s, c, &CheckUsesInput{Uses: part})
		if err != nil {
			return nil, err
		}
		all = append(all, out.Uses...)
	}
	return all, nil
}

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
