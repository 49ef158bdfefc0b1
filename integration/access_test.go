package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// office is a volume that root has mounted for all users, with two of them, and a group that both are not in.
type office struct {
	*volume
	alice, bob, team account
	// a, b and root are processes of theirs.
	a, b, root *process
	// key is the volume's KMS key, and dir a directory in which all may make files as far as modes go.
	key, dir string
}

func newOffice(t testing.TB) *office {
	t.Helper()
	o := &office{alice: newUser(t), bob: newUser(t), team: newGroup(t), volume: newVolume(t), key: "alias/kmsfs-default"}
	o.mount(t, "--allow-other")
	must(t, os.Chmod(o.point, 0o755))
	o.dir = openToAll(t, o.point, "dir")
	o.a, o.b, o.root = o.alice.as(t), o.bob.as(t), theRoot.as(t)
	return o
}

func (a account) principal() string { return "user:" + a.name }

const (
	reading = "Decrypt"
	writing = "Decrypt,GenerateDataKey"
)

// grant lends the use of the key, and returns the grant's ID.
func (o *office) grant(t testing.TB, grantee, operations string, options ...string) string {
	t.Helper()
	args := append([]string{"grant", "create", "--key", o.key, "--grantee", grantee, "--operations", operations}, options...)
	return strings.TrimSpace(o.kmsfs(t, args...))
}

func (o *office) revoke(t testing.TB, grant string) {
	t.Helper()
	o.kmsfs(t, "grant", "revoke", "--key", o.key, grant)
}

// statement is one of a policy.
type statement struct {
	Effect    string
	Principal map[string]string
	Action    []string
	Resource  string
	Condition map[string]map[string]string `json:",omitempty"`
}

// allow lets somebody do something with a key; paths, if there are any, are those of the files.
func allow(principal, operations string, path ...string) statement {
	s := statement{Effect: "Allow", Principal: map[string]string{"AWS": principal}, Resource: "*"}
	for operation := range strings.SplitSeq(operations, ",") {
		s.Action = append(s.Action, "kms:"+operation)
	}
	if len(path) > 0 {
		s.Condition = map[string]map[string]string{"StringLike": {"kms:EncryptionContext:kmsfs:path": path[0]}}
	}
	return s
}

// administration is what root may do with a key whose content is none of his business.
var administration = allow("uid:0", "DescribeKey,GetKeyPolicy,PutKeyPolicy,EnableKey,DisableKey,CreateGrant,RevokeGrant,ListGrants,ScheduleKeyDeletion,CancelKeyDeletion")

// everything is what root may do by the policy of a key that was given none.
var everything = allow("uid:0", "*")

// putPolicy gives the key a policy.
func (o *office) putPolicy(t testing.TB, statements ...statement) {
	t.Helper()
	o.kmsfs(t, "key", "policy", "put", o.key, policyFile(t, statements...))
}

func policyFile(t testing.TB, statements ...statement) string {
	t.Helper()
	text, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": statements})
	must(t, err)
	path := filepath.Join(tempDir(t), "policy.json")
	must(t, os.WriteFile(path, text, 0o600))
	return path
}

// publish has root make a file that the modes let everybody read and write.
func (o *office) publish(t testing.TB, elements ...string) string {
	t.Helper()
	path := filepath.Join(append([]string{o.dir}, elements...)...)
	openToAll(t, filepath.Dir(path))
	must(t, o.root.put(path, "text of "+filepath.Base(path)))
	return path
}

// wantReading checks whether a process can read what publish has written.
func wantReading(t *testing.T, who string, p *process, path string, allowed bool) {
	t.Helper()
	got, err := p.content(path)
	switch {
	case allowed && (err != nil || got != "text of "+filepath.Base(path)):
		t.Errorf("%s reads %s: %q, %v", who, path, got, err)
	case !allowed && err != unix.EACCES:
		t.Errorf("%s reads %s: %q, %v, want EACCES", who, path, got, err)
	}
}

// wantNoWriting checks that a process can change a file's content in no way, and make none beside it.
func wantNoWriting(t *testing.T, who string, p *process, path string) {
	t.Helper()
	for _, flags := range []int{unix.O_WRONLY, unix.O_RDWR, unix.O_WRONLY | unix.O_APPEND, unix.O_WRONLY | unix.O_TRUNC, unix.O_TRUNC, unix.O_RDWR | unix.O_CREAT} {
		if _, err := p.open(path, flags); err != unix.EACCES {
			t.Errorf("%s opens %s with flags %#x: %v, want EACCES", who, path, flags, err)
		}
	}
	if _, err := p.do(order{Do: "truncate", Path: path, Off: 3}); err != unix.EACCES {
		t.Errorf("%s truncates %s: %v, want EACCES", who, path, err)
	}
	beside := filepath.Join(filepath.Dir(path), "new of "+who)
	for _, flags := range []int{unix.O_CREAT | unix.O_WRONLY, unix.O_CREAT | unix.O_EXCL | unix.O_RDONLY} {
		if _, err := p.open(beside, flags); err != unix.EACCES {
			t.Errorf("%s creates %s: %v, want EACCES", who, beside, err)
		}
	}
	if _, err := p.open(filepath.Dir(path), unix.O_TMPFILE|unix.O_RDWR); err != unix.EACCES {
		t.Errorf("%s makes a temporary file: %v, want EACCES", who, err)
	}
	wantGone(t, beside)
}

// wantNames checks that names and attributes need no leave.
func wantLooking(t *testing.T, who string, p *process, path string) {
	t.Helper()
	for _, o := range []order{{Do: "stat", Path: path}, {Do: "list", Path: filepath.Dir(path)}} {
		if _, err := p.do(o); err != nil {
			t.Errorf("%s: %s %s: %v", who, o.Do, o.Path, err)
		}
	}
	f, err := p.open(path, unix.O_PATH)
	if err == nil {
		_, err = f.do(order{Do: "fstat"})
		_, _ = f.do(order{Do: "close"}) // it was opened for nothing
	}
	if err != nil {
		t.Errorf("%s looks at %s: %v", who, path, err)
	}
}

// Who may use a file's key decides who may use the file, whatever its mode.
func TestAccess(t *testing.T) {
	if plain {
		t.Log("everybody is let in by modes")
		return
	}
	o := newOffice(t)
	t.Run("Nobody", func(t *testing.T) { testNoLeave(t, o) })
	t.Run("Reader", func(t *testing.T) { testReader(t, o) })
	t.Run("Group", func(t *testing.T) { testGroupGrant(t, o) })
	t.Run("Path", func(t *testing.T) { testPathGrant(t, o) })
	t.Run("KeyPolicy", func(t *testing.T) { testKeyPolicy(t, o) })
	t.Run("NotRoot", func(t *testing.T) { testNotRoot(t, o) })
	t.Run("Names", func(t *testing.T) { testNamesNeedLeave(t, o) })
	t.Run("TwoMounts", func(t *testing.T) { testTwoMounts(t, o) })
}

// By the policy that a key has if it was given none, its home's owner may use it, and nobody else.
func testNoLeave(t *testing.T, o *office) {
	path := o.publish(t, "nobody", "file")
	must(t, os.Chmod(path, 0o777))
	wantReading(t, "root", o.root, path, true)
	wantReading(t, "bob", o.b, path, false)
	wantNoWriting(t, "bob", o.b, path)
	wantLooking(t, "bob", o.b, path)
	wantReading(t, "root", o.root, path, true)

	for _, wanted := range []struct{ event, operation, path string }{
		{"Decrypt", "open for read", "/dir/nobody/file"}, {"Decrypt", "truncate", "/dir/nobody/file"}, {"GenerateDataKey", "create", "/dir/nobody/new of bob"},
	} {
		records := o.kmsfs(t, "audit", "query", "--event", wanted.event, "--principal", fmt.Sprint("uid:", o.bob.id), "--path", "/dir/nobody/*", "--json")
		for _, text := range []string{
			fmt.Sprintf(`"pid":%d`, o.b.pid()), `"kmsfs:path":"` + wanted.path + `"`, `"userName":"` + o.bob.name + `"`, `"fileOperation":"` + wanted.operation + `"`,
		} {
			if !strings.Contains(records, text) {
				t.Errorf("no record of %s has %s:\n%s", wanted.event, text, tail(records, 2000))
			}
		}
		if strings.Count(records, "\n") != strings.Count(records, `"errorCode":"AccessDenied"`) {
			t.Errorf("bob is recorded to have been let in:\n%s", tail(records, 2000))
		}
	}
}

// Who may decrypt only can read, and change nothing.
func testReader(t *testing.T, o *office) {
	path := o.publish(t, "reader", "file")
	id := o.grant(t, o.bob.principal(), reading)
	wantReading(t, "bob", o.b, path, true)
	wantNoWriting(t, "bob", o.b, path)
	wantReading(t, "alice", o.a, path, false)
	o.revoke(t, id)
	wantReading(t, "bob", o.b, path, false)

	id = o.grant(t, o.bob.principal(), writing)
	must(t, o.b.put(filepath.Join(filepath.Dir(path), "bob's"), "text of bob's"))
	wantReading(t, "bob", o.b, filepath.Join(filepath.Dir(path), "bob's"), true)
	if _, err := o.b.do(order{Do: "truncate", Path: path, Off: 3}); err != nil {
		t.Error(err)
	}
	wantContent(t, path, []byte("tex"))
	o.revoke(t, id)
}

// A grant to a group is for the processes that are in it, by whatever of their groups.
func testGroupGrant(t *testing.T, o *office) {
	path := o.publish(t, "group", "file")
	id := o.grant(t, "group:"+o.team.name, reading)
	member := o.bob.as(t, o.alice, o.team)
	defer member.end()
	wantReading(t, "bob in the group", member, path, true)
	wantReading(t, "bob", o.b, path, false)
	o.revoke(t, id)
	wantReading(t, "bob in the group", member, path, false)
}

// A grant for a path is for what is there now, and ends by itself.
func testPathGrant(t *testing.T, o *office) {
	in, out := o.publish(t, "finance", "q3", "sub", "file"), o.publish(t, "finance", "q33", "file")
	o.grant(t, o.bob.principal(), reading, "--path", "/dir/finance/q3/*", "--expires", "1500ms")
	wantReading(t, "bob", o.b, in, true)
	wantReading(t, "bob", o.b, out, false)
	await(t, "the grant's end", func() bool {
		_, err := o.b.content(in)
		return err == unix.EACCES
	})
	o.grant(t, o.bob.principal(), reading, "--path", "/dir/finance/q3")
	wantReading(t, "bob", o.b, in, true)
	// What is there is what was brought there.
	must(t, os.Rename(filepath.Dir(out), filepath.Join(o.dir, "finance", "q3", "q33")))
	wantReading(t, "bob", o.b, filepath.Join(o.dir, "finance", "q3", "q33", "file"), true)
	must(t, os.Rename(filepath.Join(o.dir, "finance", "q3", "sub"), filepath.Join(o.dir, "finance", "sub")))
	wantReading(t, "bob", o.b, filepath.Join(o.dir, "finance", "sub", "file"), false)
	must(t, os.Rename(filepath.Join(o.dir, "finance", "sub", "file"), filepath.Join(o.dir, "finance", "q3", "file")))
	wantReading(t, "bob", o.b, filepath.Join(o.dir, "finance", "q3", "file"), true)
}

// A key policy decides by path and user.
func testKeyPolicy(t *testing.T, o *office) {
	hers, his := o.publish(t, "policy", "alice", "file"), o.publish(t, "policy", "bob", "file")
	o.putPolicy(t, everything,
		allow(o.alice.principal(), writing, "/dir/policy/alice/*"), allow(o.bob.principal(), reading, "/dir/policy/bob/*"))
	defer o.putPolicy(t, everything)
	wantReading(t, "alice", o.a, hers, true)
	wantReading(t, "alice", o.a, his, false)
	wantReading(t, "bob", o.b, his, true)
	wantReading(t, "bob", o.b, hers, false)
	wantNoWriting(t, "bob", o.b, his)
	wantNoWriting(t, "alice", o.a, his)
	must(t, o.a.put(filepath.Join(filepath.Dir(hers), "new"), "text of new"))
	if _, err := o.a.do(order{Do: "rename", Path: filepath.Join(filepath.Dir(hers), "new"), To: filepath.Join(filepath.Dir(his), "new")}); err != nil {
		t.Error(err)
	}
	wantReading(t, "bob", o.b, filepath.Join(filepath.Dir(his), "new"), true)
	wantReading(t, "alice", o.a, filepath.Join(filepath.Dir(his), "new"), false)
}

// Root is kept out like everybody else, and mounts the volume all the same.
func testNotRoot(t *testing.T, o *office) {
	path := o.publish(t, "notroot", "file")
	o.putPolicy(t, administration, allow(o.alice.principal(), writing))
	defer o.putPolicy(t, everything)
	check := func() {
		t.Helper()
		wantReading(t, "root", o.root, path, false)
		wantNoWriting(t, "root", o.root, path)
		wantLooking(t, "root", o.root, path)
		wantReading(t, "alice", o.a, path, true)
	}
	check()
	if _, err := o.root.do(order{Do: "chown", Path: path, Len: int(o.bob.id)}); err != unix.EACCES {
		t.Errorf("root gives the file away: %v, want EACCES", err)
	}
	o.remount(t)
	check()
	if _, err := o.root.do(order{Do: "unlink", Path: path}); err != nil {
		t.Error(err)
	}
}

// By another name, other rules might hold: so who gives a file one must be allowed to use it where it is.
func testNamesNeedLeave(t *testing.T, o *office) {
	path := o.publish(t, "names", "secret", "file")
	public := openToAll(t, o.dir, "names", "public")
	o.grant(t, o.bob.principal(), writing, "--path", "/dir/names/public")
	there := filepath.Join(public, "file")
	must(t, o.b.put(there, "text of file"))
	for _, order := range []order{
		{Do: "rename", Path: path, To: filepath.Join(public, "other")},
		{Do: "exchange", Path: path, To: there},
		{Do: "exchange", Path: there, To: path},
		{Do: "link", Path: path, To: filepath.Join(public, "other")},
		{Do: "rename", Path: filepath.Dir(path), To: filepath.Join(public, "dir")},
	} {
		if _, err := o.b.do(order); err != unix.EACCES && err != unix.EPERM { // the system protects links to others' files too
			t.Errorf("bob: %s %s: %v, want EACCES", order.Do, order.Path, err)
		}
	}
	wantReading(t, "bob", o.b, there, true)
	wantReading(t, "bob", o.b, path, false)
	wantReading(t, "root", o.root, path, true)

	// A file of two names may be used by whoever may use it by one of them, whichever was looked up last.
	both := filepath.Join(filepath.Dir(path), "both")
	must(t, os.Link(there, both))
	for range 2 {
		wantLooking(t, "bob", o.b, both)
		if got, err := o.b.content(there); err != nil {
			t.Errorf("bob reads what he may read by one of its names: %q, %v", got, err)
		}
	}
}

// Two mounts with one key service home decide alike.
func testTwoMounts(t *testing.T, o *office) {
	second := newVolumeOf(t, o.volume)
	second.mount(t, "--allow-other")
	must(t, os.Chmod(second.point, 0o777))
	path := second.path("file")
	must(t, o.root.put(path, "text of file"))
	wantReading(t, "bob", o.b, path, false)
	wantNoWriting(t, "bob", o.b, path)
	id := o.grant(t, o.bob.principal(), reading)
	wantReading(t, "bob", o.b, path, true)
	pid := o.b.pid()
	f := o.b.mustOpen(path, unix.O_RDONLY)
	o.revoke(t, id)
	await(t, "the end of access", func() bool {
		_, err := f.do(order{Do: "pread", Len: 10})
		return err == unix.EACCES
	})
	id = o.grant(t, "group:"+o.team.name, reading)
	member := o.bob.as(t, o.team)
	defer member.end()
	wantReading(t, "bob in the group", member, path, true)
	wantReading(t, "bob", o.b, path, false)
	o.revoke(t, id)
	o.b.end()
	o.b = o.bob.as(t)

	records := o.kmsfs(t, "audit", "query", "--event", "Decrypt", "--principal", fmt.Sprint("uid:", o.bob.id), "--path", "/file", "--json")
	if !strings.Contains(records, fmt.Sprintf(`"pid":%d`, pid)) {
		t.Errorf("bob's opening by the second mount is not in the log:\n%s", tail(records, 2000))
	}
}

// A key service elsewhere can't tell users apart: modes do.
func TestAccessElsewhere(t *testing.T) {
	if plain {
		t.Log("there is no key service")
		return
	}
	_, _, e := onSocket(t)
	v := volumeAt(t, e, "--allow-other")
	must(t, os.Chmod(v.point, 0o777))
	bob := newUser(t).as(t)
	must(t, os.WriteFile(v.path("open"), []byte("text of open"), 0o644))
	must(t, os.WriteFile(v.path("shut"), []byte("text of shut"), 0o600))
	wantReading(t, "bob", bob, v.path("open"), true)
	wantReading(t, "bob", bob, v.path("shut"), false)
	must(t, bob.put(v.path("bob's"), "text of bob's"))
	wantReading(t, "bob", bob, v.path("bob's"), true)
}
