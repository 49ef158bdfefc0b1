package home

import (
	"bytes"
	"testing"
)

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
