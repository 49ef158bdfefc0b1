package keyservice

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"
)

// vector is a ciphertext blob with all that it is made of. Bytes are in hexadecimal digits.
type vector struct {
	Comment    string     `json:"comment"`
	Material   string     `json:"material"`
	KeyID      string     `json:"keyId"`
	MaterialID string     `json:"materialId"`
	Salt       string     `json:"n"`
	IV         string     `json:"iv"`
	Context    [][]string `json:"context"`
	Canonical  string     `json:"canonicalContext"`
	Plaintext  string     `json:"plaintext"`
	Blob       string     `json:"blob"`
}

// The vectors were made by testdata/vectors.py, which shares no code with this package.
func TestVectors(t *testing.T) {
	files, err := filepath.Glob("testdata/blob/*.json")
	if err != nil || len(files) < 4 {
		t.Fatalf("got %d vectors, %v: want 4 or more", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var v vector
			if err := json.Unmarshal(text, &v); err != nil {
				t.Fatal(err)
			}
			checkVector(t, &v)
		})
	}
}

func checkVector(t *testing.T, v *vector) {
	material, keyID := fromHex(t, v.Material), uuid.MustParse(v.KeyID)
	context := map[string]string{}
	for _, pair := range v.Context {
		context[string(fromHex(t, pair[0]))] = string(fromHex(t, pair[1]))
	}
	id := materialID(keyID, material)
	if got := hexText(id); got != v.MaterialID {
		t.Errorf("material ID: got %s, want %s", got, v.MaterialID)
	}
	if got := hex.EncodeToString(appendContext(nil, context)); got != v.Canonical {
		t.Errorf("canonical context: got %s, want %s", got, v.Canonical)
	}
	var fresh [blobHeader - blobSalt]byte
	copy(fresh[:], fromHex(t, v.Salt+v.IV))
	sealed, err := sealBlobWith(fresh, material, keyID, id, fromHex(t, v.Plaintext), context)
	if err != nil || hex.EncodeToString(sealed) != v.Blob {
		t.Errorf("blob: got %x, %v, want %s", sealed, err, v.Blob)
	}
	parsed, err := parseBlob(fromHex(t, v.Blob))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := parsed.open(material, context); err != nil || hex.EncodeToString(got) != v.Plaintext {
		t.Errorf("plaintext: got %x, %v, want %s", got, err, v.Plaintext)
	}
}

func fromHex(t *testing.T, digits string) []byte {
	t.Helper()
	b, err := hex.DecodeString(digits)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Key material is wrapped for its own place only, and its bytes lie nowhere else.
func TestWrappedMaterial(t *testing.T) {
	rootKey := bytes.Repeat([]byte{7}, rootKeySize)
	ring, err := newKeyring(rootKey)
	if err != nil {
		t.Fatal(err)
	}
	key, other := uuid.New(), uuid.New()
	made := ring.generate(key)
	var secret []byte
	if err := ring.use(newMaterial(key, made.ID, made.Wrapped), func(s []byte) error {
		secret = bytes.Clone(s)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(secret) != materialSize || strings.Contains(string(made.Wrapped), string(secret)) {
		t.Errorf("material %x lies in %x", secret, made.Wrapped)
	}
	unused := func([]byte) error { t.Error("it opens"); return nil }
	wrongID := made.ID
	wrongID[31] ^= 1
	for _, m := range []*material{newMaterial(other, made.ID, made.Wrapped), newMaterial(key, wrongID, made.Wrapped), newMaterial(key, made.ID, nil)} {
		if err := ring.use(m, unused); err == nil {
			t.Error("no error")
		}
	}
}

func TestLockedKey(t *testing.T) {
	original := bytes.Repeat([]byte{7}, 32)
	k, err := lockKey(original)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(original, make([]byte, 32)) || !bytes.Equal(k.bytes(), bytes.Repeat([]byte{7}, 32)) {
		t.Errorf("original %x, locked %x", original, k.bytes())
	}
	if err := k.close(); err != nil {
		t.Fatal(err)
	}
}
