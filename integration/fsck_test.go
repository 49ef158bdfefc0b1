package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
)

// found is a fault as fsck reports it.
type found struct {
	Class, Path, Backing, Detail, Remedy string
	Bad                                  []envelope.Span
	Repaired                             *bool
}

type fsckSummary struct {
	Files, Directories, Others, Bytes, Refused, Denied, Changing, Lost, Faults, Repaired int64
	UncleanEnd                                                                           bool
}

// fsck runs the program, which must end with that exit status.
func (v *volume) fsck(t *testing.T, exit int, options ...string) (faults []found, summary fsckSummary) {
	t.Helper()
	cmd, cancel := command(v.root, binary, append(append([]string{"fsck", "--json"}, options...), v.dir)...)
	defer cancel()
	cmd.Env = v.environment()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != exit {
		t.Fatalf("fsck %q: %v, want exit status %d\n%s%s", options, err, exit, tail(stdout.String(), 4000), stderr.String())
	}
	summed := false
	for line := range strings.Lines(stdout.String()) {
		var last struct{ Summary *fsckSummary }
		must(t, json.Unmarshal([]byte(line), &last))
		if last.Summary != nil {
			summary, summed = *last.Summary, true
			continue
		}
		var f found
		must(t, json.Unmarshal([]byte(line), &f))
		faults = append(faults, f)
	}
	if !summed || summary.Faults != int64(len(faults)) {
		t.Errorf("%d faults, and the summary is %+v", len(faults), summary)
	}
	return faults, summary
}

// TestFsck plants faults of every class in a volume, has them found and repaired, and reads everything.
func TestFsck(t *testing.T) {
	t.Parallel()
	if plain {
		t.Log("there is no ciphertext")
		return
	}
	t.Run("Sealed", func(t *testing.T) { testFsck(t, false) })
	t.Run("PlaintextNames", func(t *testing.T) { testFsck(t, true) })
}

func testFsck(t *testing.T, plaintextNames bool) {
	var options []string
	if plaintextNames {
		options = append(options, "--plaintext-names")
	}
	v := mounted(t, options...)
	list := slices.DeleteFunc(damages(), func(d damage) bool {
		return d.only == "sealed" && plaintextNames || d.only == "root" && !isRoot
	})
	for i, d := range list {
		if plaintextNames && d.wantPlain != nil {
			list[i].want = d.wantPlain
		}
		d.make(t, v)
	}
	if plaintextNames { // the name is taken
		write(t, v.path("lost+found"), []byte("a user's own"))
	}
	v.remount(t)
	before := snapshot(t, v.point)
	if faults, summary := v.fsck(t, 0, "--read-data"); len(faults) > 0 || summary.Files < int64(len(list)) {
		t.Fatalf("an undamaged volume has %+v, %+v", faults, summary)
	}
	forger := v.forger(t)
	places := make(map[string]backing)
	for _, d := range list {
		places[d.name] = d.backing(forger, v.dir)
		if d.forge != nil {
			d.forge(forger, places[d.name])
		}
	}
	v.umount(t)
	for _, d := range list {
		if d.run != nil {
			d.run(t, places[d.name])
		}
	}

	sealedBefore := snapshot(t, v.dir)
	faults, _ := v.fsck(t, 1, "--read-data")
	compare(t, sealedBefore, snapshot(t, v.dir))
	checkFaults(t, list, faults)
	repaired, summary := v.fsck(t, 0, "--read-data", "--repair")
	checkFaults(t, list, repaired[:len(faults)])
	if summary.Repaired != summary.Faults {
		t.Errorf("summary %+v", summary)
	}
	if again, summary := v.fsck(t, 0, "--read-data"); len(again) > 0 || summary.Lost == 0 {
		t.Errorf("after repair: %+v, %+v", again, summary)
	}
	v.checkRepairsRecorded(t, repaired)
	v.mount(t)
	for _, d := range list {
		t.Run(d.name, func(t *testing.T) { d.check(t, v, plaintextNames, before) })
	}
}

// checkFaults compares faults with those that the damages make.
func checkFaults(t *testing.T, list []damage, faults []found) {
	t.Helper()
	var got, want []string
	for _, f := range faults {
		got = append(got, f.Class+" "+f.Path)
		if f.Detail == "" || f.Remedy == "" || !strings.HasPrefix(f.Backing, "/") || (f.Class == "block") != (len(f.Bad) > 0) {
			t.Errorf("the fault %+v lacks something", f)
		}
	}
	for _, d := range list {
		for _, w := range d.want {
			class, path, _ := strings.Cut(w, " ")
			want = append(want, class+" /"+d.name+"/"+d.own(path))
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	for _, f := range got {
		if !slices.Contains(want, f) {
			t.Errorf("a fault too many: %s", f)
		}
	}
	for _, f := range want {
		if !slices.Contains(got, f) {
			t.Errorf("a fault is not found: %s", f)
		}
	}
}

// checkRepairsRecorded looks for each repair in the audit log.
func (v *volume) checkRepairsRecorded(t *testing.T, repaired []found) {
	t.Helper()
	recorded := make(map[string]bool)
	for _, r := range v.audit(t) {
		var details struct{ Class, Entry string }
		if r.EventName == "Repaired" && json.Unmarshal(r.ServiceEventDetails, &details) == nil {
			recorded[details.Class+" "+details.Entry] = true
		}
	}
	for _, f := range repaired {
		if f.Repaired == nil || !*f.Repaired {
			t.Errorf("not repaired: %+v", f)
		}
		if !recorded[f.Class+" "+f.Backing] {
			t.Errorf("the audit log doesn't tell of the repair of %s %s", f.Class, f.Backing)
		}
	}
}

// afterLinks cuts what precedes the content from a description.
func afterLinks(description string) string {
	_, after, _ := strings.Cut(description, " content ")
	return after
}

// TestFsckLive checks a volume while programs work on it: there is no fault but the one that is planted.
func TestFsckLive(t *testing.T) {
	t.Parallel()
	if plain {
		t.Log("there is no ciphertext")
		return
	}
	v := mounted(t)
	stop := make(chan struct{})
	var workers sync.WaitGroup
	end := sync.OnceFunc(func() {
		close(stop)
		workers.Wait()
	})
	defer end()
	for i := range 3 {
		dir := v.path(fmt.Sprint("worker", i))
		must(t, os.Mkdir(dir, 0o755))
		workers.Go(func() {
			for step := 0; ; step++ {
				select {
				case <-stop:
					return
				default:
				}
				if err := churn(dir, step%20); err != nil {
					t.Errorf("%s: %v", dir, err)
					return
				}
			}
		})
	}
	for range 3 {
		faults, _ := v.fsck(t, 0, "--read-data")
		if len(faults) > 0 {
			t.Fatalf("faults of a volume in use: %+v", faults)
		}
	}
	must(t, makeSynced(v.path("flipped"), string(noise(330, 20000))))
	path := v.forger(t).find(v.dir, "flipped")
	content, err := os.ReadFile(path)
	must(t, err)
	content[2*page] ^= 1
	overwrite(t, path, content)
	faults, _ := v.fsck(t, 1, "--read-data")
	if len(faults) != 1 || faults[0].Class != "block" || faults[0].Path != "/flipped" || !slices.Equal(faults[0].Bad, []envelope.Span{{Offset: 3044 + 4068, Length: 4068}}) {
		t.Errorf("faults %+v, want the one of block 2", faults)
	}
	v.refused(t, []string{"fsck", "--repair", v.dir}, "is mounted", "unmount it")
	end()
	v.umount(t)
	v.mount(t, "--read-only")
	v.refused(t, []string{"fsck", "--repair", v.dir}, "is mounted")
}

// churn does what programs do to files and directories.
func churn(dir string, step int) error {
	a, b := filepath.Join(dir, fmt.Sprint("a", step)), filepath.Join(dir, fmt.Sprint("b", step))
	sub, long := filepath.Join(dir, fmt.Sprint("sub", step)), filepath.Join(dir, longish+fmt.Sprint(step))
	appended, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	_, err = appended.Write(noise(uint64(step), 3000))
	return errors.Join(err, appended.Sync(), appended.Close(),
		os.WriteFile(a, noise(uint64(step), 5000*step), 0o644), os.Truncate(a, int64(1000*step+1)), os.Rename(a, b), os.Link(b, a), os.Link(b, a+"2"), os.Link(b, a+"3"),
		unix.Setxattr(b, "user.step", []byte{byte(step)}, 0), os.Remove(a), os.Remove(a+"2"), os.Remove(a+"3"),
		os.Mkdir(sub, 0o755), os.WriteFile(filepath.Join(sub, "x"), noise(1, 100), 0o644), os.Rename(sub, sub+"b"), os.Symlink("target", filepath.Join(sub+"b", "link")), os.RemoveAll(sub+"b"),
		os.WriteFile(long, []byte("x"), 0o644), os.Remove(long))
}

// TestFsckUncleanEnd checks what a kill has left behind, and a mark that can't be read.
func TestFsckUncleanEnd(t *testing.T) {
	if plain {
		t.Log("there is no ciphertext")
		return
	}
	v := mounted(t)
	content := noise(331, 20000)
	write(t, v.path("file"), content)
	write(t, v.path("other"), content)
	write(t, v.path("empty"), content)
	run(t, "/", "sync", "-f", v.point)
	forger := v.forger(t)
	path, empty := forger.find(v.dir, "file"), forger.find(v.dir, "empty")
	v.kill(t)
	must(t, os.Truncate(path, 3*page+10))
	must(t, os.Truncate(empty, 0))
	faults, summary := v.fsck(t, 1)
	if len(faults) != 2 || faults[0].Class != "unclean-end" || faults[1].Class != "unclean-end" || !summary.UncleanEnd {
		t.Errorf("%+v, %+v, want two unclean-end", faults, summary)
	}
	v.fsck(t, 0, "--repair")
	if faults, _ := v.fsck(t, 0, "--read-data"); len(faults) > 0 {
		t.Errorf("after repair: %+v", faults)
	}
	v.mount(t)
	v.awaitRecovery(t)
	wantContent(t, v.path("file"), content[:3044+2*4068])
	wantContent(t, v.path("empty"), nil)
	wantContent(t, v.path("other"), content)
	v.umount(t)

	overwrite(t, filepath.Join(v.dir, "kmsfs.mark"), noise(332, 64))
	v.refused(t, []string{"mount", v.dir, v.point}, "kmsfs.mark")
	if faults, _ := v.fsck(t, 1); len(faults) != 1 || faults[0].Class != "mark" {
		t.Errorf("%+v, want a mark", faults)
	}
	v.fsck(t, 0, "--repair")
	v.mount(t)
	wantContent(t, v.path("other"), content)
	wantNames(t, v.path("lost+found"), "kmsfs.mark")
}

// TestFsckLimits is about what can't be checked, or not be repaired.
func TestFsckLimits(t *testing.T) {
	if plain {
		t.Log("there is no ciphertext")
		return
	}
	v := mounted(t)
	for _, name := range []string{"refused", "unreadable", "file"} {
		write(t, v.path(name), noise(333, 20000))
	}
	v.remount(t)
	forger := v.forger(t)
	unreadable := forger.find(v.dir, "unreadable")
	policy := filepath.Join(v.root, "policy")
	write(t, policy, []byte(`{"Version": "2012-10-17", "Statement": [
		{"Effect": "Allow", "Principal": "*", "Action": "kms:*", "Resource": "*"},
		{"Effect": "Deny", "Principal": "*", "Action": "kms:Decrypt", "Resource": "*", "Condition": {"StringEquals": {"kms:EncryptionContext:kmsfs:path": "/refused"}}}]}`))
	v.kmsfs(t, "key", "policy", "put", "alias/kmsfs-default", policy)
	if _, summary := v.fsck(t, 0, "--read-data"); summary.Refused != 1 || summary.Files != 3 {
		t.Errorf("%+v, want one file that is refused", summary)
	}
	v.umount(t)

	// A medium that gives an error: a damaged file on another mount.
	if isRoot {
		w := mounted(t)
		write(t, w.path("bad"), noise(334, 20000))
		w.remount(t)
		bad := w.forger(t).find(w.dir, "bad")
		content, err := os.ReadFile(bad)
		must(t, err)
		content[page-1] ^= 1
		overwrite(t, bad, content)
		run(t, "/", "mount", "--bind", w.path("bad"), unreadable)
		faults, _ := v.fsck(t, 1)
		run(t, "/", "umount", unreadable)
		if len(faults) != 1 || faults[0].Class != "unreadable" || faults[0].Path != "/unreadable" {
			t.Errorf("%+v, want one unreadable", faults)
		}
	}
	record := filepath.Join(v.dir, "kmsfs.dir")
	content, err := os.ReadFile(record)
	must(t, err)
	overwrite(t, record, noise(335, page))
	faults, _ := v.fsck(t, 1, "--repair")
	if len(faults) != 1 || faults[0].Class != "record" || faults[0].Path != "/" || *faults[0].Repaired {
		t.Errorf("%+v, want the root's record, not repaired", faults)
	}
	overwrite(t, record, content)
	v.fsck(t, 0)
	v.refused(t, []string{"fsck", v.root}, "not a kmsfs volume")
}

// TestFsckAttacks has all that TestAttacks does to a volume repaired at once.
func TestFsckAttacks(t *testing.T) {
	t.Parallel()
	if plain {
		t.Log("there is no ciphertext")
		return
	}
	v, list := attacked(t)
	_, summary := v.fsck(t, 0, "--read-data", "--repair")
	if summary.Faults < int64(len(list)/2) {
		t.Errorf("only %d faults of %d attacks", summary.Faults, len(list))
	}
	if faults, _ := v.fsck(t, 0, "--read-data"); len(faults) > 0 {
		t.Errorf("after repair: %+v", faults)
	}
	v.mount(t)
	run(t, v.point, "ls", "-lR", "--ignore=lost+found")
	for _, a := range list {
		harmed := strings.Fields(a.bad + " " + a.either + " " + a.absent)
		for name, content := range attackFiles {
			path := v.path(a.name, name)
			if !slices.Contains(harmed, name) {
				wantContent(t, path, content)
			} else if got, err := tryRead(path); err == nil && len(got) > 0 && !bytes.HasPrefix(content, got) && !bytes.HasPrefix(noise(111, 20000), got) {
				t.Errorf("%s has another content than it had: %s", path, difference(got, content))
			}
		}
	}
}

// attacked makes a volume on which all attacks were done.
func attacked(t *testing.T) (*volume, []attack) {
	t.Helper()
	v := mounted(t)
	list := attacks()
	keep := make(map[string]map[string][]byte)
	for _, a := range list {
		keep[a.name] = make(map[string][]byte)
		for name, content := range attackFiles {
			must(t, os.MkdirAll(filepath.Dir(v.path(a.name, name)), 0o755))
			write(t, v.path(a.name, name), content)
		}
		for _, name := range []string{"a", "b"} {
			must(t, unix.Setxattr(v.path(a.name, name), "user.first", []byte("first of "+name), 0))
			must(t, unix.Setxattr(v.path(a.name, name), "user.second", []byte("second of "+name), 0))
		}
	}
	v.remount(t)
	at := v.locate(t)
	for _, a := range list {
		if a.prepare != nil {
			a.prepare(t, backing{t, a.name, at, keep[a.name]})
		}
	}
	for _, a := range list {
		if a.change != nil {
			a.change(t, v.path(a.name))
		}
	}
	at = v.locate(t)
	v.umount(t)
	for _, a := range list {
		a.run(t, backing{t, a.name, at, keep[a.name]})
	}
	return v, list
}

// TestFsckElsewhere checks and repairs a volume whose keys are at a key service elsewhere, mounted by several.
func TestFsckElsewhere(t *testing.T) {
	if plain {
		t.Log("there are no keys")
		return
	}
	_, server, e := onSocket(t)
	v := volumeAt(t, e, "--shared")
	content := noise(340, 20000)
	write(t, v.path("file"), content)
	write(t, v.path("other"), content)
	if faults, summary := v.fsck(t, 0, "--kms", e.url, "--read-data"); len(faults) > 0 || summary.Files != 2 {
		t.Errorf("%+v, %+v", faults, summary)
	}
	v.refused(t, []string{"fsck", "--kms", e.url, "--repair", v.dir}, "is mounted")
	out := v.kmsfs(t, "key", "usage", "--kms", e.url, e.key, v.dir)
	if !strings.Contains(out, v.dir+"  2 ") {
		t.Errorf("key usage says\n%s", out)
	}
	at := v.locateWith(t, "--kms", e.url)
	v.umount(t)
	sealed, err := os.ReadFile(at["file"])
	must(t, err)
	sealed[2*page] ^= 1
	overwrite(t, at["file"], sealed)
	v.fsck(t, 0, "--kms", e.url, "--read-data", "--repair")
	v.mount(t, v.options...)
	clear(content[3044+4068 : 3044+2*4068])
	wantContent(t, v.path("lost+found", "file"), content)
	wantContent(t, v.path("other"), noise(340, 20000))
	v.umount(t)

	// What can't be asked is no fault.
	server.stop(t)
	v.refused(t, []string{"fsck", "--kms", e.url, "--repair", v.dir}, "not reached")
}
