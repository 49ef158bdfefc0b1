package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPolicyCommands brings a volume under another KMS key with the program, takes that away, and gives it back.
func TestPolicyCommands(t *testing.T) {
	if plain {
		t.Log("there is no program")
		return
	}
	v := mounted(t)
	content := noise(1, 50_000)
	must(t, os.MkdirAll(v.path("finance", "q3"), 0o755))
	for i := range 20 {
		write(t, v.path("finance", "q3", fmt.Sprint("report", i)), content)
	}
	write(t, v.path("top"), content)
	must(t, os.Link(v.path("top"), v.path("finance", "linked")))
	v.kmsfs(t, "alias", "create", "alias/new", strings.TrimSpace(v.kmsfs(t, "key", "create")))

	if got := v.kmsfs(t, "policy", "show", v.point); !strings.Contains(got, "no policy of its own") {
		t.Errorf("policy show without one: %q", got)
	}
	v.kmsfs(t, "policy", "set", "--key", "alias/new", v.point)
	var p struct{ Key, Compression string }
	must(t, json.Unmarshal([]byte(v.kmsfs(t, "policy", "show", "--json", "--effective", v.path("finance", "q3"))), &p))
	if p.Key != "alias/new" || p.Compression != "none" {
		t.Errorf("what holds beneath is %+v", p)
	}
	v.refused(t, []string{"policy", "set", "--key", "alias/nope", v.path("finance")}, "the KMS key can't be used")
	v.refused(t, []string{"policy", "set", "--key", "alias/new", v.root}, "not a mountpoint of kmsfs")
	v.refused(t, []string{"rewrap", v.path("finance")}, "--recursive")

	// Afterwards nothing needs the old key.
	v.kmsfs(t, "rewrap", v.path("top"))
	v.kmsfs(t, "rewrap", "--recursive", v.point)
	v.kmsfs(t, "key", "disable", "alias/kmsfs-default")
	v.remount(t)
	for i := range 20 {
		wantContent(t, v.path("finance", "q3", fmt.Sprint("report", i)), content)
	}
	wantContent(t, v.path("finance", "linked"), content)
	write(t, v.path("made"), content)

	// A directory's rename leaves paths in contexts as they were, until they are refreshed.
	must(t, os.Rename(v.path("finance"), v.path("money")))
	v.kmsfs(t, "rewrap", "--recursive", v.path("money"))
	if got := v.kmsfs(t, "inspect", v.path("money", "q3", "report7")); !strings.Contains(got, `"/money/q3/report7"`) {
		t.Errorf("inspect after rewrap: %s", got)
	}

	testLocking(t, v, content)
	v.kmsfs(t, "policy", "clear", v.point)
	if got := v.kmsfs(t, "policy", "show", v.point); !strings.Contains(got, "no policy of its own") {
		t.Errorf("policy show after clear: %q", got)
	}
}

// testLocking locks the mount and then its KMS key, with a file open.
func testLocking(t *testing.T, v *volume, content []byte) {
	for _, what := range []string{v.point, "alias/new"} {
		f, err := os.Open(v.path("top"))
		must(t, err)
		v.kmsfs(t, "lock", what)
		buffer := make([]byte, len(content))
		await(t, "the end of access", func() bool {
			_, err := f.ReadAt(buffer, 0)
			return err != nil
		})
		_, err = f.ReadAt(buffer, 0)
		wantErrno(t, err, unix.EACCES)
		_, err = os.ReadFile(v.path("money", "q3", "report1"))
		wantErrno(t, err, unix.EACCES)
		wantErrno(t, os.WriteFile(v.path("other"), content, 0o600), unix.EACCES)
		wantNames(t, v.path("money"), "linked", "q3")
		v.kmsfs(t, "unlock", what)
		await(t, "access again", func() bool {
			_, err := f.ReadAt(buffer, 0)
			return err == nil
		})
		if !bytes.Equal(buffer, content) {
			t.Error("the content is another one after unlocking")
		}
		must(t, f.Close())
		wantContent(t, v.path("money", "q3", "report1"), content)
	}
}
