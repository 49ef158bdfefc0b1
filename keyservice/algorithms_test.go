package keyservice_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	kwp "github.com/tink-crypto/tink-go/v2/kwp/subtle"

	"kmsfs/keyservice"
	"kmsfs/keyservice/kms"
)

// specKey makes a key of a spec.
func specKey(t *testing.T, s *keyservice.Service, spec, usage string) kms.KeyMetadata {
	t.Helper()
	out, err := kms.CreateKey.Call(t.Context(), s, self(), &kms.CreateKeyInput{KeySpec: spec, KeyUsage: usage})
	if err != nil {
		t.Fatal(err)
	}
	return out.KeyMetadata
}

// Every algorithm of every spec signs and verifies, a message or its digest, and nothing else.
func TestSignatures(t *testing.T) {
	s := newService(t)
	message := []byte("message")
	for _, spec := range []string{"RSA_2048", "ECC_NIST_P256", "ECC_NIST_P384", "ECC_NIST_P521", "ECC_SECG_P256K1", "ECC_NIST_EDWARDS25519"} {
		m := specKey(t, s, spec, "SIGN_VERIFY")
		if len(m.SigningAlgorithms) == 0 || m.EncryptionAlgorithms != nil || m.CurrentKeyMaterialId != "" {
			t.Errorf("%s: %+v", spec, m)
		}
		for _, algorithm := range m.SigningAlgorithms {
			for messageType, text := range messages(algorithm, message) {
				signed, err := kms.Sign.Call(t.Context(), s, self(), &kms.SignInput{KeyId: m.Arn, Message: text, MessageType: messageType, SigningAlgorithm: algorithm})
				if err != nil {
					t.Errorf("%s, %s, %s: %v", spec, algorithm, messageType, err)
					continue
				}
				in := &kms.VerifyInput{KeyId: m.Arn, Message: text, MessageType: messageType, SigningAlgorithm: algorithm, Signature: signed.Signature}
				if out, err := kms.Verify.Call(t.Context(), s, self(), in); err != nil || !out.SignatureValid || out.KeyId != m.Arn {
					t.Errorf("%s, %s, %s: %+v, %v", spec, algorithm, messageType, out, err)
				}
				in.Signature = bytes.Clone(signed.Signature)
				in.Signature[len(in.Signature)-1] ^= 1
				if _, err := kms.Verify.Call(t.Context(), s, self(), in); code(err) != kms.CodeKMSInvalidSignature || err.Error() != kms.CodeKMSInvalidSignature {
					t.Errorf("%s, %s, tampered: %v", spec, algorithm, err)
				}
			}
		}
		if _, err := kms.Sign.Call(t.Context(), s, self(), &kms.SignInput{KeyId: m.Arn, Message: message, SigningAlgorithm: "ML_DSA_SHAKE_256"}); code(err) != kms.CodeInvalidKeyUsage {
			t.Errorf("%s, another spec's algorithm: %v", spec, err)
		}
		if _, err := kms.Encrypt.Call(t.Context(), s, self(), &kms.EncryptInput{KeyId: m.Arn, Plaintext: message}); code(err) != kms.CodeInvalidKeyUsage {
			t.Errorf("%s encrypts: %v", spec, err)
		}
	}
}

// messages are the message in the types that an algorithm takes.
func messages(algorithm string, message []byte) map[string][]byte {
	switch {
	case algorithm == "ED25519_SHA_512":
		return map[string][]byte{"RAW": message}
	case algorithm == "ED25519_PH_SHA_512":
		digest := sha512.Sum512(message)
		return map[string][]byte{"DIGEST": digest[:]}
	case strings.HasSuffix(algorithm, "384"):
		digest := sha512.Sum384(message)
		return map[string][]byte{"": message, "DIGEST": digest[:]}
	case strings.HasSuffix(algorithm, "512"):
		digest := sha512.Sum512(message)
		return map[string][]byte{"RAW": message, "DIGEST": digest[:]}
	}
	digest := sha256.Sum256(message)
	return map[string][]byte{"RAW": message, "DIGEST": digest[:]}
}

// Others verify with the public key what a key signs.
func TestPublicKey(t *testing.T) {
	s := newService(t)
	key := specKey(t, s, "ECC_NIST_P256", "SIGN_VERIFY").Arn
	out, err := kms.GetPublicKey.Call(t.Context(), s, self(), &kms.GetPublicKeyInput{KeyId: key})
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.ParsePKIXPublicKey(out.PublicKey)
	if err != nil || out.KeySpec != "ECC_NIST_P256" || len(out.SigningAlgorithms) != 1 {
		t.Fatalf("got %+v, %v", out, err)
	}
	signed, err := kms.Sign.Call(t.Context(), s, self(), &kms.SignInput{KeyId: key, Message: []byte("m"), SigningAlgorithm: "ECDSA_SHA_256"})
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("m"))
	if !ecdsa.VerifyASN1(public.(*ecdsa.PublicKey), digest[:], signed.Signature) {
		t.Error("the signature is not the public key's")
	}
}

func TestMACs(t *testing.T) {
	s := newService(t)
	for _, spec := range []string{"HMAC_224", "HMAC_256", "HMAC_384", "HMAC_512"} {
		m := specKey(t, s, spec, "GENERATE_VERIFY_MAC")
		algorithm := m.MacAlgorithms[0]
		made, err := kms.GenerateMac.Call(t.Context(), s, self(), &kms.GenerateMacInput{KeyId: m.Arn, Message: []byte("m"), MacAlgorithm: algorithm})
		if err != nil {
			t.Fatal(err)
		}
		verify := func(mac []byte) error {
			return second(kms.VerifyMac.Call(t.Context(), s, self(), &kms.VerifyMacInput{KeyId: m.Arn, Message: []byte("m"), MacAlgorithm: algorithm, Mac: mac}))
		}
		if err := verify(made.Mac); err != nil {
			t.Error(err)
		}
		if err := verify(made.Mac[1:]); code(err) != kms.CodeKMSInvalidMac || err.Error() != kms.CodeKMSInvalidMac {
			t.Errorf("a short MAC: %v", err)
		}
		other := map[bool]string{true: "HMAC_SHA_512", false: "HMAC_SHA_256"}[algorithm == "HMAC_SHA_256"]
		if _, err := kms.GenerateMac.Call(t.Context(), s, self(), &kms.GenerateMacInput{KeyId: m.Arn, Message: []byte("m"), MacAlgorithm: other}); code(err) != kms.CodeInvalidKeyUsage {
			t.Errorf("%s by %s: %v", other, spec, err)
		}
	}
}

func TestRSAEncryption(t *testing.T) {
	s := newService(t)
	key, symmetric := specKey(t, s, "RSA_2048", "ENCRYPT_DECRYPT").Arn, newKey(t, s)
	for algorithm, most := range map[string]int{"RSAES_OAEP_SHA_1": 214, "RSAES_OAEP_SHA_256": 190} {
		plaintext := bytes.Repeat([]byte{7}, most)
		made, err := kms.Encrypt.Call(t.Context(), s, self(), &kms.EncryptInput{KeyId: key, Plaintext: plaintext, EncryptionAlgorithm: algorithm})
		if err != nil {
			t.Fatal(err)
		}
		out, err := kms.Decrypt.Call(t.Context(), s, self(), &kms.DecryptInput{KeyId: key, CiphertextBlob: made.CiphertextBlob, EncryptionAlgorithm: algorithm})
		if err != nil || !bytes.Equal(out.Plaintext, plaintext) || out.EncryptionAlgorithm != algorithm || out.KeyMaterialId != "" {
			t.Errorf("got %+v, %v", out, err)
		}
		_, err = kms.Encrypt.Call(t.Context(), s, self(), &kms.EncryptInput{KeyId: key, Plaintext: append(plaintext, 7), EncryptionAlgorithm: algorithm})
		if code(err) != kms.CodeValidation || !strings.Contains(err.Error(), "cannot encrypt data larger than") {
			t.Errorf("too long: %v", err)
		}
		for name, in := range map[string]*kms.DecryptInput{
			kms.CodeValidation:        {CiphertextBlob: made.CiphertextBlob, EncryptionAlgorithm: algorithm},
			kms.CodeInvalidKeyUsage:   {KeyId: symmetric, CiphertextBlob: made.CiphertextBlob, EncryptionAlgorithm: algorithm},
			kms.CodeInvalidCiphertext: {KeyId: key, CiphertextBlob: made.CiphertextBlob[1:], EncryptionAlgorithm: algorithm},
		} {
			if _, err := kms.Decrypt.Call(t.Context(), s, self(), in); code(err) != name {
				t.Errorf("got %v, want %s", err, name)
			}
		}
		// From RSA to symmetric, and back.
		moved, err := kms.ReEncrypt.Call(t.Context(), s, self(), &kms.ReEncryptInput{
			SourceKeyId: key, SourceEncryptionAlgorithm: algorithm, CiphertextBlob: made.CiphertextBlob, DestinationKeyId: symmetric,
		})
		if err != nil || moved.DestinationKeyMaterialId == "" || moved.SourceKeyMaterialId != "" {
			t.Fatalf("got %+v, %v", moved, err)
		}
		if back, err := kms.ReEncrypt.Call(t.Context(), s, self(), &kms.ReEncryptInput{
			CiphertextBlob: moved.CiphertextBlob, DestinationKeyId: key, DestinationEncryptionAlgorithm: algorithm,
		}); err != nil || back.SourceKeyId != symmetric {
			t.Errorf("got %+v, %v", back, err)
		}
	}
	if _, err := kms.Encrypt.Call(t.Context(), s, self(), &kms.EncryptInput{
		KeyId: key, Plaintext: []byte("p"), EncryptionAlgorithm: "RSAES_OAEP_SHA_256", EncryptionContext: map[string]string{"a": "b"},
	}); code(err) != kms.CodeValidation {
		t.Errorf("a context for RSA: %v", err)
	}
}

func TestSharedSecrets(t *testing.T) {
	s := newService(t)
	for _, spec := range []string{"ECC_NIST_P256", "ECC_NIST_P384", "ECC_NIST_P521"} {
		var secrets [2][]byte
		keys := [2]string{specKey(t, s, spec, "KEY_AGREEMENT").Arn, specKey(t, s, spec, "KEY_AGREEMENT").Arn}
		for i := range keys {
			peer, err := kms.GetPublicKey.Call(t.Context(), s, self(), &kms.GetPublicKeyInput{KeyId: keys[1-i]})
			if err != nil {
				t.Fatal(err)
			}
			out, err := kms.DeriveSharedSecret.Call(t.Context(), s, self(), &kms.DeriveSharedSecretInput{KeyId: keys[i], KeyAgreementAlgorithm: "ECDH", PublicKey: peer.PublicKey})
			if err != nil {
				t.Fatal(err)
			}
			secrets[i] = out.SharedSecret
		}
		if len(secrets[0]) < 32 || !bytes.Equal(secrets[0], secrets[1]) {
			t.Errorf("%s: %x and %x", spec, secrets[0], secrets[1])
		}
		if _, err := kms.DeriveSharedSecret.Call(t.Context(), s, self(), &kms.DeriveSharedSecretInput{KeyId: keys[0], KeyAgreementAlgorithm: "ECDH", PublicKey: []byte("key")}); code(err) != kms.CodeValidation {
			t.Errorf("no key: %v", err)
		}
	}
}

func TestDataKeyPairs(t *testing.T) {
	s := newService(t)
	key := newKey(t, s)
	for _, spec := range []string{"RSA_2048", "ECC_NIST_P256", "ECC_NIST_P384", "ECC_NIST_P521", "ECC_NIST_EDWARDS25519", "ECC_SECG_P256K1"} {
		made, err := kms.GenerateDataKeyPair.Call(t.Context(), s, self(), &kms.GenerateDataKeyPairInput{KeyId: key, KeyPairSpec: spec, EncryptionContext: fileContext()})
		if err != nil {
			t.Fatal(err)
		}
		out, err := kms.Decrypt.Call(t.Context(), s, self(), &kms.DecryptInput{CiphertextBlob: made.PrivateKeyCiphertextBlob, EncryptionContext: fileContext()})
		if err != nil || !bytes.Equal(out.Plaintext, made.PrivateKeyPlaintext) || len(made.PublicKey) == 0 || made.KeyPairSpec != spec {
			t.Errorf("%s: %v", spec, err)
		}
		if spec == "ECC_SECG_P256K1" {
			continue // which the standard library doesn't know
		}
		private, err := x509.ParsePKCS8PrivateKey(made.PrivateKeyPlaintext)
		if err != nil {
			t.Fatal(err)
		}
		public, err := x509.MarshalPKIXPublicKey(private.(crypto.Signer).Public())
		if err != nil || !bytes.Equal(public, made.PublicKey) {
			t.Errorf("%s: the keys are no pair: %v", spec, err)
		}
	}
	sealed, err := kms.GenerateDataKeyPairWithoutPlaintext.Call(t.Context(), s, self(), &kms.GenerateDataKeyPairWithoutPlaintextInput{KeyId: key, KeyPairSpec: "ECC_NIST_P256"})
	if err != nil || len(sealed.PrivateKeyCiphertextBlob) == 0 {
		t.Errorf("got %+v, %v", sealed, err)
	}
	if _, err := kms.GenerateDataKeyPair.Call(t.Context(), s, self(), &kms.GenerateDataKeyPairInput{KeyId: key, KeyPairSpec: "SM2"}); code(err) != kms.CodeUnsupportedOperation {
		t.Errorf("SM2: %v", err)
	}
}

// imported is a key of origin EXTERNAL.
type imported struct {
	*testing.T
	*keyservice.Service
	key string
}

func newImported(t *testing.T, spec, usage string) *imported {
	s := newService(t)
	out, err := kms.CreateKey.Call(t.Context(), s, self(), &kms.CreateKeyInput{Origin: "EXTERNAL", KeySpec: spec, KeyUsage: usage})
	if err != nil {
		t.Fatal(err)
	}
	if m := out.KeyMetadata; m.KeyState != "PendingImport" || m.Enabled || m.Origin != "EXTERNAL" {
		t.Errorf("got %+v", m)
	}
	return &imported{t, s, out.KeyMetadata.Arn}
}

func (i *imported) parameters(algorithm string) *kms.GetParametersForImportOutput {
	i.Helper()
	out, err := kms.GetParametersForImport.Call(i.Context(), i, self(), &kms.GetParametersForImportInput{KeyId: i.key, WrappingAlgorithm: algorithm, WrappingKeySpec: "RSA_2048"})
	if err != nil {
		i.Fatal(err)
	}
	return out
}

// wrap wraps material as a client of AWS KMS does.
func (i *imported) wrap(p *kms.GetParametersForImportOutput, algorithm string, material []byte) []byte {
	i.Helper()
	public, err := x509.ParsePKIXPublicKey(p.PublicKey)
	if err != nil {
		i.Fatal(err)
	}
	seal := func(plain []byte) []byte {
		sealed, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, public.(*rsa.PublicKey), plain, nil)
		if err != nil {
			i.Fatal(err)
		}
		return sealed
	}
	if algorithm == "RSAES_OAEP_SHA_256" {
		return seal(material)
	}
	key := bytes.Repeat([]byte{3}, 32)
	wrapper, err := kwp.NewKWP(key)
	if err != nil {
		i.Fatal(err)
	}
	wrapped, err := wrapper.Wrap(material)
	if err != nil {
		i.Fatal(err)
	}
	return append(seal(key), wrapped...)
}

// add imports material, changed by f if there is one.
func (i *imported) add(material []byte, f func(*kms.ImportKeyMaterialInput)) (string, error) {
	i.Helper()
	const algorithm = "RSA_AES_KEY_WRAP_SHA_256"
	p := i.parameters(algorithm)
	in := &kms.ImportKeyMaterialInput{
		KeyId: i.key, ImportToken: p.ImportToken, EncryptedKeyMaterial: i.wrap(p, algorithm, material), ExpirationModel: "KEY_MATERIAL_DOES_NOT_EXPIRE",
	}
	if f != nil {
		f(in)
	}
	out, err := kms.ImportKeyMaterial.Call(i.Context(), i, self(), in)
	if err != nil {
		return "", err
	}
	return out.KeyMaterialId, nil
}

func TestImport(t *testing.T) {
	i := newImported(t, "", "")
	first, next := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	id, err := i.add(first, nil)
	if err != nil {
		t.Fatal(err)
	}
	if m := describe(t, i.Service, i.key); m.KeyState != "Enabled" || m.CurrentKeyMaterialId != id || m.ExpirationModel != "KEY_MATERIAL_DOES_NOT_EXPIRE" {
		t.Errorf("got %+v", m)
	}
	made := generate(t, i.Service, i.key, nil)
	opens := func() string {
		return code(second(kms.Decrypt.Call(t.Context(), i, self(), &kms.DecryptInput{CiphertextBlob: made.CiphertextBlob})))
	}
	if _, err := i.add(next, nil); code(err) != kms.CodeIncorrectKeyMaterial {
		t.Errorf("another material: %v", err)
	}
	if _, err := kms.DeleteImportedKeyMaterial.Call(t.Context(), i, self(), &kms.DeleteImportedKeyMaterialInput{KeyId: i.key}); err != nil {
		t.Fatal(err)
	}
	if m := describe(t, i.Service, i.key); m.KeyState != "PendingImport" || opens() != kms.CodeKMSInvalidState {
		t.Errorf("deleted: %+v", m)
	}
	if again, err := i.add(first, nil); err != nil || again != id || opens() != "" {
		t.Errorf("again: %s, %v", again, err)
	}

	// The next material waits for its rotation, and the old ones are needed all the while.
	if _, err := i.add(next, func(in *kms.ImportKeyMaterialInput) { in.ImportType = "NEW_KEY_MATERIAL" }); err != nil {
		t.Fatal(err)
	}
	if m := describe(t, i.Service, i.key); m.CurrentKeyMaterialId != id {
		t.Errorf("it doesn't wait: %+v", m)
	}
	if _, err := kms.RotateKeyOnDemand.Call(t.Context(), i, self(), &kms.RotateKeyOnDemandInput{KeyId: i.key}); err != nil {
		t.Fatal(err)
	}
	if m := describe(t, i.Service, i.key); m.CurrentKeyMaterialId == id || opens() != "" {
		t.Errorf("rotated: %+v", m)
	}
	if _, err := kms.RotateKeyOnDemand.Call(t.Context(), i, self(), &kms.RotateKeyOnDemandInput{KeyId: i.key}); code(err) != kms.CodeKMSInvalidState {
		t.Errorf("nothing waits: %v", err)
	}
	if _, err := kms.DeleteImportedKeyMaterial.Call(t.Context(), i, self(), &kms.DeleteImportedKeyMaterialInput{KeyId: i.key, KeyMaterialId: id}); err != nil {
		t.Fatal(err)
	}
	if m := describe(t, i.Service, i.key); m.KeyState != "PendingImport" {
		t.Errorf("without the old material: %+v", m)
	}
}

func TestImportRefusals(t *testing.T) {
	i, other := newImported(t, "", ""), newImported(t, "", "")
	material := bytes.Repeat([]byte{1}, 32)
	foreign := other.parameters("RSAES_OAEP_SHA_256")
	for _, test := range []struct {
		name     string
		material []byte
		change   func(*kms.ImportKeyMaterialInput)
		want     string
	}{
		{"31 bytes", material[1:], nil, kms.CodeIncorrectKeyMaterial},
		{"garbage", material, func(in *kms.ImportKeyMaterialInput) { in.EncryptedKeyMaterial = make([]byte, 300) }, kms.CodeInvalidCiphertext},
		{"another key's token", material, func(in *kms.ImportKeyMaterialInput) { in.ImportToken = foreign.ImportToken }, kms.CodeInvalidImportToken},
		{"tampered token", material, func(in *kms.ImportKeyMaterialInput) { in.ImportToken[0] ^= 1 }, kms.CodeInvalidImportToken},
		{"no token", material, func(in *kms.ImportKeyMaterialInput) { in.ImportToken = []byte{1} }, kms.CodeInvalidImportToken},
		{"no end", material, func(in *kms.ImportKeyMaterialInput) { in.ExpirationModel = "" }, kms.CodeValidation},
		{"another ID", material, func(in *kms.ImportKeyMaterialInput) { in.KeyMaterialId = strings.Repeat("0", 64) }, kms.CodeIncorrectKeyMaterial},
		{"existing", material, func(in *kms.ImportKeyMaterialInput) { in.ImportType = "EXISTING_KEY_MATERIAL" }, kms.CodeIncorrectKeyMaterial},
	} {
		if _, err := i.add(test.material, test.change); code(err) != test.want {
			t.Errorf("%s: got %v, want %s", test.name, err, test.want)
		}
	}
	if m := describe(t, i.Service, i.key); m.KeyState != "PendingImport" {
		t.Errorf("got %+v", m)
	}
}

// Material of other specs comes in too, and PKCS #8 of another spec doesn't.
func TestImportSpecs(t *testing.T) {
	mac := newImported(t, "HMAC_384", "GENERATE_VERIFY_MAC")
	if _, err := mac.add(bytes.Repeat([]byte{5}, 48), nil); err != nil {
		t.Error(err)
	}
	source := newService(t)
	pair, err := kms.GenerateDataKeyPair.Call(t.Context(), source, self(), &kms.GenerateDataKeyPairInput{KeyId: newKey(t, source), KeyPairSpec: "ECC_NIST_P256"})
	if err != nil {
		t.Fatal(err)
	}
	curve, other := newImported(t, "ECC_NIST_P256", "SIGN_VERIFY"), newImported(t, "ECC_NIST_P384", "SIGN_VERIFY")
	if _, err := curve.add(pair.PrivateKeyPlaintext, nil); err != nil {
		t.Fatal(err)
	}
	if out, err := kms.GetPublicKey.Call(t.Context(), curve, self(), &kms.GetPublicKeyInput{KeyId: curve.key}); err != nil || !bytes.Equal(out.PublicKey, pair.PublicKey) {
		t.Errorf("got %+v, %v", out, err)
	}
	if _, err := other.add(pair.PrivateKeyPlaintext, nil); code(err) != kms.CodeIncorrectKeyMaterial {
		t.Errorf("P-256 for P-384: %v", err)
	}
}

// Imported material is destroyed at its time, and so is a token's use.
func TestImportExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newImported(t, "", "")
		material := bytes.Repeat([]byte{1}, 32)
		p := i.parameters("RSAES_OAEP_SHA_256")
		end := func(in *kms.ImportKeyMaterialInput) {
			in.ExpirationModel, in.ValidTo = "KEY_MATERIAL_EXPIRES", &kms.Timestamp{Time: time.Now().Add(30 * time.Hour)}
		}
		if _, err := i.add(material, end); err != nil {
			t.Fatal(err)
		}
		made := generate(t, i.Service, i.key, nil)
		time.Sleep(29 * time.Hour)
		if m := describe(t, i.Service, i.key); m.KeyState != "Enabled" || m.ValidTo == nil {
			t.Errorf("got %+v", m)
		}
		time.Sleep(time.Hour + time.Minute)
		if m := describe(t, i.Service, i.key); m.KeyState != "PendingImport" || m.ValidTo != nil {
			t.Errorf("expired: %+v", m)
		}
		if _, err := kms.ImportKeyMaterial.Call(t.Context(), i, self(), &kms.ImportKeyMaterialInput{
			KeyId: i.key, ImportToken: p.ImportToken, EncryptedKeyMaterial: i.wrap(p, "RSAES_OAEP_SHA_256", material), ExpirationModel: "KEY_MATERIAL_DOES_NOT_EXPIRE",
		}); code(err) != kms.CodeExpiredImportToken {
			t.Errorf("an old token: %v", err)
		}
		if _, err := i.add(material, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := kms.Decrypt.Call(t.Context(), i, self(), &kms.DecryptInput{CiphertextBlob: made.CiphertextBlob}); err != nil {
			t.Error(err)
		}
	})
}
