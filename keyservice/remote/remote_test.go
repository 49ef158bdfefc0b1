package remote_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"kmsfs/keyservice"
	"kmsfs/keyservice/home"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/remote"
	"kmsfs/keyservice/sealer"
	"kmsfs/policy/caller"
)

func self() kms.Caller {
	return kms.Caller{Caller: caller.Caller{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), PID: int32(os.Getpid())}, Operation: "open"}
}

// serve serves a home on a socket, with two KMS keys in it.
func serve(t *testing.T) (service *keyservice.Service, url string, keys [2]string) {
	t.Helper()
	dir := t.TempDir()
	place, keyFile, socket := filepath.Join(dir, "home"), filepath.Join(dir, "key"), filepath.Join(dir, "socket")
	if err := sealer.CreateKeyFile(keyFile); err != nil {
		t.Fatal(err)
	}
	secret, err := sealer.NewKeyFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := home.Init(home.InitOptions{Dir: place, Sealer: secret, Owner: uint32(os.Geteuid())}); err != nil {
		t.Fatal(err)
	}
	if service, err = keyservice.Open(place, secret); err != nil {
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
		out, err := kms.CreateKey.Call(t.Context(), service, self(), &kms.CreateKeyInput{})
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

func generate(t *testing.T, s *remote.Service, key string, context map[string]string) *kms.GenerateDataKeyOutput {
	t.Helper()
	out, err := kms.GenerateDataKey.Call(t.Context(), s, self(), &kms.GenerateDataKeyInput{KeyId: key, KeySpec: "AES_256", EncryptionContext: context})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func decrypt(t *testing.T, s *remote.Service, key string, wrapped []byte, context map[string]string) ([]byte, error) {
	t.Helper()
	out, err := kms.Decrypt.Call(t.Context(), s, self(), &kms.DecryptInput{KeyId: key, CiphertextBlob: wrapped, EncryptionContext: context})
	if err != nil {
		return nil, err
	}
	return out.Plaintext, nil
}

// A data key opens in its own context under its own key only, with a cache and without, whoever
// wraps it.
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
			out, err := kms.ReEncrypt.Call(t.Context(), s, self(), &kms.ReEncryptInput{
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
	if _, err := kms.DisableKey.Call(t.Context(), service, self(), &kms.DisableKeyInput{KeyId: keys[0]}); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		_, err := decrypt(t, s, keys[0], made.CiphertextBlob, place("/x"))
		if e, ok := errors.AsType[*kms.Error](err); ok && e.Code == kms.CodeDisabled {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("a disabled key is used still: %v", err)
		}
	}
}

// More volumes than there is room for branch keys: those that are given up are fetched anew.
func TestManyVolumes(t *testing.T) {
	_, url, keys := serve(t)
	s := open(t, url, time.Hour)
	for range 2 {
		for i := range 1100 { // more than 1,000 branch keys
			context := place("/x")
			context["kmsfs:volume"] = fmt.Sprintf("3f2b8c1e-0000-4000-8000-%012d", i)
			made := generate(t, s, keys[0], context)
			if got, err := decrypt(t, s, keys[0], made.CiphertextBlob, context); err != nil || !bytes.Equal(got, made.Plaintext) {
				t.Fatalf("volume %d: %v", i, err)
			}
		}
	}
}

// Whether an open file may still be used is asked for that file: another file's answer doesn't
// decide, in whatever order.
func TestCheckUsesByFile(t *testing.T) {
	service, url, keys := serve(t)
	var uses []kms.KeyUse
	for _, path := range []string{"/secret/a", "/b", "/secret/c", "/d"} {
		made := generate(t, open(t, url, 0), keys[0], place(path))
		uses = append(uses, kms.KeyUse{
			Caller: self().Caller, Action: "Decrypt", KeyId: keys[0], EncryptionContext: place(path), CiphertextBlob: made.CiphertextBlob,
		})
	}
	put := func(statements string) {
		_, err := kms.PutKeyPolicy.Call(t.Context(), service, self(), &kms.PutKeyPolicyInput{
			KeyId: keys[0], Policy: `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"kms:*","Resource":"*"}` + statements + `]}`,
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	put(`,{"Effect":"Deny","Principal":"*","Action":"kms:Decrypt","Resource":"*","Condition":{"StringLike":{"kms:EncryptionContext:kmsfs:path":"/secret/*"}}}`)
	for range 2 { // the second time around nobody is before the others
		s := open(t, url, 0)
		for range 2 {
			out, err := kms.CheckUses.Call(t.Context(), s, self(), &kms.CheckUsesInput{Uses: uses})
			if err != nil {
				t.Fatal(err)
			}
			for i, u := range uses {
				denied := out.Uses[i].Code == kms.CodeAccessDenied
				if want := strings.HasPrefix(u.EncryptionContext["kmsfs:path"], "/secret/"); denied != want {
					t.Errorf("%s: denied %t, want %t", u.EncryptionContext["kmsfs:path"], denied, want)
				}
			}
		}
		slices.Reverse(uses)
	}
}

// heldBack is a socket before a service's, which passes nothing on before the channel is closed.
// Each connection is announced.
func heldBack(t *testing.T, url string) (held string, connected chan struct{}, release chan struct{}) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "socket")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	connected, release = make(chan struct{}, 100), make(chan struct{})
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			connected <- struct{}{}
			go func() {
				defer from.Close()
				<-release
				to, err := net.Dial("unix", strings.TrimPrefix(url, "unix:"))
				if err != nil {
					t.Error(err)
					return
				}
				defer to.Close()
				go func() { _, _ = io.Copy(to, from) }()
				_, _ = io.Copy(from, to)
			}()
		}
	}()
	return "unix:" + path, connected, release
}

// Several callers wait for one branch key. One that is interrupted stops waiting, and the others
// get it.
func TestInterruptedCaller(t *testing.T) {
	_, url, keys := serve(t)
	held, connected, release := heldBack(t, url)
	s := open(t, held, time.Hour)
	in := &kms.GenerateDataKeyInput{KeyId: keys[0], KeySpec: "AES_256", EncryptionContext: place("/x")}
	interrupted, interrupt := context.WithCancel(t.Context())
	first, second := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := kms.GenerateDataKey.Call(interrupted, s, self(), in)
		first <- err
	}()
	<-connected // the first caller's call is under way
	go func() {
		_, err := kms.GenerateDataKey.Call(t.Context(), s, self(), in)
		second <- err
	}()
	interrupt()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("the interrupted caller: %v", err)
	}
	close(release)
	if err := <-second; err != nil {
		t.Errorf("the other caller: %v", err)
	}
}
