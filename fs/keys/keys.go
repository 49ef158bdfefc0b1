// Package keys declares what the file system asks of a key service.
package keys

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/google/uuid"

	"kmsfs/policy/caller"
)

// ErrDenied is wrapped by a Service's error when the key service denies the use of a key: the
// caller has no permission, or the key is disabled, pending deletion or gone. The file system
// answers EACCES to it, and EIO to every other error.
var ErrDenied = errors.New("denied by the key service")

// ErrUnreachable is wrapped by a KeyService's error when there was no answer. Such an error has
// nothing of the system's error numbers in it: those are the connection's, and not the file's.
var ErrUnreachable = errors.New("the key service is not reached")

// ErrUnopened is wrapped by Decrypt's error when what was to be unwrapped is not what the key has
// wrapped in that context.
var ErrUnopened = errors.New("does not open")

// Service is what the file system asks of a key service. Implementations are safe for concurrent
// use. The slices that they return belong to the caller, which wipes plaintext keys.
type Service interface {
	// GenerateDataKey makes a 32-byte data key under a KMS key (ID, alias or ARN).
	GenerateDataKey(ctx context.Context, call Call, key string, encryptionContext map[string]string) (DataKey, error)
	// Decrypt unwraps a data key, which must be wrapped under that KMS key in that encryption
	// context.
	Decrypt(ctx context.Context, call Call, keyARN string, wrapped []byte, encryptionContext map[string]string) ([]byte, error)
	// ReEncrypt wraps a data key anew, under another KMS key (ID, alias or ARN) or in another
	// encryption context. The result has no Plaintext.
	ReEncrypt(ctx context.Context, call Call, wrapped []byte, from, to Wrap) (DataKey, error)
	// Check says of each use whether it would be allowed now. It is asked often, and not recorded.
	Check(ctx context.Context, uses []Use) ([]Answer, error)
	// OpenMarker makes a marker of a volume known as open, durably.
	OpenMarker(ctx context.Context, call Call, volume Volume, marker Marker) error
	// Markers returns the markers of a volume that are open: those of mounts that are alive or have
	// ended uncleanly.
	Markers(ctx context.Context, call Call, volume Volume) ([]Marker, error)
	// CloseMarkers has markers of a volume be open no more.
	CloseMarkers(ctx context.Context, call Call, volume Volume, ids []MarkerID) error
	// Record writes an event of the file system's own into the audit log.
	Record(ctx context.Context, call Call, event Event) error
}

// Call says on whose behalf, and for which file operation, the key service is called.
type Call struct {
	// Caller is the process behind the FUSE request; for what the file system does of itself, its
	// own.
	Caller caller.Caller
	// Operation is the file operation: "open for read", "create", "rename", ...
	Operation string
	// Own says that the file system calls as itself. Its calls need no permission: calls on behalf
	// of users decide what those get to see.
	Own bool
	// ID names the file operation: the calls that it leads to have it in common.
	ID uuid.UUID
	// Path is the file's, as the process behind the operation sees it; empty if there is none.
	Path string
	// Behind is the process behind the operation where the file system calls as itself; nil if it
	// is the Caller, or nobody.
	Behind *caller.Caller
}

// Self is the call that the file system makes on its own behalf.
func Self(operation string) Call {
	return Call{
		Caller:    caller.Caller{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), PID: int32(os.Getpid())},
		Operation: operation,
		Own:       true,
		ID:        uuid.New(),
	}
}

// BySelf is a call that the file system makes as itself on the way.
func (c Call) BySelf() Call {
	own := Self(c.Operation)
	own.ID, own.Path, own.Behind = c.ID, c.Path, c.Behind
	if own.Behind == nil && c.Caller.PID != own.Caller.PID {
		own.Behind = &c.Caller
	}
	return own
}

// ForRecord is the call by which the file system records what the caller has done. The event names
// the caller, which needs no permission for that.
func (c Call) ForRecord() Call {
	c.Own = true
	return c
}

// Wrap is what a data key's wrapped form is bound to.
type Wrap struct {
	// Key is the KMS key: an ARN; as the destination of ReEncrypt also an ID or alias.
	Key     string
	Context map[string]string
}

// Volume names a volume by its metadata key.
type Volume struct {
	Wrap
	// Wrapped is the metadata key's wrapped form.
	Wrapped []byte
}

// MarkerID is the SHA-256 of a dirty marker's file.
type MarkerID [32]byte

// Marker is a dirty marker as it is known outside of the volume.
type Marker struct {
	ID MarkerID
	// Time is when the mount began, and BootID the kernel's boot ID then.
	Time   time.Time
	BootID [16]byte
}

// Action is what is done with a KMS key.
type Action string

// The actions that callers need permission for: what they read is decrypted, what they write is
// encrypted.
const (
	ActionDecrypt         Action = "Decrypt"
	ActionGenerateDataKey Action = "GenerateDataKey"
)

// Use is the use of a KMS key by a process.
type Use struct {
	Caller caller.Caller
	Action Action
	Wrap
	// Wrapped is the data key's wrapped form; nil for none.
	Wrapped []byte
}

// Answer is what became of a Use.
type Answer struct {
	// Denied wraps ErrDenied; nil if the use is allowed.
	Denied error
	// Current says that the data key is wrapped under that KMS key's current material: wrapping it
	// anew would be of no use.
	Current bool
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
	EventForgedMarker    = "ForgedMarker"
	EventRepaired        = "Repaired"
	EventMounted         = "VolumeMounted"
	EventUnmounted       = "VolumeUnmounted"
	EventRevoked         = "RevocationEnforced"
	EventRestored        = "AccessRestored"
	EventLocked          = "VolumeLocked"
	EventUnlocked        = "VolumeUnlocked"
	EventPolicySet       = "DirectoryPolicySet"
	EventRenameRefused   = "RenameRefused"
	EventAdopted         = "Adopted"
	EventKeyAllowed      = "KeyAllowed"
)
