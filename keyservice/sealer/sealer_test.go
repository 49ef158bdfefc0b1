package sealer_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/keyservice/sealer"
)

func rootKey() []byte { return bytes.Repeat([]byte{0x5a}, 32) }

// secretFile makes a file of that size and mode.
func secretFile(t *testing.T, size int, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := errors.Join(os.WriteFile(path, bytes.Repeat([]byte{'s'}, size), 0o600), os.Chmod(path, mode)); err != nil {
		t.Fatal(err)
	}
	return path
}

func must(t *testing.T) func(sealer.Sealer, error) sealer.Sealer {
	return func(s sealer.Sealer, err error) sealer.Sealer {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
}

func TestSealers(t *testing.T) {
	credential := secretFile(t, 32, 0o440)
	t.Setenv("CREDENTIALS_DIRECTORY", filepath.Dir(credential))
	for _, test := range []struct{ right, wrong sealer.Sealer }{
		{must(t)(sealer.NewPassphrase([]byte("a"))), must(t)(sealer.NewPassphrase([]byte("b")))},
		{must(t)(sealer.NewKeyFile(secretFile(t, 32, 0o400))), must(t)(sealer.NewKeyFile(secretFile(t, 4096, 0o600)))},
		{must(t)(sealer.NewCredential("secret")), must(t)(sealer.NewKeyFile(secretFile(t, 33, 0o600)))},
	} {
		t.Run(test.right.Kind(), func(t *testing.T) {
			sealed, err := test.right.Seal(rootKey())
			if err != nil {
				t.Fatal(err)
			}
			if opened, err := test.right.Open(sealed); err != nil || !bytes.Equal(opened, rootKey()) {
				t.Errorf("got %x, %v", opened, err)
			}
			if _, err := test.wrong.Open(sealed); !errors.Is(err, sealer.ErrWrongSecret) {
				t.Errorf("wrong secret: %v", err)
			}
			if again, err := test.right.Seal(rootKey()); err != nil || bytes.Equal(again, sealed) {
				t.Errorf("sealed twice to the same, %v", err)
			}
			tamper(t, test.right, sealed)
		})
	}
}

// tamper expects changes of the sealed root key to be found; bytes at the beginning are parameters, the rest all alike.
func tamper(t *testing.T, s sealer.Sealer, sealed []byte) {
	t.Helper()
	for _, length := range []int{0, 1, 10, 29, 45, len(sealed) - 33, 1000} {
		b := append(slices.Clone(sealed), make([]byte, 1000)...)[:max(length, 0)]
		if _, err := s.Open(b); !errors.Is(err, sealer.ErrMalformed) && !errors.Is(err, sealer.ErrWrongSecret) {
			t.Errorf("%d bytes: %v", length, err)
		}
	}
	for _, at := range []int{0, 15, len(sealed) - 40, len(sealed) - 1} {
		b := slices.Clone(sealed)
		b[at] ^= 1
		if _, err := s.Open(b); !errors.Is(err, sealer.ErrMalformed) && !errors.Is(err, sealer.ErrWrongSecret) {
			t.Errorf("byte %d: %v", at, err)
		}
	}
}

// Costs that are read back are not believed blindly: none of these may take memory or time.
func TestPassphraseCosts(t *testing.T) {
	s := must(t)(sealer.NewPassphrase([]byte("a")))
	for _, costs := range []struct {
		time, memory uint32
		lanes        uint8
	}{{0, 65536, 4}, {1 << 31, 65536, 4}, {3, 1<<32 - 1, 4}, {3, 1<<20 + 1, 4}, {3, 0, 4}, {3, 65536, 0}, {3, 65536, 255}} {
		sealed := make([]byte, 26+12+32+16)
		sealed[0] = 1
		binary.BigEndian.PutUint32(sealed[1:], costs.time)
		binary.BigEndian.PutUint32(sealed[5:], costs.memory)
		sealed[9] = costs.lanes
		if _, err := s.Open(sealed); !errors.Is(err, sealer.ErrMalformed) {
			t.Errorf("%+v: %v", costs, err)
		}
	}
}

func TestUnusableSecrets(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"short": secretFile(t, 31, 0o600), "long": secretFile(t, 4097, 0o600), "empty": secretFile(t, 0, 0o600),
		"readable by the group": secretFile(t, 32, 0o640), "readable by others": secretFile(t, 32, 0o604),
		"pipe": pipe, "directory": t.TempDir(),
	} {
		if _, err := must(t)(sealer.NewKeyFile(path)).Seal(rootKey()); !errors.Is(err, sealer.ErrBadSecret) {
			t.Errorf("%s: got %v, want %v", name, err, sealer.ErrBadSecret)
		}
	}
	if _, err := must(t)(sealer.NewKeyFile(pipe + "x")).Seal(rootKey()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	if _, err := sealer.NewPassphrase(nil); !errors.Is(err, sealer.ErrBadSecret) {
		t.Errorf("empty passphrase: %v", err)
	}
	if _, err := sealer.NewKeyFile(""); !errors.Is(err, sealer.ErrBadSecret) {
		t.Errorf("no name: %v", err)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	if _, err := sealer.NewCredential("kmsfs"); !errors.Is(err, sealer.ErrBadSecret) {
		t.Errorf("no credentials: %v", err)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", t.TempDir())
	for _, name := range []string{"", "../kmsfs", "a/b"} {
		if _, err := sealer.NewCredential(name); !errors.Is(err, sealer.ErrBadSecret) {
			t.Errorf("credential %q: %v", name, err)
		}
	}
}

func TestCreateKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	if err := sealer.CreateKeyFile(path); err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(path)
	if err != nil || len(first) != 32 {
		t.Fatalf("got %d bytes, %v", len(first), err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := sealer.CreateKeyFile(path); !errors.Is(err, os.ErrExist) {
		t.Errorf("again: %v", err)
	}
	if again, err := os.ReadFile(path); err != nil || !bytes.Equal(again, first) {
		t.Errorf("the key file has changed, %v", err)
	}
}
