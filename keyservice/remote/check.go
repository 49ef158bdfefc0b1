package remote

import (
	"context"
	"crypto/sha256"
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awskms "github.com/aws/aws-sdk-go-v2/service/kms"
	"golang.org/x/sync/errgroup"

	"kmsfs/keyservice/kms"
)

const (
	// uncachedCheck is how long an answer holds where no branch keys are used, whose age sets it
	// otherwise.
	uncachedCheck = time.Minute
	// checksAtOnce bounds the calls to the service that one CheckUses has under way.
	checksAtOnce = 8
)

// checks are the service's last answers about the data keys of open files.
type checks struct {
	mu    sync.Mutex // guards known; not held while the service is called
	known map[question]answer
}

// question identifies a call of Decrypt by the digest of its key, ciphertext and encryption
// context. The service may decide on each of them, so that an answer holds for no other call.
type question [sha256.Size]byte

// answer is what the service said. denied is nil if the KMS key may be used.
type answer struct {
	at     time.Time
	denied *kms.Error
}

// CheckUses says whether open files' KMS keys may still be used by this host. It has the service
// unwrap what the files have: the branch key, or else each file's own data key. An answer holds as
// long as branch keys are used. The service can't tell this host's users apart.
func (s *Service) CheckUses(ctx context.Context, _ kms.Caller, in *kms.CheckUsesInput) (*kms.CheckUsesOutput, error) {
	questions := make([]question, len(in.Uses))
	open := map[question]*awskms.DecryptInput{}
	known := s.checks.current(s.checkInterval())
	for i := range in.Uses {
		if len(in.Uses[i].CiphertextBlob) == 0 {
			continue // there is nothing to ask with
		}
		call, err := unwrapCall(&in.Uses[i])
		if err != nil {
			continue // the file is damaged, which says nothing about the KMS key
		}
		q := questionOf(call)
		questions[i] = q
		if _, ok := known[q]; !ok {
			open[q] = call
		}
	}
	fresh, err := s.ask(ctx, open)
	if err != nil {
		return nil, err
	}
	maps.Copy(known, fresh)
	out := &kms.CheckUsesOutput{Uses: make([]kms.KeyUseVerdict, len(in.Uses))}
	for i, q := range questions {
		if denied := known[q].denied; denied != nil {
			out.Uses[i] = kms.KeyUseVerdict{Code: denied.Code, Message: denied.Message}
		}
	}
	return out, nil
}

func (s *Service) checkInterval() time.Duration {
	if s.branches.age > 0 {
		return s.branches.age
	}
	return uncachedCheck
}

// current returns a copy of the answers that still hold, and forgets the others.
func (c *checks) current(interval time.Duration) map[question]answer {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.known, func(_ question, a answer) bool { return time.Since(a.at) >= interval })
	current := make(map[question]answer, len(c.known))
	maps.Copy(current, c.known)
	return current
}

// ask calls the service, and remembers its answers. It fails if the service can't be reached.
func (s *Service) ask(ctx context.Context, calls map[question]*awskms.DecryptInput) (map[question]answer, error) {
	answers := make(map[question]answer, len(calls))
	var mu sync.Mutex // guards answers
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(checksAtOnce)
	for q, call := range calls {
		group.Go(func() error {
			at := time.Now()
			denied, err := s.unwrapAnew(ctx, call)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			answers[q] = answer{at, denied}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	s.checks.mu.Lock()
	defer s.checks.mu.Unlock()
	if s.checks.known == nil {
		s.checks.known = map[question]answer{}
	}
	maps.Copy(s.checks.known, answers)
	return answers, nil
}

// unwrapAnew calls Decrypt, and returns why the service denies it. A ciphertext that does not open
// is no denial: the file may have been renamed, and not been wrapped in its new context yet.
func (s *Service) unwrapAnew(ctx context.Context, call *awskms.DecryptInput) (denied *kms.Error, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	out, err := s.kms.Decrypt(ctx, call)
	if err == nil {
		clear(out.Plaintext)
		return nil, nil
	}
	fault, ok := errors.AsType[*kms.Error](asError(err))
	switch {
	case !ok:
		return nil, asError(err)
	case fault.Code == kms.CodeInvalidCiphertext:
		return nil, nil
	}
	return fault, nil
}

// unwrapCall is the call of the service by which a file's data key, or its branch key, is
// unwrapped.
func unwrapCall(u *kms.KeyUse) (*awskms.DecryptInput, error) {
	blob, encryptionContext := u.CiphertextBlob, u.EncryptionContext
	if isBranched(blob) {
		branchKey, _, err := parseBranched(blob)
		if err != nil {
			return nil, err
		}
		blob, encryptionContext = branchKey, branchOf{u.KeyId, encryptionContext[volumePair]}.context()
	}
	return &awskms.DecryptInput{KeyId: aws.String(u.KeyId), CiphertextBlob: blob, EncryptionContext: encryptionContext}, nil
}

func questionOf(call *awskms.DecryptInput) question {
	pairs := map[string]string{"key": *call.KeyId, "blob": string(call.CiphertextBlob)}
	return sha256.Sum256(kms.AppendContext(kms.AppendContext(nil, pairs), call.EncryptionContext))
}
