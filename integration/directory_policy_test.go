package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The extended attributes that a directory's policy is set and shown by, and that files are rewrapped and adopted by.
const (
	keyAttribute         = "user.kmsfs.key"
	effectiveAttribute   = "user.kmsfs.effective.key"
	compressionAttribute = "user.kmsfs.compression"
	rewrapAttribute      = "user.kmsfs.rewrap"
	adoptAttribute       = "user.kmsfs.adopt"
)

// mallory and alice are users without an account. Only mallory means harm.
const mallory, alice = 61001, 61002

// asUID runs f in a thread of that user's, with no other groups than its own.
func asUID(t *testing.T, uid int, f func()) {
	t.Helper()
	done := make(chan unix.Errno)
	go func() {
		var errno unix.Errno
		defer func() { done <- errno }()
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		id := uintptr(uid)
		for _, call := range [][4]uintptr{{unix.SYS_SETGROUPS, 0, 0, 0}, {unix.SYS_SETRESGID, id, id, id}, {unix.SYS_SETRESUID, id, id, id}} {
			if _, _, errno = unix.RawSyscall(call[0], call[1], call[2], call[3]); errno != 0 {
				return
			}
		}
		f()
	}()
	if errno := <-done; errno != 0 {
		t.Fatalf("becoming uid %d: %v", uid, errno)
	}
}

// kmsKey makes a KMS key with an alias and returns its ARN.
func (v *volume) kmsKey(t testing.TB, alias string) string {
	t.Helper()
	id := strings.TrimSpace(v.kmsfs(t, "key", "create"))
	v.kmsfs(t, "alias", "create", alias, id)
	return v.keyARN(t, id)
}

func (v *volume) keyARN(t testing.TB, key string) string {
	t.Helper()
	var described struct{ KeyMetadata struct{ Arn string } }
	must(t, json.Unmarshal([]byte(v.kmsfs(t, "key", "describe", "--json", key)), &described))
	if described.KeyMetadata.Arn == "" {
		t.Fatalf("no ARN of %s", key)
	}
	return described.KeyMetadata.Arn
}

// sealed finds where in the volume the file or directory of a path in the mount lies.
func (v *volume) sealed(t *testing.T, path string) string {
	t.Helper()
	return v.allSealed(t)(path)
}

// allSealed is sealed for many paths, as the volume is now: inodes have the same numbers.
func (v *volume) allSealed(t *testing.T) func(path string) string {
	t.Helper()
	all := map[uint64]string{}
	must(t, filepath.WalkDir(v.dir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil {
			all[stat(t, path).Ino] = path
		}
		return err
	}))
	return func(path string) string {
		t.Helper()
		found, ok := all[stat(t, v.path(path)).Ino]
		if !ok {
			t.Fatalf("%s is not found in the volume", path)
		}
		return found
	}
}

// keyID is the end of a KMS key's ARN.
func keyID(arn string) string { return arn[strings.LastIndex(arn, "/")+1:] }

// attribute is an extended attribute's value; nothing if there is none.
func attribute(t testing.TB, path, name string) string {
	t.Helper()
	value := make([]byte, 4096)
	n, err := unix.Getxattr(path, name, value)
	if errors.Is(err, unix.ENODATA) {
		return ""
	}
	if err != nil {
		t.Fatalf("%s of %s: %v", name, path, err)
	}
	return string(value[:n])
}

func setAttribute(path, name, value string) error { return unix.Setxattr(path, name, []byte(value), 0) }

func setKey(t testing.TB, path, key string) {
	t.Helper()
	if err := setAttribute(path, keyAttribute, key); err != nil {
		t.Fatalf("policy of %s: %v", path, err)
	}
}

// wantKey checks under which KMS key files are, as the mount says and as their headers do.
func (v *volume) wantKey(t *testing.T, arn string, paths ...string) {
	t.Helper()
	for i, report := range v.inspect(t, paths...) {
		if said := attribute(t, paths[i], keyAttribute); said != arn || report.KeyARN != arn || !report.Authentic {
			t.Errorf("%s is under %s, by its attribute %s, want %s", paths[i], report.KeyARN, said, arn)
		}
	}
}

// madeUnder makes a file and checks its KMS key.
func (v *volume) madeUnder(t *testing.T, arn, path string) {
	t.Helper()
	write(t, path, []byte(path))
	v.wantKey(t, arn, path)
}

// withTwoKeys is a mount that other users may come to, and the ARNs of two KMS keys, alias/a and alias/b.
func withTwoKeys(t *testing.T) (v *volume, a, b string) {
	t.Helper()
	v = newVolume(t)
	v.mount(t, "--allow-other")
	must(t, os.Chmod(v.point, 0o755))
	return v, v.kmsKey(t, "alias/a"), v.kmsKey(t, "alias/b")
}

// Files are made under the KMS key of the nearest directory that has a policy.
func TestDirectoryPolicy(t *testing.T) {
	if plain {
		t.Log("there are no policies")
		return
	}
	v, a, b := withTwoKeys(t)
	first := v.keyARN(t, "alias/kmsfs-default")
	t.Run("Inherit", func(t *testing.T) { testInherit(t, v, first, a, b) })
	t.Run("Alias", func(t *testing.T) { testMovedAlias(t, v, a, b) })
	t.Run("Refused", func(t *testing.T) { testPolicyRefused(t, v) })
	t.Run("Owner", func(t *testing.T) { testPolicyOwner(t, v, a) })
	t.Run("Everything", func(t *testing.T) { testMadeUnder(t, v, a) })
	t.Run("Leftover", func(t *testing.T) { testLeftover(t, v, a) })
}

func testInherit(t *testing.T, v *volume, first, a, b string) {
	dir := v.path("inherit")
	deep := filepath.Join(dir, "x", "y", "z")
	must(t, os.MkdirAll(deep, 0o755))
	effective := func(path, want string) {
		t.Helper()
		if got := attribute(t, path, effectiveAttribute); got != want {
			t.Errorf("in %s %s is in force, want %s", path, got, want)
		}
	}
	write(t, filepath.Join(deep, "before"), []byte("before"))
	effective(deep, first)
	for _, name := range []string{"alias/a", keyID(a), a, strings.Replace(a, "key/"+keyID(a), "alias/a", 1)} {
		setKey(t, dir, name)
		if got := attribute(t, dir, keyAttribute); got != name {
			t.Errorf("the policy names %q, want %q", got, name)
		}
		effective(deep, name)
		v.madeUnder(t, a, filepath.Join(deep, "by "+filepath.Base(name)))
	}
	if got := attribute(t, deep, keyAttribute); got != "" {
		t.Errorf("a directory beneath has %q of its own", got)
	}
	middle := filepath.Join(dir, "x", "y")
	setKey(t, middle, "alias/b")
	v.madeUnder(t, b, filepath.Join(deep, "b"))
	v.madeUnder(t, a, filepath.Join(dir, "x", "a"))
	must(t, setAttribute(middle, compressionAttribute, "none")) // says nothing of the key
	effective(deep, "alias/b")
	v.remount(t)
	effective(deep, "alias/b")
	if got := attribute(t, middle, compressionAttribute); got != "none" {
		t.Errorf("compression %q, want none", got)
	}
	v.madeUnder(t, b, filepath.Join(deep, "b2"))
	must(t, unix.Removexattr(middle, keyAttribute))
	effective(deep, a[:strings.LastIndex(a, ":")+1]+"alias/a")
	v.madeUnder(t, a, filepath.Join(deep, "a2"))
	setKey(t, dir, "") // as setfattr without a value
	effective(deep, first)
	v.madeUnder(t, first, filepath.Join(deep, "first"))
	for name, arn := range map[string]string{"before": first, "b": b, "b2": b, "a2": a} { // what is there stays as it is
		v.wantKey(t, arn, filepath.Join(deep, name))
	}
	wantContent(t, filepath.Join(deep, "before"), []byte("before"))
	// No program that copies attributes takes policies along.
	setKey(t, middle, "alias/b")
	if list := run(t, "/", "getfattr", "-d", "-m", "-", "--absolute-names", middle); strings.Contains(list, "kmsfs") {
		t.Errorf("listed: %s", list)
	}
	run(t, dir, "cp", "-a", middle, filepath.Join(dir, "copy"))
	effective(filepath.Join(dir, "copy"), first)
}

// testMovedAlias has an alias name another KMS key: new files follow it, old ones stay readable.
func testMovedAlias(t *testing.T, v *volume, a, b string) {
	dir := v.path("alias")
	must(t, os.Mkdir(dir, 0o755))
	v.kmsfs(t, "alias", "create", "alias/moving", keyID(a))
	setKey(t, dir, "alias/moving")
	v.madeUnder(t, a, filepath.Join(dir, "old"))
	v.kmsfs(t, "alias", "update", "alias/moving", keyID(b))
	v.madeUnder(t, b, filepath.Join(dir, "new"))
	third := v.kmsKey(t, "alias/third") // which the volume has never seen
	v.kmsfs(t, "alias", "update", "alias/moving", keyID(third))
	v.madeUnder(t, third, filepath.Join(dir, "third"))
	v.remount(t)
	for name, arn := range map[string]string{"old": a, "new": b, "third": third} {
		v.wantKey(t, arn, filepath.Join(dir, name))
		wantContent(t, filepath.Join(dir, name), []byte(filepath.Join(dir, name)))
	}
	// Without it nothing is made, and what is there stays readable.
	v.kmsfs(t, "alias", "delete", "alias/moving")
	wantErrno(t, os.WriteFile(filepath.Join(dir, "none"), nil, 0o644), unix.EACCES)
	if _, err := os.Lstat(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that could not be made is there: %v", err)
	}
	wantContent(t, filepath.Join(dir, "old"), []byte(filepath.Join(dir, "old")))
	must(t, os.Rename(filepath.Join(dir, "old"), filepath.Join(dir, "renamed")))
}

// testPolicyRefused names keys that can't be used. Nothing changes.
func testPolicyRefused(t *testing.T, v *volume) {
	dir := v.path("refused")
	must(t, os.Mkdir(dir, 0o755))
	setKey(t, dir, "alias/b")
	disabled := v.kmsKey(t, "alias/disabled")
	v.kmsfs(t, "key", "disable", disabled)
	signing := strings.TrimSpace(v.kmsfs(t, "key", "create", "--spec", "ECC_NIST_P256", "--usage", "SIGN_VERIFY"))
	configuration, err := os.ReadFile(filepath.Join(v.dir, "kmsfs.volume"))
	must(t, err)
	for _, key := range []string{"alias/nowhere", "alias/disabled", disabled, signing, "11111111-2222-3333-4444-555555555555", strings.Replace(disabled, keyID(disabled), "11111111-2222-3333-4444-555555555555", 1)} {
		wantErrno(t, setAttribute(dir, keyAttribute, key), unix.EACCES)
	}
	for _, key := range []string{"alias/with space", "alias/\n", strings.Repeat("x", 2049), "alias/ä"} {
		wantErrno(t, setAttribute(dir, keyAttribute, key), unix.EINVAL)
	}
	if err := setAttribute(dir, keyAttribute, "no key/at all"); err == nil {
		t.Error("nonsense is taken for a key")
	}
	wantErrno(t, setAttribute(dir, compressionAttribute, "best"), unix.EINVAL)
	for _, name := range []string{effectiveAttribute, "user.kmsfs.more", "user.kmsfs.anything"} {
		wantErrno(t, setAttribute(dir, name, "alias/a"), unix.EOPNOTSUPP, unix.EPERM)
	}
	write(t, filepath.Join(dir, "file"), nil)
	wantErrno(t, setAttribute(filepath.Join(dir, "file"), keyAttribute, "alias/a"), unix.EOPNOTSUPP)
	if got := attribute(t, dir, keyAttribute); got != "alias/b" {
		t.Errorf("the policy is %q after refusals", got)
	}
	now, err := os.ReadFile(filepath.Join(v.dir, "kmsfs.volume"))
	must(t, err)
	if string(now) != string(configuration) {
		t.Errorf("the configuration has changed: %s", now)
	}
	v.remount(t)
	if got := attribute(t, dir, keyAttribute); got != "alias/b" {
		t.Errorf("the policy is %q after refusals and a remount", got)
	}
}

// testPolicyOwner has other users set policies: on their own directories, with keys that they may use.
func testPolicyOwner(t *testing.T, v *volume, a string) {
	dir := v.path("owner")
	must(t, os.Mkdir(dir, 0o777))
	must(t, os.Chmod(dir, 0o777))
	var results []error
	try := func(wants ...unix.Errno) {
		t.Helper()
		asUID(t, alice, func() {
			results = []error{
				os.MkdirAll(filepath.Join(dir, "hers"), 0o755), setAttribute(filepath.Join(dir, "hers"), keyAttribute, "alias/a"),
				setAttribute(dir, keyAttribute, "alias/a"), unix.Removexattr(dir, keyAttribute), setAttribute(dir, compressionAttribute, "none"),
				os.WriteFile(filepath.Join(dir, "hers", "file"), []byte("hers"), 0o600),
			}
		})
		for i, want := range wants {
			if want == 0 && results[i] != nil || want != 0 && !errors.Is(results[i], want) {
				t.Errorf("%d: %v, want %v", i, results[i], want)
			}
		}
	}
	try(0, unix.EACCES, unix.EPERM, unix.EPERM, unix.EPERM, unix.EACCES)
	for _, grant := range []string{"/owner/hers", "/elsewhere"} {
		id := strings.TrimSpace(v.kmsfs(t, "grant", "create", "--key", a, "--grantee", fmt.Sprint("uid:", alice), "--operations", "Decrypt,GenerateDataKey", "--path", grant))
		if grant == "/elsewhere" {
			try(0, unix.EACCES, unix.EPERM, unix.EPERM, unix.EPERM, unix.EACCES)
		} else {
			try(0, 0, unix.EPERM, unix.EPERM, unix.EPERM, 0)
			v.wantKey(t, a, filepath.Join(dir, "hers", "file"))
			asUID(t, alice, func() {
				results = []error{unix.Removexattr(filepath.Join(dir, "hers"), keyAttribute), os.Remove(filepath.Join(dir, "hers", "file"))}
			})
			must(t, errors.Join(results...))
		}
		v.kmsfs(t, "grant", "revoke", "--key", a, id)
	}
	setKey(t, filepath.Join(dir, "hers"), "alias/b") // root's may
}

// testMadeUnder makes files in all the ways that there are.
func testMadeUnder(t *testing.T, v *volume, a string) {
	dir := v.path("made")
	must(t, os.Mkdir(dir, 0o755))
	setKey(t, dir, "alias/a")
	at := func(name string) string { return filepath.Join(dir, name) }
	v.madeUnder(t, a, at("created"))
	must(t, unix.Mknod(at("made"), unix.S_IFREG|0o644, 0))
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR, 0o644)
	must(t, err)
	must(t, unix.Linkat(unix.AT_FDCWD, fmt.Sprint("/proc/self/fd/", fd), unix.AT_FDCWD, at("linked"), unix.AT_SYMLINK_FOLLOW))
	must(t, closeDescriptor(fd))
	must(t, os.Truncate(at("created"), 0)) // gets a new data key
	write(t, at("created"), []byte("again"))
	must(t, os.Link(at("created"), at("second")))
	v.wantKey(t, a, at("made"), at("linked"), at("created"), at("second"))
	// What is made anew of an old file's name is under the key that holds by then.
	setKey(t, dir, "alias/b")
	write(t, at("created"), []byte("and again"))
	v.wantKey(t, a, at("created"))
}

// testLeftover finds a file that a crash has left without a header: it gets one under the directory's key.
func testLeftover(t *testing.T, v *volume, a string) {
	must(t, os.Mkdir(v.path("leftover"), 0o755))
	setKey(t, v.path("leftover"), "alias/a")
	write(t, v.path("leftover", "file"), []byte("text"))
	run(t, "/", "sync", "-f", v.point)
	sealed := v.sealed(t, "leftover/file")
	v.kill(t)
	must(t, os.Truncate(sealed, 0))
	v.mount(t, v.options...)
	wantContent(t, v.path("leftover", "file"), nil)
	v.wantKey(t, a, v.path("leftover", "file"))
	v.awaitRecovery(t)
}

// A policy is durable once it is set: wherever the process is killed after that, it holds.
func TestPolicyCrash(t *testing.T) {
	t.Parallel()
	if plain {
		t.Log("there is no process to kill")
		return
	}
	v := mounted(t)
	must(t, os.MkdirAll(v.path("dir", "below"), 0o755))
	write(t, v.path("dir", "file"), []byte("content"))
	var aliases []string
	arns := map[string]string{}
	random := rand.New(rand.NewPCG(1, 2))
	const rounds = 12
	for round := range rounds {
		// Keys of this round, none of which the configuration has: each policy that is set replaces it.
		var fresh []string
		for i := range 4 {
			alias := fmt.Sprintf("alias/round%d-%d", round, i)
			arns[alias] = v.kmsKey(t, alias)
			fresh = append(fresh, alias)
		}
		aliases = append(aliases, fresh...)
		set, trying := attribute(t, v.path("dir"), keyAttribute), ""
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			for i := 0; ; i++ {
				alias := aliases[i%len(aliases)]
				if i < len(fresh) {
					alias = fresh[i]
				}
				trying = alias
				if setAttribute(v.path("dir"), keyAttribute, alias) != nil {
					return
				}
				set, trying = alias, ""
			}
		}()
		time.Sleep(time.Duration(random.IntN(30000)) * time.Microsecond) // the moment is of no matter
		v.killServer(t)
		<-stopped
		v.detach(t)
		v.mount(t)
		got := attribute(t, v.path("dir"), keyAttribute)
		if got != set && got != trying {
			t.Fatalf("round %d: the policy is %q; %q was set, and then %q tried", round, got, set, trying)
		}
		name := v.path("dir", "below", fmt.Sprint("file", round))
		if arn, ok := arns[got]; ok {
			v.madeUnder(t, arn, name)
		} else {
			write(t, name, nil)
		}
		wantContent(t, v.path("dir", "file"), []byte("content"))
	}
	v.awaitRecovery(t)
	v.remount(t)
	for round := range rounds {
		if _, err := os.ReadFile(v.path("dir", "below", fmt.Sprint("file", round))); err != nil {
			t.Error(err)
		}
	}
}

// Nobody else gets a volume whose configuration was replaced while it is mounted.
func TestReplacedConfiguration(t *testing.T) {
	t.Parallel()
	if plain {
		t.Log("there is no volume")
		return
	}
	const inUse = "mounted already"
	t.Run("Alone", func(t *testing.T) {
		v := mounted(t)
		second := filepath.Join(v.root, "second")
		must(t, os.Mkdir(second, 0o755))
		for i := range 3 {
			// Others try all the time.
			stop, tried := make(chan struct{}), make(chan error)
			go func() {
				for {
					select {
					case <-stop:
						tried <- nil
						return
					default:
						if _, err := v.try("mount", v.dir, second); err == nil {
							tried <- errors.New("a second mount has the volume")
							return
						}
					}
				}
			}()
			for j := range 5 {
				setKey(t, v.point, v.kmsKey(t, fmt.Sprintf("alias/k%d-%d", i, j)))
			}
			close(stop)
			if err := <-tried; err != nil {
				t.Fatal(err)
			}
			v.refused(t, []string{"mount", v.dir, second}, inUse)
			v.refused(t, []string{"mount", "--read-only", v.dir, second}, inUse)
			v.refused(t, []string{"mount", "--shared", v.dir, second}, inUse)
		}
		write(t, v.path("file"), []byte("content"))
		v.remount(t)
		wantContent(t, v.path("file"), []byte("content"))
	})
	t.Run("ReadOnly", func(t *testing.T) {
		v := mounted(t)
		setKey(t, v.point, v.kmsKey(t, "alias/k"))
		v.umount(t)
		v.mount(t, "--read-only")
		second := filepath.Join(v.root, "second")
		must(t, os.Mkdir(second, 0o755))
		v.refused(t, []string{"mount", v.dir, second}, inUse)
		v.refused(t, []string{"mount", "--shared", v.dir, second}, inUse)
		wantErrno(t, setAttribute(v.point, keyAttribute, "alias/k"), unix.EROFS, unix.EOPNOTSUPP)
	})
	t.Run("Shared", testReplacedShared)
}

// testReplacedShared has one of two hosts use new KMS keys: the other one sees its policies and files, and both keep everybody else from the volume.
func testReplacedShared(t *testing.T) {
	service, _, e := onSocket(t)
	var hosts [2]*volume
	for i := range hosts {
		hosts[i] = prepareVolume(t)
		hosts[i].also = e.environment
	}
	first, second := hosts[0], hosts[1]
	second.dir = first.dir
	first.kmsfs(t, "init", "--kms", e.url, "--key", e.key, first.dir)
	for _, v := range hosts {
		v.mount(t, "--shared", "--kms", e.url)
	}
	third := prepareVolume(t)
	third.also = e.environment
	closed := func() {
		t.Helper()
		for _, options := range [][]string{nil, {"--read-only"}} {
			third.refused(t, append(append([]string{"mount", "--kms", e.url}, options...), first.dir, third.point), "mounted already")
		}
	}
	must(t, os.MkdirAll(first.path("d", "e"), 0o755))
	for i, v := range hosts {
		other := hosts[1-i]
		arn := service.kmsKey(t, fmt.Sprint("alias/shared", i))
		setKey(t, v.path("d"), arn)
		must(t, setAttribute(other.path("d"), compressionAttribute, "none")) // which loses nothing of the other's
		if got := attribute(t, other.path("d", "e"), effectiveAttribute); got != arn {
			t.Errorf("the other host sees the policy %q, want %q", got, arn)
		}
		closed()
		name := fmt.Sprint("file", i)
		write(t, v.path("d", "e", name), []byte("content"))
		wantContent(t, other.path("d", "e", name), []byte("content"))
		write(t, other.path("d", "e", name+"b"), []byte("content"))
		for _, v := range hosts {
			if got := attribute(t, v.path("d", "e", name+"b"), keyAttribute); got != arn {
				t.Errorf("made under %q, want %q", got, arn)
			}
		}
		must(t, os.Rename(other.path("d"), other.path("renamed")))
		must(t, os.Rename(v.path("renamed"), v.path("d")))
		for _, v := range hosts {
			if key, compression := attribute(t, v.path("d"), keyAttribute), attribute(t, v.path("d"), compressionAttribute); key != arn || compression != "none" {
				t.Errorf("the policy is %q, %q, want %q, none", key, compression, arn)
			}
		}
		must(t, unix.Removexattr(v.path("d"), compressionAttribute))
	}
	first.umount(t)
	closed()
	first.mount(t, first.options...)
	closed()
	// Killed ones leave no lock.
	for _, v := range hosts {
		v.kill(t)
	}
	for _, v := range hosts {
		v.mount(t, v.options...)
	}
	for i := range hosts {
		wantContent(t, second.path("d", "e", fmt.Sprint("file", i)), []byte("content"))
	}
	first.awaitRecovery(t)
}
