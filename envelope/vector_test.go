package envelope_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tink-crypto/tink-go/v2/daead/subtle"

	"kmsfs/envelope"
)

var update = flag.Bool("update", false, "write the vectors in testdata anew")

// A vector is a file of testdata: lines of "name: value", an empty line, and the sealed file in hex. Its expect is "content", and then size and
// SHA-256 of the plaintext are given, or the part that doesn't open: "header", "size" or "block" and its index.
const vectors = "testdata/file-*.vector"

func TestVectors(t *testing.T) {
	if *update {
		writeVectors(t)
	}
	names, err := filepath.Glob(vectors)
	if err != nil || len(names) < 10 {
		t.Fatalf("%d vectors, %v", len(names), err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".vector"), func(t *testing.T) {
			fields, sealed := readVector(t, name)
			v := newVolume(t, fields["plaintext names"] == "true")
			st := &memory{}
			st.write(sealed, 0)
			if st.overflow = unhex(t, fields["overflow"]); len(st.overflow) == 0 {
				st.overflow = nil
			}
			var content []byte
			f, err := open(v, st, unhex(t, fields["data key"]), envelope.FileOptions{ReadOnly: true})
			if err == nil {
				content, err = readAll(f)
			}
			got := "content"
			if corrupt, ok := errors.AsType[*envelope.CorruptError](err); ok {
				got, _, _ = strings.Cut(corrupt.Error(), ":")
			} else if err != nil {
				t.Fatal(err)
			}
			if got != fields["expect"] {
				t.Fatalf("%s (%v), want %s", got, err, fields["expect"])
			}
			if err != nil {
				return
			}
			h := f.Header()
			if got, want := describe(h.Path, content), fields["path"]+" "+fields["size"]+" "+fields["SHA-256"]; got != want {
				t.Errorf("read %s, want %s", got, want)
			}
			path, content := readByFormat(t, fields, sealed)
			if got, want := describe(path, content), fields["path"]+" "+fields["size"]+" "+fields["SHA-256"]; got != want {
				t.Errorf("a reader made from FORMAT.md reads %s, want %s", got, want)
			}
		})
	}
}

func describe(path string, content []byte) string {
	return fmt.Sprintf("%s %d %x", path, len(content), sha256.Sum256(content))
}

// readByFormat reads a sealed file as FORMAT.md says, with nothing of this package. It takes the path in form 0 only.
func readByFormat(t *testing.T, fields map[string]string, sealed []byte) (path string, content []byte) {
	kdf := func(secret, salt []byte, label string, n int) []byte {
		key, err := hkdf.Key(sha256.New, secret, salt, label, n)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	dataKey, volume, id := unhex(t, fields["data key"]), unhex(t, fields["volume"]), sealed[14:30]
	m := hmac.New(sha256.New, kdf(dataKey, id, "kmsfs/1 file header", 32))
	m.Write(sealed[:992])
	if !hmac.Equal(m.Sum(nil), sealed[992:1024]) {
		t.Fatal("MAC does not match")
	}
	w, d := int(binary.BigEndian.Uint16(sealed[40:])), int(binary.BigEndian.Uint16(sealed[42:]))
	wrapped, details := sealed[48:48+w], sealed[48+w:48+w+d]
	if sealed[11]&2 != 0 {
		siv, err := subtle.NewAESSIV(kdf(unhex(t, fields["metadata key"]), volume, "kmsfs/1 details", 64))
		if err != nil {
			t.Fatal(err)
		}
		associated := bytes.Join([][]byte{[]byte("kmsfs/1 header"), volume, id, wrapped}, nil)
		if details, err = siv.DecryptDeterministically(details, associated); err != nil {
			t.Fatal(err)
		}
	}
	details = details[2+binary.BigEndian.Uint16(details)+4+5:] // ARN, owner, next owner
	if details[0] != 0 {
		t.Fatal("path form is not 0")
	}
	path = string(details[3:][:binary.BigEndian.Uint16(details[1:])])

	block, err := aes.NewCipher(kdf(dataKey, id, "kmsfs/1 file content", 32))
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	for i, at := 0, 1024; at < len(sealed); i, at = i+1, (i+1)*4096 {
		end, last := min((i+1)*4096, len(sealed)), byte(0)
		if end == len(sealed) {
			last = 1
		}
		if sealed[11]&1 != 0 && i > 0 && last == 0 && bytes.Equal(sealed[at:end], make([]byte, 4096)) {
			content = append(content, make([]byte, 4068)...)
			continue
		}
		associated := append(binary.BigEndian.AppendUint64(bytes.Clone(id), uint64(i)), last)
		if content, err = gcm.Open(content, sealed[at:at+12], sealed[at+12:end], associated); err != nil {
			t.Fatalf("block %d: %v", i, err)
		}
	}
	return path, content
}

func readVector(t *testing.T, name string) (fields map[string]string, sealed []byte) {
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	head, body, _ := strings.Cut(string(b), "\n\n")
	fields = map[string]string{}
	for line := range strings.Lines(head) {
		key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		if !ok || fields[key] != "" {
			t.Fatalf("%s: line %q", name, line)
		}
		fields[key] = value
	}
	return fields, unhex(t, strings.ReplaceAll(body, "\n", ""))
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func writeVectors(t *testing.T) {
	sparse := func(f *envelope.File) error {
		return errors.Join(f.Truncate(0), f.Truncate(3044+20*4068), f.PunchHole(3044, 4068), f.Truncate(3044+2*4068+5))
	}
	for _, c := range []struct {
		name           string
		plaintextNames bool
		size           int
		change         func(f *envelope.File) error
		damage         func(m *memory)
		expect         string
	}{
		{"empty", false, 0, nil, nil, "content"},
		{"one-byte", false, 1, nil, nil, "content"},
		{"full-block", false, 3044, nil, nil, "content"},
		{"two-blocks", false, 5000, nil, nil, "content"},
		{"plaintext-names", true, 3045, nil, nil, "content"},
		{"sparse", false, 1, sparse, nil, "content"},
		{"links", false, 10, func(f *envelope.File) error {
			h, v := f.Header(), newVolume(t, false)
			for i := range 3 {
				v.AddLocation(&h, envelope.Location{Name: fmt.Sprint("link ", i)})
			}
			return setHeader(f, h)
		}, nil, "content"},
		{"links-no-overflow", false, 10, func(f *envelope.File) error {
			h, v := f.Header(), newVolume(t, false)
			for i := range 3 {
				v.AddLocation(&h, envelope.Location{Name: fmt.Sprint("link ", i)})
			}
			return setHeader(f, h)
		}, func(m *memory) { m.overflow = nil }, "header"},
		{"cut-to-header", false, 5000, nil, func(m *memory) { m.resize(1024) }, "size"},
		{"cut-at-block", false, 5000, nil, func(m *memory) { m.resize(4096) }, "block 0"},
		{"impossible-size", false, 3044, nil, func(m *memory) { m.resize(4096 + 28) }, "size"},
		{"zeroed", false, 3044 + 2*4068, nil, func(m *memory) { clear(m.data[4096:8192]) }, "block 1"},
		{"last-is-hole", false, 1, sparse, func(m *memory) { m.resize(8192) }, "block 1"},
		{"version-2", false, 0, nil, func(m *memory) { m.data[9] = 2; resign(t, m.data) }, "header"},
		{"header-bit", false, 0, nil, func(m *memory) { m.data[30] ^= 1 }, "header"},
	} {
		st := &memory{}
		f := mustCreate(t, newVolume(t, c.plaintextNames), st, envelope.FileOptions{})
		mustWrite(t, f, pattern(1, c.size), 0)
		if c.change != nil {
			if err := c.change(f); err != nil {
				t.Fatal(err)
			}
		}
		content := make([]byte, f.Size())
		if n, err := f.ReadAt(content, 0); n < len(content) && err != io.EOF {
			t.Fatal(err)
		}
		if c.damage != nil {
			c.damage(st)
		}
		var b strings.Builder
		fmt.Fprintf(&b, "expect: %s\nvolume: %s\nplaintext names: %v\nmetadata key: %x\ndata key: %x\n",
			c.expect, volumeID, c.plaintextNames, newKey(7), newKey(1))
		if st.overflow != nil {
			fmt.Fprintf(&b, "overflow: %x\n", st.overflow)
		}
		if c.expect == "content" {
			fmt.Fprintf(&b, "path: /some/where\nsize: %d\nSHA-256: %x\n", len(content), sha256.Sum256(content))
		}
		for at := 0; at < len(st.data); at += 64 {
			if at%(1<<20) == 0 {
				b.WriteString("\n")
			}
			fmt.Fprintf(&b, "%x\n", st.data[at:min(at+64, len(st.data))])
		}
		if err := os.WriteFile("testdata/file-"+c.name+".vector", []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
