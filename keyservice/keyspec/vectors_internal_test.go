package keyspec

import (
	"crypto/ed25519"
	"crypto/sha512"
	"encoding/hex"
	"testing"
)

// RFC 8032's vector (section 7.3) is of a message of three bytes, which can't be a digest, so it is for what is behind Verify and Sign.
func TestEd25519ph(t *testing.T) {
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	key := ed25519.NewKeyFromSeed(unhex("833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42"))
	want := "98a70222f0b8121aa9d30f813d683f809e462b469c7ff87639499bb94e6dae4131f85042463c2a355a2003d062adf5aaa10b8c61e636062aaad11c2a26083406"
	c := schemes["ED25519_PH_SHA_512"]
	hash := sha512.Sum512([]byte("abc"))
	got, err := key.Sign(nil, hash[:], c.options)
	if err != nil || hex.EncodeToString(got) != want {
		t.Errorf("got %x, %v", got, err)
	}
	if !c.verifies(key.Public(), hash[:], unhex(want)) {
		t.Error("not verified")
	}
}
