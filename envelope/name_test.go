package envelope_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"kmsfs/envelope"
)

var (
	directoryID      = envelope.DirectoryID(bytes.Repeat([]byte{2}, envelope.IDSize))
	otherDirectoryID = envelope.DirectoryID(bytes.Repeat([]byte{3}, envelope.IDSize))
)

// isRefused says whether err is one of those that what nobody sealed leads to.
func isRefused(err error) bool {
	return errors.Is(err, envelope.ErrFormat) || errors.Is(err, envelope.ErrAuthentication)
}

// longEntry is the entry of a long name whose sealed form is s.
func longEntry(s string) string {
	hash := sha256.Sum256([]byte(s))
	return "kmsfs.long." + base64.RawURLEncoding.EncodeToString(hash[:])
}

func TestName(t *testing.T) {
	for _, c := range []struct {
		name                string
		entry, plainEntry   int // length of the backing entry's name, with encrypted and with plaintext names
		content, plainExtra int // and of the long name's file
	}{
		{"a", 23, 1, 0, 0},
		{"é", 24, 2, 0, 0},
		{"\xff\xfe", 24, 2, 0, 0}, // names are bytes
		{" \n\t", 26, 3, 0, 0},
		{"...", 26, 3, 0, 0},
		{strings.Repeat("n", 174), 254, 174, 0, 0},
		{strings.Repeat("n", 175), 255, 175, 0, 0},
		{strings.Repeat("n", 176), 54, 176, 256, 0},
		{strings.Repeat("n", 254), 54, 254, 360, 0},
		{strings.Repeat("n", 255), 54, 255, 362, 0},
		{strings.Repeat("€", 85), 54, 255, 362, 0},
		{"kmsfs", 28, 5, 0, 0},
		{"Kmsfs.dir", 34, 9, 0, 0},
		{"kmsfs.", 30, 13, 0, 0},
		{"kmsfs.dir", 34, 16, 0, 0},
		{"kmsfs.volume", 38, 19, 0, 0},
		{"kmsfs.=", 31, 14, 0, 0},
		{"kmsfs.=kmsfs.dir", 43, 23, 0, 0},
		{"kmsfs.long." + strings.Repeat("x", 43), 94, 61, 0, 0},
		{"kmsfs." + strings.Repeat("n", 242), 54, 255, 352, 0},
		{"kmsfs." + strings.Repeat("n", 243), 54, 54, 354, 256},
		{"kmsfs." + strings.Repeat("n", 249), 54, 54, 362, 262},
	} {
		for _, plaintextNames := range []bool{false, true} {
			v := newVolume(t, plaintextNames)
			b, err := v.EncryptName(directoryID, c.name)
			if err != nil {
				t.Fatalf("%q: %v", c.name, err)
			}
			entry, content := c.entry, c.content
			if plaintextNames {
				entry, content = c.plainEntry, c.plainExtra
			}
			if len(b.Entry) != entry || len(b.Long) != content || envelope.IsLong(b.Entry) != (content > 0) {
				t.Errorf("%q: entry of %d bytes, want %d; file of %d, want %d", c.name, len(b.Entry), entry, len(b.Long), content)
			}
			if content > envelope.MaxLongFile || envelope.IsControl(b.Entry) || content > 0 && !envelope.IsControl(envelope.LongFile(b.Entry)) {
				t.Errorf("%q: entry %q", c.name, b.Entry)
			}
			if strings.HasPrefix(b.Entry, "kmsfs.") && !envelope.IsLong(b.Entry) && !strings.HasPrefix(b.Entry, "kmsfs.=") {
				t.Errorf("%q: entry %q among the control files", c.name, b.Entry)
			}
			if name, err := v.DecryptName(directoryID, b.Entry, b.Long); err != nil || name != c.name {
				t.Errorf("%q: opened %q: %v", c.name, name, err)
			}
			if name, err := v.DecryptName(otherDirectoryID, b.Entry, b.Long); !plaintextNames && !errors.Is(err, envelope.ErrAuthentication) {
				t.Errorf("%q: opened %q in another directory: %v", c.name, name, err)
			}
		}
	}
}

func TestNameRefused(t *testing.T) {
	for _, plaintextNames := range []bool{false, true} {
		v := newVolume(t, plaintextNames)
		for _, name := range []string{"", ".", "..", "/", "a/b", "a\x00b", "\x00"} {
			if b, err := v.EncryptName(directoryID, name); !errors.Is(err, envelope.ErrFormat) {
				t.Errorf("%q: entry %q: %v", name, b.Entry, err)
			}
		}
		for _, name := range []string{strings.Repeat("n", 256), strings.Repeat("€", 86), "kmsfs." + strings.Repeat("n", 250)} {
			if b, err := v.EncryptName(directoryID, name); !errors.Is(err, envelope.ErrTooLong) {
				t.Errorf("%d bytes: entry %q: %v", len(name), b.Entry, err)
			}
		}
	}
}

// TestNameTampered has entries that are almost right.
func TestNameTampered(t *testing.T) {
	v := newVolume(t, false)
	refused := func(what, entry, long string) {
		t.Helper()
		if name, err := v.DecryptName(directoryID, entry, long); !isRefused(err) {
			t.Errorf("%s: opened %q: %v", what, name, err)
		}
	}
	for _, name := range []string{"a", strings.Repeat("n", 175), strings.Repeat("n", 176), strings.Repeat("n", 255)} {
		b, err := v.EncryptName(directoryID, name)
		if err != nil {
			t.Fatal(err)
		}
		for i := range b.Entry {
			for bit := range 8 {
				entry := []byte(b.Entry)
				entry[i] ^= 1 << bit
				refused(fmt.Sprintf("%d bytes, bit %d of byte %d", len(name), bit, i), string(entry), b.Long)
			}
			refused(fmt.Sprintf("%d bytes, cut at %d", len(name), i), b.Entry[:i], b.Long)
		}
		for i := range b.Long {
			long := []byte(b.Long)
			long[i] ^= 1
			refused(fmt.Sprintf("%d bytes, byte %d of the file", len(name), i), b.Entry, string(long))
			refused(fmt.Sprintf("%d bytes, file cut at %d", len(name), i), b.Entry, b.Long[:i])
		}
		for _, tail := range []string{"\n", "=", "A", ".name"} {
			refused("tail of an entry", b.Entry+tail, b.Long)
			refused("tail of a file", b.Entry, b.Long+tail)
		}
		if b.Long != "" {
			refused("long name without its file's content", b.Entry, "")
			refused("long name for an entry", b.Long, "")
		}
	}
	short, err := v.EncryptName(directoryID, "short")
	if err != nil {
		t.Fatal(err)
	}
	refused("short name in a long name's file", longEntry(short.Entry), short.Entry)
	refused("content beside a short name", short.Entry, short.Entry)
	for _, name := range []string{"", ".", "..", "a/b", "a\x00"} { // sealed, but no names
		s := base64.RawURLEncoding.EncodeToString(nameSIV(t).seal([]byte(name), directoryID[:]))
		refused(fmt.Sprintf("%q", name), s, "")
	}
	s := base64.RawURLEncoding.EncodeToString(nameSIV(t).seal(bytes.Repeat([]byte("n"), 256), directoryID[:]))
	refused("name of 256 bytes", longEntry(s), s)

	v = newVolume(t, true)
	for _, entry := range []string{
		"", ".", "..", "a/b", "a\x00b", strings.Repeat("n", 256), "kmsfs.", "kmsfs.dir", "kmsfs.=", "kmsfs.=a", "kmsfs.=kmsfs", "kmsfs.x",
		"kmsfs.long.", "kmsfs.long." + strings.Repeat("x", 43), "kmsfs.=kmsfs." + strings.Repeat("n", 243),
	} {
		refused(fmt.Sprintf("plaintext %q", entry), entry, "")
	}
	plain := strings.Repeat("n", 255)
	refused("plaintext name that is not long", longEntry(plain), plain)
	plain += "n"
	refused("plaintext name that is too long", longEntry(plain), plain)
	refused("content beside a plaintext name", "a", "a")
}

func TestControl(t *testing.T) {
	for entry, want := range map[string][2]bool{ // control, long
		"kmsfs.volume": {true, false}, "kmsfs.mark": {true, false}, "kmsfs.temp": {true, false}, "kmsfs.dir": {true, false},
		"kmsfs.long.x": {false, true}, "kmsfs.long.x.name": {true, false}, "kmsfs.long.": {false, true},
		"kmsfs.=kmsfs.dir": {false, false}, "kmsfs": {false, false}, "": {false, false}, "a": {false, false}, "x.name": {false, false},
		"Kmsfs.dir": {false, false}, "kmsfs.temp.x": {true, false}, "kmsfs.tempo": {false, false},
	} {
		if got := [2]bool{envelope.IsControl(entry), envelope.IsLong(entry)}; got != want {
			t.Errorf("%q: control and long %v, want %v", entry, got, want)
		}
	}
}

func drawName(t *rapid.T) string {
	text := rapid.StringOfN(rapid.Rune(), 1, 255, 255)
	raw := rapid.Map(rapid.SliceOfN(rapid.Byte(), 1, 255), func(b []byte) string { return string(b) })
	reserved := rapid.Map(rapid.StringOfN(rapid.Rune(), 0, 249, 249), func(s string) string { return "kmsfs." + s })
	name := rapid.OneOf(text, raw, reserved).Draw(t, "name")
	if name = strings.Map(func(r rune) rune {
		if r == '/' || r == 0 {
			return '_'
		}
		return r
	}, name); len(name) > envelope.MaxName { // what isn't UTF-8 became longer
		name = name[:envelope.MaxName]
	}
	if name == "." || name == ".." {
		name = "..."
	}
	return name
}

func TestNameRoundTrip(t *testing.T) {
	for _, plaintextNames := range []bool{false, true} {
		v := newVolume(t, plaintextNames)
		rapid.Check(t, func(t *rapid.T) {
			name, dir := drawName(t), envelope.DirectoryID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "directory"))
			b, err := v.EncryptName(dir, name)
			if err != nil {
				t.Fatal(err)
			}
			if len(b.Entry) > 255 || strings.Contains(b.Entry, "/") || !plaintextNames && !utf8.ValidString(b.Entry) || envelope.IsControl(b.Entry) {
				t.Fatalf("entry %q", b.Entry)
			}
			if got, err := v.DecryptName(dir, b.Entry, b.Long); err != nil || got != name {
				t.Fatalf("opened %q: %v", got, err)
			}
			if again, err := v.EncryptName(dir, name); err != nil || again != b {
				t.Fatalf("then %q, %v", again.Entry, err)
			}
			if dir[0]++; !plaintextNames {
				if other, err := v.EncryptName(dir, name); err != nil || other.Entry == b.Entry {
					t.Fatalf("the same in another directory, %v", err)
				}
			}
		})
	}
}

// TestSealedConcurrently seals and opens what is sealed under a volume's keys from several goroutines.
func TestSealedConcurrently(t *testing.T) {
	v := newVolume(t, false)
	var group sync.WaitGroup
	for i := range 4 {
		group.Go(func() {
			for j := range 200 {
				name := fmt.Sprint(i, " ", j, strings.Repeat("n", j))
				b, err := v.EncryptName(directoryID, name)
				if err != nil {
					t.Error(err)
				}
				if got, err := v.DecryptName(directoryID, b.Entry, b.Long); err != nil || got != name {
					t.Errorf("opened %q: %v", got, err)
				}
				sealed, err := v.SealTarget(name)
				if err != nil {
					t.Error(err)
				}
				if got, err := v.OpenTarget(sealed); err != nil || got != name {
					t.Errorf("opened target %q: %v", got, err)
				}
			}
		})
	}
	group.Wait()
}

// FuzzDecryptName checks that what is accepted is what is written, in both kinds of volumes.
func FuzzDecryptName(f *testing.F) {
	for _, plaintextNames := range []bool{false, true} {
		v := newVolume(f, plaintextNames)
		for _, name := range []string{"a", strings.Repeat("n", 175), strings.Repeat("n", 255), "kmsfs.dir", "kmsfs." + strings.Repeat("n", 249)} {
			b, err := v.EncryptName(directoryID, name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b.Entry, b.Long, plaintextNames)
		}
	}
	f.Fuzz(func(t *testing.T, entry, long string, plaintextNames bool) {
		v := newVolume(t, plaintextNames)
		name, err := v.DecryptName(directoryID, entry, long)
		if err != nil {
			if !isRefused(err) {
				t.Fatal(err)
			}
			return
		}
		if b, err := v.EncryptName(directoryID, name); err != nil || b.Entry != entry || b.Long != long {
			t.Fatalf("%q and %q open to %q, written %q and %q: %v", entry, long, name, b.Entry, b.Long, err)
		}
	})
}

func BenchmarkName(b *testing.B) {
	v := newVolume(b, false)
	for _, n := range []int{12, 255} {
		name := strings.Repeat("n", n)
		backing, err := v.EncryptName(directoryID, name)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprint("encrypt/", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.EncryptName(directoryID, name); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprint("decrypt/", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.DecryptName(directoryID, backing.Entry, backing.Long); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
