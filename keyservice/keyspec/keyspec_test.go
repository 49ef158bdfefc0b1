package keyspec_test

import (
	"bytes"
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"hash"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tink-crypto/tink-go/v2/kwp/subtle"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"kmsfs/keyservice/keyspec"
)

var (
	supported = []string{
		"RSA_2048", "RSA_3072", "RSA_4096", "ECC_NIST_P256", "ECC_NIST_P384", "ECC_NIST_P521", "ECC_SECG_P256K1",
		"SYMMETRIC_DEFAULT", "HMAC_224", "HMAC_256", "HMAC_384", "HMAC_512", "ECC_NIST_EDWARDS25519",
	}
	secretSizes = map[string]int{"SYMMETRIC_DEFAULT": 32, "HMAC_224": 28, "HMAC_256": 32, "HMAC_384": 48, "HMAC_512": 64}
)

// keys are a material of each spec and its public key. RSA keys are Wycheproof's, as making them takes long.
var keys = sync.OnceValue(func() map[string][2][]byte {
	made := map[string][2][]byte{}
	for _, name := range supported {
		s, _ := keyspec.Find(name)
		material, err := []byte(nil), error(nil)
		if strings.HasPrefix(name, "RSA_") {
			material = groups(&testing.B{}, "rsa_oaep_"+name[4:]+"_sha256_mgf1sha256")[0].PrivateKeyPKCS8
		} else if material, err = s.Generate(); err != nil {
			panic(err)
		}
		var spki []byte
		if s.Asymmetric() {
			if spki, err = s.PublicKey(material); err != nil {
				panic(err)
			}
		}
		made[name] = [2][]byte{material, spki}
	}
	return made
})

func material(spec string) []byte  { return slices.Clone(keys()[spec][0]) }
func publicKey(spec string) []byte { return slices.Clone(keys()[spec][1]) }

func expect(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func TestNames(t *testing.T) {
	for _, name := range supported {
		if s, ok := keyspec.Find(name); !ok || s.Name != name || !keyspec.IsKnown(name) {
			t.Errorf("%s: %v, %v", name, s, ok)
		}
	}
	for _, name := range []string{"SM2", "ML_DSA_44", "ML_DSA_65", "ML_DSA_87"} {
		if _, ok := keyspec.Find(name); ok || !keyspec.IsKnown(name) {
			t.Errorf("%s is to be known and not supported", name)
		}
	}
	for _, name := range []string{"", "rsa_2048", "RSA_1024", "AES_256"} {
		if keyspec.IsKnown(name) {
			t.Errorf("%q is known", name)
		}
	}
}

func TestKinds(t *testing.T) {
	for _, name := range supported {
		s := find(t, name)
		kinds := 0
		for _, is := range []bool{s.Symmetric(), s.Asymmetric(), s.MAC()} {
			if is {
				kinds++
			}
		}
		pair := strings.HasPrefix(name, "RSA") || strings.HasPrefix(name, "ECC")
		if kinds != 1 || s.Asymmetric() != pair || s.Symmetric() != (name == "SYMMETRIC_DEFAULT") {
			t.Errorf("%s is of %d kinds", name, kinds)
		}
		for usage, algorithms := range map[string][]string{
			keyspec.EncryptDecrypt: s.EncryptionAlgorithms, keyspec.SignVerify: s.SigningAlgorithms,
			keyspec.GenerateVerifyMAC: s.MacAlgorithms, keyspec.KeyAgreement: s.KeyAgreementAlgorithms,
		} {
			if s.Allows(usage) != (len(algorithms) > 0) {
				t.Errorf("%s: usage %s with the algorithms %q", name, usage, algorithms)
			}
		}
	}
	if find(t, "RSA_2048").Allows("") {
		t.Error("no usage is allowed")
	}
}

// What is generated is taken, and nowhere else; crypto/x509 reads it and writes it in the same way.
func TestGenerate(t *testing.T) {
	t.Parallel()
	for _, name := range supported {
		s := find(t, name)
		if name == "RSA_3072" || name == "RSA_4096" {
			continue // like RSA_2048, but slower
		}
		a, err := s.Generate()
		if err != nil {
			t.Fatal(err)
		}
		if b := material(name); bytes.Equal(a, b) {
			t.Errorf("%s: the same material twice", name)
		}
		if size, ok := secretSizes[name]; ok && len(a) != size {
			t.Errorf("%s: material of %d bytes, want %d", name, len(a), size)
		}
		expect(t, name, s.Check(a), nil)
		if !s.Asymmetric() {
			_, err := s.PublicKey(a)
			expect(t, name, err, keyspec.ErrAlgorithm)
			continue
		}
		spki, err := s.PublicKey(a)
		if err != nil {
			t.Fatal(err)
		}
		if name != "ECC_SECG_P256K1" {
			sameAsX509(t, name, a, spki)
		}
	}
}

func sameAsX509(t *testing.T, name string, material, spki []byte) {
	t.Helper()
	private, err := x509.ParsePKCS8PrivateKey(material)
	if err != nil {
		t.Fatal(err)
	}
	if der, err := x509.MarshalPKCS8PrivateKey(private); err != nil || !bytes.Equal(der, material) {
		t.Errorf("%s: x509 writes %x, %v, and not %x", name, der, err, material)
	}
	der, err := x509.MarshalPKIXPublicKey(private.(crypto.Signer).Public())
	if err != nil || !bytes.Equal(der, spki) {
		t.Errorf("%s: x509 writes %x, %v, and not %x", name, der, err, spki)
	}
}

// A material is only its own spec's, and so is a public key.
func TestOtherSpecs(t *testing.T) {
	t.Parallel()
	for _, name := range supported {
		s := find(t, name)
		for _, other := range supported {
			same := other == name || secretSizes[name] == len(material(other)) // as random bytes go
			want := keyspec.ErrMaterial
			if same {
				want = nil
			}
			expect(t, name+" with material of "+other, s.Check(material(other)), want)
			if s.Asymmetric() && find(t, other).Asymmetric() && !same {
				err := s.Verify(s.SigningAlgorithms[0], "", publicKey(other), []byte("m"), []byte("s"))
				expect(t, name+" with public key of "+other, err, keyspec.ErrPublicKey)
			}
		}
	}
}

func TestSignAndVerify(t *testing.T) {
	t.Parallel()
	for _, name := range supported {
		s := find(t, name)
		for _, algorithm := range s.SigningAlgorithms {
			message, messageType := []byte("message"), keyspec.Raw
			if algorithm == "ED25519_PH_SHA_512" {
				message, messageType = make([]byte, 64), keyspec.Digest
			}
			signature, err := s.Sign(algorithm, messageType, material(name), message)
			if err != nil {
				t.Errorf("%s %s: %v", name, algorithm, err)
				continue
			}
			verify := func(message, signature []byte) error {
				return s.Verify(algorithm, messageType, publicKey(name), message, signature)
			}
			expect(t, algorithm, verify(message, signature), nil)
			other := slices.Clone(message)
			other[0] ^= 1
			expect(t, algorithm, verify(other, signature), keyspec.ErrSignature)
			for _, wrong := range mutations(signature) {
				expect(t, algorithm, verify(message, wrong), keyspec.ErrSignature)
			}
		}
	}
}

// mutations are some bytes a little wrong: cut, longer, and changed.
func mutations(b []byte) [][]byte {
	all := [][]byte{nil, b[:len(b)-1], b[1:], append(slices.Clone(b), 0), append([]byte{0}, b...)}
	for _, i := range []int{0, 1, len(b) / 2, len(b) - 1} {
		wrong := slices.Clone(b)
		wrong[i] ^= 0x40
		all = append(all, wrong)
	}
	return all
}

func TestMessages(t *testing.T) {
	for _, c := range []struct {
		spec, algorithm, messageType string
		size                         int
		want                         error
		text                         string
	}{
		{"ECC_NIST_P256", "ECDSA_SHA_256", keyspec.Digest, 31, keyspec.ErrMessage, "Digest is invalid length for algorithm ECDSA_SHA_256."},
		{"ECC_NIST_P384", "ECDSA_SHA_384", keyspec.Digest, 32, keyspec.ErrMessage, "Digest is invalid length for algorithm ECDSA_SHA_384."},
		{"ECC_NIST_EDWARDS25519", "ED25519_PH_SHA_512", keyspec.Digest, 32, keyspec.ErrMessage, "Digest is invalid length for algorithm ED25519_PH_SHA_512."},
		{"ECC_NIST_EDWARDS25519", "ED25519_PH_SHA_512", keyspec.Raw, 64, keyspec.ErrMessage, "Message type RAW is invalid for algorithm ED25519_PH_SHA_512."},
		{"ECC_NIST_EDWARDS25519", "ED25519_PH_SHA_512", "", 64, keyspec.ErrMessage, "Message type RAW is invalid for algorithm ED25519_PH_SHA_512."},
		{"ECC_NIST_EDWARDS25519", "ED25519_SHA_512", keyspec.Digest, 64, keyspec.ErrMessage, "Message type DIGEST is invalid for algorithm ED25519_SHA_512."},
		{"ECC_NIST_P256", "ECDSA_SHA_256", "EXTERNAL_MU", 64, keyspec.ErrMessage, "Message type EXTERNAL_MU is invalid for algorithm ECDSA_SHA_256."},
		{"ECC_NIST_P256", "ECDSA_SHA_256", "raw", 64, keyspec.ErrUnknown, `unknown message type "raw"`},
		{"ECC_NIST_P256", "ECDSA_SHA_384", keyspec.Raw, 1, keyspec.ErrAlgorithm, "Algorithm ECDSA_SHA_384 is incompatible with key spec ECC_NIST_P256."},
		{"RSA_2048", "SM2DSA", keyspec.Raw, 1, keyspec.ErrAlgorithm, "Algorithm SM2DSA is incompatible with key spec RSA_2048."},
		{"HMAC_256", "ECDSA_SHA_256", keyspec.Raw, 1, keyspec.ErrAlgorithm, "Algorithm ECDSA_SHA_256 is incompatible with key spec HMAC_256."},
		{"RSA_2048", "HMAC_SHA_256", keyspec.Raw, 1, keyspec.ErrUnknown, `unknown algorithm "HMAC_SHA_256"`},
	} {
		s := find(t, c.spec)
		_, err := s.Sign(c.algorithm, c.messageType, material(c.spec), make([]byte, c.size))
		verifyErr := s.Verify(c.algorithm, c.messageType, publicKey(c.spec), make([]byte, c.size), nil)
		for _, err := range []error{err, verifyErr} {
			if expect(t, c.text, err, c.want); err != nil && err.Error() != c.text {
				t.Errorf("got %q, want %q", err, c.text)
			}
		}
	}
}

func TestMACAlgorithms(t *testing.T) {
	_, err := find(t, "HMAC_224").GenerateMAC("HMAC_SHA_256", material("HMAC_224"), nil)
	expect(t, "HMAC_224", err, keyspec.ErrAlgorithm)
	if want := "Algorithm HMAC_SHA_256 is incompatible with key spec HMAC_224."; err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
	_, err = find(t, "HMAC_224").GenerateMAC("HMAC_MD5", material("HMAC_224"), nil)
	expect(t, "HMAC_MD5", err, keyspec.ErrUnknown)
	_, err = find(t, "RSA_2048").GenerateMAC("HMAC_SHA_256", material("RSA_2048"), nil)
	expect(t, "RSA_2048", err, keyspec.ErrAlgorithm)
}

func TestEncryption(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		spec, algorithm string
		limit           int
	}{
		{"RSA_2048", "RSAES_OAEP_SHA_1", 214},
		{"RSA_2048", "RSAES_OAEP_SHA_256", 190},
		{"RSA_3072", "RSAES_OAEP_SHA_1", 342},
		{"RSA_3072", "RSAES_OAEP_SHA_256", 318},
		{"RSA_4096", "RSAES_OAEP_SHA_1", 470},
		{"RSA_4096", "RSAES_OAEP_SHA_256", 446},
	} {
		s := find(t, c.spec)
		if got := s.MaxPlaintext(c.algorithm); got != c.limit {
			t.Errorf("%s %s: limit %d, want %d", c.spec, c.algorithm, got, c.limit)
		}
		plaintext := bytes.Repeat([]byte{7}, c.limit)
		ciphertext, err := s.Encrypt(c.algorithm, publicKey(c.spec), plaintext)
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Decrypt(c.algorithm, material(c.spec), ciphertext)
		if err != nil || !bytes.Equal(got, plaintext) {
			t.Errorf("%s %s: %v", c.spec, c.algorithm, err)
		}
		for _, wrong := range mutations(ciphertext) {
			_, err := s.Decrypt(c.algorithm, material(c.spec), wrong)
			if err != keyspec.ErrDecryption { // and not a word more
				t.Errorf("got %v", err)
			}
		}
		_, err = s.Encrypt(c.algorithm, publicKey(c.spec), append(plaintext, 7))
		expect(t, c.spec, err, keyspec.ErrMessage)
	}
	_, err := find(t, "RSA_2048").Encrypt("RSAES_OAEP_SHA_1", publicKey("RSA_2048"), make([]byte, 215))
	if want := "Algorithm RSAES_OAEP_SHA_1 and key spec RSA_2048 cannot encrypt data larger than 214 bytes."; err == nil || err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
}

func TestEncryptionAlgorithms(t *testing.T) {
	for _, c := range []struct {
		spec, algorithm string
		want            error
	}{
		{"RSA_2048", "SYMMETRIC_DEFAULT", keyspec.ErrAlgorithm},
		{"RSA_2048", "SM2PKE", keyspec.ErrAlgorithm},
		{"RSA_2048", "RSAES_PKCS1_V1_5", keyspec.ErrUnknown},
		{"SYMMETRIC_DEFAULT", "SYMMETRIC_DEFAULT", keyspec.ErrAlgorithm},
		{"ECC_NIST_P256", "RSAES_OAEP_SHA_1", keyspec.ErrAlgorithm},
		{"HMAC_256", "RSAES_OAEP_SHA_1", keyspec.ErrAlgorithm},
	} {
		s := find(t, c.spec)
		_, err := s.Encrypt(c.algorithm, publicKey(c.spec), []byte("m"))
		expect(t, "Encrypt "+c.spec, err, c.want)
		_, err = s.Decrypt(c.algorithm, material(c.spec), []byte("c"))
		expect(t, "Decrypt "+c.spec, err, c.want)
		if limit := s.MaxPlaintext(c.algorithm); limit != 0 && !s.Symmetric() {
			t.Errorf("%s %s: limit %d", c.spec, c.algorithm, limit)
		}
	}
	if got := find(t, "SYMMETRIC_DEFAULT").MaxPlaintext("SYMMETRIC_DEFAULT"); got != 4096 {
		t.Errorf("limit %d, want 4096", got)
	}
}

func TestKeyAgreement(t *testing.T) {
	for _, name := range []string{"ECC_NIST_P256", "ECC_NIST_P384", "ECC_NIST_P521"} {
		s := find(t, name)
		mine, err := s.Generate()
		if err != nil {
			t.Fatal(err)
		}
		spki, err := s.PublicKey(mine)
		if err != nil {
			t.Fatal(err)
		}
		a, err := s.DeriveSharedSecret(mine, publicKey(name))
		expect(t, name, err, nil)
		b, err := s.DeriveSharedSecret(material(name), spki)
		expect(t, name, err, nil)
		if !bytes.Equal(a, b) {
			t.Errorf("%s: the two don't agree: %x, %x", name, a, b)
		}
		for _, other := range []string{"ECC_NIST_P256", "ECC_NIST_P384", "ECC_NIST_P521", "ECC_SECG_P256K1", "RSA_2048", "ECC_NIST_EDWARDS25519"} {
			if other != name {
				_, err := s.DeriveSharedSecret(mine, publicKey(other))
				expect(t, name+" with "+other, err, keyspec.ErrPublicKey)
			}
		}
		_, err = s.DeriveSharedSecret([]byte("mine"), spki)
		expect(t, name, err, keyspec.ErrMaterial)
	}
	for _, name := range []string{"ECC_SECG_P256K1", "ECC_NIST_EDWARDS25519", "RSA_2048", "HMAC_256", "SYMMETRIC_DEFAULT"} {
		_, err := find(t, name).DeriveSharedSecret(material(name), publicKey(name))
		expect(t, name, err, keyspec.ErrAlgorithm)
	}
}

func TestImport(t *testing.T) {
	t.Parallel()
	private, public := wrappingKey()
	secret := bytes.Repeat([]byte{1, 2}, 16)
	oaep := func(h hash.Hash, plaintext []byte) []byte {
		c, err := rsa.EncryptOAEP(h, rand.Reader, public, plaintext, nil)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	// The two-step wrap is how an RSA key comes.
	long := material("RSA_4096")
	kek := bytes.Repeat([]byte{3}, 32)
	kwp, err := subtle.NewKWP(kek)
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := kwp.Wrap(long)
	if err != nil {
		t.Fatal(err)
	}
	for algorithm, c := range map[string]struct{ encrypted, want []byte }{
		"RSAES_OAEP_SHA_1":         {oaep(sha1.New(), secret), secret},
		"RSAES_OAEP_SHA_256":       {oaep(sha256.New(), secret), secret},
		"RSA_AES_KEY_WRAP_SHA_1":   {append(oaep(sha1.New(), kek), wrapped...), long},
		"RSA_AES_KEY_WRAP_SHA_256": {append(oaep(sha256.New(), kek), wrapped...), long},
	} {
		got, err := keyspec.UnwrapImport(algorithm, private, c.encrypted)
		if expect(t, algorithm, err, nil); !bytes.Equal(got, c.want) {
			t.Errorf("%s: another material", algorithm)
		}
		for _, wrong := range append(mutations(c.encrypted), c.encrypted[:min(256, len(c.encrypted)-1)]) {
			if _, err := keyspec.UnwrapImport(algorithm, private, wrong); err != keyspec.ErrDecryption {
				t.Errorf("%s: got %v", algorithm, err)
			}
		}
		_, err = keyspec.UnwrapImport(algorithm, private[1:], c.encrypted)
		expect(t, algorithm, err, keyspec.ErrMaterial)
	}
	_, err = keyspec.UnwrapImport("RSA_AES_KEY_WRAP_SHA_256", private, append(oaep(sha256.New(), kek[1:]), wrapped...))
	expect(t, "AES key of 31 bytes", err, keyspec.ErrDecryption)
	for algorithm, want := range map[string]error{
		"RSAES_PKCS1_V1_5": keyspec.ErrAlgorithm, "SM2PKE": keyspec.ErrAlgorithm, "SYMMETRIC_DEFAULT": keyspec.ErrUnknown, "": keyspec.ErrUnknown,
	} {
		_, err := keyspec.UnwrapImport(algorithm, private, wrapped)
		expect(t, algorithm, err, want)
	}
	for spec, want := range map[string]error{"SM2": keyspec.ErrAlgorithm, "ECC_NIST_P256": keyspec.ErrUnknown, "RSA_1024": keyspec.ErrUnknown} {
		_, _, err := keyspec.GenerateWrappingKey(spec)
		expect(t, spec, err, want)
	}
}

// Cut and lengthened encodings are refused, and changed ones do no harm.
func TestMalformed(t *testing.T) {
	t.Parallel()
	for _, name := range supported {
		s := find(t, name)
		if !s.Asymmetric() {
			expect(t, name, s.Check(nil), keyspec.ErrMaterial)
			expect(t, name, s.Check(material(name)[1:]), keyspec.ErrMaterial)
			expect(t, name, s.Check(append(material(name), 0)), keyspec.ErrMaterial)
			continue
		}
		der, spki := material(name), publicKey(name)
		step := 1 + len(der)/200
		for i := 0; i < len(der); i += step {
			_, err := s.PublicKey(der[:i])
			expect(t, name+" cut", err, keyspec.ErrMaterial)
			changed := slices.Clone(der)
			changed[i] ^= 1 << (i % 8)
			if _, err := s.PublicKey(changed); err != nil {
				expect(t, name+" changed", err, keyspec.ErrMaterial)
			}
		}
		for _, wrong := range [][]byte{append(der, 0), append(der, 5, 0), append([]byte{0}, der...), make([]byte, 8192)} {
			expect(t, name, s.Check(wrong), keyspec.ErrMaterial)
		}
		verify := func(spki []byte) error { return s.Verify(s.SigningAlgorithms[0], "", spki, []byte("m"), []byte("s")) }
		for i := range spki {
			expect(t, name+" public cut", verify(spki[:i]), keyspec.ErrPublicKey)
			changed := slices.Clone(spki)
			changed[i] ^= 1 << (i % 8)
			if err := verify(changed); !errors.Is(err, keyspec.ErrPublicKey) {
				expect(t, name+" public changed", err, keyspec.ErrSignature)
			}
		}
		expect(t, name, verify(append(spki, 0)), keyspec.ErrPublicKey)
	}
}

// The forms in which other programs write private keys.
func TestOtherEncodings(t *testing.T) {
	seed := strings.Repeat("2a", 32)
	scalar := strings.Repeat("00", 31) + "01"
	generator := "0479be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8"
	edwards, err := find(t, "ECC_NIST_EDWARDS25519").PublicKey(unhex(t, edwardsPrivate+seed))
	if err != nil {
		t.Fatal(err)
	}
	point := edwards[len(edwards)-32:]
	v2 := func(point []byte) []byte {
		return slices.Concat(unhex(t, "3051020101300506032b657004220420"+seed+"812100"), point)
	}
	for _, c := range []struct {
		what, spec string
		der        []byte
		want       error
	}{
		{"with an attribute", "ECC_NIST_EDWARDS25519", unhex(t, "3034020100300506032b657004220420"+seed+"a0043002"+"0500"), nil},
		{"RFC 5958, version 2", "ECC_NIST_EDWARDS25519", v2(point), nil},
		{"another public key", "ECC_NIST_EDWARDS25519", v2(make([]byte, 32)), keyspec.ErrMaterial},
		{"version 2 without public key", "ECC_NIST_EDWARDS25519", unhex(t, "302e020101300506032b657004220420"+seed), keyspec.ErrMaterial},
		{"version 3", "ECC_NIST_EDWARDS25519", unhex(t, "302e020102300506032b657004220420"+seed), keyspec.ErrMaterial},
		{"length in two bytes", "ECC_NIST_EDWARDS25519", unhex(t, "30812e020100300506032b657004220420"+seed), keyspec.ErrMaterial},
		// openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:secp256k1 -outform DER, without and with openssl pkcs8 -topk8 -nocrypt
		{"SEC 1 alone", "ECC_SECG_P256K1", unhex(t, "30740201010420c175d0d0dfa3b1242a53716f07287d3a2c24dd0f131b0f5a10a3a3514b52ed47a00706052b8104000aa1440342000450cbc507f0c8f03601ad794d651c259425cf26f5ded528b69b16456f3d09f1d300da9ce0cf7556f1b4f74ada0812f028711d596f8a7c33d7613839f0e0619e9e"), keyspec.ErrMaterial},
		{"OpenSSL", "ECC_SECG_P256K1", unhex(t, "308184020100301006072a8648ce3d020106052b8104000a046d306b0201010420c175d0d0dfa3b1242a53716f07287d3a2c24dd0f131b0f5a10a3a3514b52ed47a1440342000450cbc507f0c8f03601ad794d651c259425cf26f5ded528b69b16456f3d09f1d300da9ce0cf7556f1b4f74ada0812f028711d596f8a7c33d7613839f0e0619e9e"), nil},
		{"without the point", "ECC_SECG_P256K1", unhex(t, koblitzPrivate+scalar), nil},
		{"with the curve", "ECC_SECG_P256K1", unhex(t, "3047020100301006072a8648ce3d020106052b8104000a0430302e0201010420"+scalar+"a00706052b8104000a"), nil},
		{"with another curve", "ECC_SECG_P256K1", unhex(t, "3047020100301006072a8648ce3d020106052b8104000a0430302e0201010420"+scalar+"a00706052b8104000b"), keyspec.ErrMaterial},
		{"with the point", "ECC_SECG_P256K1", unhex(t, "308184020100301006072a8648ce3d020106052b8104000a046d306b0201010420"+scalar+"a144034200"+generator), nil},
		{"with another point", "ECC_SECG_P256K1", unhex(t, "308184020100301006072a8648ce3d020106052b8104000a046d306b0201010420"+scalar[:62]+"02"+"a144034200"+generator), keyspec.ErrMaterial},
		{"scalar zero", "ECC_SECG_P256K1", unhex(t, koblitzPrivate+strings.Repeat("00", 32)), keyspec.ErrMaterial},
		{"scalar too great", "ECC_SECG_P256K1", unhex(t, koblitzPrivate+"fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"), keyspec.ErrMaterial},
		{"scalar too short", "ECC_SECG_P256K1", unhex(t, "303d020100301006072a8648ce3d020106052b8104000a04263024020101041f"+scalar[2:]), keyspec.ErrMaterial},
		{"scalar zero", "ECC_NIST_P256", unhex(t, "3041020100301306072a8648ce3d020106082a8648ce3d030107042730250201010420"+strings.Repeat("00", 32)), keyspec.ErrMaterial},
		{"without the point", "ECC_NIST_P256", unhex(t, "3041020100301306072a8648ce3d020106082a8648ce3d030107042730250201010420"+scalar), nil},
	} {
		expect(t, c.spec+" "+c.what, find(t, c.spec).Check(c.der), c.want)
	}
}

// Points that are no public keys.
func TestPoints(t *testing.T) {
	for name, point := range map[string]string{
		"infinity":     "00",
		"zeros":        "04" + strings.Repeat("00", 64),
		"off curve":    "04" + strings.Repeat("00", 63) + "01",
		"compressed":   "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",
		"hybrid":       "0679be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8",
		"out of field": "04" + strings.Repeat("ff", 64),
		"nothing":      "",
	} {
		for spec, algorithm := range map[string]string{
			"ECC_SECG_P256K1": "301006072a8648ce3d020106052b8104000a", "ECC_NIST_P256": "301306072a8648ce3d020106082a8648ce3d030107",
		} {
			contents := slices.Concat(unhex(t, algorithm), []byte{3, byte(1 + len(point)/2), 0}, unhex(t, point))
			spki := append([]byte{0x30, byte(len(contents))}, contents...)
			expect(t, spec+" "+name, find(t, spec).Verify("ECDSA_SHA_256", "", spki, []byte("m"), []byte("s")), keyspec.ErrPublicKey)
			if spec == "ECC_NIST_P256" {
				_, err := find(t, spec).DeriveSharedSecret(nistMaterial(t, elliptic.P256(), []byte{1}), spki)
				expect(t, spec+" "+name, err, keyspec.ErrPublicKey)
			}
		}
	}
}

func TestRSAKeys(t *testing.T) {
	t.Parallel()
	parsed, err := x509.ParsePKCS8PrivateKey(material("RSA_2048"))
	if err != nil {
		t.Fatal(err)
	}
	key := parsed.(*rsa.PrivateKey)
	s := find(t, "RSA_2048")
	for what, public := range map[string]*rsa.PublicKey{
		"exponent 1":    {N: key.N, E: 1},
		"exponent 3":    {N: key.N, E: 3},
		"even exponent": {N: key.N, E: 1 << 17},
		"even modulus":  {N: new(big.Int).Sub(key.N, big.NewInt(1)), E: key.E},
		"short modulus": {N: new(big.Int).Rsh(key.N, 1), E: key.E},
		"long modulus":  {N: new(big.Int).Lsh(key.N, 1), E: key.E},
	} {
		spki, err := x509.MarshalPKIXPublicKey(public)
		if err != nil {
			t.Fatal(err)
		}
		expect(t, what, s.Verify("RSASSA_PSS_SHA_256", "", spki, []byte("m"), make([]byte, 256)), keyspec.ErrPublicKey)
		_, err = s.Encrypt("RSAES_OAEP_SHA_256", spki, []byte("m"))
		expect(t, what, err, keyspec.ErrPublicKey)
	}
	p, q := key.Primes[0], key.Primes[1]
	expect(t, "the key itself, built", s.Check(rsaMaterial(t, key.E, p, q)), nil)
	small := 17
	for new(big.Int).GCD(nil, nil, big.NewInt(int64(small)), totient(p, q)).Cmp(big.NewInt(1)) != 0 {
		small += 2
	}
	expect(t, "small exponent", s.Check(rsaMaterial(t, small, p, q)), keyspec.ErrMaterial)
	expect(t, "composite factor", s.Check(rsaMaterial(t, key.E, compositeLike(t, p, key.E), q)), keyspec.ErrMaterial)
	expect(t, "more primes", s.Check(groups(t, "rsa_three_primes_oaep_2048_sha1_mgf1sha1")[0].PrivateKeyPKCS8), keyspec.ErrMaterial)
}

// totient is what the private exponent is taken modulo, were all factors prime.
func totient(factors ...*big.Int) *big.Int {
	product := big.NewInt(1)
	for _, f := range factors {
		product.Mul(product, new(big.Int).Sub(f, big.NewInt(1)))
	}
	return product
}

// compositeLike is an odd composite number as long as the prime, for which there is a private exponent.
func compositeLike(t *testing.T, prime *big.Int, e int) *big.Int {
	t.Helper()
	n := new(big.Int).Set(prime)
	for range 1000 {
		n.Sub(n, big.NewInt(2))
		if !n.ProbablyPrime(8) && new(big.Int).ModInverse(big.NewInt(int64(e)), totient(n)) != nil {
			return n
		}
	}
	t.Fatal("no such number")
	return nil
}

// rsaMaterial is a key of two factors, which needn't be prime.
func rsaMaterial(t *testing.T, e int, p, q *big.Int) []byte {
	t.Helper()
	d := new(big.Int).ModInverse(big.NewInt(int64(e)), totient(p, q))
	var key cryptobyte.Builder
	key.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, number := range []*big.Int{
			big.NewInt(0), new(big.Int).Mul(p, q), big.NewInt(int64(e)), d, p, q,
			new(big.Int).Mod(d, totient(p)), new(big.Int).Mod(d, totient(q)), new(big.Int).ModInverse(q, p),
		} {
			b.AddASN1BigInt(number)
		}
	})
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(0)
		b.AddBytes(unhex(t, "300d06092a864886f70d0101010500"))
		b.AddASN1OctetString(key.BytesOrPanic())
	})
	return b.BytesOrPanic()
}

// Whatever is given for a key, there is no panic, only an error of the right kind; and there is one encoding of a public key only.
func FuzzKeys(f *testing.F) {
	for _, name := range supported {
		f.Add(material(name))
		f.Add(publicKey(name))
	}
	f.Add([]byte{})
	signature := make([]byte, 72)
	f.Fuzz(func(t *testing.T, der []byte) {
		for _, name := range supported {
			s := find(t, name)
			if err := s.Check(der); err != nil {
				expect(t, name, err, keyspec.ErrMaterial)
			}
			if !s.Asymmetric() {
				continue
			}
			if spki, err := s.PublicKey(der); err == nil {
				verifyErr := s.Verify(s.SigningAlgorithms[0], "", spki, der, signature)
				expect(t, name, verifyErr, keyspec.ErrSignature)
			} else {
				expect(t, name, err, keyspec.ErrMaterial)
			}
			if err := s.Verify(s.SigningAlgorithms[0], "", der, der, signature); !errors.Is(err, keyspec.ErrPublicKey) {
				expect(t, name, err, keyspec.ErrSignature)
			}
			if s.Allows(keyspec.KeyAgreement) {
				if _, err := s.DeriveSharedSecret(material(name), der); err != nil {
					expect(t, name, err, keyspec.ErrPublicKey)
				}
			}
		}
	})
}

// No signature makes Verify panic.
func FuzzSignatures(f *testing.F) {
	for _, name := range supported {
		for i, algorithm := range find(f, name).SigningAlgorithms {
			if algorithm == "ED25519_PH_SHA_512" {
				continue
			}
			signature, err := find(f, name).Sign(algorithm, "", material(name), []byte("m"))
			if err != nil {
				f.Fatal(err)
			}
			f.Add(i, signature)
		}
	}
	f.Fuzz(func(t *testing.T, i int, signature []byte) {
		for _, name := range supported {
			s := find(t, name)
			if i < 0 || i >= len(s.SigningAlgorithms) || s.SigningAlgorithms[i] == "ED25519_PH_SHA_512" {
				continue
			}
			expect(t, name, s.Verify(s.SigningAlgorithms[i], "", publicKey(name), []byte("another message"), signature), keyspec.ErrSignature)
		}
	})
}
