package keyspec

import (
	"errors"
	"fmt"
	"slices"
)

// Kinds of errors. ErrSignature, ErrMAC and ErrDecryption never say more: what exactly was wrong would help a forger only.
var (
	// ErrUnknown is an algorithm, message type or key spec that is not in AWS's enumeration for the operation.
	ErrUnknown = errors.New("unknown algorithm")
	// ErrAlgorithm is an algorithm of AWS's that doesn't go with the key spec, or isn't supported.
	ErrAlgorithm = errors.New("incompatible algorithm")
	// ErrMessage is a message or digest of a wrong size or type for the algorithm.
	ErrMessage = errors.New("invalid message")
	// ErrSignature is a signature that is not the key's for the message.
	ErrSignature = errors.New("invalid signature")
	// ErrMAC is a MAC that is not the key's for the message.
	ErrMAC = errors.New("invalid MAC")
	// ErrDecryption is a ciphertext that is not one under the key.
	ErrDecryption = errors.New("decryption failed")
	// ErrMaterial is a key material that is not one of the spec.
	ErrMaterial = errors.New("invalid key material")
	// ErrPublicKey is a public key that is not one of the spec.
	ErrPublicKey = errors.New("invalid public key")
)

// Refusal is an error that a caller may be told as it is: its text is AWS's where that is known.
type Refusal struct {
	// Kind is ErrUnknown, ErrAlgorithm or ErrMessage.
	Kind error
	Text string
}

func (r *Refusal) Error() string { return r.Text }
func (r *Refusal) Unwrap() error { return r.Kind }

func refuse(kind error, format string, args ...any) error {
	return &Refusal{kind, fmt.Sprintf(format, args...)}
}

// admit says whether the algorithm is one of the spec's own for an operation that has besides them the others. That in AWS's enumerations
// an algorithm is of another spec is another error than that there is none.
func (s *Spec) admit(algorithm string, own []string, others ...string) error {
	switch {
	case slices.Contains(own, algorithm):
		return nil
	case slices.Contains(others, algorithm):
		return refuse(ErrAlgorithm, "Algorithm %s is incompatible with key spec %s.", algorithm, s.Name)
	}
	return refuse(ErrUnknown, "unknown algorithm %q", algorithm)
}
