package fs

import (
	"context"
	"errors"

	"kmsfs/policy"
)

// ErrRefused is wrapped by a KeyService's error when the answer is no: the caller may not use the key, or the key is
// disabled, pending deletion or gone. The file system answers EACCES to it, and EIO to every other error.
var ErrRefused = errors.New("refused by the key service")

// ErrUnreachable is wrapped by a KeyService's error when there was no answer. Such an error has nothing of the system's error numbers in it: those are
// the connection's, and not the file's.
var ErrUnreachable = errors.New("the key service is not reached")

// KeyService is what the file system asks of a key service. Implementations are safe for concurrent use. The slices
// that they return belong to the caller, who wipes plaintext keys.
type KeyService interface {
	// GenerateDataKey makes a 32-byte data key under a KMS key (ID, alias or ARN).
	GenerateDataKey(ctx context.Context, call Call, key string, encryptionContext map[string]string) (DataKey, error)
	// Decrypt unwraps a data key, which must be wrapped under that KMS key in that encryption context.
	Decrypt(ctx context.Context, call Call, keyARN string, wrapped []byte, encryptionContext map[string]string) ([]byte, error)
	// ReEncrypt wraps a data key anew, from one encryption context to another under the same KMS key.
	ReEncrypt(ctx context.Context, call Call, keyARN string, wrapped []byte, from, to map[string]string) ([]byte, error)
	// Record writes an event of the file system's own into the audit log.
	Record(ctx context.Context, call Call, event Event) error
}

// Call says on whose behalf, and for which file operation, the key service is called.
type Call struct {
	// Caller is the process behind the FUSE request; for what the file system does of itself, its own.
	Caller policy.Caller
	// Operation is the file operation: "open", "create", "rename", ...
	Operation string
}

// DataKey is a new data key.
type DataKey struct {
	// KeyARN names the KMS key that wraps it.
	KeyARN string
	// Plaintext is the key, 32 bytes; Wrapped is what a header stores of it.
	Plaintext, Wrapped []byte
}

// Event is something that the file system found or did, worth a record in the audit log.
type Event struct {
	// Name is one of the Event constants.
	Name string
	// KeyARN and Context are those of the file concerned, if there is one.
	KeyARN  string
	Context map[string]string
	// Details are further facts, such as the two places of a ContextMismatch.
	Details map[string]string
	// Error is why something was refused; nil if nothing was.
	Error error
}

// The names of events.
const (
	EventContextMismatch = "ContextMismatch"
	EventUncleanShutdown = "UncleanShutdownFound"
	EventRepaired        = "Repaired"
	EventMounted         = "VolumeMounted"
	EventUnmounted       = "VolumeUnmounted"
)
