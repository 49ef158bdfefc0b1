package filekeys_test

import (
	"context"
	"errors"
	"io"
	"reflect"
	"syscall"
	"testing"

	"github.com/google/uuid"

	"kmsfs/cmd/kmsfs/internal/filekeys"
	"kmsfs/fs/keys"
	"kmsfs/keyservice/kms"
	"kmsfs/policy/caller"
)

// service notes how it is called, and answers as it is told.
type service struct {
	caller kms.Caller
	in     any
	uses   []kms.KeyUseVerdict
	err    error
}

func (s *service) Invoke(_ context.Context, c kms.Caller, _ *kms.Description, in, out any) error {
	s.caller, s.in = c, in
	switch out := out.(type) {
	case *kms.GenerateDataKeyOutput:
		*out = kms.GenerateDataKeyOutput{KeyId: "arn", Plaintext: []byte("key"), CiphertextBlob: []byte("wrapped")}
	case *kms.DecryptOutput:
		out.Plaintext = []byte("key")
	case *kms.ReEncryptOutput:
		*out = kms.ReEncryptOutput{KeyId: "arn", CiphertextBlob: []byte("wrapped anew")}
	case *kms.CheckUsesOutput:
		out.Uses = s.uses
	}
	return s.err
}

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: got %+v, want %+v", what, got, want)
	}
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

func TestCalls(t *testing.T) {
	ctx, context := t.Context(), map[string]string{"kmsfs:path": "/file"}
	behind := &caller.Caller{UID: 7}
	call := keys.Call{
		Caller: caller.Caller{UID: 1000, PID: 5}, Operation: "open", Own: true, ID: uuid.New(), Path: "/file", Behind: behind,
	}
	s := &service{}
	k := filekeys.ForMount(s)

	made, err := k.GenerateDataKey(ctx, call, "alias/a", context)
	noError(t, err)
	equal(t, "data key", made, keys.DataKey{KeyARN: "arn", Plaintext: []byte("key"), Wrapped: []byte("wrapped")})
	equal(t, "input", s.in, &kms.GenerateDataKeyInput{KeyId: "alias/a", KeySpec: "AES_256", EncryptionContext: context})
	equal(t, "caller", s.caller, kms.Caller{
		Caller: call.Caller, ViaFileSystem: true, Own: true, Operation: "open", Path: "/file", Behind: behind, SharedEventID: call.ID,
	})

	plaintext, err := k.Decrypt(ctx, call, "arn", []byte("wrapped"), context)
	noError(t, err)
	equal(t, "plaintext", plaintext, []byte("key"))
	equal(t, "input", s.in, &kms.DecryptInput{KeyId: "arn", CiphertextBlob: []byte("wrapped"), EncryptionContext: context})

	moved, err := k.ReEncrypt(ctx, call, []byte("wrapped"), keys.Wrap{Key: "old", Context: context}, keys.Wrap{Key: "new"})
	noError(t, err)
	equal(t, "data key", moved, keys.DataKey{KeyARN: "arn", Wrapped: []byte("wrapped anew")})
	equal(t, "input", s.in, &kms.ReEncryptInput{
		SourceKeyId: "old", DestinationKeyId: "new", CiphertextBlob: []byte("wrapped"), SourceEncryptionContext: context,
	})

	noError(t, k.Record(ctx, call, keys.Event{Name: keys.EventAdopted, Error: io.EOF, Details: context}))
	equal(t, "event", s.in, &kms.Event{
		Name: keys.EventAdopted, ErrorCode: keys.EventAdopted, ErrorMessage: "EOF", Details: context,
	})
}

// A command is never more than its user, whatever the file system asks for.
func TestCommandHasNoRightsOfItsOwn(t *testing.T) {
	s := &service{}
	_, err := filekeys.ForCommand(s).Decrypt(t.Context(), keys.Call{Own: true}, "arn", nil, nil)
	noError(t, err)
	if s.caller.Own {
		t.Error("the call is the mount's own")
	}
}

func TestErrors(t *testing.T) {
	classes := []error{keys.ErrDenied, keys.ErrUnopened, keys.ErrUnreachable}
	for _, test := range []struct {
		err  error
		want error // nil for none of them
	}{
		{&kms.Error{Code: kms.CodeAccessDenied}, keys.ErrDenied},
		{&kms.Error{Code: kms.CodeDisabled}, keys.ErrDenied},
		{&kms.Error{Code: kms.CodeNotFound}, keys.ErrDenied},
		{&kms.Error{Code: "ExpiredTokenException"}, keys.ErrDenied},
		{&kms.Error{Code: kms.CodeInvalidCiphertext}, keys.ErrUnopened},
		{&kms.Error{Code: kms.CodeValidation}, keys.ErrUnopened},
		{&kms.Error{Code: "KMSInternalException"}, nil},
		{syscall.ECONNREFUSED, keys.ErrUnreachable},
		{context.DeadlineExceeded, keys.ErrUnreachable},
	} {
		s := &service{err: test.err}
		_, err := filekeys.ForMount(s).Decrypt(t.Context(), keys.Call{}, "arn", nil, nil)
		for _, class := range classes {
			if is := errors.Is(err, class); is != (class == test.want) {
				t.Errorf("%v: is %v: %v", test.err, class, is)
			}
		}
		if errno := syscall.Errno(0); errors.As(err, &errno) {
			t.Errorf("%v has the connection's error number in it", err)
		}
	}
}

func TestCheck(t *testing.T) {
	s := &service{uses: []kms.KeyUseVerdict{
		{Current: true}, {Code: kms.CodeAccessDenied, Message: "no"}, {Code: kms.CodeInvalidCiphertext},
	}}
	use := keys.Use{Caller: caller.Caller{UID: 1}, Action: keys.ActionDecrypt, Wrap: keys.Wrap{Key: "arn"}, Wrapped: []byte("w")}
	answers, err := filekeys.ForMount(s).Check(t.Context(), []keys.Use{use, use, use})
	noError(t, err)
	equal(t, "input", s.in.(*kms.CheckUsesInput).Uses[0], kms.KeyUse{
		Caller: use.Caller, Action: "Decrypt", KeyId: "arn", CiphertextBlob: []byte("w"),
	})
	if !answers[0].Current || answers[0].Denied != nil {
		t.Errorf("the first: %+v", answers[0])
	}
	for _, denied := range answers[1:] {
		if !errors.Is(denied.Denied, keys.ErrDenied) {
			t.Errorf("%+v is not denied", denied)
		}
	}

	// A service that can't decide is no denial.
	s.uses[0].Code = "KMSInternalException"
	if answers, err := filekeys.ForMount(s).Check(t.Context(), []keys.Use{use, use, use}); err == nil || errors.Is(err, keys.ErrDenied) {
		t.Errorf("a failing service: %+v, %v", answers, err)
	}
	s.uses = s.uses[:1]
	if _, err := filekeys.ForMount(s).Check(t.Context(), []keys.Use{use, use}); !errors.Is(err, keys.ErrUnreachable) {
		t.Errorf("an answer too few: %v", err)
	}
}
