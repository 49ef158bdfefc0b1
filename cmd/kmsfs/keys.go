package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"kmsfs/fs"
	"kmsfs/keyservice"
	"kmsfs/keyservice/wire"
)

// dataKeys is what of a key service the file system needs.
type dataKeys interface {
	GenerateDataKey(ctx context.Context, c keyservice.Caller, in *keyservice.GenerateDataKeyInput) (*keyservice.GenerateDataKeyOutput, error)
	Decrypt(ctx context.Context, c keyservice.Caller, in *keyservice.DecryptInput) (*keyservice.DecryptOutput, error)
	ReEncrypt(ctx context.Context, c keyservice.Caller, in *keyservice.ReEncryptInput) (*keyservice.ReEncryptOutput, error)
	CheckUses(ctx context.Context, c keyservice.Caller, in *keyservice.CheckUsesInput) (*keyservice.CheckUsesOutput, error)
	RecordEvent(ctx context.Context, c keyservice.Caller, e keyservice.Event) error
}

// keys is a key service as the file system asks for it.
type keys struct {
	api dataKeys
	// mounted says that the calls are a mount's, on behalf of whoever opens a file, and not this program's user's.
	mounted bool
}

var _ fs.KeyService = keys{}

// refusals are the codes by which the key service says that a key may not be used, now or by this caller.
var refusals = []string{
	keyservice.CodeAccessDenied, keyservice.CodeDisabled, keyservice.CodeInvalidState,
	keyservice.CodeNotFound, keyservice.CodeKeyUnavailable, keyservice.CodeInvalidKeyUsage,

	// Of services elsewhere: this host's credentials are not, or no longer, good.
	"ExpiredTokenException", wire.CodeIncompleteSignature, wire.CodeInvalidSignature, wire.CodeMissingAuthentication, wire.CodeUnrecognizedClient,
}

func (k keys) GenerateDataKey(ctx context.Context, call fs.Call, key string, encryptionContext map[string]string) (fs.DataKey, error) {
	out, err := k.api.GenerateDataKey(ctx, k.caller(call), &keyservice.GenerateDataKeyInput{
		KeyId: key, KeySpec: "AES_256", EncryptionContext: encryptionContext,
	})
	if err != nil {
		return fs.DataKey{}, refusal(err)
	}
	return fs.DataKey{KeyARN: out.KeyId, Plaintext: out.Plaintext, Wrapped: out.CiphertextBlob}, nil
}

func (k keys) Decrypt(ctx context.Context, call fs.Call, keyARN string, wrapped []byte, encryptionContext map[string]string) ([]byte, error) {
	out, err := k.api.Decrypt(ctx, k.caller(call), &keyservice.DecryptInput{
		KeyId: keyARN, CiphertextBlob: wrapped, EncryptionContext: encryptionContext,
	})
	if err != nil {
		return nil, refusal(err)
	}
	return out.Plaintext, nil
}

func (k keys) ReEncrypt(ctx context.Context, call fs.Call, keyARN string, wrapped []byte, from, to map[string]string) ([]byte, error) {
	out, err := k.api.ReEncrypt(ctx, k.caller(call), &keyservice.ReEncryptInput{
		SourceKeyId: keyARN, DestinationKeyId: keyARN, CiphertextBlob: wrapped,
		SourceEncryptionContext: from, DestinationEncryptionContext: to,
	})
	if err != nil {
		return nil, refusal(err)
	}
	return out.CiphertextBlob, nil
}

func (k keys) Record(ctx context.Context, call fs.Call, event fs.Event) error {
	e := keyservice.Event{Name: event.Name, KeyARN: event.KeyARN, EncryptionContext: event.Context, Details: event.Details}
	if event.Error != nil {
		e.ErrorCode, e.ErrorMessage = event.Name, event.Error.Error()
	}
	if err := k.api.RecordEvent(ctx, k.caller(call), e); err != nil {
		return refusal(err)
	}
	return nil
}

func (k keys) caller(call fs.Call) keyservice.Caller {
	return keyservice.Caller{Caller: call.Caller, ViaFileSystem: k.mounted, Operation: call.Operation}
}

// refusal makes the file system see what is one, and what is no answer at all.
func refusal(err error) error {
	e, ok := errors.AsType[*keyservice.Error](err)
	switch {
	case !ok:
		return fmt.Errorf("%w: %s", fs.ErrUnreachable, err.Error()) // its text alone
	case slices.Contains(refusals, e.Code):
		return refused{err}
	}
	return err
}

// refused is an error of the key service that says no.
type refused struct{ error }

func (e refused) Unwrap() []error { return []error{e.error, fs.ErrRefused} }
