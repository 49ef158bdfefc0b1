package envelope_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"kmsfs/envelope"
)

var (
	objectID      = [envelope.IDSize]byte{4}
	otherObjectID = [envelope.IDSize]byte{5}
)

func TestAttributeName(t *testing.T) {
	v := newVolume(t, false)
	for _, name := range []string{"user.a", "user.mime_type", "security.capability", "user.é", "user." + strings.Repeat("n", 160)} {
		backing, err := v.SealAttributeName(objectID, name)
		if err != nil {
			t.Fatalf("%q: %v", name, err)
		}
		n := 16 + len(name)
		if want := len(envelope.AttributePrefix) + n*4/3 + min(n%3, 1); len(backing) != want || len(backing) > 255 {
			t.Errorf("%q: %d bytes, want %d", name, len(backing), want)
		}
		if got, err := v.OpenAttributeName(objectID, backing); err != nil || got != name {
			t.Errorf("%q: opened %q: %v", name, got, err)
		}
		if got, err := v.OpenAttributeName(otherObjectID, backing); !errors.Is(err, envelope.ErrAuthentication) {
			t.Errorf("%q: opened %q for another object: %v", name, got, err)
		}
		for i := range backing {
			for bit := range 8 {
				b := []byte(backing)
				b[i] ^= 1 << bit
				if got, err := v.OpenAttributeName(objectID, string(b)); !isRefused(err) {
					t.Fatalf("%q, bit %d of byte %d: opened %q: %v", name, bit, i, got, err)
				}
			}
			if got, err := v.OpenAttributeName(objectID, backing[:i]); !isRefused(err) {
				t.Fatalf("%q, cut at %d: opened %q: %v", name, i, got, err)
			}
		}
		for _, other := range []string{backing + "\n", backing + "A", "x" + backing, strings.ToUpper(backing), backing + strings.Repeat("A", 1000)} {
			if got, err := v.OpenAttributeName(objectID, other); !isRefused(err) {
				t.Errorf("%q: %q opens to %q: %v", name, other, got, err)
			}
		}
	}
	for _, n := range []int{166, 255, 1 << 16} {
		if backing, err := v.SealAttributeName(objectID, strings.Repeat("n", n)); !errors.Is(err, envelope.ErrTooLong) {
			t.Errorf("%d bytes: %q: %v", n, backing, err)
		}
	}
	// What is sealed as a value is no name, though the key is the same.
	s := metadataSIV(t, "kmsfs/1 attribute")
	sealed := s.seal([]byte("user.a"), append([]byte("v"), objectID[:]...))
	if got, err := v.OpenAttributeName(objectID, envelope.AttributePrefix+base64.RawURLEncoding.EncodeToString(sealed)); !errors.Is(err, envelope.ErrAuthentication) {
		t.Errorf("value opened as a name, %q: %v", got, err)
	}
}

func TestAttribute(t *testing.T) {
	v := newVolume(t, false)
	for _, n := range []int{0, 1, 15, 16, 17, 100, 64 << 10} {
		value := pattern(1, n)
		sealed, err := v.SealAttribute(objectID, "user.a", value)
		if err != nil || len(sealed) != n+envelope.AttributeOverhead {
			t.Fatalf("%d bytes: sealed %d: %v", n, len(sealed), err)
		}
		if got, err := v.OpenAttribute(objectID, "user.a", sealed); err != nil || !bytes.Equal(got, value) {
			t.Errorf("%d bytes: opened %d: %v", n, len(got), err)
		}
		if again, err := v.SealAttribute(objectID, "user.a", value); err != nil || bytes.Equal(again, sealed) {
			t.Errorf("%d bytes: sealed twice in the same way: %v", n, err)
		}
		if got, err := v.OpenAttribute(otherObjectID, "user.a", sealed); !errors.Is(err, envelope.ErrAuthentication) {
			t.Errorf("%d bytes: opened %x for another object: %v", n, got, err)
		}
		for _, name := range []string{"user.b", "user.", "user.aa", ""} {
			if got, err := v.OpenAttribute(objectID, name, sealed); !errors.Is(err, envelope.ErrAuthentication) {
				t.Errorf("%d bytes: opened %x as %q: %v", n, got, name, err)
			}
		}
		for i := 0; i < len(sealed); i += 1 + i/100 {
			for bit := range 8 {
				sealed[i] ^= 1 << bit
				if got, err := v.OpenAttribute(objectID, "user.a", sealed); !errors.Is(err, envelope.ErrAuthentication) {
					t.Fatalf("%d bytes, bit %d of byte %d: opened %x: %v", n, bit, i, got, err)
				}
				sealed[i] ^= 1 << bit
			}
			if got, err := v.OpenAttribute(objectID, "user.a", sealed[:i]); !isRefused(err) {
				t.Fatalf("%d bytes, cut at %d: opened %x: %v", n, i, got, err)
			}
		}
		if got, err := v.OpenAttribute(objectID, "user.a", append(sealed, 0)); !isRefused(err) {
			t.Errorf("%d bytes and one more: opened %x: %v", n, got, err)
		}
	}
}

func TestAttributeRoundTrip(t *testing.T) {
	v := newVolume(t, false)
	rapid.Check(t, func(t *rapid.T) {
		object := [envelope.IDSize]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "object"))
		name := rapid.StringN(1, -1, 165).Draw(t, "name")
		value := rapid.SliceOf(rapid.Byte()).Draw(t, "value")
		backing, err := v.SealAttributeName(object, name)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := v.OpenAttributeName(object, backing); err != nil || got != name {
			t.Fatalf("opened %q: %v", got, err)
		}
		sealed, err := v.SealAttribute(object, name, value)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := v.OpenAttribute(object, name, sealed); err != nil || !bytes.Equal(got, value) {
			t.Fatalf("opened %x: %v", got, err)
		}
	})
}

// FuzzOpenAttribute opens attributes that nobody sealed: what opens is what was sealed for the seeds.
func FuzzOpenAttribute(f *testing.F) {
	v := newVolume(f, false)
	for _, name := range []string{"user.a", "user." + strings.Repeat("n", 160)} {
		backing, err := v.SealAttributeName(objectID, name)
		if err != nil {
			f.Fatal(err)
		}
		sealed, err := v.SealAttribute(objectID, name, []byte("value"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(name, backing, sealed)
	}
	f.Add("", envelope.AttributePrefix, []byte(nil))
	f.Fuzz(func(t *testing.T, name, backing string, sealed []byte) {
		if got, err := v.OpenAttributeName(objectID, backing); err == nil {
			if again, err := v.SealAttributeName(objectID, got); err != nil || again != backing {
				t.Fatalf("%q opens to %q, written %q: %v", backing, got, again, err)
			}
		} else if !isRefused(err) {
			t.Fatal(err)
		}
		if got, err := v.OpenAttribute(objectID, name, sealed); err == nil {
			if string(got) != "value" {
				t.Fatalf("opens to %q", got)
			}
		} else if !isRefused(err) {
			t.Fatal(err)
		}
	})
}
