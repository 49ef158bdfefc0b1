package wire

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"kmsfs/policy/caller"
)

const (
	testKey    = "KMFSTESTTESTTESTTEST"
	testSecret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
)

// oneKey is credentials with one access key.
type oneKey struct{}

func (oneKey) AccessKey(id string) ([]byte, caller.Caller, error) {
	if id != testKey {
		return nil, caller.Caller{}, nil
	}
	return []byte(testSecret), caller.Caller{UID: 1000}, nil
}

// signed is a request that AWS's own code has signed.
func signed(t testing.TB, body string, now time.Time) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://kms.example.com/", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", contentType)
	r.Header.Set(targetHeader, targetPrefix+"Echo")
	r.Header.Set("X-Amz-Spaced", "  a   b  ")
	digest := sha256.Sum256([]byte(body))
	credentials := aws.Credentials{AccessKeyID: testKey, SecretAccessKey: testSecret}
	if err := v4.NewSigner().SignHTTP(t.Context(), credentials, r, hex.EncodeToString(digest[:]), "kms", "mars-north-1", now); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestSignature(t *testing.T) {
	now := time.Date(2026, 11, 24, 23, 59, 0, 0, time.UTC)
	for _, test := range []struct {
		name   string
		change func(*http.Request)
		body   string
		after  time.Duration
		want   string // a part of the error; empty for none
	}{
		{name: "as it was signed"},
		{name: "replayed within the time", after: 4 * time.Minute},
		{name: "replayed later", after: 6 * time.Minute, want: "Signature expired: 20261124T235900Z is now earlier than 20261125T000000Z (20261125T000500Z - 5 min.)"},
		{name: "before its time", after: -6 * time.Minute, want: "Signature not yet current"},
		{name: "another body", body: `{"KeyId":"other"}`, want: "does not match"},
		{name: "truncated body", body: `{"KeyId"`, want: "does not match"},
		{name: "another host", change: func(r *http.Request) { r.Host = "kms.example.org" }, want: "does not match"},
		{name: "another service", change: replace("/kms/", "/s3/"), want: "scoped to correct service"},
		{name: "another day", change: replace("/20261124/", "/20261125/"), want: "does not match YYYYMMDD"},
		{name: "another region", change: replace("mars-north-1", "us-east-1"), want: "does not match"},
		{name: "the host not signed", change: replace(";host;", ";"), want: "'Host' must be"},
		{name: "the target not signed", change: replace(";x-amz-target", ""), want: "must be a 'SignedHeader'"},
		{name: "headers not sorted", change: replace("content-type;host", "host;content-type"), want: "does not match"},
		{name: "a header twice", change: replace("host;", "host;host;"), want: "does not match"},
		{name: "an empty header", change: replace("host;", "host;;"), want: "does not match"},
		{name: "no date", change: func(r *http.Request) { r.Header.Del("X-Amz-Date") }, want: "requires existence of"},
		{name: "no time", change: func(r *http.Request) { r.Header.Set("X-Amz-Date", "yesterday") }, want: "ISO-8601"},
		{name: "a temporary key", change: func(r *http.Request) { r.Header.Set("X-Amz-Security-Token", "x") }, want: "must be a 'SignedHeader'"},
		{name: "short signature", change: func(r *http.Request) {
			r.Header.Set("Authorization", strings.TrimRight(r.Header.Get("Authorization"), "0123456789abcdef")+"00")
		}, want: "does not match"},
		{name: "two credentials", change: replace("Credential=", "Credential=x, Credential="), want: "twice"},
		{name: "scope too short", change: replace("/aws4_request", ""), want: "5 slash-delimited elements"},
		{name: "two headers", change: func(r *http.Request) { r.Header.Add("Authorization", "x") }, want: "Unsupported AWS 'algorithm'"},
	} {
		t.Run(test.name, func(t *testing.T) {
			body := `{"KeyId":"k"}`
			r := signed(t, body, now)
			if test.change != nil {
				test.change(r)
			}
			if test.body != "" {
				body = test.body
			}
			key, caller, err := authenticate(r, []byte(body), oneKey{}, now.Add(test.after))
			switch {
			case test.want == "" && (err != nil || key != testKey || caller.UID != 1000):
				t.Errorf("got %s, %+v, %v", key, caller, err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// replace changes the header Authorization.
func replace(from, to string) func(*http.Request) {
	return func(r *http.Request) {
		r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), from, to, 1))
	}
}

// Whatever comes over a network gets an answer in AWS's form, and no operation is called but by what an access key has signed.
func FuzzRequest(f *testing.F) {
	now := time.Now()
	genuine := signed(f, `{"KeyId":"k"}`, now)
	var text bytes.Buffer
	if err := genuine.Write(&text); err != nil {
		f.Fatal(err)
	}
	f.Add(text.Bytes())
	f.Add([]byte("POST / HTTP/1.1\r\nHost: x\r\nAuthorization: AWS4-HMAC-SHA256 Credential=" + testKey + "/20261124/r/kms/aws4_request, SignedHeaders=host, Signature=00\r\n\r\n"))
	f.Add([]byte("GET /health HTTP/1.1\r\nHost: x\r\n\r\n"))
	f.Add([]byte("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"a\":\r\n"))
	decoder := NewDecoder[struct{ KeyId string }]()
	f.Fuzz(func(t *testing.T, input []byte) {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(input)))
		if err != nil {
			return // net/http answers these
		}
		called := false
		s := NewServer(Service{
			Operations: map[string]Handler{"Echo": func(_ context.Context, _ Peer, body []byte) (any, error) {
				called = true
				_, err := decoder.Decode(body)
				return struct{}{}, err
			}},
			Credentials: oneKey{}, Failing: func() error { return nil }, Refused: func(Refusal) error { return nil },
		})
		answer := httptest.NewRecorder()
		s.answer(answer, r.WithContext(context.WithValue(t.Context(), connectionKey{}, connection{})))
		if !json.Valid(answer.Body.Bytes()) || answer.Header().Get("X-Amzn-Requestid") == "" {
			t.Errorf("answer %d %q", answer.Code, answer.Body)
		}
		if called && !bytes.Contains(input, []byte(strings.Split(genuine.Header.Get("Authorization"), "Signature=")[1])) {
			t.Errorf("%q calls an operation", input)
		}
	})
}
