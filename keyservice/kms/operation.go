// Package kms is the API of the key service as types: an Operation and its shapes for each thing that
// can be asked for, errors, limits and ARNs. Names and semantics are AWS KMS's. The service, its client
// and its server are generic over the operations.
package kms

import "context"

// Description says what is to be known of an operation besides the shapes of its input and output.
type Description struct {
	// Name is the operation's name: AWS KMS's, or one of kmsfs's own.
	Name string
	// Actions are the permissions that the operation asks for. Most operations have one.
	Actions []string
	// Changes says that the operation changes what the key service stores.
	Changes bool
	// Unrecorded says that calls make no records in the audit log.
	Unrecorded bool
	// ForMounts says that a mount may call the operation on behalf of the callers of its files.
	ForMounts bool
}

// Operation describes an operation of the key service with the types of its input and output. All
// that serves or calls the operation is generic over it: the service, the client and the server.
type Operation[I, O any] struct{ Description }

// Invoker performs operations. It is the key service in this process, or a client of another's, and
// safe for concurrent use.
type Invoker interface {
	// Invoke performs the operation for the caller. in points to the operation's input, which is only
	// read and not kept, and out to the output that is filled. An operation that is denied or that
	// fails returns an *Error.
	Invoke(ctx context.Context, c Caller, op *Description, in, out any) error
}

// Service is a key service that has to be closed after its use. Calls that come later fail.
type Service interface {
	Invoker
	Close() error
}

// Call performs the operation for the caller. A nil input stands for an empty one. The output belongs
// to the caller, who wipes the plaintexts in it.
func (o *Operation[I, O]) Call(ctx context.Context, s Invoker, c Caller, in *I) (*O, error) {
	if in == nil {
		in = new(I)
	}
	out := new(O)
	if err := s.Invoke(ctx, c, &o.Description, in, out); err != nil {
		return nil, err
	}
	return out, nil
}

// newQuery describes an operation that changes nothing. Without actions, it asks for the one of its
// own name.
func newQuery[I, O any](name string, actions ...string) *Operation[I, O] {
	if len(actions) == 0 {
		actions = []string{"kms:" + name}
	}
	return &Operation[I, O]{Description{Name: name, Actions: actions}}
}

// newChange describes an operation that changes what the key service stores.
func newChange[I, O any](name string, actions ...string) *Operation[I, O] {
	o := newQuery[I, O](name, actions...)
	o.Changes = true
	return o
}

// newForMounts describes an operation that mounts call on behalf of the callers of their files.
func newForMounts[I, O any](name string, actions ...string) *Operation[I, O] {
	o := newQuery[I, O](name, actions...)
	o.ForMounts = true
	return o
}
