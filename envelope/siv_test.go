package envelope_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"testing"

	"pgregory.net/rapid"

	tink "github.com/tink-crypto/tink-go/v2/daead/subtle"
)

// siv is RFC 5297 from its text, slow and simple: what the library's SIV is compared with.
type siv struct {
	mac, ctr cipher.Block
}

func newSIV(t fatalf, key []byte) siv {
	t.Helper()
	mac, err := aes.NewCipher(key[:len(key)/2])
	if err != nil {
		t.Fatalf("%v", err)
	}
	ctr, err := aes.NewCipher(key[len(key)/2:])
	if err != nil {
		t.Fatalf("%v", err)
	}
	return siv{mac, ctr}
}

func xor(a, b []byte) []byte {
	x := make([]byte, len(a))
	subtle.XORBytes(x, a, b)
	return x
}

// dbl multiplies by x in GF(2^128), section 2.3.
func dbl(b []byte) []byte {
	d := make([]byte, 16)
	for i := range d {
		d[i] = b[i] << 1
		if i < 15 {
			d[i] |= b[i+1] >> 7
		}
	}
	if b[0]>>7 == 1 {
		d[15] ^= 0x87
	}
	return d
}

// pad appends a one bit and zeros, to 16 bytes.
func pad(b []byte) []byte {
	p := make([]byte, 16)
	copy(p, b)
	p[len(b)] = 0x80
	return p
}

func (s siv) encrypt(b []byte) []byte {
	c := make([]byte, 16)
	s.mac.Encrypt(c, b)
	return c
}

// subkey is K1 of CMAC, RFC 4493.
func (s siv) subkey() []byte { return dbl(s.encrypt(make([]byte, 16))) }

func (s siv) cmac(m []byte) []byte {
	x := make([]byte, 16)
	for len(m) > 16 {
		x, m = s.encrypt(xor(x, m[:16])), m[16:]
	}
	if len(m) == 16 {
		return s.encrypt(xor(x, xor(m, s.subkey())))
	}
	return s.encrypt(xor(x, xor(pad(m), dbl(s.subkey()))))
}

// headers is S2V's state before the plaintext, section 2.4.
func (s siv) headers(associated ...[]byte) []byte {
	d := s.cmac(make([]byte, 16))
	for _, a := range associated {
		d = xor(dbl(d), s.cmac(a))
	}
	return d
}

func (s siv) seal(plaintext []byte, associated ...[]byte) []byte {
	d := s.headers(associated...)
	var v []byte
	if n := len(plaintext); n >= 16 {
		v = s.cmac(append(bytes.Clone(plaintext[:n-16]), xor(plaintext[n-16:], d)...))
	} else {
		v = s.cmac(xor(dbl(d), pad(plaintext)))
	}
	counter := bytes.Clone(v)
	counter[8] &= 0x7f
	counter[12] &= 0x7f
	sealed := make([]byte, len(plaintext))
	cipher.NewCTR(s.ctr, counter).XORKeyStream(sealed, plaintext)
	return append(v, sealed...)
}

// TestSIVItself holds the comparison against RFC 5297, appendix A. Its keys are of 32 bytes, which the library does not take.
func TestSIVItself(t *testing.T) {
	for _, c := range []struct {
		key, plaintext, sealed string
		associated             []string
	}{
		{
			"fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff",
			"112233445566778899aabbccddee",
			"85632d07c6e8f37f950acd320a2ecc9340c02b9690c4dc04daef7f6afe5c",
			[]string{"101112131415161718191a1b1c1d1e1f2021222324252627"},
		},
		{
			"7f7e7d7c7b7a79787776757473727170404142434445464748494a4b4c4d4e4f",
			"7468697320697320736f6d6520706c61696e7465787420746f20656e6372797074207573696e67205349562d414553",
			"7bdb6e3b432667eb06f4d14bff2fbd0fcb900f2fddbe404326601965c889bf17dba77ceb094fa663b7a3f748ba8af829ea64ad544a272e9c485b62a3fd5c0d",
			[]string{
				"00112233445566778899aabbccddeeffdeaddadadeaddadaffeeddccbbaa99887766554433221100",
				"102030405060708090a0", "09f911029d74e35bd84156c5635688c0",
			},
		},
	} {
		var associated [][]byte
		for _, a := range c.associated {
			associated = append(associated, unhex(t, a))
		}
		if got := newSIV(t, unhex(t, c.key)).seal(unhex(t, c.plaintext), associated...); hex.EncodeToString(got) != c.sealed {
			t.Errorf("%x, want %s", got, c.sealed)
		}
	}
}

// TestSIV compares the library with RFC 5297, for keys of 64 bytes and one string of associated data, possibly empty.
func TestSIV(t *testing.T) {
	check := func(t fatalf, key, plaintext, associated []byte) []byte {
		t.Helper()
		library, err := tink.NewAESSIV(bytes.Clone(key))
		if err != nil {
			t.Fatalf("%v", err)
		}
		want := newSIV(t, key).seal(plaintext, associated)
		if got, err := library.EncryptDeterministically(plaintext, associated); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("sealed %x, want %x: %v", got, want, err)
		}
		if got, err := library.DecryptDeterministically(want, associated); err != nil || !bytes.Equal(got, plaintext) {
			t.Fatalf("opened %x, want %x: %v", got, plaintext, err)
		}
		for bit := range 8 * len(want) {
			want[bit/8] ^= 1 << (bit % 8)
			if _, err := library.DecryptDeterministically(want, associated); err == nil {
				t.Fatalf("bit %d is not noticed", bit)
			}
			want[bit/8] ^= 1 << (bit % 8)
		}
		return want
	}
	key := pattern(1, 64)
	for n := range 70 {
		check(t, key, pattern(2, n), pattern(3, 69-n))
	}
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string, from, to int) []byte { return rapid.SliceOfN(rapid.Byte(), from, to).Draw(t, name) }
		check(t, draw("key", 64, 64), draw("plaintext", 0, 100), draw("associated", 0, 50))
	})

	// Synthetic IVs whose counters overflow, if the bits that section 2.5 clears stay. A plaintext of two blocks that has such
	// an IV is found by computing backwards.
	s := newSIV(t, key)
	for _, iv := range []string{
		"00000000000000000000000000000000", "ffffffffffffffffffffffffffffffff", "ffffffffffffffffffffffff7fffffff",
		"ffffffffffffffff7fffffffffffffff", "ffffffffffffffff7fffffff7fffffff", "7fffffffffffffff7fffffffffffffff",
	} {
		first, last := pattern(4, 16), make([]byte, 16)
		s.mac.Decrypt(last, unhex(t, iv))
		last = xor(xor(xor(last, s.subkey()), s.encrypt(first)), s.headers([]byte("x")))
		if sealed := check(t, key, append(first, last...), []byte("x")); hex.EncodeToString(sealed[:16]) != iv {
			t.Errorf("IV %x, want %s", sealed[:16], iv)
		}
	}
}

func deriveKey(secret, salt []byte, label string, n int) ([]byte, error) {
	return hkdf.Key(sha256.New, secret, salt, label, n)
}
