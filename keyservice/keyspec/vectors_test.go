package keyspec_test

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"kmsfs/keyservice/keyspec"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The parts of PKCS #8 and SubjectPublicKeyInfo around a key on secp256k1 or an Ed25519 key, without the public key in the first.
const (
	koblitzPrivate = "303e020100301006072a8648ce3d020106052b8104000a042730250201010420"
	koblitzPublic  = "3056301006072a8648ce3d020106052b8104000a034200"
	edwardsPrivate = "302e020100300506032b657004220420"
	edwardsPublic  = "302a300506032b6570032100"
)

// signature is an ECDSA signature from its two numbers.
func signature(t testing.TB, r, s string) []byte {
	t.Helper()
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, number := range []string{r, s} {
			b.AddASN1(asn1.INTEGER, func(b *cryptobyte.Builder) {
				n := bytes.TrimLeft(unhex(t, number), "\x00")
				if n[0] >= 0x80 {
					b.AddUint8(0)
				}
				b.AddBytes(n)
			})
		}
	})
	return b.BytesOrPanic()
}

// RFC 6979, appendix A.2, for the message "sample": the key pair and its signature.
func TestECDSAVectors(t *testing.T) {
	for spec, v := range map[string]struct {
		curve              elliptic.Curve
		algorithm, d, r, s string
	}{
		"ECC_NIST_P256": {
			elliptic.P256(), "ECDSA_SHA_256",
			"c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721",
			"efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716",
			"f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8",
		},
		"ECC_NIST_P384": {
			elliptic.P384(), "ECDSA_SHA_384",
			"6b9d3dad2e1b8c1c05b19875b6659f4de23c3b667bf297ba9aa47740787137d896d5724e4c70a825f872c9ea60d2edf5",
			"94edbb92a5ecb8aad4736e56c691916b3f88140666ce9fa73d64c4ea95ad133c81a648152e44acf96e36dd1e80fabe46",
			"99ef4aeb15f178cea1fe40db2603138f130e740a19624526203b6351d0a3a94fa329c145786e679e7b82c71a38628ac8",
		},
		"ECC_NIST_P521": {
			elliptic.P521(), "ECDSA_SHA_512",
			"00fad06daa62ba3b25d2fb40133da757205de67f5bb0018fee8c86e1b68c7e75caa896eb32f1f47c70855836a6d16fcc1466f6d8fbec67db89ec0c08b0e996b83538",
			"00c328fafcbd79dd77850370c46325d987cb525569fb63c5d3bc53950e6d4c5f174e25a1ee9017b5d450606add152b534931d7d4e8455cc91f9b15bf05ec36e377fa",
			"00617cce7cf5064806c467f678d3b4080d6f1cc50af26ca209417308281b68af282623eaa63e5b5c0723d8b8c37ff0777b1a20f8ccb1dccc43997f1ee0e44da4a67a",
		},
	} {
		s := find(t, spec)
		spki, err := s.PublicKey(nistMaterial(t, v.curve, unhex(t, v.d)))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Verify(v.algorithm, keyspec.Raw, spki, []byte("sample"), signature(t, v.r, v.s)); err != nil {
			t.Errorf("%s: %v", spec, err)
		}
	}
}

// The signature of "Satoshi Nakamoto" under the key 1 that is in many libraries' tests of RFC 6979 with secp256k1.
func TestKoblitzVector(t *testing.T) {
	const (
		r     = "934b1ea10a4b3c1757e2b0c017d0b6143ce3c9a7e6a4a49860d7a6ab210ee3d8"
		low   = "2442ce9d2b916064108014783e923ec36b49743e2ffa1c4496f01a512aafd9e5"
		high  = "dbbd3162d46e9f9bef7feb87c16dc13b4f6568a87f4e83f728e2443ba586675c"
		point = "0479be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8"
	)
	s := find(t, "ECC_SECG_P256K1")
	material := unhex(t, koblitzPrivate+strings.Repeat("00", 31)+"01")
	spki, err := s.PublicKey(material)
	if want := koblitzPublic + point; err != nil || hex.EncodeToString(spki) != want {
		t.Fatalf("public key %x, %v; want %s", spki, err, want)
	}
	message := []byte("Satoshi Nakamoto")
	got, err := s.Sign("ECDSA_SHA_256", keyspec.Raw, material, message)
	if want := signature(t, r, low); err != nil || !bytes.Equal(got, want) {
		t.Errorf("signature %x, %v; want %x", got, err, want)
	}
	for _, half := range []string{low, high} {
		if err := s.Verify("ECDSA_SHA_256", keyspec.Raw, spki, message, signature(t, r, half)); err != nil {
			t.Errorf("%s: %v", half, err)
		}
	}
}

// RFC 8032, section 7.1.
func TestEd25519Vectors(t *testing.T) {
	s := find(t, "ECC_NIST_EDWARDS25519")
	for _, v := range []struct{ seed, point, message, signature string }{
		{
			"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
			"d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
			"e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
		},
		{
			"833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
			"ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
			"ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
			"dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
		},
	} {
		material := unhex(t, edwardsPrivate+v.seed)
		spki, err := s.PublicKey(material)
		if err != nil || !strings.HasPrefix(hex.EncodeToString(spki), edwardsPublic+v.point) {
			t.Errorf("public key %x, %v; want %s", spki, err, v.point)
		}
		got, err := s.Sign("ED25519_SHA_512", "", material, unhex(t, v.message))
		if err != nil || hex.EncodeToString(got) != v.signature {
			t.Errorf("signature %x, %v; want %s", got, err, v.signature)
		}
	}
}

// AWS hashes the digest once more, so the signature is that of Ed25519ph for the digest as the message.
func TestEd25519phHashesTheDigest(t *testing.T) {
	s := find(t, "ECC_NIST_EDWARDS25519")
	material, err := s.Generate()
	if err != nil {
		t.Fatal(err)
	}
	spki, err := s.PublicKey(material)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha512.Sum512([]byte("message"))
	got, err := s.Sign("ED25519_PH_SHA_512", keyspec.Digest, material, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	point := ed25519.PublicKey(spki[len(spki)-ed25519.PublicKeySize:])
	options := &ed25519.Options{Hash: crypto.SHA512}
	twice := sha512.Sum512(digest[:])
	if err := ed25519.VerifyWithOptions(point, twice[:], got, options); err != nil {
		t.Error(err)
	}
	if ed25519.VerifyWithOptions(point, digest[:], got, options) == nil {
		t.Error("the digest was hashed once only")
	}
	if err := s.Verify("ED25519_PH_SHA_512", keyspec.Digest, spki, digest[:], got); err != nil {
		t.Error(err)
	}
	if err := s.Verify("ED25519_SHA_512", keyspec.Raw, spki, digest[:], got); !errors.Is(err, keyspec.ErrSignature) {
		t.Errorf("taken for one of Ed25519: %v", err)
	}
}

// RFC 4231, section 4.2. To HMAC the zeros that make its key as long as ours are no difference.
func TestMACVectors(t *testing.T) {
	sizes := map[string]int{"224": 28, "256": 32, "384": 48, "512": 64}
	for size, want := range map[string]string{
		"224": "896fb1128abbdf196832107cd49df33f47b4b1169912ba4f53684b22",
		"256": "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
		"384": "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59cfaea9ea9076ede7f4af152e8b2fa9cb6",
		"512": "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cdedaa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854",
	} {
		s, algorithm := find(t, "HMAC_"+size), "HMAC_SHA_"+size
		key := append(bytes.Repeat([]byte{0x0b}, 20), make([]byte, sizes[size]-20)...)
		got, err := s.GenerateMAC(algorithm, key, []byte("Hi There"))
		if err != nil || hex.EncodeToString(got) != want {
			t.Errorf("%s: got %x, %v; want %s", size, got, err, want)
		}
		if err := s.VerifyMAC(algorithm, key, []byte("Hi There"), got); err != nil {
			t.Error(err)
		}
		for _, wrong := range [][]byte{nil, got[1:], append(slices.Clone(got), 0), append([]byte{got[0] ^ 1}, got[1:]...)} {
			if err := s.VerifyMAC(algorithm, key, []byte("Hi There"), wrong); !errors.Is(err, keyspec.ErrMAC) {
				t.Errorf("%x: %v", wrong, err)
			}
		}
	}
}

// NIST's CAVS 14.1, ECC CDH primitive (SP 800-56A): the first vector of each curve.
func TestECDHVectors(t *testing.T) {
	for spec, v := range map[string]struct {
		curve                elliptic.Curve
		prefix, d, x, y, key string
	}{
		"ECC_NIST_P256": {
			elliptic.P256(), "3059301306072a8648ce3d020106082a8648ce3d03010703420004",
			"7d7dc5f71eb29ddaf80d6214632eeae03d9058af1fb6d22ed80badb62bc1a534",
			"700c48f77f56584c5cc632ca65640db91b6bacce3a4df6b42ce7cc838833d287",
			"db71e509e3fd9b060ddb20ba5c51dcc5948d46fbf640dfe0441782cab85fa4ac",
			"46fc62106420ff012e54a434fbdd2d25ccc5852060561e68040dd7778997bd7b",
		},
		"ECC_NIST_P384": {
			elliptic.P384(), "3076301006072a8648ce3d020106052b8104002203620004",
			"3cc3122a68f0d95027ad38c067916ba0eb8c38894d22e1b15618b6818a661774ad463b205da88cf699ab4d43c9cf98a1",
			"a7c76b970c3b5fe8b05d2838ae04ab47697b9eaf52e764592efda27fe7513272734466b400091adbf2d68c58e0c50066",
			"ac68f19f2e1cb879aed43a9969b91a0839c4c38a49749b661efedf243451915ed0905a32b060992b468c64766fc8437a",
			"5f9d29dc5e31a163060356213669c8ce132e22f57c9a04f40ba7fcead493b457e5621e766c40a2e3d4d6a04b25e533f1",
		},
		"ECC_NIST_P521": {
			elliptic.P521(), "30819b301006072a8648ce3d020106052b810400230381860004",
			"017eecc07ab4b329068fba65e56a1f8890aa935e57134ae0ffcce802735151f4eac6564f6ee9974c5e6887a1fefee5743ae2241bfeb95d5ce31ddcb6f9edb4d6fc47",
			"00685a48e86c79f0f0875f7bc18d25eb5fc8c0b07e5da4f4370f3a9490340854334b1e1b87fa395464c60626124a4e70d0f785601d37c09870ebf176666877a2046d",
			"01ba52c56fc8776d9e8f5db4f0cc27636d0b741bbe05400697942e80b739884a83bde99e0f6716939e632bc8986fa18dccd443a348b6c3e522497955a4f3c302f676",
			"005fc70477c3e63bc3954bd0df3ea0d1f41ee21746ed95fc5e1fdf90930d5e136672d72cc770742d1711c3c3a4c334a0ad9759436a4d3c5bf6e74b9578fac148c831",
		},
	} {
		got, err := find(t, spec).DeriveSharedSecret(nistMaterial(t, v.curve, unhex(t, v.d)), unhex(t, v.prefix+v.x+v.y))
		if err != nil || hex.EncodeToString(got) != v.key {
			t.Errorf("%s: got %x, %v; want %s", spec, got, err, v.key)
		}
	}
}

// A digest is signed as it is, and its signature is the message's.
func TestDigests(t *testing.T) {
	s := find(t, "ECC_NIST_P256")
	material, err := s.Generate()
	if err != nil {
		t.Fatal(err)
	}
	spki, err := s.PublicKey(material)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("message"))
	got, err := s.Sign("ECDSA_SHA_256", keyspec.Digest, material, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Verify("ECDSA_SHA_256", "", spki, []byte("message"), got); err != nil {
		t.Error(err)
	}
	if err := s.Verify("ECDSA_SHA_256", keyspec.Raw, spki, digest[:], got); !errors.Is(err, keyspec.ErrSignature) {
		t.Errorf("a digest as a message: %v", err)
	}
}
