package material

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
	secret, keyID := fromHex(t, v.Material), uuid.MustParse(v.KeyID)
	context := map[string]string{}
	for _, pair := range v.Context {
		context[string(fromHex(t, pair[0]))] = string(fromHex(t, pair[1]))
	}
	id := NewID(keyID, secret)
	if got := id.String(); got != v.MaterialID {
		t.Errorf("material ID: got %s, want %s", got, v.MaterialID)
	}
	if got := hex.EncodeToString(kms.AppendContext(nil, context)); got != v.Canonical {
		t.Errorf("canonical context: got %s, want %s", got, v.Canonical)
	}
	var fresh [blobHeader - blobSalt]byte
	copy(fresh[:], fromHex(t, v.Salt+v.IV))
	sealed, err := sealBlobWith(fresh, secret, keyID, id, fromHex(t, v.Plaintext), context)
	if err != nil || hex.EncodeToString(sealed) != v.Blob {
		t.Errorf("blob: got %x, %v, want %s", sealed, err, v.Blob)
	}
	parsed, err := ParseBlob(fromHex(t, v.Blob))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := parsed.Open(secret, context); err != nil || hex.EncodeToString(got) != v.Plaintext {
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
	ring, err := NewKeyring(bytes.Repeat([]byte{7}, RootKeySize))
	if err != nil {
		t.Fatal(err)
	}
	slot := bytes.Repeat([]byte{5}, store.SlotSize)
	key, other, secret := uuid.New(), uuid.New(), bytes.Repeat([]byte{9}, materialSize)
	m := store.Material{ID: NewID(key, secret)}
	wrapped, err := ring.Wrap(3, slot, key, m.ID, secret)
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := ring.Load(slot, key, m, wrapped)
	if err != nil {
		t.Fatal(err)
	}
	if err := ring.Use(loaded, func(got []byte) error {
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
	if _, err := ring.Load(slot, other, m, wrapped); err == nil {
		t.Error("it opens as another key's")
	}
	if _, err := ring.Load(slot, key, wrong, wrapped); err == nil {
		t.Error("it opens as another material")
	}
	if number, _, err := Slot(wrapped); number != 3 || err != nil {
		t.Errorf("slot %d, %v: want 3", number, err)
	}
	clear(slot)
	if _, err := ring.Load(slot, key, m, wrapped); err == nil {
		t.Error("it opens without its slot")
	}
}
