package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"kmsfs/fs/keys"
	"kmsfs/keyservice/kms"
)

// keyAdapter is a key service as the file system asks for it.
type keyAdapter struct {
	api kms.Invoker
	// mounted says that the calls are a mount's, which acts of itself too, and not this program's user's.
	mounted bool
}

var _ keys.Service = keyAdapter{}

// refusals are the codes by which the key service says that a key may not be used, now or by this caller.
var refusals = []string{
	kms.CodeAccessDenied, kms.CodeDisabled, kms.CodeKMSInvalidState,
	kms.CodeNotFound, kms.CodeKeyUnavailable, kms.CodeInvalidKeyUsage,

	// Of services elsewhere: this host's credentials are not, or no longer, good.
	"ExpiredTokenException", kms.CodeIncompleteSignature, kms.CodeInvalidSignature, kms.CodeMissingAuthentication, kms.CodeUnrecognizedClient,
}

func (k keyAdapter) GenerateDataKey(ctx context.Context, call keys.Call, key string, encryptionContext map[string]string) (keys.DataKey, error) {
	out, err := kms.GenerateDataKey.Call(ctx, k.api, k.caller(call), &kms.GenerateDataKeyInput{
		KeyId: key, KeySpec: "AES_256", EncryptionContext: encryptionContext,
	})
	if err != nil {
		return keys.DataKey{}, refusal(err)
	}
	return keys.DataKey{KeyARN: out.KeyId, Plaintext: out.Plaintext, Wrapped: out.CiphertextBlob}, nil
}

func (k keyAdapter) Decrypt(ctx context.Context, call keys.Call, keyARN string, wrapped []byte, encryptionContext map[string]string) ([]byte, error) {
	out, err := kms.Decrypt.Call(ctx, k.api, k.caller(call), &kms.DecryptInput{
		KeyId: keyARN, CiphertextBlob: wrapped, EncryptionContext: encryptionContext,
	})
	if err != nil {
		return nil, refusal(err)
	}
	return out.Plaintext, nil
}

func (k keyAdapter) ReEncrypt(ctx context.Context, call keys.Call, wrapped []byte, from, to keys.Wrap) (keys.DataKey, error) {
	out, err := kms.ReEncrypt.Call(ctx, k.api, k.caller(call), &kms.ReEncryptInput{
		SourceKeyId: from.Key, DestinationKeyId: to.Key, CiphertextBlob: wrapped,
		SourceEncryptionContext: from.Context, DestinationEncryptionContext: to.Context,
	})
	if err != nil {
		return keys.DataKey{}, refusal(err)
	}
	return keys.DataKey{KeyARN: out.KeyId, Wrapped: out.CiphertextBlob}, nil
}

func (k keyAdapter) Check(ctx context.Context, uses []keys.Use) ([]keys.Answer, error) {
	asked := make([]kms.KeyUse, len(uses))
	for i, u := range uses {
		asked[i] = kms.KeyUse{
			Caller: u.Caller, Action: string(u.Action), KeyId: u.Key, EncryptionContext: u.Context, CiphertextBlob: u.Wrapped,
		}
	}
	verdicts, err := kms.CheckAllUses(ctx, k.api, kms.Caller{ViaFileSystem: true}, asked)
	if err != nil {
		return nil, refusal(err)
	}
	if len(verdicts) != len(uses) {
		return nil, fmt.Errorf("%w: %d answers to %d questions", keys.ErrUnreachable, len(verdicts), len(uses))
	}
	answers := make([]keys.Answer, len(uses))
	for i, v := range verdicts {
		answers[i].Current = v.Current
		if v.Code == "" {
			continue
		}
		err := refusal(&kms.Error{Code: v.Code, Message: v.Message})
		if !errors.Is(err, keys.ErrDenied) {
			if v.Code != kms.CodeInvalidCiphertext { // the service's own fault, which says nothing of leave
				return nil, err
			}
			err = answered{err, keys.ErrDenied} // the material is gone
		}
		answers[i].Denied = err
	}
	return answers, nil
}

func (k keyAdapter) Record(ctx context.Context, call keys.Call, event keys.Event) error {
	e := kms.Event{Name: event.Name, KeyARN: event.KeyARN, EncryptionContext: event.Context, Details: event.Details}
	if event.Error != nil {
		e.ErrorCode, e.ErrorMessage = event.Name, event.Error.Error()
	}
	if _, err := kms.RecordEvent.Call(ctx, k.api, k.caller(call), &e); err != nil {
		return refusal(err)
	}
	return nil
}

func (k keyAdapter) caller(call keys.Call) kms.Caller {
	return kms.Caller{
		Caller: call.Caller, ViaFileSystem: true, Own: k.mounted && call.Own,
		Operation: call.Operation, Path: call.Path, Behind: call.Behind, SharedEventID: call.ID,
	}
}

// refusal makes the file system see what is one, and what is no answer at all.
func refusal(err error) error {
	e, ok := errors.AsType[*kms.Error](err)
	switch {
	case !ok:
		return fmt.Errorf("%w: %s", keys.ErrUnreachable, err.Error()) // its text alone
	case slices.Contains(refusals, e.Code):
		return answered{err, keys.ErrDenied}
	case slices.Contains(unopened, e.Code):
		return answered{err, keys.ErrUnopened}
	}
	return err
}

// unopened are the codes by which the key service says that a ciphertext is none of the key's, or not in that context: which may be one that it takes for none.
var unopened = []string{kms.CodeInvalidCiphertext, kms.CodeIncorrectKey, kms.CodeValidation}

// answered is an error of the key service, and what it is to the file system.
type answered struct {
	error
	is error
}

func (e answered) Unwrap() []error { return []error{e.error, e.is} }
