package keyservice_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"kmsfs/keyservice"
	"kmsfs/keyservice/home"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/sealer"
	"kmsfs/policy/caller"
)

// newKeyFile makes a key file and returns a sealer under it.
func newKeyFile(t testing.TB) sealer.Sealer {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := sealer.CreateKeyFile(path); err != nil {
		t.Fatal(err)
	}
	s, err := sealer.NewKeyFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// newHome makes a home that this process's user owns.
func newHome(t testing.TB) (dir string, s sealer.Sealer) {
	t.Helper()
	dir, s = filepath.Join(t.TempDir(), "home"), newKeyFile(t)
	if err := home.Init(home.InitOptions{Dir: dir, Sealer: s, Owner: uint32(os.Geteuid())}); err != nil {
		t.Fatal(err)
	}
	return dir, s
}

func openHome(t testing.TB, dir string, s sealer.Sealer) *keyservice.Service {
	t.Helper()
	service, err := keyservice.Open(dir, s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := service.Close(); err != nil {
			t.Error(err)
		}
	})
	return service
}

// newService makes and opens a home.
func newService(t testing.TB) *keyservice.Service {
	t.Helper()
	dir, s := newHome(t)
	return openHome(t, dir, s)
}

// self is this process, which owns the homes that it makes.
func self() kms.Caller {
	return kms.Caller{Caller: caller.Caller{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), PID: int32(os.Getpid())}}
}

// newKey makes a key and returns its ARN.
func newKey(t testing.TB, api kms.Service) string {
	t.Helper()
	out, err := kms.CreateKey.Call(t.Context(), api, self(), &kms.CreateKeyInput{})
	if err != nil {
		t.Fatal(err)
	}
	return out.KeyMetadata.Arn
}

func generate(t testing.TB, api kms.Service, key string, encryptionContext map[string]string) *kms.GenerateDataKeyOutput {
	t.Helper()
	out, err := kms.GenerateDataKey.Call(t.Context(), api, self(), &kms.GenerateDataKeyInput{
		KeyId: key, KeySpec: "AES_256", EncryptionContext: encryptionContext,
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// code is an error's code, or its text if it has none.
func code(err error) string {
	if e, ok := errors.AsType[*kms.Error](err); ok {
		return e.Code
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

// fileContext is an encryption context as the file system makes them.
func fileContext() map[string]string {
	return map[string]string{
		"kmsfs:volume": "3f2b8c1e-0000-4000-8000-000000000000", "kmsfs:path": "/home/alice/reports/2026/q1.ods", "kmsfs:owner": "uid:1000",
	}
}

// stranger is somebody who owns no home.
func stranger() kms.Caller {
	return kms.Caller{Caller: caller.Caller{UID: uint32(os.Geteuid()) + 1, GID: 4711}}
}

func viaFileSystem() kms.Caller {
	c := self()
	c.ViaFileSystem, c.Operation = true, "open"
	return c
}
