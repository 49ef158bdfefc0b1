package remote

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awskms "github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"golang.org/x/sync/singleflight"

	"kmsfs/keyservice/kms"
)

// The layout of a data key that a branch key wraps, which keyservice/FORMAT.md specifies: magic,
// length and wrapped branch key, nonce, ciphertext and tag.
const (
	branchMagic = "KBK\x01"
	branchNonce = 12 // bytes, GCM's
	branchSize  = 32 // bytes of a branch key, and of a data key
	// maxWrappedBranch bounds what the service makes of a branch key, in bytes, so that a header
	// has room for it.
	maxWrappedBranch = 400

	// maxBranchUses bounds what one branch key wraps. Random nonces would allow 2^32 (NIST SP
	// 800-38D, 8.3).
	maxBranchUses = 1 << 20
	// maxBranches bounds the branch keys that are kept.
	maxBranches = 1000

	volumePair = "kmsfs:volume"
	branchPair = "kmsfs:branch"
)

// branches are the branch keys in memory: data keys of the service under which files' data keys are
// wrapped here. None is used longer than age after the service gave it out.
type branches struct {
	age time.Duration

	mu      sync.Mutex // guards current and known; not held while the service is called, taken before a branch's mu
	current map[branchOf]*branch
	known   map[branchID]*branch

	calls singleflight.Group // those to the service, so that many opens at a time make one
}

// branchOf is what a branch key is for.
type branchOf struct{ key, volume string }

// branchID names a branch key by the digest of its wrapped form.
type branchID struct {
	branchOf
	digest [sha256.Size]byte
}

// context is the encryption context of the branch key itself.
func (b branchOf) context() map[string]string {
	return map[string]string{volumePair: b.volume, branchPair: "data keys"}
}

// branch is a branch key.
type branch struct {
	// wrapped is what the service made of it.
	wrapped []byte
	id      branchID
	fetched time.Time

	mu     sync.RWMutex // guards what follows: held for reading while the secret is used
	secret [branchSize]byte
	wiped  bool
	uses   int // guarded by branches.mu
}

func newBranch(of branchOf, wrapped, secret []byte) (*branch, error) {
	if len(secret) != branchSize || len(wrapped) == 0 || len(wrapped) > maxWrappedBranch {
		return nil, fmt.Errorf("%w: a data key of %d bytes, %d wrapped", errAnswer, len(secret), len(wrapped))
	}
	return &branch{wrapped: wrapped, id: branchID{of, sha256.Sum256(wrapped)}, fetched: time.Now(), secret: [branchSize]byte(secret)}, nil
}

// key is the ARN of the KMS key that wraps the branch key.
func (b *branch) key() string { return b.id.key }

// name is the branch key's in the journal.
func (b *branch) name() string { return hex.EncodeToString(b.id.digest[:8]) }

func (b *branch) wipe() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.secret[:])
	b.wiped = true
}

// use calls f with the branch key's cipher, and says whether it was still there.
func (b *branch) use(f func(aead cipher.AEAD) error) (there bool, err error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.wiped {
		return false, nil
	}
	block, err := aes.NewCipher(b.secret[:])
	if err != nil {
		return true, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return true, err
	}
	return true, f(aead)
}

// keep holds the branch key in memory until its time is over. It returns the one that is there
// already, if there is one.
func (s *branches) keep(b *branch) *branch {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.add(b)
}

// keepCurrent is keep for a branch key that wraps from then on.
func (s *branches) keepCurrent(of branchOf, b *branch) *branch {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current[of] = s.add(b)
	return s.current[of]
}

// add is keep. mu is held.
func (s *branches) add(b *branch) *branch {
	if old := s.known[b.id]; old != nil {
		b.wipe()
		return old
	}
	for len(s.known) >= maxBranches {
		s.remove(s.oldest())
	}
	s.known[b.id] = b
	time.AfterFunc(s.age, func() { s.drop(b) })
	return b
}

// oldest returns the branch key that would end first. mu is held, and known is not empty.
func (s *branches) oldest() (oldest *branch) {
	for _, b := range s.known {
		if oldest == nil || b.fetched.Before(oldest.fetched) {
			oldest = b
		}
	}
	return oldest
}

func (s *branches) drop(b *branch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(b)
}

// remove wipes a branch key. It is not found any more, and wraps nothing any more. mu is held.
func (s *branches) remove(b *branch) {
	if s.known[b.id] == b {
		delete(s.known, b.id)
	}
	maps.DeleteFunc(s.current, func(_ branchOf, other *branch) bool { return other == b })
	b.wipe()
}

// wipe drops all of them.
func (s *branches) wipe() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.known {
		b.wipe()
	}
	clear(s.known)
	clear(s.current)
}

// take returns the branch key that wraps now; nil if there is none.
func (s *branches) take(of branchOf) *branch {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.current[of]
	if b == nil || b.uses >= maxBranchUses {
		return nil
	}
	b.uses++
	return b
}

func (s *branches) find(id branchID) *branch {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known[id]
}

// fetch gets a branch key from the service, by f. Callers that want the same one at the same time
// share the call, which outlives those of them that are interrupted.
func (s *branches) fetch(ctx context.Context, name string, f func(context.Context) (*branch, error)) (*branch, error) {
	fetched := s.calls.DoChan(name, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
		defer cancel()
		return f(ctx)
	})
	select {
	case result := <-fetched:
		if result.Err != nil {
			return nil, result.Err
		}
		return result.Val.(*branch), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// currentBranch returns the branch key that wraps now, from the service if need be.
func (s *Service) currentBranch(ctx context.Context, of branchOf) (*branch, error) {
	if b := s.branches.take(of); b != nil {
		return b, nil
	}
	made, err := s.branches.fetch(ctx, "new "+of.volume+" "+of.key, func(ctx context.Context) (*branch, error) {
		return s.newBranch(ctx, of)
	})
	if err != nil {
		return nil, err
	}
	if b := s.branches.take(of); b != nil { // counted, as several callers may have waited for it
		return b, nil
	}
	return made, nil
}

// newBranch has the service make a branch key, which wraps from then on.
func (s *Service) newBranch(ctx context.Context, of branchOf) (*branch, error) {
	out, err := s.kms.GenerateDataKey(ctx, &awskms.GenerateDataKeyInput{
		KeyId: aws.String(of.key), KeySpec: types.DataKeySpecAes256, EncryptionContext: of.context(),
	})
	if err != nil {
		return nil, err
	}
	defer clear(out.Plaintext)
	if out.KeyId == nil {
		return nil, errAnswer
	}
	// It is found by the ARN: an alias may name another key by the time that it is looked for.
	b, err := newBranch(branchOf{*out.KeyId, of.volume}, out.CiphertextBlob, out.Plaintext)
	if err != nil {
		return nil, err
	}
	return s.branches.keepCurrent(of, b), nil
}

// openBranch returns the branch key of that wrapped form, from the service if need be. Without a
// cache, the caller wipes it.
func (s *Service) openBranch(ctx context.Context, of branchOf, wrapped []byte) (*branch, error) {
	if s.branches.age == 0 {
		return s.decryptBranch(ctx, of, wrapped)
	}
	id := branchID{of, sha256.Sum256(wrapped)}
	if b := s.branches.find(id); b != nil {
		return b, nil
	}
	return s.branches.fetch(ctx, "open "+of.volume+" "+of.key+" "+string(id.digest[:]), func(ctx context.Context) (*branch, error) {
		b, err := s.decryptBranch(ctx, of, wrapped)
		if err != nil {
			return nil, err
		}
		return s.branches.keep(b), nil
	})
}

// decryptBranch has the service unwrap a branch key.
func (s *Service) decryptBranch(ctx context.Context, of branchOf, wrapped []byte) (*branch, error) {
	out, err := s.kms.Decrypt(ctx, &awskms.DecryptInput{KeyId: aws.String(of.key), CiphertextBlob: wrapped, EncryptionContext: of.context()})
	if err != nil {
		return nil, err
	}
	defer clear(out.Plaintext)
	return newBranch(of, bytes.Clone(wrapped), out.Plaintext)
}

// attempts is how often a branch key is fetched that ends before it can be used.
const attempts = 3

// errShortLived says that branch keys don't live long enough to be used.
var errShortLived = errors.New("branch keys end before they are used: the cache's time is too short")

// wrap seals a data key in its encryption context, and returns the branch key. The key may be an
// alias.
func (s *Service) wrap(ctx context.Context, key string, dataKey []byte, encryptionContext map[string]string) (wrapped []byte, under *branch, err error) {
	for range attempts {
		b, err := s.currentBranch(ctx, branchOf{key, encryptionContext[volumePair]})
		if err != nil {
			return nil, nil, err
		}
		there, err := b.use(func(aead cipher.AEAD) error {
			head := binary.BigEndian.AppendUint16([]byte(branchMagic), uint16(len(b.wrapped)))
			head = append(head, b.wrapped...)
			var nonce [branchNonce]byte
			rand.Read(nonce[:])
			wrapped = aead.Seal(append(bytes.Clone(head), nonce[:]...), nonce[:], dataKey, kms.AppendContext(head, encryptionContext))
			return nil
		})
		if there {
			return wrapped, b, err
		}
	}
	return nil, nil, errShortLived
}

// unwrap opens what wrap has sealed.
func (s *Service) unwrap(ctx context.Context, key string, wrapped []byte, encryptionContext map[string]string) (dataKey []byte, name string, err error) {
	branchKey, sealed, err := parseBranched(wrapped)
	if err != nil {
		return nil, "", err
	}
	head := wrapped[: len(wrapped)-len(sealed) : len(wrapped)-len(sealed)]
	for range attempts {
		b, err := s.openBranch(ctx, branchOf{key, encryptionContext[volumePair]}, branchKey)
		if err != nil {
			return nil, "", err
		}
		there, err := b.use(func(aead cipher.AEAD) (err error) {
			dataKey, err = aead.Open(nil, sealed[:branchNonce], sealed[branchNonce:], kms.AppendContext(head, encryptionContext))
			return err
		})
		if s.branches.age == 0 {
			b.wipe()
		}
		switch {
		case there && err != nil:
			return nil, b.name(), errCiphertext
		case there:
			return dataKey, b.name(), nil
		}
	}
	return nil, "", errShortLived
}

// errCiphertext is the one answer to a wrapped key that doesn't open, whatever is wrong.
var errCiphertext = &kms.Error{Code: kms.CodeInvalidCiphertext}

// isBranched says whether a branch key wraps the data key, and not the service.
func isBranched(wrapped []byte) bool { return bytes.HasPrefix(wrapped, []byte(branchMagic)) }

// parseBranched returns the wrapped branch key, and nonce, ciphertext and tag.
func parseBranched(wrapped []byte) (branchKey, sealed []byte, err error) {
	rest, ok := bytes.CutPrefix(wrapped, []byte(branchMagic))
	if !ok || len(rest) < 2 {
		return nil, nil, errCiphertext
	}
	n := int(binary.BigEndian.Uint16(rest))
	rest = rest[2:]
	if n == 0 || n > maxWrappedBranch || len(rest) != n+branchNonce+branchSize+16 {
		return nil, nil, errCiphertext
	}
	return rest[:n], rest[n:], nil
}
