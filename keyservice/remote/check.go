package remote

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"

	"kmsfs/keyservice"
)

// uncachedCheck is how often the service is asked whether a KMS key may still be used, where there are no branch keys to fetch anew.
const uncachedCheck = time.Minute

// checks are what the service last said of the KMS keys of open files.
type checks struct {
	mu    sync.Mutex // guards known; held while the service is asked, which one caller at a time does
	known map[string]checked
}

// checked is an answer. refusal is nil if the key may be used.
type checked struct {
	at      time.Time
	refusal *keyservice.Error
}

// CheckUses says whether open files' KMS keys may still be used by this host. The service is asked once for each KMS key in the time that branch keys
// are used, by unwrapping anew what one of the files has; it can't tell users and files apart.
func (s *Service) CheckUses(ctx context.Context, _ keyservice.Caller, in *keyservice.CheckUsesInput) (*keyservice.CheckUsesOutput, error) {
	s.checks.mu.Lock()
	defer s.checks.mu.Unlock()
	out := &keyservice.CheckUsesOutput{Uses: make([]keyservice.KeyUseVerdict, len(in.Uses))}
	for i := range in.Uses {
		refusal, err := s.check(ctx, &in.Uses[i])
		if err != nil {
			return nil, err
		}
		if refusal != nil {
			out.Uses[i] = keyservice.KeyUseVerdict{Code: refusal.Code, Message: refusal.Message}
		}
	}
	return out, nil
}

// check is CheckUses for one. checks.mu is held.
func (s *Service) check(ctx context.Context, u *keyservice.KeyUse) (*keyservice.Error, error) {
	interval := uncachedCheck
	if s.branches.age > 0 {
		interval = s.branches.age
	}
	last, ok := s.checks.known[u.KeyId]
	if ok && time.Since(last.at) < interval || len(u.CiphertextBlob) == 0 {
		return last.refusal, nil
	}
	now := checked{at: time.Now()}
	if err := s.unwrapAnew(ctx, u); err != nil {
		refusal, ok := errors.AsType[*keyservice.Error](asError(err))
		if !ok {
			return nil, asError(err)
		}
		if refusal.Code != keyservice.CodeInvalidCiphertext { // the context is one that the file is yet to be wrapped in
			now.refusal = refusal
		}
	}
	if s.checks.known == nil || len(s.checks.known) >= maxBranches {
		s.checks.known = map[string]checked{}
	}
	s.checks.known[u.KeyId] = now
	return now.refusal, nil
}

func (s *Service) unwrapAnew(ctx context.Context, u *keyservice.KeyUse) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	blob, encryptionContext := u.CiphertextBlob, u.EncryptionContext
	if isBranched(blob) {
		branchKey, _, err := parseBranched(blob)
		if err != nil {
			return err
		}
		blob, encryptionContext = branchKey, branchOf{u.KeyId, encryptionContext[volumePair]}.context()
	}
	out, err := s.kms.Decrypt(ctx, &kms.DecryptInput{KeyId: aws.String(u.KeyId), CiphertextBlob: blob, EncryptionContext: encryptionContext})
	if err == nil {
		clear(out.Plaintext)
	}
	return err
}
