package fs

import (
	"context"
	"fmt"
	"sync"

	"kmsfs/fs/keys"
	"kmsfs/fs/keys/keystest"
)

// hookedKeys is a key service in memory that a test can hold up.
type hookedKeys struct {
	*keystest.Service

	mu     sync.Mutex // guards what follows
	before hook
	check  func() error
}

// hook is called before a call is answered. Its error is the answer.
type hook func(ctx context.Context, operation string, encryptionContext map[string]string) error

// errDeniedByTest is a denial.
var errDeniedByTest = fmt.Errorf("by the test: %w", keys.ErrDenied)

func (k *hookedKeys) setBefore(before hook) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.before = before
}

// setCheck has check say what is denied to each use that is asked about; nil denies nothing.
func (k *hookedKeys) setCheck(check func() error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.check = check
}

func (k *hookedKeys) call(ctx context.Context, operation string, encryptionContext map[string]string) error {
	k.mu.Lock()
	before := k.before
	k.mu.Unlock()
	if before == nil {
		return nil
	}
	return before(ctx, operation, encryptionContext)
}

func (k *hookedKeys) GenerateDataKey(ctx context.Context, call keys.Call, key string, encryptionContext map[string]string) (keys.DataKey, error) {
	if err := k.call(ctx, "GenerateDataKey", encryptionContext); err != nil {
		return keys.DataKey{}, err
	}
	return k.Service.GenerateDataKey(ctx, call, key, encryptionContext)
}

func (k *hookedKeys) Decrypt(ctx context.Context, call keys.Call, keyARN string, wrapped []byte, encryptionContext map[string]string) ([]byte, error) {
	if err := k.call(ctx, "Decrypt", encryptionContext); err != nil {
		return nil, err
	}
	return k.Service.Decrypt(ctx, call, keyARN, wrapped, encryptionContext)
}

func (k *hookedKeys) ReEncrypt(ctx context.Context, call keys.Call, wrapped []byte, from, to keys.Wrap) (keys.DataKey, error) {
	if err := k.call(ctx, "ReEncrypt", to.Context); err != nil {
		return keys.DataKey{}, err
	}
	return k.Service.ReEncrypt(ctx, call, wrapped, from, to)
}

func (k *hookedKeys) Check(ctx context.Context, uses []keys.Use) ([]keys.Answer, error) {
	if err := k.call(ctx, "Check", nil); err != nil {
		return nil, err
	}
	k.mu.Lock()
	check := k.check
	k.mu.Unlock()
	answers, err := k.Service.Check(ctx, uses)
	for i := range answers {
		if check != nil {
			answers[i].Denied = check()
		}
	}
	return answers, err
}
