package envelope_test

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"kmsfs/envelope"
)

// metadataSIV is SIV under a key that is derived from newVolume's metadata key.
func metadataSIV(t fatalf, label string) siv {
	t.Helper()
	key, err := deriveKey(newKey(7), volumeID[:], label, 64)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return newSIV(t, key)
}

func nameSIV(t fatalf) siv { return metadataSIV(t, "kmsfs/1 name") }

func TestTarget(t *testing.T) {
	v := newVolume(t, false)
	for _, n := range []int{1, 2, 3, 4, 100, 255, 3038, 3039} {
		target := strings.Repeat("t", n)
		sealed, err := v.SealTarget(target)
		if err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		if want := (32+n)*4/3 + min((32+n)%3, 1); len(sealed) != want || len(sealed) > 4095 {
			t.Errorf("%d bytes: sealed %d, want %d", n, len(sealed), want)
		}
		if got := envelope.TargetSize(int64(len(sealed))); got != int64(n) {
			t.Errorf("%d bytes: size %d", n, got)
		}
		if got, err := v.OpenTarget(sealed); err != nil || got != target {
			t.Errorf("%d bytes: opened %q: %v", n, got, err)
		}
		if again, err := v.SealTarget(target); err != nil || again == sealed {
			t.Errorf("%d bytes: sealed twice in the same way: %v", n, err)
		}
	}
	for target, want := range map[string]error{
		"": envelope.ErrFormat, "\x00": envelope.ErrFormat, "a\x00b": envelope.ErrFormat, strings.Repeat("t", 3040): envelope.ErrTooLong,
	} {
		if _, err := v.SealTarget(target); !errors.Is(err, want) {
			t.Errorf("%d bytes: %v", len(target), err)
		}
	}
	for _, n := range []int64{-1 << 63, -4, -3, -1, 0, 1, 22, 42, 43, 45, 49, 4096, 4097, 1<<63 - 1} {
		if got := envelope.TargetSize(n); got != 0 {
			t.Errorf("sealed %d bytes: size %d", n, got)
		}
	}
}

func TestTargetTampered(t *testing.T) {
	v := newVolume(t, false)
	refused := func(what, sealed string) {
		t.Helper()
		if target, err := v.OpenTarget(sealed); !isRefused(err) {
			t.Errorf("%s: opened %q: %v", what, target, err)
		}
	}
	for _, target := range []string{"t", "a/b", "../../some/where/else", strings.Repeat("t", 255)} {
		sealed, err := v.SealTarget(target)
		if err != nil {
			t.Fatal(err)
		}
		for i := range sealed {
			for bit := range 8 {
				b := []byte(sealed)
				b[i] ^= 1 << bit
				refused("bit", string(b))
			}
			refused("cut", sealed[:i])
			refused("line feed", sealed[:i]+"\n"+sealed[i:])
		}
		for _, tail := range []string{"\n", "=", "==", "A", "AA", "AAAA"} {
			refused("tail", sealed+tail)
		}
	}
	refused("much too long", strings.Repeat("A", 1<<20))
	s := metadataSIV(t, "kmsfs/1 symlink")
	for _, target := range []string{"", "a\x00b"} { // sealed, but no targets
		nonce := pattern(1, 16)
		refused("no target", base64.RawURLEncoding.EncodeToString(append(nonce, s.seal([]byte(target), nonce)...)))
	}
	nonce := pattern(1, 16)
	sealed := append(nonce, s.seal([]byte("t"), nonce)...)
	if target, err := v.OpenTarget(base64.RawURLEncoding.EncodeToString(sealed)); err != nil || target != "t" {
		t.Errorf("opened %q: %v", target, err)
	}
	if sealed[0] = 0xfb; strings.ContainsAny(base64.RawStdEncoding.EncodeToString(sealed), "+/") {
		refused("another base64", base64.RawStdEncoding.EncodeToString(sealed))
	}
}

func TestTargetRoundTrip(t *testing.T) {
	v := newVolume(t, false)
	rapid.Check(t, func(t *rapid.T) {
		target := strings.ReplaceAll(rapid.StringN(1, -1, 3039).Draw(t, "target"), "\x00", "0")
		sealed, err := v.SealTarget(target)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := v.OpenTarget(sealed); err != nil || got != target || envelope.TargetSize(int64(len(sealed))) != int64(len(target)) {
			t.Fatalf("opened %q: %v", got, err)
		}
	})
}

// FuzzOpenTarget opens targets that nobody sealed, and such as are sealed but may be no targets.
func FuzzOpenTarget(f *testing.F) {
	v := newVolume(f, false)
	for _, target := range []string{"t", "../a", strings.Repeat("t", 3039)} {
		sealed, err := v.SealTarget(target)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(sealed)
		f.Add(target)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if target, err := v.OpenTarget(s); err == nil {
			again, err := v.SealTarget(target)
			if err != nil || len(again) != len(s) {
				t.Fatalf("%q opens to %q: %v", s, target, err)
			}
		} else if !isRefused(err) {
			t.Fatal(err)
		}
		sealed, err := v.SealTarget(s)
		if err != nil {
			return
		}
		if target, err := v.OpenTarget(sealed); err != nil || target != s {
			t.Fatalf("%q opens to %q: %v", s, target, err)
		}
	})
}
