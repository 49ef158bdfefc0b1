package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// An administrator accepts what he has restored or moved; nobody else does, and nothing is accepted that isn't authentic.
func TestAdopt(t *testing.T) {
	if plain {
		t.Log("there are no headers")
		return
	}
	t.Run("Encrypted", func(t *testing.T) { testAdopt(t) })
	t.Run("PlaintextNames", func(t *testing.T) { testAdopt(t, "--plaintext-names") })
}

func testAdopt(t *testing.T, options ...string) {
	v := newVolume(t, options...)
	v.mount(t, "--allow-other")
	must(t, os.Chmod(v.point, 0o755))
	for _, dir := range []string{"a", "b", "d1/sub", "d2", "given", "held"} {
		must(t, os.MkdirAll(v.path(dir), 0o755))
	}
	content := func(name string) []byte { return []byte("content of " + name) }
	names := []string{"a/x", "b/x", "a/given", "a/" + longName, "b/" + longName, "a/two", "d1/sub/deep", "d2/other", "given/file", "a/broken", "b/broken", "held/x", "a/replaced"}
	for _, name := range names {
		write(t, v.path(name), content(name))
	}
	must(t, os.Link(v.path("a/two"), v.path("a/second")))
	must(t, setAttribute(v.path("given"), compressionAttribute, "none"))
	at := v.allSealed(t)
	sealed := map[string]string{}
	for _, name := range append(names, "d1", "d2", "given", "a", "b", "held") {
		sealed[name] = at(name)
	}
	v.remount(t) // nothing is known or open
	exchange := func(x, y string) {
		must(t, unix.Renameat2(unix.AT_FDCWD, sealed[x], unix.AT_FDCWD, sealed[y], unix.RENAME_EXCHANGE))
	}
	exchange("a/x", "b/x")
	exchange("a/"+longName, "b/"+longName)
	exchange("d1", "d2")
	must(t, os.Lchown(sealed["a/given"], alice, alice))
	must(t, os.Lchown(sealed["a/two"], alice, alice))
	must(t, os.Lchown(sealed["given"], alice, alice))
	flip := func(path string, at int64) {
		fd := open(t, path, unix.O_RDWR)
		b := pread(t, fd, 1, at)
		pwrite(t, fd, []byte{b[0] ^ 1}, at)
		must(t, closeDescriptor(fd))
	}
	exchange("a/broken", "b/broken")
	flip(sealed["a/broken"], 60) // what lies there now
	other := newVolumeOf(t, v)
	other.mount(t)
	write(t, other.path("file"), []byte("of another volume"))
	foreign, err := os.ReadFile(other.sealed(t, "file"))
	must(t, err)
	other.umount(t)
	must(t, os.WriteFile(sealed["a/replaced"], foreign, 0o600))

	moved := []string{"a/x", "b/x", "a/" + longName, "b/" + longName, "a/given", "a/two", "a/second", "d1/other", "d2/sub/deep", "given/file", "b/broken"}
	refused := []string{"a/broken", "a/replaced"}
	closed := func(names []string) {
		t.Helper()
		for _, name := range names {
			_, err := os.ReadFile(v.path(name))
			wantErrno(t, err, unix.EIO)
		}
	}
	closed(moved)
	closed(refused)
	// Not by those to whom the directory or file belongs, nor by those who may do anything with the key.
	must(t, os.Chown(v.path("a"), alice, alice))
	v.kmsfs(t, "grant", "create", "--key", "alias/kmsfs-default", "--grantee", fmt.Sprint("uid:", alice), "--operations", "Decrypt,GenerateDataKey")
	asUID(t, alice, func() { err = setAttribute(v.path("a"), adoptAttribute, "given") })
	wantErrno(t, err, unix.EPERM)
	closed(moved)
	if n := v.adopted(t); len(n) != 0 {
		t.Errorf("adopted: %q", n)
	}

	for _, name := range []string{"d1", "d2", "given"} { // directories first, as what they hold lies in them
		must(t, setAttribute(v.point, adoptAttribute, name))
	}
	for _, name := range moved {
		must(t, setAttribute(v.path(filepath.Dir(name)), adoptAttribute, filepath.Base(name)))
	}
	for _, name := range refused {
		wantErrno(t, setAttribute(v.path(filepath.Dir(name)), adoptAttribute, filepath.Base(name)), unix.EIO)
	}
	wantErrno(t, setAttribute(v.path("a"), adoptAttribute, "nothing"), unix.ENOENT)
	closed(refused)
	was := map[string]string{
		"a/x": "b/x", "b/x": "a/x", "a/" + longName: "b/" + longName, "b/" + longName: "a/" + longName, "a/second": "a/two",
		"d1/other": "d2/other", "d2/sub/deep": "d1/sub/deep", "b/broken": "a/broken",
	}
	all := func() {
		t.Helper()
		for _, name := range moved {
			from, ok := was[name]
			if !ok {
				from = name
			}
			wantContent(t, v.path(name), content(from))
			if path := v.inspect(t, v.path(name))[0].EncryptionContext["kmsfs:path"]; path != "/"+name && name != "a/two" && name != "a/second" {
				t.Errorf("%s is wrapped for %s", name, path)
			}
		}
		if owner := v.inspect(t, v.path("a/given"))[0].EncryptionContext["kmsfs:owner"]; owner != fmt.Sprint("uid:", alice) {
			t.Errorf("the owner is %s", owner)
		}
		closed(refused)
	}
	all()
	records := v.adopted(t)
	for _, want := range []string{"/a/x", "/b/x", "/a/given", "/d1", "/d2", "/given", "/b/broken"} {
		i := slices.IndexFunc(records, func(d map[string]string) bool { return d["foundPath"] == want })
		if i < 0 || records[i]["sealedName0"] == "" || records[i]["foundName"] != filepath.Base(want) || records[i]["foundOwner"] == "" {
			t.Errorf("no record of %s with both places: %q", want, records)
		}
	}
	// What is in its place is left alone.
	must(t, setAttribute(v.path("a"), adoptAttribute, "x"))
	must(t, setAttribute(v.point, adoptAttribute, "d1"))
	if n := len(v.adopted(t)); n != len(records) {
		t.Errorf("%d records of what was in its place", n-len(records))
	}
	// It is where it was put, and nowhere else: not to be put back either.
	exchange("a/x", "b/x")
	v.remount(t)
	closed([]string{"a/x", "b/x"})
	exchange("a/x", "b/x")
	v.remount(t)
	all()
	// Policies and all the rest work there.
	setKey(t, v.path("given"), "alias/kmsfs-default")
	must(t, os.Rename(v.path("d2"), v.path("d3")))
	wantContent(t, v.path("d3/sub/deep"), content("d1/sub/deep"))
	must(t, os.Remove(v.path("a/second")))
	wantContent(t, v.path("a/two"), content("a/two"))

	// What somebody has open isn't adopted under his hands.
	f, err := os.Open(v.path("held/x"))
	must(t, err)
	must(t, os.Rename(sealed["held/x"], filepath.Join(sealed["a"], filepath.Base(sealed["a/replaced"]))))
	wantErrno(t, setAttribute(v.path("a"), adoptAttribute, "replaced"), unix.EBUSY)
	must(t, f.Close())
	await(t, "the end of the open file", func() bool { return setAttribute(v.path("a"), adoptAttribute, "replaced") == nil })
	wantContent(t, v.path("a/replaced"), content("held/x"))
}

// adopted are the details of the records of what was adopted.
func (v *volume) adopted(t *testing.T) (all []map[string]string) {
	t.Helper()
	for _, record := range v.audit(t) {
		if record.EventName == "Adopted" {
			all = append(all, details(t, record))
		}
	}
	return all
}

// details are those that a record of the file system's own has of an event.
func details(t *testing.T, record auditRecord) map[string]string {
	t.Helper()
	found := map[string]string{}
	var members map[string]json.RawMessage
	must(t, json.Unmarshal(record.ServiceEventDetails, &members))
	for name, value := range members {
		var text string
		if json.Unmarshal(value, &text) == nil {
			found[name] = text
		}
	}
	return found
}
