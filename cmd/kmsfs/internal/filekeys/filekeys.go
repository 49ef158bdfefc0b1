// Package filekeys joins the two sides of the program: fs/keys declares the key service that the
// file system needs, keyservice has one, and neither may import the other. The package translates
// calls, and decides which answers deny the use of a key and which are none.
package filekeys

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"kmsfs/fs/keys"
	"kmsfs/keyservice/kms"
)

// adapter is a key service as the file system calls it.
type adapter struct {
	service kms.Invoker
	// mounted says that a mount calls, which also calls as itself, and not a user's command.
	mounted bool
}

var _ keys.Service = adapter{}

// ForMount makes a key service serve a mount.
func ForMount(service kms.Invoker) keys.Service { return adapter{service, true} }

// ForCommand makes a key service serve a command, which acts for its user only.
func ForCommand(service kms.Invoker) keys.Service { return adapter{service, false} }

func (a adapter) GenerateDataKey(
	ctx context.Context, call keys.Call, key string, encryptionContext map[string]string,
) (keys.DataKey, error) {
	out, err := kms.GenerateDataKey.Call(ctx, a.service, a.caller(call), &kms.GenerateDataKeyInput{
		KeyId: key, KeySpec: "AES_256", EncryptionContext: encryptionContext,
	})
	if err != nil {
		return keys.DataKey{}, classify(err)
	}
	return keys.DataKey{KeyARN: out.KeyId, Plaintext: out.Plaintext, Wrapped: out.CiphertextBlob}, nil
}

func (a adapter) Decrypt(
	ctx context.Context, call keys.Call, keyARN string, wrapped []byte, encryptionContext map[string]string,
) ([]byte, error) {
	out, err := kms.Decrypt.Call(ctx, a.service, a.caller(call), &kms.DecryptInput{
		KeyId: keyARN, CiphertextBlob: wrapped, EncryptionContext: encryptionContext,
	})
	if err != nil {
		return nil, classify(err)
	}
	return out.Plaintext, nil
}

func (a adapter) ReEncrypt(ctx context.Context, call keys.Call, wrapped []byte, from, to keys.Wrap) (keys.DataKey, error) {
	out, err := kms.ReEncrypt.Call(ctx, a.service, a.caller(call), &kms.ReEncryptInput{
		SourceKeyId: from.Key, DestinationKeyId: to.Key, CiphertextBlob: wrapped,
		SourceEncryptionContext: from.Context, DestinationEncryptionContext: to.Context,
	})
	if err != nil {
		return keys.DataKey{}, classify(err)
	}
	return keys.DataKey{KeyARN: out.KeyId, Wrapped: out.CiphertextBlob}, nil
}

func (a adapter) Check(ctx context.Context, uses []keys.Use) ([]keys.Answer, error) {
	asked := make([]kms.KeyUse, len(uses))
	for i, u := range uses {
		asked[i] = kms.KeyUse{
			Caller: u.Caller, Action: string(u.Action), KeyId: u.Key, EncryptionContext: u.Context, CiphertextBlob: u.Wrapped,
		}
	}
	verdicts, err := kms.CheckAllUses(ctx, a.service, kms.Caller{ViaFileSystem: true}, asked)
	if err != nil {
		return nil, classify(err)
	}
	if len(verdicts) != len(uses) {
		return nil, fmt.Errorf("%w: %d answers to %d questions", keys.ErrUnreachable, len(verdicts), len(uses))
	}
	answers := make([]keys.Answer, len(uses))
	for i, verdict := range verdicts {
		answers[i].Current = verdict.Current
		if answers[i].Denied, err = denial(verdict); err != nil {
			return nil, err
		}
	}
	return answers, nil
}

// denial is why a use is denied; nil if it is not. The error is that of a service that can't
// decide.
func denial(v kms.KeyUseVerdict) (denied, err error) {
	if v.Code == "" {
		return nil, nil
	}
	why := &kms.Error{Code: v.Code, Message: v.Message}
	if v.Code == kms.CodeInvalidCiphertext { // the key material is gone
		return answer{why, keys.ErrDenied}, nil
	}
	if err := classify(why); !errors.Is(err, keys.ErrDenied) {
		return nil, err
	}
	return answer{why, keys.ErrDenied}, nil
}

func (a adapter) OpenMarker(ctx context.Context, call keys.Call, volume keys.Volume, marker keys.Marker) error {
	in := &kms.OpenMarkerInput{Volume: volumeKey(volume), Marker: kms.Marker{
		ID: kms.MarkerID(marker.ID), Time: marker.Time, BootID: marker.BootID,
	}}
	if _, err := kms.OpenMarker.Call(ctx, a.service, a.caller(call), in); err != nil {
		return classify(err)
	}
	return nil
}

func (a adapter) Markers(ctx context.Context, call keys.Call, volume keys.Volume) ([]keys.Marker, error) {
	in := volumeKey(volume)
	out, err := kms.GetMarkers.Call(ctx, a.service, a.caller(call), &in)
	if err != nil {
		return nil, classify(err)
	}
	all := make([]keys.Marker, len(out.Markers))
	for i, m := range out.Markers {
		all[i] = keys.Marker{ID: keys.MarkerID(m.ID), Time: m.Time, BootID: m.BootID}
	}
	return all, nil
}

func (a adapter) CloseMarkers(ctx context.Context, call keys.Call, volume keys.Volume, ids []keys.MarkerID) error {
	in := &kms.CloseMarkersInput{Volume: volumeKey(volume)}
	for _, id := range ids {
		in.IDs = append(in.IDs, kms.MarkerID(id))
	}
	if _, err := kms.CloseMarkers.Call(ctx, a.service, a.caller(call), in); err != nil {
		return classify(err)
	}
	return nil
}

func volumeKey(v keys.Volume) kms.VolumeKey {
	return kms.VolumeKey{KeyId: v.Key, CiphertextBlob: v.Wrapped, EncryptionContext: v.Context}
}

func (a adapter) Record(ctx context.Context, call keys.Call, event keys.Event) error {
	e := kms.Event{Name: event.Name, KeyARN: event.KeyARN, EncryptionContext: event.Context, Details: event.Details}
	if event.Error != nil {
		e.ErrorCode, e.ErrorMessage = event.Name, event.Error.Error()
	}
	if _, err := kms.RecordEvent.Call(ctx, a.service, a.caller(call), &e); err != nil {
		return classify(err)
	}
	return nil
}

func (a adapter) caller(call keys.Call) kms.Caller {
	return kms.Caller{
		Caller: call.Caller, ViaFileSystem: true, Own: a.mounted && call.Own,
		Operation: call.Operation, Path: call.Path, Behind: call.Behind, SharedEventID: call.ID,
	}
}

// denied are the codes by which a key service denies the use of a key, for now or to this caller.
var denied = []string{
	kms.CodeAccessDenied, kms.CodeDisabled, kms.CodeKMSInvalidState,
	kms.CodeNotFound, kms.CodeKeyUnavailable, kms.CodeInvalidKeyUsage,

	// From remote services: they don't accept this host's credentials, or no longer.
	"ExpiredTokenException", kms.CodeIncompleteSignature, kms.CodeInvalidSignature,
	kms.CodeMissingAuthentication, kms.CodeUnrecognizedClient,
}

// unopened are the codes by which a key service says that a ciphertext is not the key's, or
// not in that encryption context. Validation is among them: the service may call it malformed.
var unopened = []string{kms.CodeInvalidCiphertext, kms.CodeIncorrectKey, kms.CodeValidation}

// classify tells the file system what an error of a key service is: a denial, a ciphertext that
// does not open, no answer at all, or a failure of the service itself.
func classify(err error) error {
	e, ok := errors.AsType[*kms.Error](err)
	switch {
	case !ok:
		// Its text alone: error numbers in it would be the connection's, and not the file's.
		return fmt.Errorf("%w: %s", keys.ErrUnreachable, err.Error())
	case slices.Contains(denied, e.Code):
		return answer{err, keys.ErrDenied}
	case slices.Contains(unopened, e.Code):
		return answer{err, keys.ErrUnopened}
	}
	return err
}

// answer is an error of the key service, and what it is to the file system.
type answer struct {
	error
	is error
}

func (a answer) Unwrap() []error { return []error{a.error, a.is} }
