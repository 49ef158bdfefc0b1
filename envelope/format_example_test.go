package envelope_test

import (
	"bytes"
	"encoding/hex"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// exampleRow is a row of FORMAT.md's example: offset, bytes, hex and meaning. Hex that ends with
// "..." is only the beginning.
var exampleRow = regexp.MustCompile("(?m)^\\| (\\d+) \\| (\\d+) \\| `([0-9a-f]+)(\\.\\.\\.)?` \\|")

// TestFormatExample compares the annotated example in FORMAT.md with the vector that it names.
func TestFormatExample(t *testing.T) {
	text, err := os.ReadFile("FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, found := strings.Cut(string(text), "\n### Example\n")
	example, _, _ = strings.Cut(example, "\n## ")
	x, _ := readFormatVector(t, formatVectors+"/file-one-byte.json")
	if !found || !strings.Contains(example, "file-one-byte.json") {
		t.Fatal("FORMAT.md has no example")
	}
	next := 0
	for _, row := range exampleRow.FindAllStringSubmatch(example, -1) {
		offset, n := atoi(t, row[1]), atoi(t, row[2])
		if offset != next || offset+n > len(x.Given.Sealed) {
			t.Fatalf("row of %d bytes at %d, want one at %d", n, offset, next)
		}
		next += n
		got, want := unhex(t, row[3]), x.Given.Sealed[offset:][:n]
		if row[4] != "" {
			want = want[:len(got)]
		}
		if !bytes.Equal(got, want) {
			t.Errorf("offset %d: %x, the vector has %x", offset, got, want)
		}
	}
	if next != len(x.Given.Sealed) {
		t.Errorf("rows for %d bytes, the vector has %d", next, len(x.Given.Sealed))
	}
}

func atoi(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
