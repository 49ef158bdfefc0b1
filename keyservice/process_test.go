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
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/keyservice"
	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/home"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/sealer"
	"kmsfs/policy/caller"
)

// childVariable has the test binary be one of the child processes instead, with its arguments.
const childVariable = "KMSFS_TEST_CHILD"

func TestMain(m *testing.M) {
	children := map[string]func(args []string) error{"change": changeForever, "call": callFromOutside, "full": fillDisk, "use": useForever}
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

// changeForever opens the home and prints every change that it has made, as soon as it has: what, the key's ID, and more.
func changeForever(args []string) error {
	secret, err := sealer.NewKeyFile(args[1])
	if err != nil {
		return err
	}
	s, err := keyservice.Open(args[0], secret)
	if err != nil {
		return err
	}
	ctx, me := context.Background(), self()
	for i := 0; ; i++ {
		created, err := kms.CreateKey.Call(ctx, s, me, nil)
		if err != nil {
			return err
		}
		key := created.KeyMetadata.KeyId
		fmt.Println("key", key)
		alias := fmt.Sprintf("alias/%d-%d", os.Getpid(), i)
		if _, err := kms.CreateAlias.Call(ctx, s, me, &kms.CreateAliasInput{AliasName: alias, TargetKeyId: key}); err != nil {
			return err
		}
		fmt.Println("alias", key, alias)
		grant, err := kms.CreateGrant.Call(ctx, s, me, &kms.CreateGrantInput{KeyId: key, GranteePrincipal: "uid:1", Operations: []string{"Decrypt"}})
		if err != nil {
			return err
		}
		fmt.Println("grant", key, grant.GrantId)
		if _, err := kms.RotateKeyOnDemand.Call(ctx, s, me, &kms.RotateKeyOnDemandInput{KeyId: key}); err != nil {
			return err
		}
		fmt.Println("rotation", key)
		if _, err := kms.TagResource.Call(ctx, s, me, &kms.TagResourceInput{KeyId: key, Tags: []kms.Tag{{TagKey: "a", TagValue: alias}}}); err != nil {
			return err
		}
		fmt.Println("tag", key, alias)
		if _, err := kms.UpdateKeyDescription.Call(ctx, s, me, &kms.UpdateKeyDescriptionInput{KeyId: key, Description: alias}); err != nil {
			return err
		}
		fmt.Println("description", key, alias)
	}
}

// useForever opens the home and has data keys made by many at a time; it prints the number of each as soon as it has it.
func useForever(args []string) error {
	secret, err := sealer.NewKeyFile(args[1])
	if err != nil {
		return err
	}
	s, err := keyservice.Open(args[0], secret)
	if err != nil {
		return err
	}
	failed := make(chan error)
	for worker := range 8 {
		go func() {
			for i := 0; ; i++ {
				number := fmt.Sprintf("%d-%d-%d", os.Getpid(), worker, i)
				_, err := kms.GenerateDataKey.Call(context.Background(), s, self(), &kms.GenerateDataKeyInput{
					KeyId: args[2], KeySpec: "AES_256", EncryptionContext: map[string]string{"number": number},
				})
				if err != nil {
					failed <- err
					return
				}
				fmt.Println(number)
			}
		}()
	}
	return <-failed
}

// A process that is killed has left a record of every call that it has answered, while segments were closed too.
func TestKilledWhileUsed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "home")
	keyFile := filepath.Join(t.TempDir(), "key")
	if err := sealer.CreateKeyFile(keyFile); err != nil {
		t.Fatal(err)
	}
	secret, err := sealer.NewKeyFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := home.Init(home.InitOptions{Dir: dir, Sealer: secret, Owner: uint32(os.Geteuid())}); err != nil {
		t.Fatal(err)
	}
	s := openHome(t, dir, secret)
	key := newKey(t, s)
	if _, err := kms.PutAuditSettings.Call(t.Context(), s, self(), &kms.AuditSettings{SegmentKiB: 256, SegmentHours: 1}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var answered []string
	for round := range 5 {
		answered = append(answered, killAfter(t, 300+211*round, "use", dir, keyFile, key)...)
		s := openHome(t, dir, secret)
		if report, err := verifyLog(t, s, dir); err != nil {
			t.Fatalf("round %d: %+v, %v", round, report, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	recorded := map[string]bool{}
	err = audit.Query(os.DirFS(filepath.Join(dir, "audit")), "current.jsonl", audit.Filter{}, func(e *audit.Entry) error {
		if context, ok := e.RequestParameters["encryptionContext"].(map[string]any); ok {
			recorded[fmt.Sprint(context["number"])] = true
		}
		if e.EventName == audit.NoticeDamaged || e.EventName == audit.NoticeTorn {
			t.Errorf("a kill is taken for more: %s", e.Line)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, number := range answered {
		if !recorded[number] {
			t.Errorf("no record of call %s, which was answered", number)
		}
	}
}

// changesVariable says how many changes TestKilledWhileChanging makes, if more than usual.
const changesVariable = "KMSFS_TEST_CHANGES"

// A process that is killed has made every change that it has acknowledged, and none by halves.
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
	if err := home.Init(home.InitOptions{Dir: dir, Sealer: secret, Owner: uint32(os.Geteuid())}); err != nil {
		t.Fatal(err)
	}
	wanted := 200
	if text := os.Getenv(changesVariable); text != "" {
		if wanted, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	var made []string
	for round := 0; len(made) < wanted; round++ {
		made = append(made, killAfter(t, 3+7*round, "change", dir, keyFile)...)
		s := openHome(t, dir, secret)
		for _, change := range made {
			if err := checkChange(t.Context(), s, strings.Fields(change)); err != nil {
				t.Errorf("round %d: %s was acknowledged: %v", round, change, err)
			}
		}
		checkWhole(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	log := readLog(t, dir)
	for _, change := range made {
		if key := strings.Fields(change)[1]; !strings.Contains(log, key) {
			t.Errorf("the audit log lacks %s", key)
		}
	}
}

// checkChange says whether a change that changeForever printed is there.
func checkChange(ctx context.Context, s *keyservice.Service, change []string) error {
	what, key := change[0], change[1]
	switch what {
	case "alias":
		key = change[2]
	case "grant":
		out, err := kms.ListGrants.Call(ctx, s, self(), &kms.ListGrantsInput{KeyId: key, GrantId: change[2]})
		if err == nil && len(out.Grants) != 1 {
			err = errors.New("it is not listed")
		}
		return err
	case "rotation":
		out, err := kms.ListKeyRotations.Call(ctx, s, self(), &kms.ListKeyRotationsInput{KeyId: key})
		if err == nil && len(out.Rotations) != 1 {
			err = fmt.Errorf("%d rotations", len(out.Rotations))
		}
		return err
	case "tag":
		out, err := kms.ListResourceTags.Call(ctx, s, self(), &kms.ListResourceTagsInput{KeyId: key})
		if err == nil && (len(out.Tags) != 1 || out.Tags[0].TagValue != change[2]) {
			err = fmt.Errorf("tags %v", out.Tags)
		}
		return err
	case "description":
		out, err := kms.DescribeKey.Call(ctx, s, self(), &kms.DescribeKeyInput{KeyId: key})
		if err == nil && out.KeyMetadata.Description != change[2] {
			err = fmt.Errorf("description %q", out.KeyMetadata.Description)
		}
		return err
	}
	_, err := kms.GenerateDataKey.Call(ctx, s, self(), &kms.GenerateDataKeyInput{KeyId: key, KeySpec: "AES_256"})
	return err
}

// checkWhole uses every key that is listed, and follows every alias.
func checkWhole(t *testing.T, s *keyservice.Service) {
	t.Helper()
	use := func(name string) {
		if _, err := kms.GenerateDataKey.Call(t.Context(), s, self(), &kms.GenerateDataKeyInput{KeyId: name, KeySpec: "AES_256"}); err != nil {
			t.Errorf("%s is there by halves: %v", name, err)
		}
	}
	keys, err := kms.ListKeys.Call(t.Context(), s, self(), &kms.ListKeysInput{Limit: new(int32(1000))})
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys.Keys {
		use(k.KeyId)
	}
	aliases, err := kms.ListAliases.Call(t.Context(), s, self(), &kms.ListAliasesInput{Limit: new(int32(100))})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range aliases.Aliases {
		use(a.AliasName)
	}
}

// killAfter kills a child of that name that has acknowledged n calls, and returns what it has acknowledged.
func killAfter(t *testing.T, n int, name string, args ...string) []string {
	t.Helper()
	c := child(t, name, args...)
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
	claimed := kms.Caller{Caller: caller.Caller{UID: 4711}, Own: true}
	out, err := kms.GenerateDataKey.Call(context.Background(), api, claimed, &kms.GenerateDataKeyInput{KeyId: args[1], KeySpec: "AES_256", EncryptionContext: fileContext()})
	if err != nil {
		return err
	}
	opened, err := kms.Decrypt.Call(context.Background(), api, claimed, &kms.DecryptInput{CiphertextBlob: out.CiphertextBlob, EncryptionContext: fileContext()})
	if err != nil {
		return err
	}
	if string(opened.Plaintext) != string(out.Plaintext) {
		return errors.New("the data key has changed")
	}
	_, err = kms.Decrypt.Call(context.Background(), api, claimed, &kms.DecryptInput{CiphertextBlob: out.CiphertextBlob})
	if e, ok := errors.AsType[*kms.Error](err); !ok || e.Code != kms.CodeInvalidCiphertext || e.Message != "" {
		return fmt.Errorf("wrong context: %w", err)
	}
	// A mount of root may speak for others, who have their own rights.
	if claimed.ViaFileSystem, claimed.Own = os.Geteuid() == 0, false; !claimed.ViaFileSystem {
		return nil
	}
	_, err = kms.Decrypt.Call(context.Background(), api, claimed, &kms.DecryptInput{CiphertextBlob: out.CiphertextBlob, EncryptionContext: fileContext()})
	if e, ok := errors.AsType[*kms.Error](err); !ok || e.Code != kms.CodeAccessDenied {
		return fmt.Errorf("on behalf of a stranger: %w", err)
	}
	claimed.Own = true
	_, err = kms.Decrypt.Call(context.Background(), api, claimed, &kms.DecryptInput{CiphertextBlob: out.CiphertextBlob, EncryptionContext: fileContext()})
	return err
}

func TestTwoProcesses(t *testing.T) {
	long := filepath.Join(t.TempDir(), strings.Repeat("long", 40))
	for _, parent := range []string{t.TempDir(), long} {
		dir, secret := filepath.Join(parent, "home"), newKeyFile(t)
		if err := home.Init(home.InitOptions{Dir: dir, Sealer: secret, Owner: uint32(os.Geteuid())}); err != nil {
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
		if os.Geteuid() == 0 && !strings.Contains(log, fmt.Sprintf(`"spokenByPid":%d`, c.Process.Pid)) {
			t.Errorf("the audit log doesn't tell who spoke for others:\n%s", log)
		}
		if !strings.Contains(log, fmt.Sprintf(`"pid":%d`, c.Process.Pid)) || strings.Contains(log, "fs.kmsfs") != (os.Geteuid() == 0) {
			t.Errorf("the audit log has no calls of pid %d, or not those that a file system makes as root:\n%s", c.Process.Pid, log)
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
	if err := openHome(t, other, secret).Serve(); !errors.Is(err, home.ErrDamaged) {
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
	if _, err := kms.CreateAlias.Call(t.Context(), api, self(), &kms.CreateAliasInput{AliasName: "alias/a", TargetKeyId: key}); err != nil {
		t.Fatal(err)
	}
	for name, call := range calls(api, key, generate(t, api, key, nil).CiphertextBlob) {
		if name == "DisableKey" {
			continue
		}
		if name == "UpdateAlias" || name == "DeleteAlias" { // another may have deleted it
			if _, err := kms.CreateAlias.Call(t.Context(), api, self(), &kms.CreateAliasInput{AliasName: "alias/a", TargetKeyId: key}); err != nil && code(err) != kms.CodeAlreadyExists {
				t.Fatal(err)
			}
		}
		if err := call(t, self()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	here, err := kms.DescribeKey.Call(t.Context(), s, self(), &kms.DescribeKeyInput{KeyId: key})
	if err != nil {
		t.Fatal(err)
	}
	there, err := kms.DescribeKey.Call(t.Context(), api, self(), &kms.DescribeKeyInput{KeyId: key})
	if err != nil || !there.KeyMetadata.CreationDate.Equal(here.KeyMetadata.CreationDate.Time) || there.KeyMetadata.CurrentKeyMaterialId != here.KeyMetadata.CurrentKeyMaterialId {
		t.Errorf("got %+v, %v, want %+v", there, err, here)
	}
	if _, err := kms.Encrypt.Call(t.Context(), api, self(), &kms.EncryptInput{KeyId: key, Plaintext: []byte("p"), EncryptionContext: map[string]string{"a": "\xff"}}); code(err) != kms.CodeValidation {
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
	key, err := kms.CreateKey.Call(context.Background(), s, self(), nil)
	if err != nil {
		return err
	}
	in := &kms.GenerateDataKeyInput{KeyId: key.KeyMetadata.KeyId, KeySpec: "AES_256"}
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
		if out, err := kms.GenerateDataKey.Call(context.Background(), s, self(), in); out != nil || code(err) != kms.CodeInternal {
			return fmt.Errorf("a data key without a record: %v, %w", out, err)
		}
		if _, err := kms.CreateKey.Call(context.Background(), s, self(), nil); code(err) != kms.CodeInternal {
			return fmt.Errorf("a key without a record: %w", err)
		}
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
		return err
	}
	if _, err := kms.GenerateDataKey.Call(context.Background(), s, self(), in); err != nil {
		return fmt.Errorf("once the log can be written again: %w", err)
	}
	if keys, err := kms.ListKeys.Call(context.Background(), s, self(), nil); err != nil || len(keys.Keys) != 1 {
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
	if err := home.Init(home.InitOptions{Dir: dir, Sealer: secret, Owner: uint32(os.Geteuid())}); err != nil {
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
			if _, err := kms.GenerateDataKey.Call(t.Context(), s, self(), &kms.GenerateDataKeyInput{KeyId: key, KeySpec: "AES_256"}); code(err) != kms.CodeInternal {
				t.Errorf("got %v", err)
			}
		})
	}
}
