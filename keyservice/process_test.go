package keyservice_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/keyservice"
	"kmsfs/keyservice/sealer"
)

// childVariable has the test binary be one of the child processes instead, with its arguments.
const childVariable = "KMSFS_TEST_CHILD"

func TestMain(m *testing.M) {
	children := map[string]func(args []string) error{"create": createForever, "call": callFromOutside, "full": fillDisk}
	if child := children[os.Getenv(childVariable)]; child != nil {
		if err := child(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func child(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	c := exec.CommandContext(t.Context(), os.Args[0], args...)
	c.Env = append(os.Environ(), childVariable+"="+name)
	c.Stderr = os.Stderr
	return c
}

// createForever opens the home and prints every key and alias that it has made, as soon as it has.
func createForever(args []string) error {
	secret, err := sealer.NewKeyFile(args[1])
	if err != nil {
		return err
	}
	s, err := keyservice.Open(args[0], secret)
	if err != nil {
		return err
	}
	for i := 0; ; i++ {
		key, err := s.CreateKey(context.Background(), self(), nil)
		if err != nil {
			return err
		}
		fmt.Println(key.KeyMetadata.KeyId)
		alias := fmt.Sprintf("alias/%d-%d", os.Getpid(), i)
		if _, err := s.CreateAlias(context.Background(), self(), &keyservice.CreateAliasInput{AliasName: alias, TargetKeyId: key.KeyMetadata.KeyId}); err != nil {
			return err
		}
		fmt.Println(alias)
	}
}

func TestKilledWhileChanging(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "home")
	keyFile := filepath.Join(t.TempDir(), "key")
	if err := sealer.CreateKeyFile(keyFile); err != nil {
		t.Fatal(err)
	}
	secret, err := sealer.NewKeyFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := keyservice.Init(keyservice.InitOptions{Dir: dir, Sealer: secret, Owner: uint32(os.Geteuid())}); err != nil {
		t.Fatal(err)
	}
	var made []string
	for round := range 5 {
		made = append(made, killAfter(t, 3+7*round, dir, keyFile)...)
		s := openHome(t, dir, secret)
		for _, name := range made {
			if _, err := s.GenerateDataKey(t.Context(), self(), &keyservice.GenerateDataKeyInput{KeyId: name, KeySpec: "AES_256"}); err != nil {
				t.Errorf("round %d: %s was acknowledged: %v", round, name, err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	log := readLog(t, dir)
	for _, name := range made {
		if !strings.Contains(log, name) {
			t.Errorf("the audit log lacks %s", name)
		}
	}
}

// killAfter kills a child that has acknowledged n creations, and returns what it has acknowledged.
func killAfter(t *testing.T, n int, args ...string) []string {
	t.Helper()
	c := child(t, "create", args...)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	var made []string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if made = append(made, lines.Text()); len(made) == n {
			if err := c.Process.Signal(unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := c.Wait(); err == nil || len(made) < n {
		t.Fatalf("the child made %d, %v", len(made), err)
	}
	return made
}

// callFromOutside uses a home that another process has open.
func callFromOutside(args []string) error {
	api, err := keyservice.DialHome(args[0])
	if err != nil {
		return err
	}
	defer func() { _ = api.Close() }()
	// Whatever a client claims, the service knows better.
	claimed := keyservice.Caller{ViaFileSystem: true}
	out, err := api.GenerateDataKey(context.Background(), claimed, &keyservice.GenerateDataKeyInput{KeyId: args[1], KeySpec: "AES_256", EncryptionContext: fileContext()})
	if err != nil {
		return err
	}
	opened, err := api.Decrypt(context.Background(), claimed, &keyservice.DecryptInput{CiphertextBlob: out.CiphertextBlob, EncryptionContext: fileContext()})
	if err != nil {
		return err
	}
	if string(opened.Plaintext) != string(out.Plaintext) {
		return errors.New("the data key has changed")
	}
	_, err = api.Decrypt(context.Background(), claimed, &keyservice.DecryptInput{CiphertextBlob: out.CiphertextBlob})
	if e, ok := errors.AsType[*keyservice.Error](err); !ok || e.Code != keyservice.CodeInvalidCiphertext || e.Message != "" {
		return fmt.Errorf("wrong context: %w", err)
	}
	return nil
}

func TestTwoProcesses(t *testing.T) {
	long := filepath.Join(t.TempDir(), strings.Repeat("long", 40))
	for _, parent := range []string{t.TempDir(), long} {
		dir, secret := filepath.Join(parent, "home"), newKeyFile(t)
		if err := keyservice.Init(keyservice.InitOptions{Dir: dir, Sealer: secret, Owner: uint32(os.Geteuid())}); err != nil {
			t.Fatal(err)
		}
		if _, err := keyservice.DialHome(dir); err == nil {
			t.Error("somebody serves a home that nobody has open")
		}
		s := openHome(t, dir, secret)
		key := newKey(t, s)
		if err := s.Serve(); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(filepath.Join(dir, "socket")); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the socket is %v, %v", info, err)
		}
		c := child(t, "call", dir, key)
		if err := c.Run(); err != nil {
			t.Errorf("child: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := keyservice.DialHome(dir); err == nil {
			t.Error("somebody serves a home that is closed")
		}
		log := readLog(t, dir)
		if !strings.Contains(log, fmt.Sprintf(`"pid":%d`, c.Process.Pid)) || strings.Contains(log, "fs.kmsfs") {
			t.Errorf("the audit log has no calls of pid %d, or has calls by a file system:\n%s", c.Process.Pid, log)
		}
	}
}

// A process that was killed leaves its socket behind.
func TestStaleSocket(t *testing.T) {
	dir, secret := newHome(t)
	if err := unix.Mknod(filepath.Join(dir, "socket"), unix.S_IFSOCK|0o600, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := keyservice.DialHome(dir); err == nil {
		t.Error("somebody serves it")
	}
	if err := openHome(t, dir, secret).Serve(); err != nil {
		t.Error(err)
	}
	other, secret := newHome(t)
	if err := os.WriteFile(filepath.Join(other, "socket"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := openHome(t, other, secret).Serve(); !errors.Is(err, keyservice.ErrDamagedHome) {
		t.Errorf("a file in the socket's place: %v", err)
	}
}

// All operations work over the socket as they do in the process.
func TestClientOperations(t *testing.T) {
	dir, secret := newHome(t)
	s := openHome(t, dir, secret)
	if err := s.Serve(); err != nil {
		t.Fatal(err)
	}
	api, err := keyservice.DialHome(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = api.Close() }()
	key := newKey(t, api)
	if _, err := api.CreateAlias(t.Context(), self(), &keyservice.CreateAliasInput{AliasName: "alias/a", TargetKeyId: key}); err != nil {
		t.Fatal(err)
	}
	for name, call := range calls(api, key, generate(t, api, key, nil).CiphertextBlob) {
		if name == "DisableKey" {
			continue
		}
		if name == "UpdateAlias" || name == "DeleteAlias" { // another may have deleted it
			if _, err := api.CreateAlias(t.Context(), self(), &keyservice.CreateAliasInput{AliasName: "alias/a", TargetKeyId: key}); err != nil && code(err) != keyservice.CodeAlreadyExists {
				t.Fatal(err)
			}
		}
		if err := call(t, self()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	here, err := s.DescribeKey(t.Context(), self(), &keyservice.DescribeKeyInput{KeyId: key})
	if err != nil {
		t.Fatal(err)
	}
	there, err := api.DescribeKey(t.Context(), self(), &keyservice.DescribeKeyInput{KeyId: key})
	if err != nil || !there.KeyMetadata.CreationDate.Equal(here.KeyMetadata.CreationDate.Time) || there.KeyMetadata.CurrentKeyMaterialId != here.KeyMetadata.CurrentKeyMaterialId {
		t.Errorf("got %+v, %v, want %+v", there, err, here)
	}
	if _, err := api.Encrypt(t.Context(), self(), &keyservice.EncryptInput{KeyId: key, Plaintext: []byte("p"), EncryptionContext: map[string]string{"a": "\xff"}}); code(err) != keyservice.CodeValidation {
		t.Errorf("a context that the wire can't carry: %v", err)
	}
}

// fillDisk finds out what happens when the audit log can't grow, and then can again.
func fillDisk(args []string) error {
	secret, err := sealer.NewKeyFile(args[1])
	if err != nil {
		return err
	}
	s, err := keyservice.Open(args[0], secret)
	if err != nil {
		return err
	}
	key, err := s.CreateKey(context.Background(), self(), nil)
	if err != nil {
		return err
	}
	in := &keyservice.GenerateDataKeyInput{KeyId: key.KeyMetadata.KeyId, KeySpec: "AES_256"}
	signal.Ignore(unix.SIGXFSZ)
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
		return err
	}
	info, err := os.Stat(filepath.Join(args[0], "audit/current.jsonl"))
	if err != nil {
		return err
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: uint64(info.Size()) + 100, Max: old.Max}); err != nil {
		return err
	}
	for range 3 {
		if out, err := s.GenerateDataKey(context.Background(), self(), in); out != nil || code(err) != keyservice.CodeInternal {
			return fmt.Errorf("a data key without a record: %v, %w", out, err)
		}
		if _, err := s.CreateKey(context.Background(), self(), nil); code(err) != keyservice.CodeInternal {
			return fmt.Errorf("a key without a record: %w", err)
		}
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
		return err
	}
	if _, err := s.GenerateDataKey(context.Background(), self(), in); err != nil {
		return fmt.Errorf("once the log can be written again: %w", err)
	}
	if keys, err := s.ListKeys(context.Background(), self(), nil); err != nil || len(keys.Keys) != 1 {
		return fmt.Errorf("%d keys, %w", len(keys.Keys), err)
	}
	return s.Close()
}

func TestFullDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "home")
	keyFile := filepath.Join(t.TempDir(), "key")
	if err := sealer.CreateKeyFile(keyFile); err != nil {
		t.Fatal(err)
	}
	secret, err := sealer.NewKeyFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := keyservice.Init(keyservice.InitOptions{Dir: dir, Sealer: secret, Owner: uint32(os.Geteuid())}); err != nil {
		t.Fatal(err)
	}
	if err := child(t, "full", dir, keyFile).Run(); err != nil {
		t.Fatal(err)
	}
	if records := readRecords(t, dir); len(records) != 3 {
		t.Errorf("got %d records, want those of CreateKey, GenerateDataKey and ListKeys", len(records))
	}
}

func TestRemovedLog(t *testing.T) {
	for name, remove := range map[string]func(path string) error{
		"removed": os.Remove,
		"replaced": func(path string) error {
			return errors.Join(os.WriteFile(path+"2", nil, 0o600), os.Rename(path+"2", path))
		},
		"renamed": func(path string) error { return os.Rename(path, path+"2") },
	} {
		t.Run(name, func(t *testing.T) {
			dir, secret := newHome(t)
			s := openHome(t, dir, secret)
			key := newKey(t, s)
			if err := remove(filepath.Join(dir, "audit/current.jsonl")); err != nil {
				t.Fatal(err)
			}
			if name == "renamed" {
				time.Sleep(1100 * time.Millisecond) // until the name is looked at again
			}
			if _, err := s.GenerateDataKey(t.Context(), self(), &keyservice.GenerateDataKeyInput{KeyId: key, KeySpec: "AES_256"}); code(err) != keyservice.CodeInternal {
				t.Errorf("got %v", err)
			}
		})
	}
}
