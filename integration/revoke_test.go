package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"golang.org/x/sys/unix"
)

// ways are how somebody loses access, and gets it back. Each begins with bob and alice allowed to read and write.
var ways = []struct {
	name string
	// all says that everybody loses access, not only bob.
	all bool
	// begin gives access. What it gives back once it is lost may be for good: then restore is nil.
	begin func(t *testing.T, o *office) (revoke, restore func(t *testing.T))
}{
	{"DisableKey", true, func(t *testing.T, o *office) (revoke, restore func(t *testing.T)) {
		o.grantBoth(t)
		return func(t *testing.T) { o.kmsfs(t, "key", "disable", o.key) }, func(t *testing.T) { o.kmsfs(t, "key", "enable", o.key) }
	}},
	{"ScheduleKeyDeletion", true, func(t *testing.T, o *office) (revoke, restore func(t *testing.T)) {
		o.grantBoth(t)
		return func(t *testing.T) { o.kmsfs(t, "key", "schedule-deletion", "--days", "7", o.key) }, func(t *testing.T) {
			o.kmsfs(t, "key", "cancel-deletion", o.key)
			o.kmsfs(t, "key", "enable", o.key)
		}
	}},
	{"DeleteImportedKeyMaterial", true, func(t *testing.T, o *office) (revoke, restore func(t *testing.T)) {
		material := filepath.Join(tempDir(t), "material")
		must(t, os.WriteFile(material, noise(7, 32), 0o600))
		o.key = strings.TrimSpace(o.kmsfs(t, "key", "create", "--origin", "EXTERNAL"))
		o.kmsfs(t, "key", "import", o.key, material)
		o.grantBoth(t)
		c := newAWSClient(t, "http://home", accessKey{AccessKeyId: "none", SecretAccessKey: "none"}, overSocket(filepath.Join(o.home, "socket")))
		// It isn't imported again, which takes seconds.
		return func(t *testing.T) {
			ok[kms.DeleteImportedKeyMaterialOutput](t)(c.DeleteImportedKeyMaterial(t.Context(), &kms.DeleteImportedKeyMaterialInput{KeyId: &o.key}))
		}, nil
	}},
	{"PutKeyPolicy", false, func(t *testing.T, o *office) (revoke, restore func(t *testing.T)) {
		both := []statement{everything, allow(o.alice.principal(), writing), allow(o.bob.principal(), writing)}
		o.putPolicy(t, both...)
		return func(t *testing.T) { o.putPolicy(t, both[:2]...) }, func(t *testing.T) { o.putPolicy(t, both...) }
	}},
	{"PutServicePolicy", false, func(t *testing.T, o *office) (revoke, restore func(t *testing.T)) {
		o.grantBoth(t)
		owners := statement{Effect: "Allow", Principal: map[string]string{"AWS": "uid:0"}, Action: []string{"*"}, Resource: "*"}
		deny := allow(o.bob.principal(), "Decrypt")
		deny.Effect = "Deny"
		put := func(statements ...statement) func(t *testing.T) {
			return func(t *testing.T) { o.kmsfs(t, "home", "policy", "put", policyFile(t, statements...)) }
		}
		return put(owners, deny), put(owners)
	}},
	{"RevokeGrant", false, func(t *testing.T, o *office) (revoke, restore func(t *testing.T)) {
		o.grant(t, o.alice.principal(), writing)
		id := o.grant(t, o.bob.principal(), writing)
		return func(t *testing.T) { o.revoke(t, id) }, func(t *testing.T) { o.grant(t, o.bob.principal(), writing) }
	}},
	{"RetireGrant", false, func(t *testing.T, o *office) (revoke, restore func(t *testing.T)) {
		o.grant(t, o.alice.principal(), writing)
		id := o.grant(t, o.bob.principal(), writing, "--retiring", "uid:0")
		return func(t *testing.T) { o.kmsfs(t, "grant", "retire", "--key", o.key, id) }, func(t *testing.T) { o.grant(t, o.bob.principal(), writing) }
	}},
	{"Expiry", false, func(t *testing.T, o *office) (revoke, restore func(t *testing.T)) {
		o.grant(t, o.alice.principal(), writing)
		const life = 10 * time.Second // what comes before takes that long on a slow machine
		end := time.Now().Add(life)
		o.grant(t, o.bob.principal(), writing, "--expires", life.String())
		return func(*testing.T) { time.Sleep(time.Until(end)) }, func(t *testing.T) { o.grant(t, o.bob.principal(), writing) }
	}},
	{"Rename", false, func(t *testing.T, o *office) (revoke, restore func(t *testing.T)) {
		o.grant(t, o.alice.principal(), writing)
		o.grant(t, o.bob.principal(), writing, "--path", "/dir/Rename")
		from, to := filepath.Join(o.dir, "Rename"), filepath.Join(o.dir, "elsewhere")
		return func(t *testing.T) { must(t, os.Rename(from, to)) }, func(t *testing.T) { must(t, os.Rename(to, from)) }
	}},
	{"LockByHand", true, func(t *testing.T, o *office) (revoke, restore func(t *testing.T)) {
		o.grantBoth(t)
		return func(t *testing.T) { o.kmsfs(t, "lock", o.point) }, func(t *testing.T) { o.kmsfs(t, "unlock", o.point) }
	}},
}

func (o *office) grantBoth(t *testing.T) {
	o.grant(t, o.alice.principal(), writing)
	o.grant(t, o.bob.principal(), writing)
}

// Whoever loses access loses it for what is open, within about a second, and nobody else does; what was written is not lost; and it comes back.
func TestRevocation(t *testing.T) {
	if plain {
		t.Log("there is nothing to be revoked")
		return
	}
	first := newOffice(t)
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			o := *first // with a key of its own
			o.key = strings.TrimSpace(o.kmsfs(t, "key", "create"))
			revoke, restore := way.begin(t, &o)
			dir := openToAll(t, o.dir, way.name)
			must(t, unix.Setxattr(dir, "user.kmsfs.key", []byte(o.key), 0))
			r := newRevocation(t, &o, dir)
			r.check(t, way.all, revoke, restore)
		})
	}
}

// sizeOf is the size of the files, in bytes: several requests'.
const sizeOf = 3 << 20

// revocation is bob at work on a file of his and one that alice has open too, and alice on another as well.
type revocation struct {
	o           *office
	own, common *opened // bob's
	mapped      *opened
	hers        []*opened
	paths       struct{ own, common, mapped, hers string }
}

func newRevocation(t *testing.T, o *office, dir string) *revocation {
	t.Helper()
	r := &revocation{o: o}
	file := func(p *process, name string) (string, *opened) {
		path := filepath.Join(dir, name)
		must(t, p.put(path, string(noise(1, sizeOf))))
		f := p.mustOpen(path, unix.O_RDWR)
		t.Cleanup(func() { _, _ = f.do(order{Do: "close"}) }) // EACCES where access was lost for good
		return path, f
	}
	r.paths.own, r.own = file(o.b, "own")
	r.paths.common, r.common = file(o.b, "common")
	r.paths.mapped, r.mapped = file(o.b, "mapped")
	path, f := file(o.a, "hers")
	r.paths.hers, r.hers = path, []*opened{o.a.mustOpen(r.paths.common, unix.O_RDWR), f}
	t.Cleanup(func() { _, _ = r.hers[0].do(order{Do: "close"}) })
	for _, m := range []*opened{r.mapped, r.common} {
		_, err := m.do(order{Do: "mmap", Len: sizeOf, Flags: unix.O_RDWR})
		must(t, err)
		t.Cleanup(func() { _, _ = m.do(order{Do: "munmap"}) })
	}
	return r
}

// deedsOnOpen are all that can be done with an open file. What is read is in the middle.
func deedsOnOpen(f *opened) []order {
	return []order{
		{Do: "pread", Off: 1 << 20, Len: 100},
		{Do: "preadv", Len: 9000},
		{Do: "read", Len: 10},
		{Do: "pwrite", Off: 1 << 20, Data: []byte("again")},
		{Do: "write", Data: []byte("again")},
		{Do: "fsync"},
		{Do: "fallocate", Off: sizeOf, Len: 4096},
		{Do: "fallocate", Mode: unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, Len: 4096},
		{Do: "seek", Flags: unix.SEEK_DATA},
		{Do: "sendfile", Off: 1 << 20, Len: 100},
		{Do: "splice", Off: 1 << 20, Len: 100},
		{Do: "copy", Into: f.file, Off: 1 << 20, Len: 100},
		{Do: "ftruncate", Off: sizeOf},
	}
}

// wantRefused checks that nothing can be done with an open file.
func wantRefused(t *testing.T, what string, f *opened) {
	t.Helper()
	for _, o := range deedsOnOpen(f) {
		if a, err := f.do(o); err != unix.EACCES {
			t.Errorf("%s: %s gives %d, %v, want EACCES", what, o.Do, a.N, err)
		}
	}
}

func (r *revocation) check(t *testing.T, all bool, revoke, restore func(t *testing.T)) {
	o := r.o
	// What was written and what is in the mapping, none of which the kernel has to have written back.
	if _, err := r.own.do(order{Do: "pwrite", Off: 4000, Data: []byte("written by bob before")}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.mapped.do(order{Do: "poke", Off: 1<<20 + 4000, Data: []byte("mapped by bob before")}); err != nil {
		t.Fatal(err)
	}
	hammered := make(chan error)
	if !all {
		go func() { hammered <- r.hammer() }()
	}
	revoke(t)
	began := time.Now()
	await(t, "the revocation", func() bool {
		for _, f := range []*opened{r.own, r.common} {
			if _, err := f.do(order{Do: "pread", Len: 100}); err != unix.EACCES {
				return false
			}
		}
		_, err := r.own.do(order{Do: "sendfile", Len: 100})
		_, err2 := r.mapped.do(order{Do: "peek", Off: 1 << 20, Len: 10})
		return err == unix.EACCES && err2 == unix.EFAULT
	})
	t.Logf("took hold after %v", time.Since(began).Round(time.Millisecond))
	wantRefused(t, "bob's own file", r.own)
	if _, err := r.mapped.do(order{Do: "poke", Off: 1 << 20, Data: []byte("more")}); err != unix.EFAULT {
		t.Errorf("bob writes to his mapping: %v, want SIGBUS", err)
	}
	if _, err := o.b.content(r.path(r.paths.own)); err != unix.EACCES {
		t.Errorf("bob opens his file: %v, want EACCES", err)
	}
	if _, err := o.b.do(order{Do: "stat", Path: r.path(r.paths.own)}); err != nil {
		t.Errorf("bob looks at his file: %v", err)
	}
	if all {
		for _, f := range r.hers {
			wantRefused(t, "alice's file", f)
		}
	} else {
		if err := <-hammered; err != nil {
			t.Errorf("alice was disturbed: %v", err)
		}
		for _, f := range r.hers {
			for _, deed := range []order{{Do: "pread", Off: 1 << 20, Len: 100}, {Do: "pwrite", Off: 1 << 20, Data: noise(1, sizeOf)[1<<20:][:100]}, {Do: "fsync"}} {
				if _, err := f.do(deed); err != nil {
					t.Errorf("alice: %s gives %v", deed.Do, err)
				}
			}
		}
		if _, err := o.a.do(order{Do: "stat", Path: r.path(r.paths.common)}); err != nil {
			t.Errorf("alice looks at the file that bob has open: %v", err)
		}
	}
	if restore == nil {
		return
	}
	restore(t)
	await(t, "access", func() bool {
		_, err := r.own.do(order{Do: "pread", Len: 100})
		return err == nil
	})
	r.checkRestored(t)
}

// path is where a file is, or was before its directory was renamed.
func (r *revocation) path(was string) string {
	if moved := strings.Replace(was, "/Rename/", "/elsewhere/", 1); moved != was {
		if _, err := os.Lstat(moved); err == nil {
			return moved
		}
	}
	return was
}

// hammer has alice read and write all the time.
func (r *revocation) hammer() error {
	for _, f := range r.hers {
		for _, deed := range []string{"pread", "pwrite"} {
			got, err := f.do(order{Do: "hammer", To: deed, Len: 4096, Off: sizeOf - 4096, Data: noise(1, 1)[:1], For: 150 * time.Millisecond})
			if err == nil && got.Refused > 0 {
				err = fmt.Errorf("%s is refused %d times of %d", deed, got.Refused, got.N)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// checkRestored checks that bob's old handles work, that what he wrote is there, and that the log says what happened.
func (r *revocation) checkRestored(t *testing.T) {
	want := noise(1, sizeOf)
	copy(want[4000:], "written by bob before")
	mapped := noise(1, sizeOf)
	copy(mapped[1<<20+4000:], "mapped by bob before")
	for _, f := range []struct {
		*opened
		path string
		want []byte
	}{{r.own, r.paths.own, want}, {r.mapped, r.paths.mapped, mapped}} {
		got, err := r.o.root.content(f.path)
		if err != unix.EACCES { // root may read it, if the policy says so
			if err != nil || got != string(f.want[:1<<20]) {
				t.Errorf("%s: %s, %v", f.path, difference([]byte(got), f.want[:1<<20]), err)
			}
		}
		for _, half := range []int64{0, sizeOf / 2} {
			a, err := f.do(order{Do: "pread", Off: half, Len: sizeOf / 2})
			if err != nil || !slices.Equal(a.Data, f.want[half:][:sizeOf/2]) {
				t.Errorf("%s at %d: %s, %v", f.path, half, difference(a.Data, f.want[half:][:sizeOf/2]), err)
			}
		}
		if _, err := f.do(order{Do: "pwrite", Data: []byte("after")}); err != nil {
			t.Errorf("bob writes again: %v", err)
		}
		if _, err := f.do(order{Do: "fsync"}); err != nil && err != unix.EACCES { // of what was refused to him before
			t.Errorf("bob syncs again: %v", err)
		}
	}
	if a, err := r.mapped.do(order{Do: "peek", Off: 1<<20 + 4000, Len: 20}); err != nil || string(a.Data) != "mapped by bob before" {
		t.Errorf("bob looks into his mapping again: %q, %v", a.Data, err)
	}
	if got, err := r.o.b.content(r.paths.common); err != nil || len(got) != 1<<20 {
		t.Errorf("bob opens a file again: %d bytes, %v", len(got), err)
	}
	records := r.o.kmsfs(t, "audit", "query", "--event", "RevocationEnforced", "--json")
	for line := range strings.Lines(records) {
		var record struct{ ServiceEventDetails map[string]any }
		must(t, json.Unmarshal([]byte(line), &record))
		if d := record.ServiceEventDetails; d["uid"] == fmt.Sprint(r.o.bob.id) && d["path"] == strings.TrimPrefix(r.paths.own, r.o.point) {
			return
		}
	}
	t.Errorf("the audit log doesn't say that bob lost access:\n%s", tail(records, 2000))
}

// The kernel caches a file once, for all who have it open. Who has lost access is not served what the others bring into the cache.
func TestRevocationOfShared(t *testing.T) {
	if plain {
		t.Log("there is nothing to be revoked")
		return
	}
	o := newOffice(t)
	o.grant(t, o.alice.principal(), writing)
	id := o.grant(t, o.bob.principal(), writing)
	path := filepath.Join(o.dir, "file")
	must(t, o.a.put(path, string(noise(1, sizeOf))))
	hers, his := o.a.mustOpen(path, unix.O_RDWR), o.b.mustOpen(path, unix.O_RDWR)
	direct := o.b.mustOpen(path, unix.O_RDONLY|unix.O_DIRECT)
	_, err := his.do(order{Do: "mmap", Len: sizeOf, Flags: unix.O_RDWR})
	must(t, err)
	reading := func(f *opened, deed string, time time.Duration) answer {
		t.Helper()
		a, err := f.do(order{Do: "hammer", To: deed, Off: sizeOf - 4096, Len: 4096, For: time, Data: []byte("text")})
		must(t, err)
		return a
	}
	before := reading(hers, "pread", time.Second/2)

	busy, done := make(chan struct{}), make(chan answer)
	go func() {
		total := answer{}
		for {
			select {
			case <-busy:
				done <- total
				return
			default:
				a := reading(hers, "pread", time.Second/10)
				total.N, total.Refused, total.Longest = total.N+a.N, total.Refused+a.Refused, max(total.Longest, a.Longest)
			}
		}
	}()
	o.revoke(t, id)
	began := time.Now()
	await(t, "the revocation", func() bool { a := reading(his, "pread", 100*time.Millisecond); return a.Refused == a.N })
	t.Logf("bob is refused after %v, while alice reads all the time", time.Since(began).Round(time.Millisecond))
	for _, deed := range []string{"pread", "read", "preadv", "pwrite", "fsync"} {
		if a := reading(his, deed, time.Second/5); a.Refused != a.N || a.N == 0 {
			t.Errorf("bob: %d of %d times, %s isn't refused", a.N-a.Refused, a.N, deed)
		}
	}
	if a := reading(direct, "pread", time.Second/10); a.Refused != a.N {
		t.Errorf("bob: %d of %d times, reading with O_DIRECT isn't refused", a.N-a.Refused, a.N)
	}
	for _, deed := range []string{"peek", "sendfile", "splice"} {
		a := reading(his, deed, time.Second/10)
		t.Logf("while alice reads the same all the time, %s shows bob %d of %d", deed, a.N-a.Refused, a.N)
	}
	close(busy)
	a := <-done
	if a.Refused > 0 || a.N == 0 {
		t.Errorf("alice is refused %d times of %d", a.Refused, a.N)
	}
	// What the kernel does not ask for, the mapping and splices, ends as soon as alice doesn't read any more.
	for _, deed := range []string{"peek", "poke", "sendfile", "splice"} {
		await(t, "the end of "+deed, func() bool { a := reading(his, deed, 100*time.Millisecond); return a.Refused == a.N })
	}
	for _, deed := range []string{"peek", "poke", "sendfile", "splice"} {
		if a := reading(his, deed, time.Second/10); a.Refused != a.N || a.N == 0 {
			t.Errorf("bob: %d of %d times, %s isn't refused", a.N-a.Refused, a.N, deed)
		}
	}
	revoked := reading(hers, "pread", time.Second/2)
	for _, deed := range []string{"munmap", "close"} {
		_, _ = his.do(order{Do: deed})
	}
	_, _ = direct.do(order{Do: "close"})
	after := reading(hers, "pread", time.Second/2)
	t.Logf("alice reads 4 KiB from the cache %d times a second before, %d while bob has it open and is kept out, %d after", 2*before.N, 2*revoked.N, 2*after.N)
}

// What was acknowledged when access ends is in the file, or closing it says that it may not be.
func TestRevocationOfWriter(t *testing.T) {
	if plain {
		t.Log("there is nothing to be revoked")
		return
	}
	o := newOffice(t)
	for i, options := range [][]string{nil, {"--path", "/dir"}, nil} {
		path := filepath.Join(o.dir, fmt.Sprint("file", i))
		id := o.grant(t, o.bob.principal(), writing, options...)
		f := o.b.mustOpen(path, unix.O_CREAT|unix.O_RDWR)
		written := make(chan answer)
		go func() {
			a, _ := f.do(order{Do: "number"}) // until it is refused
			written <- a
		}()
		time.Sleep(time.Duration(50*i) * time.Millisecond)
		o.revoke(t, id)
		revoked := time.Now()
		a := <-written
		took := time.Since(revoked).Round(time.Millisecond)
		_, err := f.do(order{Do: "close"})
		if err != unix.EACCES {
			t.Errorf("bob closes what he wrote to when he lost access: %v, want EACCES", err)
		}
		got, err := os.ReadFile(path)
		must(t, err)
		missing := 0
		for i := range a.N {
			block := got[min(len(got), int(i)*numbered):min(len(got), int(i+1)*numbered)]
			if len(block) < numbered || string(block[:9]) != fmt.Sprintf("%09d", i) {
				missing++
			}
		}
		t.Logf("bob had %d blocks written when he was refused, after %v; %d of them are not in the file", a.N, took, missing)
		if log, err := os.ReadFile(o.log()); missing > 0 && (err != nil || !strings.Contains(string(log), "is lost")) {
			t.Errorf("%d blocks are missing, and the log doesn't say so", missing)
		}
	}
}
