package remote

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"kmsfs/keyservice"
)

// GenerateDataKey makes a data key. Of the input, KeyId, KeySpec and EncryptionContext are used.
func (s *Service) GenerateDataKey(ctx context.Context, c keyservice.Caller, in *keyservice.GenerateDataKeyInput) (*keyservice.GenerateDataKeyOutput, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	made, err := s.kms.GenerateDataKey(ctx, &kms.GenerateDataKeyInput{
		KeyId: aws.String(in.KeyId), KeySpec: types.DataKeySpec(in.KeySpec), EncryptionContext: in.EncryptionContext,
	})
	err = s.finish(c, use{event: "GenerateDataKey", key: in.KeyId, context: in.EncryptionContext}, err,
		made != nil && made.KeyId != nil && len(made.Plaintext) > 0 && len(made.CiphertextBlob) > 0)
	if err != nil {
		if made != nil {
			clear(made.Plaintext)
		}
		return nil, err
	}
	return &keyservice.GenerateDataKeyOutput{KeyId: *made.KeyId, Plaintext: made.Plaintext, CiphertextBlob: made.CiphertextBlob}, nil
}

// Decrypt unwraps a data key. Of the input, KeyId, CiphertextBlob and EncryptionContext are used.
func (s *Service) Decrypt(ctx context.Context, c keyservice.Caller, in *keyservice.DecryptInput) (*keyservice.DecryptOutput, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	out, err := s.kms.Decrypt(ctx, &kms.DecryptInput{
		KeyId: aws.String(in.KeyId), CiphertextBlob: in.CiphertextBlob, EncryptionContext: in.EncryptionContext,
	})
	err = s.finish(c, use{event: "Decrypt", key: in.KeyId, context: in.EncryptionContext}, err, out != nil && out.KeyId != nil)
	if err != nil {
		if out != nil {
			clear(out.Plaintext)
		}
		return nil, err
	}
	return &keyservice.DecryptOutput{KeyId: *out.KeyId, Plaintext: out.Plaintext}, nil
}

// ReEncrypt wraps a data key anew. Of the input, both keys and contexts and CiphertextBlob are used.
func (s *Service) ReEncrypt(ctx context.Context, c keyservice.Caller, in *keyservice.ReEncryptInput) (*keyservice.ReEncryptOutput, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	out, err := s.kms.ReEncrypt(ctx, &kms.ReEncryptInput{
		CiphertextBlob: in.CiphertextBlob,
		SourceKeyId:    aws.String(in.SourceKeyId), SourceEncryptionContext: in.SourceEncryptionContext,
		DestinationKeyId: aws.String(in.DestinationKeyId), DestinationEncryptionContext: in.DestinationEncryptionContext,
	})
	u := use{event: "ReEncrypt", key: in.SourceKeyId, context: in.SourceEncryptionContext, destination: in.DestinationKeyId, newContext: in.DestinationEncryptionContext}
	if err := s.finish(c, u, err, out != nil && out.KeyId != nil && len(out.CiphertextBlob) > 0); err != nil {
		return nil, err
	}
	return &keyservice.ReEncryptOutput{KeyId: *out.KeyId, CiphertextBlob: out.CiphertextBlob}, nil
}

// finish writes a use's record, and returns what came of it. complete says whether the answer has all that it should.
func (s *Service) finish(c keyservice.Caller, u use, err error, complete bool) error {
	switch {
	case err != nil:
		err = asError(err)
	case !complete:
		err = errAnswer
	}
	if recordErr := s.journal.record(c, u, err); recordErr != nil {
		return recordErr
	}
	return err
}

// RecordEvent writes an event of the file system's own into the journal.
func (s *Service) RecordEvent(_ context.Context, c keyservice.Caller, e keyservice.Event) error {
	return s.journal.recordEvent(c, e)
}
