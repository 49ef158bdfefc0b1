package volume

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"unicode/utf8"
)

const (
	// maxPath is the longest path in an encryption context, in bytes. The context may have 8192 in
	// all; headers and ext4's attributes hold less.
	maxPath = 3072
	// keptPath is how much of either end is kept of a longer path.
	keptPath = 1024
)

// ShortenPath replaces the middle of a path that is too long by a hash of the whole, so that what
// policies say of its beginning holds, and no two paths become one.
func ShortenPath(p string) string {
	if len(p) <= maxPath {
		return p
	}
	head, tail := p[:keptPath], p[len(p)-keptPath:]
	return fmt.Sprintf("%s/#sha256:%x#/%s", strings.ToValidUTF8(head, ""), sha256.Sum256([]byte(p)), strings.ToValidUTF8(tail, ""))
}

// TextPath writes bytes that are no UTF-8 as \xNN.
func TextPath(p string) string {
	if utf8.ValidString(p) {
		return p
	}
	var b strings.Builder
	for len(p) > 0 {
		r, n := utf8.DecodeRuneInString(p)
		if r == utf8.RuneError && n == 1 {
			const hex = "0123456789abcdef"
			b.WriteString(`\x`)
			b.WriteByte(hex[p[0]>>4])
			b.WriteByte(hex[p[0]&15])
		} else {
			b.WriteString(p[:n])
		}
		p = p[n:]
	}
	return b.String()
}

// OwnerName is how an owner is written in messages and records.
func OwnerName(uid uint32) string { return fmt.Sprintf("uid:%d", uid) }
