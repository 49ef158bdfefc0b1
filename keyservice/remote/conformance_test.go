package remote_test

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kmsfs/keyservice"
	"kmsfs/keyservice/kms"
)

// transport is a way to a home's key service.
type transport struct {
	name string
	// open returns a client that remembers nothing of earlier ones.
	open func(t *testing.T) kms.Invoker
}

// transports are all ways to the key service of a home: in its process, by the home's own socket,
// and by AWS's SDK, with branch keys and without.
func transports(service *keyservice.Service, url string) []transport {
	overSocket := func(t *testing.T) kms.Invoker {
		client, err := keyservice.DialHome(filepath.Join(filepath.Dir(strings.TrimPrefix(url, "unix:")), "home"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := client.Close(); err != nil {
				t.Error(err)
			}
		})
		return client
	}
	return []transport{
		{"in process", func(*testing.T) kms.Invoker { return service }},
		{"home socket", overSocket},
		{"SDK", func(t *testing.T) kms.Invoker { return open(t, url, 0) }},
		{"SDK with branch keys", func(t *testing.T) kms.Invoker { return open(t, url, time.Hour) }},
	}
}

// mountCall is a call that a mount makes for this process.
func mountCall() kms.Caller {
	c := self()
	c.ViaFileSystem = true
	return c
}

// Every transport gives the file system the same data keys, answers and errors.
func TestConformance(t *testing.T) {
	service, url, keys := serve(t)
	const alias = "alias/conformance"
	if _, err := kms.CreateAlias.Call(t.Context(), service, self(), &kms.CreateAliasInput{AliasName: alias, TargetKeyId: keys[0]}); err != nil {
		t.Fatal(err)
	}
	for _, by := range transports(service, url) {
		t.Run(by.name, func(t *testing.T) {
			c := conformance{t, service, by.open(t), keys}
			c.dataKeys(alias)
			c.unopened()
			c.moves()
			c.denials(by.open)
			c.interrupted()
			c.events()
		})
	}
}

type conformance struct {
	*testing.T
	service *keyservice.Service
	api     kms.Invoker
	keys    [2]string
}

func (c *conformance) generate(key string, in map[string]string) (*kms.GenerateDataKeyOutput, error) {
	return kms.GenerateDataKey.Call(c.Context(), c.api, mountCall(), &kms.GenerateDataKeyInput{KeyId: key, KeySpec: "AES_256", EncryptionContext: in})
}

func (c *conformance) made(key string, in map[string]string) *kms.GenerateDataKeyOutput {
	c.Helper()
	out, err := c.generate(key, in)
	if err != nil {
		c.Fatal(err)
	}
	return out
}

func (c *conformance) decrypt(api kms.Invoker, key string, blob []byte, in map[string]string) ([]byte, error) {
	out, err := kms.Decrypt.Call(c.Context(), api, mountCall(), &kms.DecryptInput{KeyId: key, CiphertextBlob: blob, EncryptionContext: in})
	if err != nil {
		return nil, err
	}
	return out.Plaintext, nil
}

// dataKeys are 32 bytes, fresh, and named by the KMS key's ARN, whatever named the KMS key.
func (c *conformance) dataKeys(alias string) {
	id := c.keys[0][strings.LastIndexByte(c.keys[0], '/')+1:]
	seen := map[string]bool{}
	for _, name := range []string{c.keys[0], id, alias} {
		made := c.made(name, place("/a"))
		if made.KeyId != c.keys[0] || len(made.Plaintext) != 32 || len(made.CiphertextBlob) == 0 || seen[string(made.Plaintext)] {
			c.Errorf("by %s: a data key of %d bytes under %s", name, len(made.Plaintext), made.KeyId)
		}
		seen[string(made.Plaintext)] = true
		if got, err := c.decrypt(c.api, c.keys[0], made.CiphertextBlob, place("/a")); err != nil || !bytes.Equal(got, made.Plaintext) {
			c.Errorf("by %s: it doesn't open: %v", name, err)
		}
	}
}

func (c *conformance) wantCode(what string, err error, want ...string) {
	c.Helper()
	fault, ok := errors.AsType[*kms.Error](err)
	if !ok || !strings.Contains(strings.Join(want, " "), fault.Code) {
		c.Errorf("%s: got %v, want %v", what, err, want)
	}
}

// unopened are data keys in another context, under another KMS key, and damaged ones.
func (c *conformance) unopened() {
	made := c.made(c.keys[0], place("/a"))
	_, err := c.decrypt(c.api, c.keys[0], made.CiphertextBlob, place("/b"))
	c.wantCode("another context", err, kms.CodeInvalidCiphertext)
	_, err = c.decrypt(c.api, c.keys[1], made.CiphertextBlob, place("/a"))
	c.wantCode("another KMS key", err, kms.CodeInvalidCiphertext, kms.CodeIncorrectKey)
	damaged := bytes.Clone(made.CiphertextBlob)
	damaged[len(damaged)-1] ^= 1
	_, err = c.decrypt(c.api, c.keys[0], damaged, place("/a"))
	c.wantCode("damaged", err, kms.CodeInvalidCiphertext)
}

// moves are of a data key to another context and KMS key.
func (c *conformance) moves() {
	made := c.made(c.keys[0], place("/a"))
	moved, err := kms.ReEncrypt.Call(c.Context(), c.api, mountCall(), &kms.ReEncryptInput{
		SourceKeyId: c.keys[0], SourceEncryptionContext: place("/a"), CiphertextBlob: made.CiphertextBlob,
		DestinationKeyId: c.keys[1], DestinationEncryptionContext: place("/b"),
	})
	if err != nil {
		c.Fatal(err)
	}
	if got, err := c.decrypt(c.api, c.keys[1], moved.CiphertextBlob, place("/b")); err != nil || !bytes.Equal(got, made.Plaintext) || moved.KeyId != c.keys[1] {
		c.Errorf("moved to %s: %v", moved.KeyId, err)
	}
	_, err = c.decrypt(c.api, c.keys[1], moved.CiphertextBlob, place("/a"))
	c.wantCode("the old context", err, kms.CodeInvalidCiphertext)
}

// denials are by a disabled KMS key and by one that there is not, of uses and of checks.
func (c *conformance) denials(open func(*testing.T) kms.Invoker) {
	_, err := c.generate("alias/none", place("/a"))
	c.wantCode("no such alias", err, kms.CodeNotFound)
	made := c.made(c.keys[0], place("/a"))
	use := kms.KeyUse{Caller: self().Caller, Action: "Decrypt", KeyId: c.keys[0], EncryptionContext: place("/a"), CiphertextBlob: made.CiphertextBlob}
	check := func(api kms.Invoker) string {
		out, err := kms.CheckUses.Call(c.Context(), api, mountCall(), &kms.CheckUsesInput{Uses: []kms.KeyUse{use}})
		if err != nil {
			c.Fatal(err)
		}
		return out.Uses[0].Code
	}
	if code := check(open(c.T)); code != "" {
		c.Errorf("an enabled KMS key: the check says %s", code)
	}
	if _, err := kms.DisableKey.Call(c.Context(), c.service, self(), &kms.DisableKeyInput{KeyId: c.keys[0]}); err != nil {
		c.Fatal(err)
	}
	defer func() {
		if _, err := kms.EnableKey.Call(context.WithoutCancel(c.Context()), c.service, self(), &kms.EnableKeyInput{KeyId: c.keys[0]}); err != nil {
			c.Fatal(err)
		}
	}()
	_, err = c.decrypt(open(c.T), c.keys[0], made.CiphertextBlob, place("/a"))
	c.wantCode("a disabled KMS key", err, kms.CodeDisabled)
	if code := check(open(c.T)); code != kms.CodeDisabled {
		c.Errorf("a disabled KMS key: the check says %q", code)
	}
}

// interrupted calls end with their context's error, and are no denial.
func (c *conformance) interrupted() {
	interrupted, cancel := context.WithCancel(c.Context())
	cancel()
	_, err := kms.GenerateDataKey.Call(interrupted, c.api, mountCall(), &kms.GenerateDataKeyInput{
		KeyId: c.keys[1], KeySpec: "AES_256", EncryptionContext: map[string]string{"kmsfs:volume": "another"},
	})
	if !errors.Is(err, context.Canceled) {
		c.Errorf("interrupted: %v", err)
	}
}

// events of the file system are recorded.
func (c *conformance) events() {
	event := &kms.Event{Name: "ContextMismatch", KeyARN: c.keys[0], EncryptionContext: place("/a"), Details: map[string]string{"found": "/b"}}
	if _, err := kms.RecordEvent.Call(c.Context(), c.api, mountCall(), event); err != nil {
		c.Error(err)
	}
}
