package fs

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"kmsfs/fs/keys"
)

// fakeKeys is a key service in memory. Every name of a KMS key is that of a key.
type fakeKeys struct {
	// before, if not nil, is called before each call is answered; its error is the answer.
	before func(ctx context.Context, operation string, encryptionContext map[string]string) error

	mu     sync.Mutex // guards what follows
	events []keys.Event
	calls  []string // operations, in order
}

const fakeARN = "arn:aws-kmsfs:kms:local:000000000000:key/"

// fakeWrapped is the wrapped form of a data key, which hides nothing.
type fakeWrapped struct {
	Key     string
	Context map[string]string
	Data    []byte
}

func (k *fakeKeys) call(ctx context.Context, operation string, encryptionContext map[string]string) error {
	k.mu.Lock()
	k.calls = append(k.calls, operation)
	k.mu.Unlock()
	if k.before == nil {
		return nil
	}
	return k.before(ctx, operation, encryptionContext)
}

func (k *fakeKeys) wrap(key string, encryptionContext map[string]string, data []byte) keys.DataKey {
	if !strings.HasPrefix(key, fakeARN) {
		key = fakeARN + strings.TrimPrefix(key, "alias/")
	}
	wrapped, err := json.Marshal(fakeWrapped{key, encryptionContext, data})
	if err != nil {
		panic(err)
	}
	return keys.DataKey{KeyARN: key, Plaintext: slices.Clone(data), Wrapped: wrapped}
}

func (k *fakeKeys) unwrap(key string, wrapped []byte, encryptionContext map[string]string) ([]byte, error) {
	var w fakeWrapped
	if err := json.Unmarshal(wrapped, &w); err != nil || w.Key != key || !maps.Equal(w.Context, encryptionContext) {
		return nil, fmt.Errorf("%v: %w", err, keys.ErrUnopened)
	}
	return w.Data, nil
}

func (k *fakeKeys) GenerateDataKey(ctx context.Context, _ keys.Call, key string, encryptionContext map[string]string) (keys.DataKey, error) {
	if err := k.call(ctx, "GenerateDataKey", encryptionContext); err != nil {
		return keys.DataKey{}, err
	}
	data := make([]byte, 32)
	rand.Read(data)
	return k.wrap(key, encryptionContext, data), nil
}

func (k *fakeKeys) Decrypt(ctx context.Context, _ keys.Call, keyARN string, wrapped []byte, encryptionContext map[string]string) ([]byte, error) {
	if err := k.call(ctx, "Decrypt", encryptionContext); err != nil {
		return nil, err
	}
	return k.unwrap(keyARN, wrapped, encryptionContext)
}

func (k *fakeKeys) ReEncrypt(ctx context.Context, _ keys.Call, wrapped []byte, from, to keys.Wrap) (keys.DataKey, error) {
	if err := k.call(ctx, "ReEncrypt", to.Context); err != nil {
		return keys.DataKey{}, err
	}
	data, err := k.unwrap(from.Key, wrapped, from.Context)
	if err != nil {
		return keys.DataKey{}, err
	}
	made := k.wrap(to.Key, to.Context, data)
	made.Plaintext = nil
	return made, nil
}

func (k *fakeKeys) Check(ctx context.Context, uses []keys.Use) ([]keys.Answer, error) {
	if err := k.call(ctx, "Check", nil); err != nil {
		return nil, err
	}
	return make([]keys.Answer, len(uses)), nil
}

func (k *fakeKeys) Record(ctx context.Context, _ keys.Call, event keys.Event) error {
	if err := k.call(ctx, "Record", event.Context); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.events = append(k.events, event)
	return nil
}
