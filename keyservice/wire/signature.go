package wire

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"kmsfs/keyservice/kms"
	"kmsfs/policy/caller"
)

// Credentials knows the access keys that calls are signed with.
type Credentials interface {
	// AccessKey returns an access key's secret, which the caller wipes, and whom it stands for; no secret if there is no such key.
	AccessKey(id string) (secret []byte, owner caller.Caller, err error)
}

const (
	signatureAlgorithm = "AWS4-HMAC-SHA256"
	signatureService   = "kms"
	signatureEnd       = "aws4_request"
	// signatureTime is the layout of X-Amz-Date, and signatureDay that of the day in a credential's scope.
	signatureTime = "20060102T150405Z"
	signatureDay  = "20060102"

	// maxSkew is how far the time of a signature may be from now; AWS has five minutes.
	maxSkew = 5 * time.Minute

	// maxSignedHeaders bounds the headers that a signature covers.
	maxSignedHeaders = 64
)

// The answers to calls that are not signed well.
var (
	errNoSignature  = &kms.Error{Code: kms.CodeMissingAuthentication, Message: "Missing Authentication Token"}
	errUnknownKey   = &kms.Error{Code: kms.CodeUnrecognizedClient, Message: "The security token included in the request is invalid."}
	errBadSignature = &kms.Error{
		Code: kms.CodeInvalidSignature,
		Message: "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. " +
			"Consult the service documentation for details.",
	}
)

// signature is a request's, by AWS's Signature Version 4.
type signature struct {
	accessKey string
	// day, region and service are the scope.
	day, region, service string
	// headers are the names of the headers that are signed, in lower case, sorted.
	headers []string
	mac     []byte
	// time is X-Amz-Date as it stands in the request.
	time string
}

// authenticate finds out whose access key has signed the request.
func authenticate(r *http.Request, body []byte, credentials Credentials, now time.Time) (accessKey string, owner caller.Caller, err error) {
	s, err := parseSignature(r.Header)
	if err != nil {
		return "", owner, err
	}
	if err := s.check(r.Header, now); err != nil {
		return s.accessKey, owner, err
	}
	if r.Header.Get("X-Amz-Security-Token") != "" { // a temporary key's, and there are none
		return s.accessKey, owner, errUnknownKey
	}
	secret, owner, err := credentials.AccessKey(s.accessKey)
	if err != nil {
		return s.accessKey, caller.Caller{}, err
	}
	defer clear(secret)
	if secret == nil {
		return s.accessKey, caller.Caller{}, errUnknownKey
	}
	if !hmac.Equal(s.mac, s.compute(r, body, secret)) {
		return s.accessKey, caller.Caller{}, errBadSignature
	}
	return s.accessKey, owner, nil
}

// parseSignature reads the header Authorization.
func parseSignature(h http.Header) (*signature, error) {
	values := h.Values("Authorization")
	if len(values) == 0 {
		return nil, errNoSignature
	}
	rest, ok := strings.CutPrefix(values[0], signatureAlgorithm+" ")
	if !ok || len(values) > 1 {
		return nil, incomplete("Unsupported AWS 'algorithm': want one Authorization header with %s.", signatureAlgorithm)
	}
	parts := map[string]string{}
	for part := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		if parts[name] != "" {
			return nil, incomplete("Authorization header has '%s' twice.", name)
		}
		parts[name] = value
	}
	for _, name := range []string{"Credential", "SignedHeaders", "Signature"} {
		if parts[name] == "" {
			return nil, incomplete("Authorization header requires '%s' parameter.", name)
		}
	}
	s := &signature{headers: strings.Split(parts["SignedHeaders"], ";"), time: h.Get("X-Amz-Date")}
	scope := strings.Split(parts["Credential"], "/")
	if len(scope) != 5 || scope[4] != signatureEnd {
		return nil, incomplete("Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/%s.", signatureEnd)
	}
	s.accessKey, s.day, s.region, s.service = scope[0], scope[1], scope[2], scope[3]
	var err error
	if s.mac, err = hex.DecodeString(parts["Signature"]); err != nil || len(s.mac) != sha256.Size {
		return nil, errBadSignature
	}
	return s, nil
}

func incomplete(format, name string) *kms.Error {
	if len(name) > maxQuoted {
		name = name[:maxQuoted]
	}
	return &kms.Error{Code: kms.CodeIncompleteSignature, Message: strings.Replace(format, "%s", strconv.QuoteToASCII(name), 1)}
}

// maxQuoted bounds what an error quotes of a request, in bytes.
const maxQuoted = 64

// check refuses signatures of another time or service, and those that leave out a header which matters.
func (s *signature) check(h http.Header, now time.Time) error {
	if s.time == "" {
		return incomplete("Authorization header requires existence of a %s header.", "X-Amz-Date")
	}
	signed, err := time.Parse(signatureTime, s.time)
	switch {
	case err != nil:
		return incomplete("Date must be in ISO-8601 'basic format'. Got %s.", s.time)
	case s.day != signed.Format(signatureDay):
		return &kms.Error{Code: kms.CodeInvalidSignature, Message: "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP."}
	case s.service != signatureService:
		return &kms.Error{Code: kms.CodeInvalidSignature, Message: "Credential should be scoped to correct service: '" + signatureService + "'."}
	case now.Sub(signed) > maxSkew:
		return &kms.Error{Code: kms.CodeInvalidSignature, Message: "Signature expired: " + s.time + " is now earlier than " + now.UTC().Add(-maxSkew).Format(signatureTime) + " (" + now.UTC().Format(signatureTime) + " - 5 min.)"}
	case signed.Sub(now) > maxSkew:
		return &kms.Error{Code: kms.CodeInvalidSignature, Message: "Signature not yet current: " + s.time + " is still later than " + now.UTC().Add(maxSkew).Format(signatureTime) + " (" + now.UTC().Format(signatureTime) + " + 5 min.)"}
	}
	return s.checkHeaders(h)
}

// checkHeaders wants the host and all of X-Amz-* signed: the operation's name is among them.
func (s *signature) checkHeaders(h http.Header) error {
	if len(s.headers) > maxSignedHeaders || !slices.IsSorted(s.headers) || slices.Contains(s.headers, "authorization") {
		return errBadSignature
	}
	for i, name := range s.headers {
		if name == "" || name != strings.ToLower(name) || i > 0 && name == s.headers[i-1] {
			return errBadSignature
		}
	}
	if !slices.Contains(s.headers, "host") {
		return &kms.Error{Code: kms.CodeInvalidSignature, Message: "'Host' must be a 'SignedHeader' in the AWS Authorization."}
	}
	for name := range h {
		if lower := strings.ToLower(name); strings.HasPrefix(lower, "x-amz-") && !slices.Contains(s.headers, lower) {
			return &kms.Error{Code: kms.CodeInvalidSignature, Message: "'" + name + "' must be a 'SignedHeader' in the AWS Authorization."}
		}
	}
	return nil
}

// compute is what the signature should be. The request's path is "/", and it has no query.
func (s *signature) compute(r *http.Request, body, secret []byte) []byte {
	digest := sha256.New()
	digest.Write([]byte(r.Method + "\n/\n\n"))
	for _, name := range s.headers {
		digest.Write([]byte(name + ":" + headerValue(r, name) + "\n"))
	}
	payload := sha256.Sum256(body)
	digest.Write([]byte("\n" + strings.Join(s.headers, ";") + "\n" + hex.EncodeToString(payload[:])))
	request := hex.EncodeToString(digest.Sum(nil))

	scope := s.day + "/" + s.region + "/" + s.service + "/" + signatureEnd
	key := append([]byte("AWS4"), secret...)
	for _, part := range []string{s.day, s.region, s.service, signatureEnd} {
		derived := mac(key, part)
		clear(key)
		key = derived
	}
	defer clear(key)
	return mac(key, signatureAlgorithm+"\n"+s.time+"\n"+scope+"\n"+request)
}

// headerValue is a header as signatures have it: its values with commas between, without superfluous spaces.
func headerValue(r *http.Request, name string) string {
	switch name {
	case "host":
		return r.Host
	case "content-length":
		return strconv.FormatInt(r.ContentLength, 10)
	}
	values := r.Header.Values(name)
	trimmed := make([]string, len(values))
	for i, value := range values {
		trimmed[i] = strings.Join(strings.FieldsFunc(value, func(c rune) bool { return c == ' ' }), " ")
	}
	return strings.Join(trimmed, ",")
}

func mac(key []byte, text string) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(text))
	return m.Sum(nil)
}
