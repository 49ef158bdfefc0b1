// Package wire speaks AWS KMS's protocol, AWS JSON 1.1 over HTTP, on Unix sockets: POST /, with the operation's name in
// the header X-Amz-Target. It knows no operation; the server is given a table of them.
package wire

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"mime"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"kmsfs/policy"
)

const (
	contentType  = "application/x-amz-json-1.1"
	targetHeader = "X-Amz-Target"
	targetPrefix = "TrentService."

	// maxBody bounds requests and answers in bytes; the largest genuine ones are a few tens of KiB.
	maxBody = 1 << 20
	// maxHeader bounds a request's header in bytes.
	maxHeader = 16 << 10
	// callTimeout is how long a call may take from its first byte to its last.
	callTimeout = 30 * time.Second
	idleTimeout = 2 * time.Minute
)

// Handler performs one operation for the peer, whom the kernel has named. It gets the request's JSON, to give to Decode, and
// returns what is to be encoded as the answer. An error that is no *Error is answered as an internal one.
type Handler func(ctx context.Context, peer policy.Caller, body []byte) (any, error)

// Server answers calls on a Unix socket.
type Server struct {
	operations map[string]Handler
	http       *http.Server
}

// NewServer returns a server of the operations, by name.
func NewServer(operations map[string]Handler) *Server {
	s := &Server{operations: operations}
	s.http = &http.Server{
		Handler:           http.HandlerFunc(s.answer),
		ReadHeaderTimeout: callTimeout,
		ReadTimeout:       callTimeout,
		WriteTimeout:      callTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ConnContext:       withPeer,
		ErrorLog:          log.New(io.Discard, "", 0), // a client that hangs up is no news
	}
	return s
}

// Serve answers calls until Close, and then returns nil.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Close stops listening, gives calls under way a moment to end, and closes all connections.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := s.http.Shutdown(ctx); err == nil {
		return nil
	}
	return s.http.Close()
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("x-amzn-RequestId", uuid.NewString())
	out, err := s.call(w, r)
	if err != nil {
		writeError(w, err)
		return
	}
	body, err := json.Marshal(out)
	if err != nil {
		writeError(w, err)
		return
	}
	defer clear(body) // it may hold a data key
	write(w, http.StatusOK, body)
}

func (s *Server) call(w http.ResponseWriter, r *http.Request) (any, error) {
	name, ok := strings.CutPrefix(r.Header.Get(targetHeader), targetPrefix)
	handler := s.operations[name]
	if !ok || handler == nil || r.Method != http.MethodPost || r.URL.Path != "/" {
		return nil, &Error{CodeUnknownOperation, ""}
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != contentType {
		return nil, &Error{CodeSerialization, "Content-Type: want " + contentType}
	}
	from, ok := r.Context().Value(peerKey{}).(peer)
	if !ok || from.err != nil {
		return nil, &Error{CodeInternal, "the caller can't be told"}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return nil, &Error{CodeSerialization, err.Error()}
	}
	defer clear(body)
	return handler(r.Context(), from.caller, body)
}

// errorBody is an exception as it goes over the wire.
type errorBody struct {
	Type    string `json:"__type"`
	Message string `json:"message"`
}

func writeError(w http.ResponseWriter, err error) {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		e = &Error{CodeInternal, err.Error()}
	}
	body, err := json.Marshal(errorBody{e.Code, e.Message})
	if err != nil {
		body = nil
	}
	write(w, status(e.Code), body)
}

// write sends an answer. A client that has gone doesn't get it, and that is all there is to it.
func write(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
