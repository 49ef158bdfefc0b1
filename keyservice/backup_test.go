package keyservice_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"kmsfs/keyservice"
	"kmsfs/keyservice/home"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/sealer"
)

// A backup gives the home back, elsewhere, with all its keys; what is damaged gives nothing.
func TestBackup(t *testing.T) {
	dir, secret := newHome(t)
	s := openHome(t, dir, secret)
	key := newKey(t, s)
	made := generate(t, s, key, nil)
	if _, err := kms.CreateAlias.Call(t.Context(), s, self(), &kms.CreateAliasInput{AliasName: "alias/a", TargetKeyId: key}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "backup")
	if err := s.Backup(file); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(file)
	if err != nil || bytes.Contains(whole, []byte("alias/a")) {
		t.Fatalf("%v: the alias lies in the clear", err)
	}
	if err := s.Backup(file); !errors.Is(err, os.ErrExist) {
		t.Errorf("a second time: %v", err)
	}
	owner := uint32(os.Geteuid())
	parent := t.TempDir()
	place := filepath.Join(parent, "home")
	restore := func(backup []byte, secret sealer.Sealer) error {
		return home.Restore(bytes.NewReader(backup), place, secret, owner)
	}
	for at := 0; at < len(whole); at += 1 + len(whole)/60 {
		tampered := bytes.Clone(whole)
		tampered[at] ^= 1
		for name, backup := range map[string][]byte{"tampered": tampered, "cut off": whole[:at]} {
			if err := restore(backup, secret); err == nil {
				t.Errorf("%s at byte %d: no error", name, at)
			}
		}
	}
	if err := restore(append(bytes.Clone(whole), 0), secret); err == nil {
		t.Error("something behind it: no error")
	}
	if err := restore(whole, newKeyFile(t)); !errors.Is(err, home.ErrWrongSecret) {
		t.Errorf("another secret: %v", err)
	}
	if left, err := os.ReadDir(parent); err != nil || len(left) > 0 {
		t.Fatalf("left behind: %v, %v", left, err)
	}
	if err := restore(whole, secret); err != nil {
		t.Fatal(err)
	}
	if err := restore(whole, secret); !errors.Is(err, home.ErrExists) {
		t.Errorf("over a home: %v", err)
	}
	restored := openHome(t, place, secret)
	out, err := kms.Decrypt.Call(t.Context(), restored, self(), &kms.DecryptInput{CiphertextBlob: made.CiphertextBlob, KeyId: "alias/a"})
	if err != nil || !bytes.Equal(out.Plaintext, made.Plaintext) {
		t.Errorf("got %+v, %v", out, err)
	}
	newKey(t, restored)
}

// The new secret opens the home, and the old one doesn't; what a crash left of a change before does no harm.
func TestChangeSealer(t *testing.T) {
	dir, first := newHome(t)
	second := newKeyFile(t)
	third, err := sealer.NewPassphrase([]byte("passphrase"))
	if err != nil {
		t.Fatal(err)
	}
	s := openHome(t, dir, first)
	made := generate(t, s, newKey(t, s), nil)
	if err := home.ChangeSealer(dir, first, second); !errors.Is(err, home.ErrLocked) {
		t.Errorf("while it is open: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "rootkey.new"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := home.ChangeSealer(dir, second, third); !errors.Is(err, home.ErrWrongSecret) {
		t.Errorf("with a wrong secret: %v", err)
	}
	for _, change := range [][2]sealer.Sealer{{first, second}, {second, third}, {third, first}} {
		if err := home.ChangeSealer(dir, change[0], change[1]); err != nil {
			t.Fatal(err)
		}
		if s, err := keyservice.Open(dir, change[0]); err == nil {
			t.Errorf("the old secret opens it: %v", s.Close())
		}
	}
	s = openHome(t, dir, first)
	if out, err := kms.Decrypt.Call(t.Context(), s, self(), &kms.DecryptInput{CiphertextBlob: made.CiphertextBlob}); err != nil || !bytes.Equal(out.Plaintext, made.Plaintext) {
		t.Errorf("got %+v, %v", out, err)
	}
}
