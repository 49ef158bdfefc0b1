package wire_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/wire"
)

// input is an operation's input as far as tests need one.
type input struct {
	KeyId             string            `json:",omitempty"`
	EncryptionContext map[string]string `json:",omitempty"`
	Plaintext         []byte            `json:",omitempty"`
	Recipient         json.RawMessage   `json:",omitempty"`
	Limit             *int32            `json:",omitempty"`
	Constraints       *constraints      `json:",omitempty"`
	Tags              []constraints     `json:",omitempty"`
}

type constraints struct {
	Equals map[string]string
}

var decoder = wire.NewDecoder[input]()

func TestDecode(t *testing.T) {
	for _, test := range []struct {
		name, body, want string // want is part of the error
	}{
		{"nothing", "", ""},
		{"empty object", " {} ", ""},
		{"all", `{"KeyId":"k","EncryptionContext":{"a":"b","A":"c"},"Plaintext":"AAE=","Limit":3,"Recipient":{"x":[1,{"y":true}]}}`, ""},
		{"absent member", `{"KeyId":null}`, ""},
		{"surrogate pair", `{"KeyId":"\ud83d\ude00"}`, ""},
		{"escaped backslash", `{"KeyId":"\\ud83d"}`, ""},
		{"array", `[]`, "not an object"},
		{"null", `null`, "not an object"},
		{"text", `"x"`, "not an object"},
		{"cut off", `{"KeyId":`, "invalid JSON"},
		{"garbage behind", `{}x`, "invalid JSON"},
		{"second object", `{}{}`, "invalid JSON"},
		{"duplicate member", `{"KeyId":"a","KeyId":"b"}`, "duplicate"},
		{"escaped duplicate", `{"EncryptionContext":{"a":"b","\u0061":"c"}}`, "duplicate"},
		{"duplicate among many", `{"EncryptionContext":{` + many(50) + `,"k7":""}}`, "duplicate"},
		{"many members", `{"EncryptionContext":{` + many(50) + `}}`, ""},
		{"literals", `{"Recipient":[-1.5e+3,true , false,"\\\"]",{}],"KeyId" : "a,b:c"}`, ""},
		{"deep duplicate", `{"Recipient":[{"a":1,"a":2}]}`, "duplicate"},
		{"other capitals", `{"keyid":"a"}`, "unknown member"},
		{"unknown member", `{"Recipients":{}}`, "unknown member"},
		{"members below", `{"Constraints":{"Equals":{"any":"b"}},"Tags":[{"Equals":{}},{}]}`, ""},
		{"unknown member below", `{"Constraints":{"Equals":{},"SourceArn":"x"}}`, "unknown member"},
		{"other capitals below", `{"Constraints":{"equals":{}}}`, "unknown member"},
		{"unknown member in a list", `{"Tags":[{},{"x":1}]}`, "unknown member"},
		{"invalid UTF-8", "{\"KeyId\":\"\xff\"}", "invalid UTF-8"},
		{"lone high surrogate", `{"KeyId":"\ud83d"}`, "lone surrogate"},
		{"lone low surrogate", `{"KeyId":"\ude00"}`, "lone surrogate"},
		{"two high surrogates", `{"KeyId":"\ud83d\ud83d"}`, "lone surrogate"},
		{"surrogate as a name", `{"EncryptionContext":{"\udc00":"x"}}`, "lone surrogate"},
		{"null value", `{"EncryptionContext":{"a":null}}`, "null"},
		{"number for text", `{"EncryptionContext":{"a":1}}`, "NUMBER_VALUE can not be converted to a String"},
		{"truth for text", `{"KeyId":true}`, "TRUE_VALUE can not be converted to a String"},
		{"falsehood for a number", `{"Limit":false ,"KeyId":"true"}`, "FALSE_VALUE can not be converted to an Integer"},
		{"fraction", `{"Limit":1.5}`, "NUMBER_VALUE can not be converted to an Integer"},
		{"text for a map", `{"EncryptionContext":"a"}`, "STRING_VALUE can not be converted to a Map"},
		{"number for bytes", `{"Plaintext":1}`, "NUMBER_VALUE can not be converted to a Blob"},
		{"list for text", `{"KeyId":["k"]}`, "Start of list found where not expected"},
		{"object for a list", `{"Tags":{}}`, "Start of structure or map found where not expected."},
		{"no base64", `{"Plaintext":"*"}`, "base64"},
		{"too deep", `{"Recipient":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, "nested"},
	} {
		_, err := decoder.Decode([]byte(test.body))
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%s: %v", test.name, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: got %v, want an error with %q", test.name, err, test.want)
		}
	}
}

// many are the members k0, k1, ... of an object.
func many(n int) string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf(`"k%d":"v"`, i))
	}
	return strings.Join(all, ",")
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"KeyId":"k","EncryptionContext":{"a":"b"},"Recipient":[1,{}]}`))
	f.Add([]byte(`{"KeyId":"\ud83d\ude00\\"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		in, err := decoder.Decode(body)
		if err != nil {
			return
		}
		text, err := json.Marshal(in)
		if err != nil {
			return // a raw member that encoding/json doesn't write
		}
		if _, err := decoder.Decode(text); err != nil {
			t.Errorf("%q became %q: %v", body, text, err)
		}
	})
}

// serve serves an operation Echo, which answers its input, and others, which fail, and returns the socket's path.
func serve(t *testing.T) string {
	t.Helper()
	return serveTwice(t)[0]
}

// serveTwice is serve, on two sockets.
func serveTwice(t *testing.T) (paths [2]string) {
	t.Helper()
	echo := func(_ context.Context, peer wire.Peer, body []byte) (any, error) {
		in, err := decoder.Decode(body)
		if err != nil {
			return nil, &kms.Error{Code: kms.CodeSerialization, Message: err.Error()}
		}
		groups, err := os.Getgroups()
		if err != nil {
			return nil, err
		}
		if peer.UID != uint32(os.Geteuid()) || peer.PID != int32(os.Getpid()) ||
			peer.Groups == nil || !slices.EqualFunc(groups, peer.Groups, func(a int, b uint32) bool { return uint32(a) == b }) {
			return nil, &kms.Error{Code: "AccessDeniedException", Message: "not this process"}
		}
		return in, nil
	}
	fail := func(err error) wire.Handler {
		return func(context.Context, wire.Peer, []byte) (any, error) { return nil, err }
	}
	s := wire.NewServer(wire.Service{Failing: func() error { return nil }, Refused: func(wire.Refusal) error { return nil }, Operations: map[string]wire.Handler{
		"Echo":      echo,
		"Refuse":    fail(&kms.Error{Code: "NotFoundException", Message: "no such key"}),
		"Hide":      fail(&kms.Error{Code: "InvalidCiphertextException"}),
		"FailFault": fail(errors.New("disk on fire")),
	}})
	done := make(chan error)
	for i := range paths {
		paths[i] = filepath.Join(t.TempDir(), "socket")
		l, err := net.Listen("unix", paths[i])
		if err != nil {
			t.Fatal(err)
		}
		go func() { done <- s.Serve(l) }()
	}
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), <-done, <-done); err != nil {
			t.Error(err)
		}
	})
	return paths
}

// Whoever holds all the connections that a listener may have keeps others waiting, until he closes one; those of other listeners don't wait.
func TestConnections(t *testing.T) {
	const most = 1024
	paths := serveTwice(t)
	dial := func(path string) net.Conn {
		conn, err := dialer(path)(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	ask := func(conn net.Conn, patience time.Duration) error {
		if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			return err
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			t.Errorf("answer: %s", response.Status)
		}
		return nil
	}
	request := []byte("GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
	const long = time.Minute
	var first net.Conn
	for range most {
		first = dial(paths[0])
		if _, err := first.Write(request); err != nil {
			t.Fatal(err)
		}
		if err := ask(first, long); err != nil {
			t.Fatal(err)
		}
	}
	late, other := dial(paths[0]), dial(paths[1])
	for _, conn := range []net.Conn{late, other} {
		if _, err := conn.Write(request); err != nil {
			t.Fatal(err)
		}
	}
	if err := ask(other, long); err != nil {
		t.Errorf("another listener: %v", err)
	}
	if err := ask(late, 100*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("a connection too many: %v", err)
	}
	first.Close()
	if err := ask(late, long); err != nil {
		t.Errorf("after one was closed: %v", err)
	}
}

func dialer(path string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
}

func TestClient(t *testing.T) {
	c := wire.NewClient(dialer(serve(t)))
	defer c.Close()
	in, out := input{KeyId: "k", EncryptionContext: map[string]string{"<&>": "é"}, Plaintext: []byte{0, 255}}, input{}
	if err := c.Call(t.Context(), "Echo", in, &out); err != nil || out.KeyId != "k" || out.EncryptionContext["<&>"] != "é" || !bytes.Equal(out.Plaintext, in.Plaintext) {
		t.Errorf("got %+v, %v", out, err)
	}
	for operation, want := range map[string]string{
		"Refuse":    "NotFoundException: no such key",
		"Hide":      "InvalidCiphertextException",
		"FailFault": "KMSInternalException: disk on fire",
		"Nonsense":  "UnknownOperationException",
	} {
		err := c.Call(t.Context(), operation, in, &out)
		if e, ok := errors.AsType[*kms.Error](err); !ok || e.Error() != want {
			t.Errorf("%s: got %v, want %s", operation, err, want)
		}
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Call(cancelled, "Echo", in, &out); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled call: %v", err)
	}
}

func TestServerProtocol(t *testing.T) {
	path := serve(t)
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dialer(path)(ctx) }}}
	defer client.CloseIdleConnections()
	const kind = "application/x-amz-json-1.1"
	for _, test := range []struct {
		name, method, path, target, kind, body string
		status                                 int
		want                                   string
	}{
		{"call", "POST", "/", "TrentService.Echo", kind, `{"KeyId":"k"}`, 200, `{"KeyId":"k"}`},
		{"charset", "POST", "/", "TrentService.Echo", kind + "; charset=utf-8", `{}`, 200, `{}`},
		{"refusal", "POST", "/", "TrentService.Refuse", kind, `{}`, 400, `{"__type":"NotFoundException","message":"no such key"}`},
		{"fault", "POST", "/", "TrentService.FailFault", kind, `{}`, 500, `{"__type":"KMSInternalException","message":"disk on fire"}`},
		{"GET", "GET", "/", "TrentService.Echo", kind, ``, 400, `{"__type":"UnknownOperationException","message":""}`},
		{"another path", "POST", "/x", "TrentService.Echo", kind, `{}`, 400, `{"__type":"UnknownOperationException","message":""}`},
		{"another service", "POST", "/", "DynamoDB.Echo", kind, `{}`, 400, `{"__type":"UnknownOperationException","message":""}`},
		{"no target", "POST", "/", "", kind, `{}`, 400, `{"__type":"UnknownOperationException","message":""}`},
		{"form", "POST", "/", "TrentService.Echo", "text/plain", `{}`, 400, `{"__type":"SerializationException","message":"Content-Type: want application/x-amz-json-1.1"}`},
		{"garbage", "POST", "/", "TrentService.Echo", kind, `{`, 400, `{"__type":"SerializationException","message":"invalid JSON: unexpected end of JSON input"}`},
		{"too long", "POST", "/", "TrentService.Echo", kind, strings.Repeat(" ", 1<<20+1), 413, `{"__type":"RequestEntityTooLargeException","message":"The request has more than 1048576 bytes."}`},
		{"query", "POST", "/?Action=Echo", "TrentService.Echo", kind, `{}`, 400, `{"__type":"UnknownOperationException","message":""}`},
		{"health", "GET", "/health", "", "", ``, 200, `{"status":"healthy"}`},
	} {
		request, err := http.NewRequestWithContext(t.Context(), test.method, "http://kmsfs"+test.path, strings.NewReader(test.body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("X-Amz-Target", test.target)
		request.Header.Set("Content-Type", test.kind)
		response, err := client.Do(request)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil || response.StatusCode != test.status || string(body) != test.want || response.Header.Get("x-amzn-RequestId") == "" {
			t.Errorf("%s: got %d %s, %v; want %d %s", test.name, response.StatusCode, body, err, test.status, test.want)
		}
	}
}
