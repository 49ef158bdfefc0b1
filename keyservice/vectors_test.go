package keyservice

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/uuid"

	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/store"
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
	if got := id.String(); got != v.MaterialID {
		t.Errorf("material ID: got %s, want %s", got, v.MaterialID)
	}
	if got := hex.EncodeToString(kms.AppendContext(nil, context)); got != v.Canonical {
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

// Key material opens with its own slot, in its own place, and not once the slot is erased; its bytes lie nowhere.
func TestWrappedMaterial(t *testing.T) {
	ring, err := newKeyring(bytes.Repeat([]byte{7}, rootKeySize))
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "slots"))
	if err != nil {
		t.Fatal(err)
	}
	slots, err := store.OpenSlots(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = slots.Close() }()
	key, other, secret := uuid.New(), uuid.New(), bytes.Repeat([]byte{9}, materialSize)
	m := store.Material{ID: materialID(key, secret)}
	wrapped, slot, err := ring.wrapSecret(slots, key, m.ID, secret)
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := ring.load(slots, key, m, wrapped)
	if err != nil {
		t.Fatal(err)
	}
	if err := ring.use(loaded, func(got []byte) error {
		if !bytes.Equal(got, secret) {
			t.Errorf("got %x, want %x", got, secret)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(wrapped, secret) || bytes.Contains(loaded.wrapped, secret) {
		t.Error("the material lies in the clear")
	}
	wrong := m
	wrong.ID[31] ^= 1
	if _, err := ring.load(slots, other, m, wrapped); err == nil {
		t.Error("it opens as another key's")
	}
	if _, err := ring.load(slots, key, wrong, wrapped); err == nil {
		t.Error("it opens as another material")
	}
	if err := slots.Erase(slot); err != nil {
		t.Fatal(err)
	}
	if _, err := ring.load(slots, key, m, wrapped); err == nil {
		t.Error("it opens without its slot")
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
