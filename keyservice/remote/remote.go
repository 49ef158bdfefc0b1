// Package remote uses a key service elsewhere: AWS KMS, kmsfs serve, or any other that speaks AWS
// KMS's protocol.
//
// The service elsewhere authorises and logs the calls of this host's credentials. Who on this host
// was behind each call stands in a journal here, which has a record of every use: a use whose
// record can't be written is refused.
package remote

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	awskms "github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/smithy-go"

	"kmsfs/keyservice/kms"
)

const (
	// callTimeout bounds a call with all its repetitions, so that nobody waits longer for a service
	// that can't be reached.
	callTimeout = 15 * time.Second
	// attemptTimeout bounds connecting, TLS and the wait for an answer, each.
	attemptTimeout = 4 * time.Second
	maxAttempts    = 4
	// maxBackoff bounds the random pause before a repetition.
	maxBackoff = 2 * time.Second

	// fallbackRegion signs calls to services that don't care, where the settings name none.
	fallbackRegion = "us-east-1"
)

// ErrURL says that a key service's URL is none.
var ErrURL = errors.New("malformed key service URL")

// Service is a key service elsewhere. It is safe for concurrent use.
type Service struct {
	kms      *awskms.Client
	journal  *journal
	branches branches
	checks   checks
}

// Options say which key service to use, and how.
type Options struct {
	// URL is aws:REGION for AWS KMS, https://HOST[:PORT] (or http:// on a loopback address) with
	// AWS's usual settings and credentials, or unix:PATH, where the kernel says who calls.
	URL string
	// JournalDir is the directory of the journal, which is made if need be, and JournalName its
	// file's name.
	JournalDir, JournalName string
	// Cache is how long branch keys are used: data keys of the service, under which this host wraps
	// files' data keys. With 0 there are none, and each use of a data key is a call to the service.
	Cache time.Duration
}

// Open prepares to use a key service, and calls nobody yet. Errors about the URL wrap ErrURL.
func Open(ctx context.Context, o Options) (*Service, error) {
	options, err := clientOptions(ctx, o.URL)
	if err != nil {
		return nil, err
	}
	journal, err := openJournal(o.JournalDir, o.JournalName)
	if err != nil {
		return nil, fmt.Errorf("open the journal of key uses: %w", err)
	}
	return &Service{kms: awskms.New(options), journal: journal, branches: branches{
		age: o.Cache, current: map[branchOf]*branch{}, known: map[branchID]*branch{},
	}}, nil
}

// CheckURL says whether Open would take the URL.
func CheckURL(rawURL string) error {
	_, _, err := parseURL(rawURL)
	return err
}

// parseURL returns the scheme and what the client needs of the rest: a region, a URL, or a path.
func parseURL(rawURL string) (scheme, rest string, err error) {
	scheme, rest, _ = strings.Cut(rawURL, ":")
	malformed := fmt.Errorf("%w %q: want aws:REGION, https://HOST[:PORT] or unix:PATH", ErrURL, rawURL)
	switch scheme {
	case "aws":
		if rest == "" || strings.ContainsAny(rest, "/:@?# ") {
			return "", "", malformed
		}
		return scheme, rest, nil
	case "unix":
		if !filepath.IsAbs(rest) {
			return "", "", fmt.Errorf("%w (the path has to begin with /)", malformed)
		}
		return scheme, rest, nil
	case "https", "http":
		u, err := url.Parse(rawURL)
		if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Path != "/" {
			return "", "", malformed
		}
		if scheme == "http" && !isLoopback(u.Hostname()) {
			return "", "", fmt.Errorf("%w %q: http is for loopback addresses only", ErrURL, rawURL)
		}
		return scheme, rawURL, nil
	}
	return "", "", malformed
}

func isLoopback(host string) bool {
	address, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && address.IsLoopback()
}

func clientOptions(ctx context.Context, rawURL string) (awskms.Options, error) {
	scheme, rest, err := parseURL(rawURL)
	if err != nil {
		return awskms.Options{}, err
	}
	if scheme == "unix" {
		transport := &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", rest)
			},
			MaxIdleConnsPerHost: 16, ResponseHeaderTimeout: attemptTimeout,
		}
		return awskms.Options{
			Region: fallbackRegion, BaseEndpoint: aws.String("http://kmsfs"), Credentials: aws.AnonymousCredentials{},
			HTTPClient: &http.Client{Transport: transport}, Retryer: newRetryer(),
		}, nil
	}
	settings := []func(*config.LoadOptions) error{config.WithRetryer(newRetryer), config.WithHTTPClient(awshttp.NewBuildableClient().
		WithDialerOptions(func(d *net.Dialer) { d.Timeout = attemptTimeout }).
		WithTransportOptions(func(t *http.Transport) {
			t.TLSHandshakeTimeout, t.ResponseHeaderTimeout, t.MaxIdleConnsPerHost = attemptTimeout, attemptTimeout, 16
		}))}
	if scheme == "aws" {
		settings = append(settings, config.WithRegion(rest))
	}
	loaded, err := config.LoadDefaultConfig(ctx, settings...)
	if err != nil {
		return awskms.Options{}, fmt.Errorf("read AWS's settings: %w", err)
	}
	options := awskms.Options{
		Region: loaded.Region, Credentials: loaded.Credentials, HTTPClient: loaded.HTTPClient, Retryer: loaded.Retryer(),
	}
	if scheme != "aws" {
		options.BaseEndpoint = aws.String(rest)
		if options.Region == "" {
			options.Region = fallbackRegion
		}
	}
	return options, nil
}

// newRetryer repeats calls on network faults and throttling, and on nothing else.
func newRetryer() aws.Retryer {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts, o.MaxBackoff = maxAttempts, maxBackoff
		o.Retryables = []retry.IsErrorRetryable{
			retry.NoRetryCanceledError{},
			retry.RetryableConnectionError{},
			retry.RetryableErrorCode{Codes: retry.DefaultThrottleErrorCodes},
		}
	})
}

// Close wipes the branch keys and closes the journal.
func (s *Service) Close() error {
	s.branches.wipe()
	return s.journal.close()
}

// DescribeKey returns the ARN of the KMS key that an ID, ARN or alias names.
func (s *Service) DescribeKey(ctx context.Context, key string) (arn string, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	out, err := s.kms.DescribeKey(ctx, &awskms.DescribeKeyInput{KeyId: aws.String(key)})
	if err != nil {
		return "", asError(err)
	}
	if out.KeyMetadata == nil || out.KeyMetadata.Arn == nil {
		return "", errAnswer
	}
	return *out.KeyMetadata.Arn, nil
}

// errAnswer says that the service's answer is not one that AWS KMS gives.
var errAnswer = errors.New("the key service gives an incomplete answer")

// asError makes the service's exceptions of package keyservice's form. Other errors say that the
// service was not reached, or did not answer in time.
func asError(err error) error {
	if _, done := errors.AsType[*kms.Error](err); done {
		return err
	}
	fault, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		return fmt.Errorf("call the key service: %w", err)
	}
	return &kms.Error{Code: fault.ErrorCode(), Message: fault.ErrorMessage()}
}
