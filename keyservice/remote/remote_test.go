package remote_test

import (
	"bytes"
	"errors"
	"maps"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"kmsfs/keyservice"
	"kmsfs/keyservice/remote"
	"kmsfs/keyservice/sealer"
	"kmsfs/policy/caller"
)

func self() keyservice.Caller {
	return keyservice.Caller{Caller: caller.Caller{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), PID: int32(os.Getpid())}, Operation: "open"}
}

// serve serves a home on a socket, with two KMS keys in it.
func serve(t *testing.T) (service *keyservice.Service, url string, keys [2]string) {
	t.Helper()
	dir := t.TempDir()
	home, keyFile, socket := filepath.Join(dir, "home"), filepath.Join(dir, "key"), filepath.Join(dir, "socket")
	if err := sealer.CreateKeyFile(keyFile); err != nil {
		t.Fatal(err)
	}
	secret, err := sealer.NewKeyFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := keyservice.Init(keyservice.InitOptions{Dir: home, Sealer: secret, Owner: uint32(os.Geteuid())}); err != nil {
		t.Fatal(err)
	}
	if service, err = keyservice.Open(home, secret); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := service.Close(); err != nil {
			t.Error(err)
		}
	})
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	if err := service.Serve(l); err != nil {
		t.Fatal(err)
	}
	for i := range keys {
		out, err := service.CreateKey(t.Context(), self(), &keyservice.CreateKeyInput{})
		if err != nil {
			t.Fatal(err)
		}
		keys[i] = out.KeyMetadata.Arn
	}
	return service, "unix:" + socket, keys
}

func open(t *testing.T, url string, cache time.Duration) *remote.Service {
	t.Helper()
	s, err := remote.Open(t.Context(), remote.Options{URL: url, JournalDir: filepath.Join(t.TempDir(), "journal"), JournalName: "log", Cache: cache})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func place(path string) map[string]string {
	return map[string]string{"kmsfs:volume": "3f2b8c1e-0000-4000-8000-000000000000", "kmsfs:path": path, "kmsfs:owner": "uid:1000"}
}

func generate(t *testing.T, s *remote.Service, key string, context map[string]string) *keyservice.GenerateDataKeyOutput {
	t.Helper()
	out, err := s.GenerateDataKey(t.Context(), self(), &keyservice.GenerateDataKeyInput{KeyId: key, KeySpec: "AES_256", EncryptionContext: context})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func decrypt(t *testing.T, s *remote.Service, key string, wrapped []byte, context map[string]string) ([]byte, error) {
	t.Helper()
	out, err := s.Decrypt(t.Context(), self(), &keyservice.DecryptInput{KeyId: key, CiphertextBlob: wrapped, EncryptionContext: context})
	if err != nil {
		return nil, err
	}
	return out.Plaintext, nil
}

// A data key opens in its own context under its own key only, with a cache and without, whoever wraps it.
func TestBinding(t *testing.T) {
	_, url, keys := serve(t)
	services := map[string]*remote.Service{"branch keys": open(t, url, time.Hour), "no cache": open(t, url, 0), "another host": open(t, url, time.Minute)}
	for maker, s := range services {
		context := place("/a/b")
		made := generate(t, s, keys[0], context)
		generate(t, s, keys[1], context) // so that the other key's branch key is known too
		for opener, other := range services {
			t.Run(maker+" opened by "+opener, func(t *testing.T) {
				if got, err := decrypt(t, other, keys[0], made.CiphertextBlob, context); err != nil || !bytes.Equal(got, made.Plaintext) {
					t.Errorf("the data key does not open: %v", err)
				}
				if _, err := decrypt(t, other, keys[1], made.CiphertextBlob, context); err == nil {
					t.Error("it opens under another key")
				}
				for name := range context {
					changed := maps.Clone(context)
					changed[name] += "x"
					if _, err := decrypt(t, other, keys[0], made.CiphertextBlob, changed); err == nil {
						t.Errorf("it opens with another %s", name)
					}
				}
				for i := range made.CiphertextBlob {
					damaged := bytes.Clone(made.CiphertextBlob)
					damaged[i] ^= 1
					if _, err := decrypt(t, other, keys[0], damaged, context); err == nil {
						t.Errorf("it opens with byte %d changed", i)
					}
				}
				for n := range len(made.CiphertextBlob) {
					if _, err := decrypt(t, other, keys[0], made.CiphertextBlob[:n], context); err == nil {
						t.Errorf("it opens cut to %d bytes", n)
					}
				}
			})
		}
	}
}

// A data key can be moved to another context, with a cache and without.
func TestReEncrypt(t *testing.T) {
	_, url, keys := serve(t)
	for _, from := range []time.Duration{time.Hour, 0} {
		made := generate(t, open(t, url, from), keys[0], place("/old"))
		for _, by := range []time.Duration{time.Hour, 0} {
			s := open(t, url, by)
			out, err := s.ReEncrypt(t.Context(), self(), &keyservice.ReEncryptInput{
				SourceKeyId: keys[0], DestinationKeyId: keys[0], CiphertextBlob: made.CiphertextBlob,
				SourceEncryptionContext: place("/old"), DestinationEncryptionContext: place("/new"),
			})
			if err != nil {
				t.Fatal(err)
			}
			if got, err := decrypt(t, s, keys[0], out.CiphertextBlob, place("/new")); err != nil || !bytes.Equal(got, made.Plaintext) {
				t.Errorf("made with a cache of %v, moved with one of %v: %v", from, by, err)
			}
			if _, err := decrypt(t, s, keys[0], out.CiphertextBlob, place("/old")); err == nil {
				t.Error("it opens in its old context")
			}
		}
	}
}

// Branch keys end while many use them: every call is answered, by another branch key.
func TestBranchKeysEnd(t *testing.T) {
	service, url, keys := serve(t)
	s := open(t, url, 20*time.Millisecond)
	var work sync.WaitGroup
	for range 8 {
		work.Go(func() {
			for end := time.Now().Add(500 * time.Millisecond); time.Now().Before(end); {
				made := generate(t, s, keys[0], place("/x"))
				if got, err := decrypt(t, s, keys[0], made.CiphertextBlob, place("/x")); err != nil || !bytes.Equal(got, made.Plaintext) {
					t.Errorf("got %v", err)
					return
				}
			}
		})
	}
	work.Wait()
	// What the service forbids takes hold.
	made := generate(t, s, keys[0], place("/x"))
	if _, err := service.DisableKey(t.Context(), self(), &keyservice.DisableKeyInput{KeyId: keys[0]}); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		_, err := decrypt(t, s, keys[0], made.CiphertextBlob, place("/x"))
		if e, ok := errors.AsType[*keyservice.Error](err); ok && e.Code == keyservice.CodeDisabled {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("a disabled key is used still: %v", err)
		}
	}
}
