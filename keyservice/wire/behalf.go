package wire

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/google/uuid"

	"kmsfs/keyservice/kms"
	"kmsfs/policy/caller"
)

// Behalf is for whom a mount calls. Processes of root may say so on the home's own socket, which they
// reach with root's rights over the home. On other sockets root may be that of a container, without
// any rights.
type Behalf struct {
	Caller caller.Caller
	// Operation is the file operation behind the call.
	Operation string
	// Path is the file's, Behind the process behind the operation if it isn't Caller, and SharedEventID what the operation's calls have in common.
	Path          string         `json:",omitempty"`
	Behind        *caller.Caller `json:",omitempty"`
	SharedEventID uuid.UUID
	// Own says that the mount calls of itself.
	Own bool
}

// behalfHeader has a Behalf as JSON.
const behalfHeader = "X-Kmsfs-Behalf"

// behalfKey is the key of that JSON in a call's context.
type behalfKey struct{}

// WithBehalf has calls in the context made on somebody's behalf.
func WithBehalf(ctx context.Context, b Behalf) context.Context {
	text, err := json.Marshal(b)
	if err != nil { // nothing in it can fail
		return ctx
	}
	return context.WithValue(ctx, behalfKey{}, string(text))
}

// behalfOf returns for whom a process calls; nil if it doesn't say.
func (s *Server) behalfOf(r *http.Request, from *connection) (*Behalf, error) {
	values := r.Header.Values(behalfHeader)
	if len(values) == 0 {
		return nil, nil
	}
	if from.caller.UID != 0 || !from.atHome {
		return nil, &kms.Error{
			Code: kms.CodeUnrecognizedClient, Message: "only processes of root call on behalf of others, by the home's own socket",
		}
	}
	b, err := s.behalf.Decode([]byte(values[0]))
	if len(values) > 1 || err != nil {
		return nil, &kms.Error{Code: kms.CodeSerialization, Message: behalfHeader + " is malformed"}
	}
	return b, nil
}
