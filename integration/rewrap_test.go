package integration

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// rewrap has all files beneath a directory rewrapped, as kmsfs rewrap --recursive does.
func rewrap(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			err = errors.Join(err, rewrap(filepath.Join(dir, e.Name())))
		} else if failed := setAttribute(dir, rewrapAttribute, e.Name()); failed != nil {
			err = errors.Join(err, fmt.Errorf("rewrapping %s in %s: %w", e.Name(), dir, failed))
		}
	}
	return err
}

// Files come under the KMS key that holds where they are, its current material, and the path where they are.
func TestRewrap(t *testing.T) {
	if plain {
		t.Log("there are no keys")
		return
	}
	v, a, b := withTwoKeys(t)
	first := v.keyARN(t, "alias/kmsfs-default")
	t.Run("Kinds", func(t *testing.T) { testRewrapKinds(t, v, first, a) })
	t.Run("Path", func(t *testing.T) { testRewrapPath(t, v) })
	t.Run("Rotated", func(t *testing.T) { testRewrapRotated(t, v, b) })
	t.Run("Leave", func(t *testing.T) { testRewrapLeave(t, v, first, a) })
	t.Run("InUse", func(t *testing.T) { testRewrapInUse(t, v, a) })
}

func testRewrapKinds(t *testing.T, v *volume, first, a string) {
	dir := v.path("kinds")
	at := func(name string) string { return filepath.Join(dir, name) }
	must(t, os.MkdirAll(at("sub"), 0o755))
	contents := map[string][]byte{"file": noise(1, 50_000), "empty": nil, "readonly": []byte("read only"), "closed": []byte("closed"), "open": noise(2, 9000), longName: []byte("long"), "sub/deep": []byte("deep"), "linked": noise(3, 5000)}
	for name, content := range contents {
		write(t, at(name), content)
	}
	f, err := os.Create(at("sparse"))
	must(t, err)
	_, err = f.WriteAt([]byte("end"), 10<<20)
	must(t, errors.Join(err, f.Close()))
	for i := range 20 {
		must(t, os.Link(at("linked"), at(fmt.Sprint("sub/link", i))))
	}
	must(t, os.Symlink("nowhere", at("symlink")))
	must(t, unix.Mkfifo(at("fifo"), 0o644))
	must(t, os.Chmod(at("readonly"), 0o444))
	must(t, os.Chmod(at("closed"), 0))
	held, err := os.OpenFile(at("open"), os.O_RDWR, 0)
	must(t, err)
	_, err = held.WriteAt([]byte("dirty"), 100) // in the kernel's cache only
	must(t, err)
	copy(contents["open"][100:], "dirty")
	before := snapshot(t, dir)
	var all []string
	for name := range contents {
		all = append(all, at(name))
	}
	all = append(all, at("sparse"), at("sub/link7"))
	v.wantKey(t, first, all...)
	setKey(t, dir, "alias/a")
	v.wantKey(t, first, all...)
	must(t, rewrap(dir))
	v.wantKey(t, a, all...)
	compare(t, before, snapshot(t, dir))
	_, err = held.WriteAt([]byte("after"), 5000)
	must(t, errors.Join(err, held.Sync(), held.Close()))
	copy(contents["open"][5000:], "after")
	// Once more, nothing is left to do.
	headers := map[string]unix.Stat_t{}
	must(t, os.Chmod(at("closed"), 0o600)) // its header is to be read
	for _, name := range []string{"file", "empty", "readonly", longName, "sub/deep"} {
		headers[name] = stat(t, v.sealed(t, "kinds/"+name))
	}
	must(t, rewrap(dir))
	for name, was := range headers {
		if now := stat(t, v.sealed(t, "kinds/"+name)); now.Ctim != was.Ctim {
			t.Errorf("%s was rewrapped though it was as it should be", name)
		}
	}
	v.remount(t)
	for name, content := range contents {
		wantContent(t, at(name), content)
	}
	if info, err := os.Stat(at("sparse")); err != nil || info.Size() != 10<<20+3 {
		t.Errorf("sparse: %v, %v", info, err)
	}
	if st := stat(t, v.sealed(t, "kinds/sparse")); st.Blocks > 64 {
		t.Errorf("the sparse file has %d blocks by now", st.Blocks)
	}
	for _, name := range []string{"none", "../file", "sub/deep", ".", ".."} {
		if setAttribute(dir, rewrapAttribute, name) == nil {
			t.Errorf("%q was rewrapped", name)
		}
	}
	wantErrno(t, setAttribute(dir, rewrapAttribute, ""), unix.EINVAL)
	wantErrno(t, setAttribute(at("file"), rewrapAttribute, "x"), unix.EOPNOTSUPP)
}

// testRewrapPath refreshes the contexts of what a renamed directory holds.
func testRewrapPath(t *testing.T, v *volume) {
	must(t, os.MkdirAll(v.path("old", "sub"), 0o755))
	for _, name := range []string{"f", "sub/g"} {
		write(t, v.path("old", name), []byte(name))
	}
	must(t, os.Rename(v.path("old"), v.path("renamed")))
	path := func(name string) string {
		t.Helper()
		return v.inspect(t, v.path("renamed", name))[0].EncryptionContext["kmsfs:path"]
	}
	if got := path("sub/g"); got != "/old/sub/g" {
		t.Errorf("before: %q", got)
	}
	must(t, rewrap(v.path("renamed")))
	for _, name := range []string{"f", "sub/g"} {
		if got := path(name); got != "/renamed/"+name {
			t.Errorf("after: %q", got)
		}
		wantContent(t, v.path("renamed", name), []byte(name))
	}
}

// testRewrapRotated has a KMS key rotated: what is wrapped under its former material is wrapped anew, and nothing else.
func testRewrapRotated(t *testing.T, v *volume, b string) {
	dir := v.path("rotated")
	must(t, os.Mkdir(dir, 0o755))
	setKey(t, dir, "alias/b")
	write(t, filepath.Join(dir, "old"), []byte("old"))
	old, _ := os.ReadFile(v.sealed(t, "rotated/old"))
	v.kmsfs(t, "key", "rotate", "alias/b")
	write(t, filepath.Join(dir, "new"), []byte("new"))
	run(t, "/", "sync", "-f", v.point)
	fresh, _ := os.ReadFile(v.sealed(t, "rotated/new"))
	must(t, rewrap(dir))
	now, _ := os.ReadFile(v.sealed(t, "rotated/old"))
	if bytes.Equal(now[:header], old[:header]) {
		t.Error("what was under the former material still is")
	}
	again, _ := os.ReadFile(v.sealed(t, "rotated/new"))
	if !bytes.Equal(again, fresh) {
		t.Error("what was under the current material was rewrapped")
	}
	v.wantKey(t, b, filepath.Join(dir, "old"), filepath.Join(dir, "new"))
	wantContent(t, filepath.Join(dir, "old"), []byte("old"))
	must(t, rewrap(dir))
	if same, _ := os.ReadFile(v.sealed(t, "rotated/old")); !bytes.Equal(same, now) {
		t.Error("rewrapped twice")
	}
}

// testRewrapLeave asks as users who may not.
func testRewrapLeave(t *testing.T, v *volume, first, a string) {
	dir := v.path("leave")
	must(t, os.Mkdir(dir, 0o777))
	must(t, os.Chmod(dir, 0o777))
	v.kmsfs(t, "grant", "create", "--key", first, "--grantee", fmt.Sprint("uid:", alice), "--path", "/leave", "--operations", "Decrypt,GenerateDataKey")
	write(t, filepath.Join(dir, "roots"), []byte("root's"))
	must(t, os.Chmod(filepath.Join(dir, "roots"), 0o666))
	var errs []error
	try := func() {
		asUID(t, alice, func() {
			errs = []error{setAttribute(dir, rewrapAttribute, "roots"), setAttribute(dir, rewrapAttribute, "hers"), setAttribute(v.point, rewrapAttribute, "")}
		})
	}
	asUID(t, alice, func() { errs = []error{os.WriteFile(filepath.Join(dir, "hers"), []byte("hers"), 0o600)} })
	must(t, errs[0])
	setKey(t, dir, "alias/a")
	try()
	wantErrno(t, errs[0], unix.EPERM)
	wantErrno(t, errs[1], unix.EACCES) // not without leave to use the other key
	wantErrno(t, errs[2], unix.EPERM, unix.EACCES)
	v.wantKey(t, first, filepath.Join(dir, "hers"), filepath.Join(dir, "roots"))
	v.kmsfs(t, "grant", "create", "--key", a, "--grantee", fmt.Sprint("uid:", alice), "--path", "/leave", "--operations", "Decrypt,GenerateDataKey")
	try()
	wantErrno(t, errs[0], unix.EPERM)
	must(t, errs[1])
	wantErrno(t, errs[2], unix.EPERM, unix.EACCES)
	v.wantKey(t, a, filepath.Join(dir, "hers"))
	v.wantKey(t, first, filepath.Join(dir, "roots"))
}

// testRewrapInUse rewraps files to and fro between two keys while they are read, written, opened, renamed and truncated: nothing of that ever fails.
func testRewrapInUse(t *testing.T, v *volume, a string) {
	dir := v.path("inuse")
	must(t, os.Mkdir(dir, 0o755))
	setKey(t, dir, "alias/a")
	const files, rounds = 4, 40
	at := func(i int) string { return filepath.Join(dir, fmt.Sprint("file", i)) }
	for i := range files {
		write(t, at(i), noise(uint64(i), 20_000))
	}
	var done atomic.Bool
	var wait sync.WaitGroup
	var opened atomic.Int64
	worker := func(what string, work func(i, n int) error) {
		wait.Go(func() {
			for n := 0; !done.Load(); n++ {
				if err := work(n%files, n); err != nil {
					t.Errorf("%s: %v", what, err)
					return
				}
				opened.Add(1)
			}
		})
	}
	worker("reading", func(i, _ int) error {
		got, err := os.ReadFile(at(i))
		if err == nil && len(got) < 10_000 {
			err = fmt.Errorf("%d bytes", len(got))
		}
		return err
	})
	worker("writing", func(i, n int) error {
		f, err := os.OpenFile(at(i), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteAt(noise(uint64(n), 500), int64(n%30)*300)
		return errors.Join(err, f.Close())
	})
	worker("truncating", func(i, n int) error { return os.Truncate(at(i), int64(10_000+n%3*5000)) })
	worker("making", func(_, n int) error {
		path := filepath.Join(dir, "made")
		return errors.Join(os.WriteFile(path, noise(uint64(n), 3000), 0o644), os.Rename(path, filepath.Join(dir, "made2")), os.Remove(filepath.Join(dir, "made2")))
	})
	for round := range rounds {
		setKey(t, dir, []string{"alias/b", "alias/a"}[round%2])
		for i := range files {
			if err := setAttribute(dir, rewrapAttribute, filepath.Base(at(i))); err != nil {
				t.Errorf("round %d: %v", round, err)
			}
		}
	}
	done.Store(true)
	wait.Wait()
	t.Logf("%d operations during %d rewraps", opened.Load(), rounds*files)
	for i := range files {
		v.wantKey(t, a, at(i))
	}
	var want [files][]byte
	for i := range files {
		var err error
		want[i], err = os.ReadFile(at(i))
		must(t, err)
	}
	v.remount(t)
	for i := range files {
		wantContent(t, at(i), want[i])
	}
}

// A whole volume moves to another KMS key: then the former one can go.
func TestRewrapVolume(t *testing.T) {
	if plain {
		t.Log("there are no keys")
		return
	}
	for _, options := range [][]string{nil, {"--plaintext-names"}} {
		v := mounted(t, options...)
		former := v.keyARN(t, "alias/kmsfs-default")
		must(t, os.MkdirAll(v.path("dir", "sub"), 0o755))
		for _, name := range []string{"dir/f", "dir/g", "dir/sub/h"} {
			write(t, v.path(name), []byte(name))
		}
		before := snapshot(t, v.path("dir"))
		next := v.kmsKey(t, "alias/next")
		setKey(t, v.point, "alias/next")
		must(t, rewrap(v.point))
		must(t, setAttribute(v.point, rewrapAttribute, ""))
		for range 2 { // by its name in the root's policy, and as the volume's own
			v.kmsfs(t, "key", "disable", former)
			compare(t, before, snapshot(t, v.path("dir")))
			v.remount(t)
			compare(t, before, snapshot(t, v.path("dir")))
			v.madeUnder(t, next, v.path("new"))
			must(t, os.Remove(v.path("new")))
			v.kmsfs(t, "key", "enable", former)
			setKey(t, v.point, "")
		}
		// Rotated, the metadata key is wrapped anew too.
		v.kmsfs(t, "key", "rotate", "alias/next")
		configuration, err := os.ReadFile(filepath.Join(v.dir, "kmsfs.volume"))
		must(t, err)
		must(t, setAttribute(v.point, rewrapAttribute, ""))
		now, err := os.ReadFile(filepath.Join(v.dir, "kmsfs.volume"))
		must(t, err)
		if bytes.Equal(now, configuration) {
			t.Error("the metadata key is wrapped as before")
		}
		// Nothing of the configuration is left lying about.
		left, err := filepath.Glob(filepath.Join(v.dir, "kmsfs.temp.*"))
		must(t, err)
		if len(left) > 1 { // the spare mark
			t.Errorf("left: %q", left)
		}
		v.remount(t)
		compare(t, before, snapshot(t, v.path("dir")))
		v.kmsfs(t, "key", "schedule-deletion", "--days", "7", former)
		compare(t, before, snapshot(t, v.path("dir")))
	}
}

// Wherever rewrapping is cut short, all files open, and it can be done again.
func TestRewrapCrash(t *testing.T) {
	if plain {
		t.Log("there is no process to kill")
		return
	}
	v := mounted(t)
	a, b := v.kmsKey(t, "alias/a"), v.kmsKey(t, "alias/b")
	const files = 60
	must(t, os.MkdirAll(v.path("dir", "sub"), 0o755))
	at := func(i int) string {
		return v.path([]string{"dir", "dir/sub"}[i%2], fmt.Sprint(strings.Repeat("f", 1+i%2*200), i))
	}
	for i := range files {
		write(t, at(i), noise(uint64(i), 4000+i))
	}
	const rounds = 8
	for round := range rounds {
		must(t, setAttribute(v.point, keyAttribute, []string{"alias/a", "alias/b"}[round%2]))
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for rewrap(v.path("dir")) == nil && setAttribute(v.point, rewrapAttribute, "") == nil {
			}
		}()
		time.Sleep(time.Duration(10+round*15) * time.Millisecond) // the moment is of no matter
		v.killServer(t)
		<-ended
		v.detach(t)
		v.mount(t)
		for i := range files {
			wantContent(t, at(i), noise(uint64(i), 4000+i))
		}
	}
	must(t, rewrap(v.path("dir")))
	must(t, setAttribute(v.point, rewrapAttribute, ""))
	for i := range files {
		v.wantKey(t, b, at(i))
	}
	v.awaitRecovery(t)
	v.kmsfs(t, "key", "disable", a)
	v.kmsfs(t, "key", "disable", "alias/kmsfs-default")
	v.remount(t)
	for i := range files {
		wantContent(t, at(i), noise(uint64(i), 4000+i))
	}
}
