package remote

import (
	"context"
	"crypto/rand"

	"github.com/aws/aws-sdk-go-v2/aws"
	awskms "github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"kmsfs/keyservice/kms"
)

// GenerateDataKey makes a data key. Of the input, KeyId, KeySpec and EncryptionContext are used.
func (s *Service) GenerateDataKey(ctx context.Context, c kms.Caller, in *kms.GenerateDataKeyInput) (*kms.GenerateDataKeyOutput, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if s.branches.age > 0 {
		return s.generateUnderBranch(ctx, c, in)
	}
	made, err := s.kms.GenerateDataKey(ctx, &awskms.GenerateDataKeyInput{
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
	return &kms.GenerateDataKeyOutput{KeyId: *made.KeyId, Plaintext: made.Plaintext, CiphertextBlob: made.CiphertextBlob}, nil
}

// Decrypt unwraps a data key. Of the input, KeyId, CiphertextBlob and EncryptionContext are used.
func (s *Service) Decrypt(ctx context.Context, c kms.Caller, in *kms.DecryptInput) (*kms.DecryptOutput, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if isBranched(in.CiphertextBlob) {
		plaintext, name, err := s.unwrap(ctx, in.KeyId, in.CiphertextBlob, in.EncryptionContext)
		if err := s.finish(c, use{event: "Decrypt", key: in.KeyId, context: in.EncryptionContext, branch: name}, err, true); err != nil {
			clear(plaintext)
			return nil, err
		}
		return &kms.DecryptOutput{KeyId: in.KeyId, Plaintext: plaintext}, nil
	}
	out, err := s.kms.Decrypt(ctx, &awskms.DecryptInput{
		KeyId: aws.String(in.KeyId), CiphertextBlob: in.CiphertextBlob, EncryptionContext: in.EncryptionContext,
	})
	err = s.finish(c, use{event: "Decrypt", key: in.KeyId, context: in.EncryptionContext}, err, out != nil && out.KeyId != nil)
	if err != nil {
		if out != nil {
			clear(out.Plaintext)
		}
		return nil, err
	}
	return &kms.DecryptOutput{KeyId: *out.KeyId, Plaintext: out.Plaintext}, nil
}

// ReEncrypt wraps a data key anew. Of the input, both keys and contexts and CiphertextBlob are
// used.
func (s *Service) ReEncrypt(ctx context.Context, c kms.Caller, in *kms.ReEncryptInput) (*kms.ReEncryptOutput, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if isBranched(in.CiphertextBlob) {
		return s.reEncryptUnderBranch(ctx, c, in)
	}
	out, err := s.kms.ReEncrypt(ctx, &awskms.ReEncryptInput{
		CiphertextBlob: in.CiphertextBlob,
		SourceKeyId:    aws.String(in.SourceKeyId), SourceEncryptionContext: in.SourceEncryptionContext,
		DestinationKeyId: aws.String(in.DestinationKeyId), DestinationEncryptionContext: in.DestinationEncryptionContext,
	})
	u := use{event: "ReEncrypt", key: in.SourceKeyId, context: in.SourceEncryptionContext, destination: in.DestinationKeyId, newContext: in.DestinationEncryptionContext}
	if err := s.finish(c, u, err, out != nil && out.KeyId != nil && len(out.CiphertextBlob) > 0); err != nil {
		return nil, err
	}
	return &kms.ReEncryptOutput{KeyId: *out.KeyId, CiphertextBlob: out.CiphertextBlob}, nil
}

// generateUnderBranch makes a data key here, and wraps it under a branch key.
func (s *Service) generateUnderBranch(ctx context.Context, c kms.Caller, in *kms.GenerateDataKeyInput) (*kms.GenerateDataKeyOutput, error) {
	dataKey := make([]byte, branchSize)
	rand.Read(dataKey)
	wrapped, under, err := s.wrap(ctx, in.KeyId, dataKey, in.EncryptionContext)
	u := use{event: "GenerateDataKey", key: in.KeyId, context: in.EncryptionContext}
	if under != nil {
		u.key, u.branch = under.key(), under.name()
	}
	if err := s.finish(c, u, err, true); err != nil {
		clear(dataKey)
		return nil, err
	}
	return &kms.GenerateDataKeyOutput{KeyId: u.key, Plaintext: dataKey, CiphertextBlob: wrapped}, nil
}

// reEncryptUnderBranch wraps a data key anew that a branch key wraps. Without a cache, the service
// wraps it from then on.
func (s *Service) reEncryptUnderBranch(ctx context.Context, c kms.Caller, in *kms.ReEncryptInput) (*kms.ReEncryptOutput, error) {
	dataKey, name, err := s.unwrap(ctx, in.SourceKeyId, in.CiphertextBlob, in.SourceEncryptionContext)
	defer clear(dataKey)
	var wrapped []byte
	key := in.DestinationKeyId
	switch {
	case err != nil:
	case s.branches.age > 0:
		var under *branch
		if wrapped, under, err = s.wrap(ctx, in.DestinationKeyId, dataKey, in.DestinationEncryptionContext); under != nil {
			key, name = under.key(), under.name()
		}
	default:
		wrapped, key, err = s.encrypt(ctx, in.DestinationKeyId, dataKey, in.DestinationEncryptionContext)
	}
	u := use{
		event: "ReEncrypt", key: in.SourceKeyId, context: in.SourceEncryptionContext, branch: name,
		destination: key, newContext: in.DestinationEncryptionContext,
	}
	if err := s.finish(c, u, err, true); err != nil {
		return nil, err
	}
	return &kms.ReEncryptOutput{KeyId: key, CiphertextBlob: wrapped}, nil
}

// encrypt has the service wrap a data key, and returns the ARN of the KMS key too.
func (s *Service) encrypt(ctx context.Context, key string, dataKey []byte, encryptionContext map[string]string) (wrapped []byte, arn string, err error) {
	out, err := s.kms.Encrypt(ctx, &awskms.EncryptInput{KeyId: aws.String(key), Plaintext: dataKey, EncryptionContext: encryptionContext})
	if err != nil {
		return nil, key, err
	}
	if len(out.CiphertextBlob) == 0 || out.KeyId == nil {
		return nil, key, errAnswer
	}
	return out.CiphertextBlob, *out.KeyId, nil
}

// finish writes a use's record, and returns what came of it. complete says whether the answer has
// all that it should.
func (s *Service) finish(c kms.Caller, u use, err error, complete bool) error {
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
func (s *Service) RecordEvent(_ context.Context, c kms.Caller, e kms.Event) error {
	return s.journal.recordEvent(c, e)
}
