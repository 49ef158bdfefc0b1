package printable_test

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"kmsfs/keyservice/printable"
)

// hostile are texts with what a terminal may take for commands.
var hostile = []string{
	"\x1b[2J", "a\nkmsfs: all is well", "\r", "\b\b", "\x7f", "\x00", "\u009b31m", "\x9b31m", "\u202etxt.exe", "\u2028",
	"\ufeff", "\U000e0001", "caf\xe9",
}

func printableOnly(t *testing.T, what, s string) {
	t.Helper()
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }) {
		t.Errorf("%s: %q", what, s)
	}
}

func TestText(t *testing.T) {
	for _, s := range []string{"", "plain", "größe 5 µm", "日本語", `a\x1b`, `it's "so"`} {
		if got := printable.Text(s); got != s {
			t.Errorf("%q becomes %s", s, got)
		}
	}
	for _, s := range hostile {
		got := printable.Text(s)
		printableOnly(t, "text", got)
		if back, err := strconv.Unquote(got); back != s || err != nil {
			t.Errorf("%q becomes %s, which means %q, %v", s, got, back, err)
		}
	}
}

func TestLine(t *testing.T) {
	for in, want := range map[string]string{
		`it's "so": a\b`:             `it's "so": a\b`,
		"clear/\x1b[2J: \"no\" \\ x": `clear/\x1b[2J: "no" \ x`,
		"two\nlines":                 `two\nlines`,
	} {
		if got := printable.Line(in); got != want {
			t.Errorf("%q becomes %s, want %s", in, got, want)
		}
	}
	for _, s := range hostile {
		printableOnly(t, "line", printable.Line(s))
	}
}

func TestJSON(t *testing.T) {
	for _, s := range append(hostile, "plain", "日本語") {
		text, err := json.MarshalIndent(map[string]string{"name": s}, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		clean := printable.JSON(text)
		printableOnly(t, "JSON", strings.ReplaceAll(string(clean), "\n", ""))
		var got, want map[string]string
		if err := json.Unmarshal(clean, &got); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &want); err != nil || got["name"] != want["name"] {
			t.Errorf("%q becomes %q, %v", want, got, err)
		}
	}
	if got := string(printable.JSON([]byte("\"caf\xe9\""))); got != `"caf\ufffd"` {
		t.Errorf("invalid UTF-8 becomes %s", got)
	}
}
