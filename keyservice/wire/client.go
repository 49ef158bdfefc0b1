package wire

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"kmsfs/keyservice/kms"
)

// Client calls a key service. It is safe for concurrent use, and keeps connections for the next calls.
type Client struct {
	http *http.Client
}

// NewClient returns a client that connects by means of dial.
func NewClient(dial func(ctx context.Context) (net.Conn, error)) *Client {
	return &Client{&http.Client{
		Timeout: callTimeout,
		Transport: &http.Transport{
			DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
			DisableCompression:  true,
			MaxIdleConnsPerHost: 16,
			IdleConnTimeout:     idleTimeout - 10*time.Second, // before the server's
		},
	}}
}

// Close closes the connections that no call is using.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Call performs an operation: in is encoded, out, a pointer to a struct, filled from the answer. What the service refuses
// comes back as an *Error.
func (c *Client) Call(ctx context.Context, operation string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("encode %s: %w", operation, err)
	}
	defer clear(body) // it may hold a plaintext
	answer, status, err := c.post(ctx, operation, body)
	if err != nil {
		return fmt.Errorf("call the key service: %s: %w", operation, err)
	}
	defer clear(answer)
	if status != http.StatusOK {
		return refusal(operation, status, answer)
	}
	if len(answer) == 0 {
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("decode the answer to %s: %w", operation, err)
	}
	return nil
}

// Health asks the service how it is.
func (c *Client) Health(ctx context.Context) (h Health, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://kmsfs"+healthPath, nil)
	if err != nil {
		return h, err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return h, err
	}
	defer response.Body.Close()
	if err := json.NewDecoder(io.LimitReader(response.Body, maxBody)).Decode(&h); err != nil {
		return h, fmt.Errorf("decode the key service's health: %w", err)
	}
	return h, nil
}

func (c *Client) post(ctx context.Context, operation string, body []byte) (answer []byte, status int, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://kmsfs/", bytes.NewReader(body))
	if err != nil {
		return nil, 0, err
	}
	request.Header.Set("Content-Type", contentType)
	request.Header.Set(targetHeader, targetPrefix+operation)
	if behalf, ok := ctx.Value(behalfKey{}).(string); ok {
		request.Header.Set(behalfHeader, behalf)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, 0, err
	}
	defer response.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(response.Body, maxBody+1))
	if err == nil && len(answer) > maxBody {
		err = errors.New("answer too long")
	}
	return answer, response.StatusCode, err
}

// refusal is the error that the service answered.
func refusal(operation string, status int, answer []byte) error {
	var e errorBody
	if err := json.Unmarshal(answer, &e); err != nil || e.Type == "" {
		return fmt.Errorf("call the key service: %s: HTTP status %d", operation, status)
	}
	code := e.Type[strings.LastIndexByte(e.Type, '#')+1:] // some services put a namespace before it
	return &kms.Error{Code: code, Message: e.Message}
}
