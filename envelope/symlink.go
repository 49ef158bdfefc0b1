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
	// maxTarget is the longest target of a symlink: 4095 bytes of base64 hold nonce, SIV and it.
	maxTarget = 4095*3/4 - nonceBefore - sivOverhead
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
	b, err := decodeB64(sealed)
	if err != nil || len(b) <= nonceBefore+sivOverhead {
		return "", fmt.Errorf("symlink is not a sealed one: %w", ErrFormat)
	}
	target, err := v.symlink.DecryptDeterministically(b[nonceBefore:], b[:nonceBefore])
	if err != nil {
		return "", fmt.Errorf("symlink does not open: %w", ErrAuthentication)
	}
	if len(target) > maxTarget || strings.Contains(string(target), "\x00") {
		return "", fmt.Errorf("what opens is not a symlink's target: %w", ErrFormat)
	}
	return string(target), nil
}

// TargetSize returns the length of a target from that of the backing symlink's; 0 if that is impossible.
func TargetSize(sealed int64) int64 {
	if sealed%4 == 1 {
		return 0
	}
	return max(sealed/4*3+(sealed%4)*3/4-nonceBefore-sivOverhead, 0)
}

func randomNonce() []byte {
	nonce := make([]byte, nonceBefore)
	rand.Read(nonce)
	return nonce
}
