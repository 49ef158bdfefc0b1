package keyservice_test

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/keyservice"
	"kmsfs/keyservice/home"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/sealer"
)

func TestHomeKeepsItsState(t *testing.T) {
	dir, secret := newHome(t)
	s := openHome(t, dir, secret)
	key, disabled := newKey(t, s), newKey(t, s)
	blob := generate(t, s, key, fileContext())
	for _, err := range []error{
		second(kms.CreateAlias.Call(t.Context(), s, self(), &kms.CreateAliasInput{AliasName: "alias/a", TargetKeyId: key})),
		second(kms.DisableKey.Call(t.Context(), s, self(), &kms.DisableKeyInput{KeyId: disabled})),
		s.Close(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	s = openHome(t, dir, secret)
	if got := decrypt(t, s, blob.CiphertextBlob, fileContext()); string(got) != string(blob.Plaintext) {
		t.Error("the data key has changed")
	}
	if out, err := kms.DescribeKey.Call(t.Context(), s, self(), &kms.DescribeKeyInput{KeyId: "alias/a"}); err != nil || out.KeyMetadata.Arn != key {
		t.Errorf("the alias names %+v, %v", out, err)
	}
	if out, err := kms.DescribeKey.Call(t.Context(), s, self(), &kms.DescribeKeyInput{KeyId: disabled}); err != nil || out.KeyMetadata.KeyState != "Disabled" {
		t.Errorf("the disabled key is %+v, %v", out, err)
	}
}

func TestHomeKinds(t *testing.T) {
	credentials := t.TempDir()
	if err := os.WriteFile(filepath.Join(credentials, "kmsfs"), []byte(strings.Repeat("c", 32)), 0o440); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", credentials)
	credential, err := sealer.NewCredential("kmsfs")
	if err != nil {
		t.Fatal(err)
	}
	sealers := []sealer.Sealer{newPassphrase(t, "correct horse"), newKeyFile(t), credential}
	wrong := []sealer.Sealer{newPassphrase(t, "correct horsf"), newKeyFile(t), nil}
	for i, secret := range sealers {
		t.Run(secret.Kind(), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "home")
			if exists, err := home.Exists(dir); exists || err != nil {
				t.Errorf("before: %t, %v", exists, err)
			}
			if err := home.Init(home.InitOptions{Dir: dir, Sealer: secret}); err != nil {
				t.Fatal(err)
			}
			if exists, err := home.Exists(dir); !exists || err != nil {
				t.Errorf("after: %t, %v", exists, err)
			}
			if kind, err := home.SealerKind(dir); kind != secret.Kind() || err != nil {
				t.Errorf("kind %s, %v", kind, err)
			}
			if err := openHome(t, dir, secret).Close(); err != nil {
				t.Error(err)
			}
			if wrong[i] != nil {
				expectOpen(t, dir, wrong[i], home.ErrWrongSecret)
			}
			expectOpen(t, dir, sealers[(i+1)%len(sealers)], home.ErrSealerMismatch)
			expectOpen(t, dir, nil, home.ErrSealerMismatch)
			openHome(t, dir, secret)
			expectOpen(t, dir, secret, home.ErrLocked)
		})
	}
}

func newPassphrase(t *testing.T, text string) sealer.Sealer {
	t.Helper()
	s, err := sealer.NewPassphrase([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// expectOpen expects the error, and that the attempt changes nothing.
func expectOpen(t *testing.T, dir string, secret sealer.Sealer, want error) {
	t.Helper()
	before := contents(t, dir)
	s, err := keyservice.Open(dir, secret)
	if err == nil {
		err = s.Close()
	}
	if !errors.Is(err, want) {
		t.Errorf("open: got %v, want %v", err, want)
	}
	if after := contents(t, dir); after != before {
		t.Errorf("open has changed the home")
	}
}

// contents is all that lies in a directory, as text.
func contents(t testing.TB, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		all.WriteString(path + " " + entry.Type().String() + "\n")
		if !entry.Type().IsRegular() {
			return nil
		}
		content, err := os.ReadFile(path)
		all.Write(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

func TestInitRefuses(t *testing.T) {
	dir, secret := newHome(t)
	occupied := t.TempDir()
	if err := os.WriteFile(filepath.Join(occupied, "thesis.tex"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(occupied, "thesis.tex")
	for _, place := range []string{dir, occupied, file} {
		before := contents(t, filepath.Dir(place))
		if err := home.Init(home.InitOptions{Dir: place, Sealer: secret}); !errors.Is(err, home.ErrExists) {
			t.Errorf("%s: got %v, want %v", place, err, home.ErrExists)
		}
		if contents(t, filepath.Dir(place)) != before {
			t.Errorf("%s has changed", place)
		}
	}
	if err := home.Init(home.InitOptions{Dir: filepath.Join(occupied, "new"), Sealer: secret, Name: "a:b"}); err == nil {
		t.Error("a name with a colon is accepted")
	}
}

// noSealer is a sealer whose secret can't be had.
type noSealer struct{}

func (noSealer) Kind() string                  { return sealer.KindKeyFile }
func (noSealer) Seal([]byte) ([]byte, error)   { return nil, errors.New("no secret") }
func (noSealer) Open(b []byte) ([]byte, error) { return nil, errors.New("no secret") }

func TestFailedInitLeavesNothing(t *testing.T) {
	parent := t.TempDir()
	if err := home.Init(home.InitOptions{Dir: filepath.Join(parent, "home"), Sealer: noSealer{}}); err == nil {
		t.Fatal("it succeeds")
	}
	if entries, err := os.ReadDir(parent); err != nil || len(entries) > 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestInitInEmptyDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "home")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if exists, err := home.Exists(dir); exists || err != nil {
		t.Errorf("before: %t, %v", exists, err)
	}
	secret := newKeyFile(t)
	if err := home.Init(home.InitOptions{Dir: dir, Sealer: secret, Owner: uint32(os.Geteuid())}); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	openHome(t, dir, secret)
}

func TestDamagedHomes(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	expectOpen(t, filepath.Dir(none), newKeyFile(t), home.ErrMissing)
	if _, err := keyservice.Open(none, newKeyFile(t)); !errors.Is(err, home.ErrMissing) {
		t.Errorf("missing directory: %v", err)
	}
	for _, test := range []struct {
		name   string
		damage func(t *testing.T, dir string) error
		want   error
	}{
		{"no root key", remove("rootkey"), home.ErrDamaged},
		{"no store", remove("keys.db"), home.ErrDamaged},
		{"no lock", remove("lock"), home.ErrDamaged},
		{"no audit directory", remove("audit"), home.ErrDamaged},
		{"empty root key", write("rootkey", ""), home.ErrDamaged},
		{"root key of garbage", write("rootkey", "\x00\xff"), home.ErrDamaged},
		{"root key of a later version", write("rootkey", `{"version":2,"sealer":"key-file","sealed":"AA=="}`), home.ErrDamaged},
		{"unknown sealer", write("rootkey", `{"version":1,"sealer":"magic","sealed":"AA=="}`), home.ErrDamaged},
		{"unknown field", write("rootkey", `{"version":1,"sealer":"key-file","sealed":"AA==","x":1}`), home.ErrDamaged},
		{"two root keys", write("rootkey", `{"version":1,"sealer":"key-file","sealed":"AA=="}{}`), home.ErrDamaged},
		{"short sealed root key", write("rootkey", `{"version":1,"sealer":"key-file","sealed":"AQ=="}`), home.ErrDamaged},
		{"huge root key", write("rootkey", strings.Repeat(" ", 5000)), home.ErrDamaged},
		{"empty store", write("keys.db", ""), home.ErrDamaged},
		{"store of garbage", write("keys.db", strings.Repeat("garbage ", 10_000)), home.ErrDamaged},
		{"store cut off", func(_ *testing.T, dir string) error { return os.Truncate(filepath.Join(dir, "keys.db"), 8192) }, home.ErrDamaged},
		{"another home's store", func(t *testing.T, dir string) error {
			other, _ := newHome(t)
			return os.Rename(filepath.Join(other, "keys.db"), filepath.Join(dir, "keys.db"))
		}, home.ErrDamaged},
		{"linked store", link("keys.db"), home.ErrDamaged},
		{"linked root key", link("rootkey"), home.ErrDamaged},
		{"linked audit log", link("audit/current.jsonl"), home.ErrDamaged},
		{"linked audit directory", link("audit"), home.ErrDamaged},
		{"pipe for a root key", func(_ *testing.T, dir string) error {
			path := filepath.Join(dir, "rootkey")
			return errors.Join(os.Remove(path), unix.Mkfifo(path, 0o600))
		}, home.ErrDamaged},
		{"directory for a store", func(_ *testing.T, dir string) error {
			path := filepath.Join(dir, "keys.db")
			return errors.Join(os.Remove(path), os.Mkdir(path, 0o700))
		}, home.ErrDamaged},
		{"store that others can change", chmod("keys.db", 0o602), home.ErrUnsafe},
		{"home that others can change", chmod(".", 0o770), home.ErrUnsafe},
		{"audit directory that others can change", chmod("audit", 0o722), home.ErrUnsafe},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir, secret := newHome(t)
			if err := test.damage(t, dir); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(test.name, "pipe") {
				if _, err := keyservice.Open(dir, secret); !errors.Is(err, test.want) {
					t.Errorf("got %v, want %v", err, test.want)
				}
				return
			}
			expectOpen(t, dir, secret, test.want)
		})
	}
}

func remove(name string) func(*testing.T, string) error {
	return func(_ *testing.T, dir string) error { return os.RemoveAll(filepath.Join(dir, name)) }
}

func write(name, text string) func(*testing.T, string) error {
	return func(_ *testing.T, dir string) error {
		return os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600)
	}
}

func chmod(name string, mode os.FileMode) func(*testing.T, string) error {
	return func(_ *testing.T, dir string) error { return os.Chmod(filepath.Join(dir, name), mode) }
}

// link moves a file away and puts a link to it in its place.
func link(name string) func(*testing.T, string) error {
	return func(t *testing.T, dir string) error {
		away := filepath.Join(t.TempDir(), "away")
		path := filepath.Join(dir, name)
		return errors.Join(os.Rename(path, away), os.Symlink(away, path))
	}
}

func TestForeignHome(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gives files away")
	}
	dir, secret := newHome(t)
	if err := os.Chown(filepath.Join(dir, "keys.db"), 4711, -1); err != nil {
		t.Fatal(err)
	}
	expectOpen(t, dir, secret, home.ErrUnsafe)
}

// Damage anywhere in the store is an error or, where nothing is, none: never a crash, and never another key.
func TestDamagedStore(t *testing.T) {
	dir, secret := newHome(t)
	s := openHome(t, dir, secret)
	key := newKey(t, s)
	blob := generate(t, s, key, nil)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "keys.db")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	damage := func(b []byte, i int) []byte {
		switch i % 3 {
		case 0: // some bytes
			for range 1 + i%7 {
				b[random.IntN(len(b))] ^= byte(1 + random.IntN(255))
			}
		case 1: // the structure at a page's begin
			page := 4096 * random.IntN(len(b)/4096)
			for range 4 {
				b[page+random.IntN(96)] = byte(random.IntN(256))
			}
		case 2: // the end
			b = b[:random.IntN(len(b))]
		}
		return b
	}
	for i := range 300 {
		b := damage(append([]byte{}, whole...), i)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := keyservice.Open(dir, secret)
		if err != nil {
			continue
		}
		out, err := kms.Decrypt.Call(t.Context(), s, self(), &kms.DecryptInput{CiphertextBlob: blob.CiphertextBlob, KeyId: key})
		if err == nil && string(out.Plaintext) != string(blob.Plaintext) {
			t.Error("another data key comes out")
		}
		_ = s.Close() // it stores the key's last use, which may fail now
	}
}

// Neither data keys nor plaintexts lie in a home. What wraps the key material is tested where it can be seen, in vectors_test.go.
func TestNoSecretsAtRest(t *testing.T) {
	dir, secret := newHome(t)
	s := openHome(t, dir, secret)
	var secrets []string
	key := newKey(t, s)
	for range 10 {
		secrets = append(secrets, string(generate(t, s, key, fileContext()).Plaintext))
	}
	marked := strings.Repeat("plaintext that must not be seen ", 4)
	if _, err := kms.Encrypt.Call(t.Context(), s, self(), &kms.EncryptInput{KeyId: key, Plaintext: []byte(marked)}); err != nil {
		t.Fatal(err)
	}
	if _, err := kms.Encrypt.Call(t.Context(), s, self(), &kms.EncryptInput{KeyId: key, Plaintext: []byte(marked), EncryptionAlgorithm: "x"}); err == nil {
		t.Fatal("no error")
	}
	secrets = append(secrets, marked, marked[:32])
	all := contents(t, dir)
	for _, secret := range secrets {
		if strings.Contains(all, secret) {
			t.Errorf("%q lies in the home", secret)
		}
	}
}
