// Package wire speaks AWS KMS's protocol, AWS JSON 1.1 over HTTP: POST /, with the operation's name in the header X-Amz-Target. On Unix sockets the
// kernel says who calls; elsewhere AWS's Signature Version 4 does. The package knows no operation; the server is given a table of them.
package wire

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"mime"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"kmsfs/keyservice/kms"
	"kmsfs/policy/caller"
)

const (
	contentType  = "application/x-amz-json-1.1"
	targetHeader = "X-Amz-Target"
	targetPrefix = "TrentService."

	// maxBody bounds requests and answers in bytes; the largest genuine ones are a few tens of KiB.
	maxBody = 1 << 20
	// usualBody is for how much room is made before it comes, in bytes: a client may promise more than it sends.
	usualBody = 16 << 10
	// maxHeader bounds a request's header in bytes.
	maxHeader = 16 << 10
	// callTimeout is how long a call may take from its first byte to its last.
	callTimeout = 30 * time.Second
	idleTimeout = 2 * time.Minute
	// closeTimeout is how long calls under way may take to end when the server closes.
	closeTimeout = 5 * time.Second
	// maxConnections bounds a listener's connections at a time; others wait to be accepted.
	maxConnections = 1024

	// maxUserAgent bounds the header User-Agent in bytes, as policies see it.
	maxUserAgent = 1024

	// healthPath is where anybody may ask, by GET, whether the service works.
	healthPath = "/health"
)

// Peer is who calls.
type Peer struct {
	caller.Caller
	// AtHome says that the call came by the home's own socket.
	AtHome bool
	// Behalf is for whom the process, one of root's, calls; nil if it calls for itself.
	Behalf *Behalf
	// Executable is the path of the program that connected; empty if it can't be told.
	Executable string
	// AccessKeyID is the access key that has signed the call; empty for a process that the kernel named.
	AccessKeyID string
	// Address is the IP address that a signed call came from.
	Address string
	// Insecure says that the call came over a network without TLS, and UserAgent is the header of that name.
	Insecure  bool
	UserAgent string
	// RequestID is the call's name, which the answer has in the header x-amzn-RequestId.
	RequestID uuid.UUID
}

// Handler performs one operation for the peer. It gets the request's JSON, to give to Decode, and returns what is to be encoded as the answer. An
// error that is no *Error is answered as an internal one.
type Handler func(ctx context.Context, peer Peer, body []byte) (any, error)

// Service is what a server serves.
type Service struct {
	// Operations are by name.
	Operations map[string]Handler
	// Credentials are for calls that don't come by a Unix socket.
	Credentials Credentials
	// Refused is told of each call that reaches no operation, as it is malformed or nobody knows whose it is: an error of it is the answer.
	Refused func(Refusal) error
	// Failing says why the service doesn't work; nil if it does.
	Failing func() error
	// Warnings say what else is wrong, to processes of this machine; nil for nothing.
	Warnings func() []string
}

// Refusal is a call that has reached no operation.
type Refusal struct {
	// Peer is who calls; if he is not known, with the access key that is claimed, and the address.
	Peer
	// Known says that he is.
	Known bool
	// Operation is what is asked for; empty if there is no such. Target is how the call says so: anything.
	Operation, Target string
	Error             *kms.Error
}

// own are the codes of errors that the protocol itself gives.
var own = []string{
	kms.CodeIncompleteSignature, kms.CodeInvalidSignature, kms.CodeMissingAuthentication, kms.CodeSerialization, kms.CodeTooLarge, kms.CodeUnknownOperation, kms.CodeUnrecognizedClient,
}

// Server answers calls.
type Server struct {
	service Service
	behalf  Decoder[Behalf]

	mu sync.Mutex // guards what follows
	// listening are those who serve a listener each, so that connections to one don't take the places of those to another.
	listening []*http.Server
	closed    bool
}

// NewServer returns a server of the service.
func NewServer(service Service) *Server {
	return &Server{service: service, behalf: NewDecoder[Behalf]()}
}

// Serve answers calls that come by the listener, until Close, and then returns nil. A server may serve several.
func (s *Server) Serve(l net.Listener) error { return s.serve(l, false) }

// ServeHome is Serve for the home's own socket, which only the home's owner and root can reach. Mounts
// call there on behalf of the callers of their files.
func (s *Server) ServeHome(l net.Listener) error { return s.serve(l, true) }

func (s *Server) serve(l net.Listener, atHome bool) error {
	places := make(chan struct{}, maxConnections)
	h := s.newHTTP(places, atHome)
	if !s.listen(h) {
		return l.Close()
	}
	if err := h.Serve(limited{l, places}); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// listen notes who serves a listener, unless the server is closed.
func (s *Server) listen(h *http.Server) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.listening = append(s.listening, h)
	}
	return !s.closed
}

// newHTTP returns a server of one listener, whose connections have each taken one of the places.
func (s *Server) newHTTP(places chan struct{}, atHome bool) *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP1(true) // as AWS's endpoints
	return &http.Server{
		Handler:           http.HandlerFunc(s.answer),
		Protocols:         &protocols,
		ReadHeaderTimeout: callTimeout,
		ReadTimeout:       callTimeout,
		WriteTimeout:      callTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ConnContext:       func(ctx context.Context, conn net.Conn) context.Context { return withPeer(ctx, conn, atHome) },
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateClosed {
				<-places
			}
		},
		ErrorLog: log.New(io.Discard, "", 0), // a client that hangs up is no news
	}
}

// limited is a listener that accepts a connection only once there is a place for it.
type limited struct {
	net.Listener
	places chan struct{}
}

func (l limited) Accept() (net.Conn, error) {
	l.places <- struct{}{} // a closing server closes connections, so that there is one soon
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.places
	}
	return conn, err
}

// Close stops listening, gives calls under way a moment to end, and closes all connections.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	var group sync.WaitGroup
	failed := make([]error, len(s.listening))
	for i, h := range s.listening {
		group.Go(func() {
			if h.Shutdown(ctx) != nil {
				failed[i] = h.Close()
			}
		})
	}
	group.Wait()
	return errors.Join(failed...)
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request) {
	id := uuid.New()
	w.Header().Set("X-Amzn-Requestid", id.String())
	if r.Method == http.MethodGet && r.URL.Path == healthPath {
		s.answerHealth(w, r)
		return
	}
	peer, known, out, err := s.call(w, r, id)
	if e, ok := errors.AsType[*kms.Error](err); ok && slices.Contains(own, e.Code) {
		refusal := Refusal{Peer: peer, Known: known, Target: r.Header.Get(targetHeader), Error: e}
		if name := strings.TrimPrefix(refusal.Target, targetPrefix); s.service.Operations[name] != nil {
			refusal.Operation = name
		}
		if recordErr := s.service.Refused(refusal); recordErr != nil {
			err = recordErr
		}
	}
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

// Health is what a service says of itself.
type Health struct {
	// Status is "healthy" or "unhealthy", and Reason why it is that.
	Status string `json:"status"`
	Reason string `json:"reason,omitempty"`
	// Warnings are what is wrong besides.
	Warnings []string `json:"warnings,omitempty"`
}

func (s *Server) answerHealth(w http.ResponseWriter, r *http.Request) {
	health, status := Health{Status: "healthy"}, http.StatusOK
	if err := s.service.Failing(); err != nil {
		health, status = Health{Status: "unhealthy", Reason: err.Error()}, http.StatusServiceUnavailable
	}
	if from, ok := r.Context().Value(connectionKey{}).(connection); ok && from.local && s.service.Warnings != nil {
		health.Warnings = s.service.Warnings()
	}
	body, err := json.Marshal(health)
	if err != nil {
		writeError(w, err)
		return
	}
	write(w, status, body)
}

// call performs a call, and says whose it is, and whether that is known.
func (s *Server) call(w http.ResponseWriter, r *http.Request, id uuid.UUID) (peer Peer, known bool, out any, err error) {
	peer = Peer{Address: addressOf(r), RequestID: id}
	if r.Method != http.MethodPost || r.URL.Path != "/" || r.URL.RawQuery != "" {
		return peer, false, nil, &kms.Error{Code: kms.CodeUnknownOperation, Message: ""}
	}
	body, err := readBody(w, r)
	defer clear(body)
	if _, tooLong := errors.AsType[*http.MaxBytesError](err); tooLong {
		return peer, false, nil, &kms.Error{Code: kms.CodeTooLarge, Message: "The request has more than " + strconv.Itoa(maxBody) + " bytes."}
	}
	if err != nil {
		return peer, false, nil, &kms.Error{Code: kms.CodeSerialization, Message: err.Error()}
	}
	if peer, err = s.peer(r, body); err != nil {
		peer.RequestID = id
		return peer, false, nil, err
	}
	peer.RequestID = id
	name, ok := strings.CutPrefix(r.Header.Get(targetHeader), targetPrefix)
	handler := s.service.Operations[name]
	if !ok || handler == nil {
		return peer, true, nil, &kms.Error{Code: kms.CodeUnknownOperation, Message: ""}
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != contentType {
		return peer, true, nil, &kms.Error{Code: kms.CodeSerialization, Message: "Content-Type: want " + contentType}
	}
	out, err = handler(r.Context(), peer, body)
	return peer, true, out, err
}

// readBody reads a request's body, which may hold a plaintext: in one piece, unless it is large, so that no part of it stays elsewhere.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	var body bytes.Buffer
	body.Grow(int(min(max(r.ContentLength, 0), usualBody)) + bytes.MinRead)
	_, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, maxBody))
	return body.Bytes(), err
}

// addressOf is the IP address that a request came from; empty on a Unix socket.
func addressOf(r *http.Request) string {
	if from, ok := r.Context().Value(connectionKey{}).(connection); ok && from.local {
		return ""
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// peer finds out who calls; with an error, who is claimed to.
func (s *Server) peer(r *http.Request, body []byte) (Peer, error) {
	from, ok := r.Context().Value(connectionKey{}).(connection)
	if !ok || from.err != nil {
		return Peer{}, &kms.Error{Code: kms.CodeInternal, Message: "the caller can't be told"}
	}
	userAgent := r.UserAgent()
	userAgent = userAgent[:min(len(userAgent), maxUserAgent)]
	if from.local {
		behalf, err := s.behalfOf(r, &from)
		return Peer{Caller: from.caller, AtHome: from.atHome, Executable: from.executable, Behalf: behalf, UserAgent: userAgent}, err
	}
	accessKey, caller, err := authenticate(r, body, s.service.Credentials, time.Now())
	return Peer{Caller: caller, AccessKeyID: accessKey, Address: addressOf(r), Insecure: r.TLS == nil, UserAgent: userAgent}, err
}

// errorBody is an exception as it goes over the wire.
type errorBody struct {
	Type    string `json:"__type"`
	Message string `json:"message"`
}

func writeError(w http.ResponseWriter, err error) {
	e, ok := errors.AsType[*kms.Error](err)
	if !ok {
		e = &kms.Error{Code: kms.CodeInternal, Message: err.Error()}
	}
	body, err := json.Marshal(errorBody{e.Code, e.Message})
	if err != nil {
		body = nil
	}
	write(w, status(e.Code), body)
}

// status is the HTTP status of an exception: 500 for the service's faults, which clients retry, and 400 for all others.
func status(code string) int {
	switch code {
	case kms.CodeInternal, "DependencyTimeoutException", "KeyUnavailableException":
		return http.StatusInternalServerError
	case kms.CodeTooLarge:
		return http.StatusRequestEntityTooLarge
	}
	return http.StatusBadRequest
}

// write sends an answer. A client that has gone doesn't get it, and that is all there is to it.
func write(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
