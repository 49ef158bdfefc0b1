package kms

import (
	"github.com/google/uuid"

	"kmsfs/policy/caller"
)

// Caller is who makes a request, and how it came.
type Caller struct {
	caller.Caller
	// ViaFileSystem says that a mount calls for the process in Caller, which uses a file. Over the wire only root's processes can say so: they could
	// become any user anyway.
	ViaFileSystem bool
	// Own says that the mount calls of itself, to keep its volume's headers true: it may use keys whatever policies say, if their state allows it. What users
	// get to see by that, calls on their behalf decide.
	Own bool
	// Operation is the file operation behind the call ("open for read", "create", "rename", ...), Path the file's path as the process behind it sees it,
	// and Behind that process where the caller isn't it. They are for the audit record alone, and may be empty.
	Operation, Path string
	Behind          *caller.Caller
	// SharedEventID is what the calls of one file operation have in common; zero for none.
	SharedEventID uuid.UUID
	// Executable is the path of the caller's program when it connected; empty for one to be asked for.
	Executable string
	// SpokenBy is the process of root that calls on the caller's behalf over the wire; 0 for none.
	SpokenBy int32
	// AtHome says that the call came over the wire by the home's own socket.
	AtHome bool
	// AccessKeyID is the access key that the call was signed with, and Address where it came from; empty for processes of this machine.
	AccessKeyID, Address string
	// Insecure says that the call came over a network without TLS.
	Insecure bool
	// UserAgent is the program that the caller says it is; empty if it says nothing.
	UserAgent string
	// RequestID names the call; zero for one to be made up.
	RequestID uuid.UUID
}
