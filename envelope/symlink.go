package envelope

import (
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
)

const (
	// nonceBefore is the length of what makes equal plaintexts different under SIV, in bytes.
	nonceBefore = 16
	// maxSealedTarget is the longest target that Linux gives a symlink: PATH_MAX without its NUL, in bytes.
	maxSealedTarget = 4095
	// maxTarget is the longest target of a symlink in a volume: maxSealedTarget bytes of base64 hold nonce, SIV and it.
	maxTarget = maxSealedTarget*3/4 - nonceBefore - sivOverhead
)

// SealTarget returns the target of the backing symlink. The error wraps ErrTooLong or, for what is no target, ErrFormat.
func (v *Volume) SealTarget(target string) (string, error) {
	if len(target) > maxTarget {
		return "", fmt.Errorf("symlink's target has %d bytes, at most %d fit: %w", len(target), maxTarget, ErrTooLong)
	}
	if target == "" || strings.Contains(target, "\x00") {
		return "", fmt.Errorf("not a symlink's target: %w", ErrFormat)
	}
	nonce := randomNonce()
	sealed, err := v.symlink.EncryptDeterministically([]byte(target), nonce)
	if err != nil {
		return "", fmt.Errorf("sealing a symlink: %w", err)
	}
	return b64.EncodeToString(slices.Concat(nonce, sealed)), nil
}

// OpenTarget is the inverse of SealTarget. The error wraps ErrFormat or ErrAuthentication.
func (v *Volume) OpenTarget(sealed string) (string, error) {
	if TargetSize(int64(len(sealed))) == 0 {
		return "", fmt.Errorf("no sealed symlink has %d bytes: %w", len(sealed), ErrFormat)
	}
	b, err := decodeB64(sealed)
	if err != nil {
		return "", fmt.Errorf("symlink: %w", err)
	}
	target, err := v.symlink.DecryptDeterministically(b[nonceBefore:], b[:nonceBefore])
	if err != nil {
		return "", fmt.Errorf("symlink does not open: %w", ErrAuthentication)
	}
	if slices.Contains(target, 0) {
		return "", fmt.Errorf("what opens is not a symlink's target: %w", ErrFormat)
	}
	return string(target), nil
}

// TargetSize returns the length of a target from that of the backing symlink's; 0 if that is impossible.
func TargetSize(sealed int64) int64 {
	if sealed > maxSealedTarget || sealed%4 == 1 {
		return 0
	}
	return max(sealed/4*3+(sealed%4)*3/4-nonceBefore-sivOverhead, 0)
}

func randomNonce() []byte {
	nonce := make([]byte, nonceBefore)
	rand.Read(nonce)
	return nonce
}
