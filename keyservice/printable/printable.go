// Package printable makes untrusted text fit for a terminal. File names, paths, descriptions, tags
// and the like come from volumes and callers, who may have put in them what a terminal takes for
// commands. All that people read of them goes through this package.
package printable

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Text returns a text as it is if all of it is printable, and else quoted, as a Go string.
func Text(s string) string {
	if isPrintable(s) {
		return s
	}
	return strconv.Quote(s)
}

// isPrintable says whether all of a text is printable: as Unicode has it, and valid UTF-8. A
// terminal may take single bytes above 0x7f for control characters.
func isPrintable(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if !strconv.IsPrint(r) {
			return false
		}
	}
	return true
}

// Line returns a text on one line, with escapes in place of what is not printable. It is for
// sentences, such as errors, which read badly in quotes.
func Line(s string) string {
	if isPrintable(s) {
		return s
	}
	quoted := strconv.Quote(s)
	return strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(quoted[1 : len(quoted)-1])
}

// JSON returns a JSON text with escapes in place of what is not printable, but for line feeds. Its
// meaning stays the same: outside of strings, JSON has no such characters.
func JSON(text []byte) []byte {
	clean := make([]byte, 0, len(text))
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		switch {
		case r == utf8.RuneError && size == 1:
			clean = append(clean, `\ufffd`...)
		case r == '\n' || strconv.IsPrint(r):
			clean = append(clean, text[:size]...)
		case r > 0xffff:
			r -= 0x10000
			clean = fmt.Appendf(clean, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			clean = fmt.Appendf(clean, `\u%04x`, r)
		}
		text = text[size:]
	}
	return clean
}
