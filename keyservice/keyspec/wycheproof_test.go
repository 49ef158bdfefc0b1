package keyspec_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"testing"

	"github.com/c2sp/wycheproof"

	"kmsfs/keyservice/keyspec"
)

// hexBytes are bytes as Wycheproof writes them.
type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

// group is one of a Wycheproof file's groups of vectors, with what some kind of them has.
type group struct {
	KeySize         int      `json:"keySize"`
	TagSize         int      `json:"tagSize"`
	SaltSize        int      `json:"sLen"`
	Hash            string   `json:"sha"`
	MaskHash        string   `json:"mgfSha"`
	PublicKey       hexBytes `json:"publicKeyDer"`
	PrivateKeyPKCS8 hexBytes `json:"privateKeyPkcs8"`
	Tests           []vector `json:"tests"`
}

type vector struct {
	ID        int      `json:"tcId"`
	Comment   string   `json:"comment"`
	Message   hexBytes `json:"msg"`
	Signature hexBytes `json:"sig"`
	Encrypted hexBytes `json:"ct"`
	Label     hexBytes `json:"label"`
	Key       hexBytes `json:"key"`
	Tag       hexBytes `json:"tag"`
	Public    hexBytes `json:"public"`
	Private   hexBytes `json:"private"`
	Shared    hexBytes `json:"shared"`
	Result    string   `json:"result"`
}

func (v vector) valid() bool { return v.Result == "valid" }

// groups reads a Wycheproof file.
func groups(t testing.TB, name string) []group {
	t.Helper()
	text, err := fs.ReadFile(wycheproof.TestVectors, name+"_test.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		TestGroups []group `json:"testGroups"`
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.TestGroups) == 0 {
		t.Fatalf("%s has no vectors", name)
	}
	return file.TestGroups
}

func find(t testing.TB, name string) *keyspec.Spec {
	t.Helper()
	s, ok := keyspec.Find(name)
	if !ok {
		t.Fatalf("no spec %s", name)
	}
	return s
}

// wantError is nil for a valid vector, and the given error for another.
func (v vector) wantError(err error) error {
	if v.valid() {
		return nil
	}
	return err
}

func (v vector) expect(t *testing.T, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("vector %d (%s, %s): got %v, want %v", v.ID, v.Comment, v.Result, got, want)
	}
}

func TestWycheproofSignatures(t *testing.T) {
	files := []struct{ file, spec, algorithm string }{
		{"ecdsa_secp256r1_sha256", "ECC_NIST_P256", "ECDSA_SHA_256"},
		{"ecdsa_secp384r1_sha384", "ECC_NIST_P384", "ECDSA_SHA_384"},
		{"ecdsa_secp521r1_sha512", "ECC_NIST_P521", "ECDSA_SHA_512"},
		{"ecdsa_secp256k1_sha256", "ECC_SECG_P256K1", "ECDSA_SHA_256"},
		{"ed25519", "ECC_NIST_EDWARDS25519", "ED25519_SHA_512"},
		{"rsa_pss_2048_sha256_mgf1_32", "RSA_2048", "RSASSA_PSS_SHA_256"},
		{"rsa_pss_2048_sha384_mgf1_48", "RSA_2048", "RSASSA_PSS_SHA_384"},
		{"rsa_pss_3072_sha256_mgf1_32", "RSA_3072", "RSASSA_PSS_SHA_256"},
		{"rsa_pss_4096_sha384_mgf1_48", "RSA_4096", "RSASSA_PSS_SHA_384"},
		{"rsa_pss_4096_sha512_mgf1_64", "RSA_4096", "RSASSA_PSS_SHA_512"},
		{"rsa_signature_2048_sha256", "RSA_2048", "RSASSA_PKCS1_V1_5_SHA_256"},
		{"rsa_signature_2048_sha384", "RSA_2048", "RSASSA_PKCS1_V1_5_SHA_384"},
		{"rsa_signature_2048_sha512", "RSA_2048", "RSASSA_PKCS1_V1_5_SHA_512"},
		{"rsa_signature_3072_sha384", "RSA_3072", "RSASSA_PKCS1_V1_5_SHA_384"},
		{"rsa_signature_4096_sha512", "RSA_4096", "RSASSA_PKCS1_V1_5_SHA_512"},
	}
	for _, f := range files {
		t.Run(f.file, func(t *testing.T) {
			t.Parallel()
			spec := find(t, f.spec)
			for _, g := range groups(t, f.file) {
				for _, v := range g.Tests {
					want := v.wantError(keyspec.ErrSignature)
					if smallExponent(g.PublicKey) {
						want = keyspec.ErrPublicKey
					}
					v.expect(t, spec.Verify(f.algorithm, keyspec.Raw, g.PublicKey, v.Message, v.Signature), want)
				}
			}
		})
	}
}

// smallExponent says whether a public key is an RSA key with a public exponent of 3, as a few vectors have it.
func smallExponent(spki []byte) bool { return bytes.HasSuffix(spki, []byte{2, 1, 3}) }

// Signatures with another salt or another hash in MGF1 are none of AWS's.
func TestWycheproofPSSParameters(t *testing.T) {
	t.Parallel()
	sizes := map[string]int{"SHA-256": 32, "SHA-384": 48, "SHA-512": 64}
	valid := 0
	for _, g := range groups(t, "rsa_pss_misc") {
		size, ok := sizes[g.Hash]
		if !ok || g.KeySize != 2048 {
			continue
		}
		want := keyspec.ErrSignature
		if g.MaskHash == g.Hash && g.SaltSize == size {
			want = nil
			valid++
		}
		for _, v := range g.Tests {
			v.expect(t, find(t, "RSA_2048").Verify("RSASSA_PSS_SHA_"+g.Hash[4:], "", g.PublicKey, v.Message, v.Signature), want)
		}
	}
	if valid != len(sizes) {
		t.Errorf("%d groups were valid, want %d", valid, len(sizes))
	}
}

// PKCS #1 v1.5 signatures are deterministic, so Sign makes just these.
func TestWycheproofSign(t *testing.T) {
	t.Parallel()
	signed := 0
	for _, size := range []int{2048, 3072, 4096} {
		spec := find(t, fmt.Sprintf("RSA_%d", size))
		for _, g := range groups(t, fmt.Sprintf("rsa_pkcs1_%d_sig_gen", size)) {
			if g.Hash != "SHA-256" && g.Hash != "SHA-384" && g.Hash != "SHA-512" {
				continue
			}
			for _, v := range g.Tests {
				got, err := spec.Sign("RSASSA_PKCS1_V1_5_SHA_"+g.Hash[4:], keyspec.Raw, g.PrivateKeyPKCS8, v.Message)
				v.expect(t, err, v.wantError(keyspec.ErrMaterial)) // others have a public exponent of 3
				if v.valid() {
					signed++
					if !bytes.Equal(got, v.Signature) {
						t.Errorf("vector %d: another signature", v.ID)
					}
				}
			}
		}
	}
	if signed < 50 {
		t.Errorf("only %d messages were signed", signed)
	}
}

func TestWycheproofOAEP(t *testing.T) {
	algorithms := map[string]string{"SHA-1": "RSAES_OAEP_SHA_1", "SHA-256": "RSAES_OAEP_SHA_256"}
	files := []string{
		"rsa_oaep_2048_sha1_mgf1sha1", "rsa_oaep_2048_sha256_mgf1sha256", "rsa_oaep_3072_sha256_mgf1sha256", "rsa_oaep_4096_sha256_mgf1sha256",
		"rsa_oaep_2048_sha256_mgf1sha1", "rsa_oaep_misc",
	}
	for _, file := range files {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			valid := 0
			for _, g := range groups(t, file) {
				spec, ok := keyspec.Find(fmt.Sprintf("RSA_%d", g.KeySize))
				if !ok || algorithms[g.Hash] == "" {
					continue
				}
				for _, v := range g.Tests {
					want := v.wantError(keyspec.ErrDecryption)
					if g.MaskHash != g.Hash || len(v.Label) > 0 { // which AWS has not
						want = keyspec.ErrDecryption
					}
					got, err := spec.Decrypt(algorithms[g.Hash], g.PrivateKeyPKCS8, v.Encrypted)
					v.expect(t, err, want)
					if want == nil {
						valid++
						if !bytes.Equal(got, v.Message) {
							t.Errorf("vector %d: another plaintext", v.ID)
						}
					}
				}
			}
			if valid == 0 && file != "rsa_oaep_2048_sha256_mgf1sha1" {
				t.Error("no vector was valid")
			}
		})
	}
}

func TestWycheproofECDH(t *testing.T) {
	for file, curve := range map[string]struct {
		spec string
		elliptic.Curve
	}{
		"ecdh_secp256r1": {"ECC_NIST_P256", elliptic.P256()},
		"ecdh_secp384r1": {"ECC_NIST_P384", elliptic.P384()},
		"ecdh_secp521r1": {"ECC_NIST_P521", elliptic.P521()},
	} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			spec := find(t, curve.spec)
			for _, g := range groups(t, file) {
				for _, v := range g.Tests {
					got, err := spec.DeriveSharedSecret(nistMaterial(t, curve.Curve, v.Private), v.Public)
					// What is "acceptable" to Wycheproof, such as compressed points and explicit curves, is not here.
					if v.expect(t, err, v.wantError(keyspec.ErrPublicKey)); v.valid() && !bytes.Equal(got, v.Shared) {
						t.Errorf("vector %d: got %x, want %x", v.ID, got, v.Shared)
					}
				}
			}
		})
	}
}

// nistMaterial is a scalar, with any number of zeros before it, as material.
func nistMaterial(t testing.TB, curve elliptic.Curve, scalar []byte) []byte {
	t.Helper()
	padded := make([]byte, (curve.Params().BitSize+7)/8)
	scalar = bytes.TrimLeft(scalar, "\x00")
	copy(padded[len(padded)-len(scalar):], scalar)
	key, err := ecdsa.ParseRawPrivateKey(curve, padded)
	if err != nil {
		t.Fatal(err)
	}
	material, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return material
}

func TestWycheproofMAC(t *testing.T) {
	for _, size := range []string{"224", "256", "384", "512"} {
		t.Run(size, func(t *testing.T) {
			spec, algorithm := find(t, "HMAC_"+size), "HMAC_SHA_"+size
			for _, g := range groups(t, "hmac_sha"+size) {
				for _, v := range g.Tests {
					want := v.wantError(keyspec.ErrMAC)
					switch bits := fmt.Sprint(g.KeySize); {
					case bits != size:
						want = keyspec.ErrMaterial
					case fmt.Sprint(g.TagSize) != size:
						want = keyspec.ErrMAC
					}
					v.expect(t, spec.VerifyMAC(algorithm, v.Key, v.Message, v.Tag), want)
				}
			}
		})
	}
}

// wrappingKey is a wrapping key, made once, as that takes long.
var wrappingKey = sync.OnceValues(func() (private []byte, public *rsa.PublicKey) {
	private, spki, err := keyspec.GenerateWrappingKey("RSA_2048")
	if err != nil {
		panic(err)
	}
	key, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		panic(err)
	}
	return private, key.(*rsa.PublicKey)
})

func TestWycheproofKeyWrap(t *testing.T) {
	t.Parallel()
	private, public := wrappingKey()
	unwrapped := 0
	for _, g := range groups(t, "aes_kwp") {
		for _, v := range g.Tests {
			kek, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, public, v.Key, nil)
			if err != nil {
				t.Fatal(err)
			}
			want := v.wantError(keyspec.ErrDecryption)
			if g.KeySize == 192 || len(v.Encrypted) < 24 { // which the library doesn't unwrap, and no material needs
				want = keyspec.ErrDecryption
			}
			got, err := keyspec.UnwrapImport("RSA_AES_KEY_WRAP_SHA_256", private, append(kek, v.Encrypted...))
			v.expect(t, err, want)
			if want == nil {
				unwrapped++
				if !bytes.Equal(got, v.Message) {
					t.Errorf("vector %d: got %x, want %x", v.ID, got, v.Message)
				}
			}
		}
	}
	if unwrapped < 20 {
		t.Errorf("only %d keys were unwrapped", unwrapped)
	}
}
