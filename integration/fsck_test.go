package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
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

// A damage is what somebody, or a crash, does to one directory of a volume, with the files of damageFiles, whose names begin with the damage's.
type damage struct {
	name string
	// forge is done while the volume is mounted, and run while it isn't.
	forge func(f *forger, b backing)
	run   func(t *testing.T, b backing)
	// want are the faults: class and path, in the directory; wantPlain those of plaintext names, if they differ.
	want, wantPlain []string
	// gone are what is not in its place after repair, and changed what has other content there.
	gone    []string
	changed map[string][]byte
	// lost are the files that lie in lost+found then, by their names there; nil for what doesn't open.
	lost map[string][]byte
	// only says that it is for one kind of volume, "sealed" or "plain", or as root.
	only string
	then func(t *testing.T, v *volume)
}

// longish is a name that is long in the volume, and has room behind it.
var longish = strings.Repeat("long", 50)

var damageFiles = map[string][]byte{
	"file": noise(301, 20000), "other": noise(302, 9000), "small": noise(303, 9000), "empty": nil,
	"sub/inner": noise(304, 5000), "sub/deep/x": noise(305, 100), "sub/" + longish: noise(306, 4000),
	"d1/x": noise(307, 5000), "d2/x": noise(308, 6000), "d1/deep/y": noise(309, 50), longish: noise(310, 3000),
}

func damages() []damage {
	file, other := damageFiles["file"], damageFiles["other"]
	flipped := func(name string, at int) func(*testing.T, backing) {
		return func(_ *testing.T, b backing) {
			b.edit(name, func(c []byte) []byte {
				c[at] ^= 1
				return c
			})
		}
	}
	zeroed := bytes.Clone(file)
	clear(zeroed[3044+4068 : 3044+2*4068])
	linked := bytes.Clone(damageFiles["small"])
	clear(linked[3044 : 3044+4068])
	inSub := map[string][]byte{"sub/inner": damageFiles["sub/inner"], "sub/deep/x": damageFiles["sub/deep/x"], "sub/" + longish: damageFiles["sub/"+longish], "sub/link": nil}
	goneSub := []string{"sub"}
	all := []damage{
		{name: "None", run: func(*testing.T, backing) {}},
		{name: "HeaderBit", run: flipped("file", 20), want: []string{"header file"}, gone: []string{"file"}, lost: map[string][]byte{"file": nil}},
		{name: "HeaderMAC", run: flipped("file", 1000), want: []string{"header file"}, gone: []string{"file"}, lost: map[string][]byte{"file": nil}},
		{name: "NoHeader", run: func(t *testing.T, b backing) { must(t, os.Truncate(b.path("file"), 500)) }, want: []string{"size file"}, gone: []string{"file"}, lost: map[string][]byte{"file": nil}},
		{name: "DataKey", want: []string{"data-key file"}, gone: []string{"file"}, lost: map[string][]byte{"file": nil}, forge: func(f *forger, b backing) {
			f.file(b.path("file"), func(h *envelope.Header) { h.WrappedKey[100] ^= 1 })
		}},
		{name: "ForeignKey", want: []string{"foreign-key file"}, gone: []string{"file"}, lost: map[string][]byte{"file": nil}, forge: func(f *forger, b backing) {
			f.file(b.path("file"), func(h *envelope.Header) { h.KeyARN = "arn:kmsfs:kms:x:000000000000:key/other" })
		}},
		{
			name: "Size", run: func(t *testing.T, b backing) { must(t, os.Truncate(b.path("file"), 4*page+10)) }, want: []string{"size file"},
			changed: map[string][]byte{"file": file[:3044+3*4068]},
		},
		{name: "SizeLonger", run: func(_ *testing.T, b backing) {
			b.edit("file", func(c []byte) []byte { return append(c, make([]byte, 7*page-len(c))...) })
		}, want: []string{"block file"}, gone: []string{"file"}, lost: map[string][]byte{"file": append(bytes.Clone(file), make([]byte, 3044+6*4068-len(file))...), "file.damaged": nil}},
		{name: "CutToHeader", run: func(t *testing.T, b backing) { must(t, os.Truncate(b.path("file"), header)) }, want: []string{"size file"}, changed: map[string][]byte{"file": {}}},
		{
			name: "CutAtBlock", run: func(t *testing.T, b backing) { must(t, os.Truncate(b.path("file"), 3*page)) }, want: []string{"block file"},
			changed: map[string][]byte{"file": file[:3044+2*4068]},
		},
		{name: "Block", run: flipped("file", 2*page+100), want: []string{"block file"}, gone: []string{"file"}, lost: map[string][]byte{"file": zeroed, "file.damaged": nil}},
		{name: "LastBlock", run: func(_ *testing.T, b backing) {
			b.edit("other", func(c []byte) []byte {
				c[len(c)-1] ^= 1
				return c
			})
		}, want: []string{"block other"}, gone: []string{"other"}, lost: map[string][]byte{"other": append(bytes.Clone(other[:3044+4068]), make([]byte, len(other)-3044-4068)...), "other.damaged": nil}},
		{
			name: "Swapped", run: func(_ *testing.T, b backing) { b.exchange("file", "other") }, want: []string{"misplaced file", "misplaced other"},
			gone: []string{"file", "other"}, lost: map[string][]byte{"file": other, "other": file},
		},
		{name: "Moved", run: func(t *testing.T, b backing) {
			must(t, os.Rename(b.path("sub/inner"), filepath.Join(b.path("d1"), filepath.Base(b.path("sub/inner")))))
		}, want: []string{"name d1/?"}, wantPlain: []string{"misplaced d1/inner"}, gone: []string{"sub/inner"}, lost: map[string][]byte{"inner": damageFiles["sub/inner"]}},
		{name: "CopiedOver", run: func(_ *testing.T, b backing) { b.put("other", b.read("file")) }, want: []string{"misplaced other"}, gone: []string{"other"}, lost: map[string][]byte{"other": nil}},
		{name: "PlantedLink", run: func(t *testing.T, b backing) {
			must(t, os.Remove(b.path("other")))
			must(t, os.Link(b.path("file"), b.path("other")))
		}, want: []string{"planted-link other"}, gone: []string{"other"}, lost: map[string][]byte{"other": file}},
		{name: "Owner", only: "root", run: func(t *testing.T, b backing) { must(t, os.Lchown(b.path("file"), nobody, -1)) }, want: []string{"owner file"}},
		{name: "OwnerOfDirectory", only: "root", run: func(t *testing.T, b backing) { must(t, os.Lchown(b.path("sub"), nobody, -1)) }, want: []string{"owner sub"}},
		{
			name: "LinkRemoved", run: func(t *testing.T, b backing) { must(t, os.Remove(b.path("link1"))) }, want: []string{"stale-location small", "stale-location link2", "stale-location link3", "stale-location link4", "stale-location link5"},
			gone: []string{"link1"},
		},
		{name: "LinksRemoved", run: func(t *testing.T, b backing) {
			for i := 1; i <= 5; i++ {
				must(t, os.Remove(b.path(fmt.Sprint("link", i))))
			}
		}, want: []string{"stale-location small"}, gone: []string{"link1", "link2", "link3", "link4", "link5"}},
		{name: "StaleLocation", want: []string{"stale-location file"}, forge: func(f *forger, b backing) {
			f.file(b.path("file"), func(h *envelope.Header) {
				f.sealed.AddLocation(h, envelope.Location{Directory: envelope.NewDirectoryID(), Name: "elsewhere"})
			})
		}},
		{name: "StaleDirectoryLocation", want: []string{"stale-location sub"}, forge: func(f *forger, b backing) {
			f.directory(b.path("sub"), func(d *envelope.Directory) {
				d.Locations = append(d.Locations, envelope.Location{Directory: envelope.NewDirectoryID(), Name: "elsewhere"})
			})
		}},
		{name: "StaleOwner", want: []string{"stale-owner file"}, forge: func(f *forger, b backing) {
			f.file(b.path("file"), func(h *envelope.Header) { h.NextOwner = new(uint32(4711)) })
		}},
		{name: "StaleDirectoryOwner", want: []string{"stale-owner sub"}, forge: func(f *forger, b backing) {
			f.directory(b.path("sub"), func(d *envelope.Directory) { d.Owners = append(d.Owners, 4711) })
		}},
		{name: "StaleOverflow", want: []string{"stale-overflow file"}, run: func(t *testing.T, b backing) {
			must(t, unix.Setxattr(b.path("file"), overflow, []byte("means nothing"), 0))
		}},
		{
			name: "Overflow", run: func(t *testing.T, b backing) { must(t, unix.Removexattr(b.path("small"), overflow)) },
			want: []string{"overflow small", "overflow link1", "overflow link2", "overflow link3", "overflow link4", "overflow link5"},
			gone: []string{"small", "link1", "link2", "link3", "link4", "link5"}, lost: map[string][]byte{"small": nil, "link1": nil, "link5": nil},
		},
		{name: "Attribute", want: []string{"attribute file"}, run: func(t *testing.T, b backing) {
			for name := range b.attributes("file") {
				must(t, unix.Setxattr(b.path("file"), name, noise(320, 100), 0))
			}
		}, changed: map[string][]byte{"file": file}, then: func(t *testing.T, v *volume) {
			text, err := os.ReadFile(v.path("lost+found", "file@Attribute.attributes"))
			if err != nil || !strings.Contains(string(text), "user.kmsfs.x.") {
				t.Errorf("the attribute in lost+found: %s, %v", text, err)
			}
			if all, err := attributes(v.path("Attribute", "file@Attribute")); err != nil || len(all) != 0 {
				t.Errorf("attributes %q, %v, want none", all, err)
			}
		}},
		{name: "SymlinkTarget", want: []string{"symlink-target sub/link"}, run: func(t *testing.T, b backing) {
			path := b.path("sub/link")
			must(t, os.Remove(path))
			must(t, os.Symlink("/etc/passwd", path))
		}, gone: []string{"sub/link"}, lost: map[string][]byte{"link": nil}},
		{name: "Name", want: []string{"name ?"}, run: func(t *testing.T, b backing) {
			must(t, os.Rename(b.path("file"), filepath.Join(filepath.Dir(b.path("file")), "kmsfs.=nonsense")))
		}, gone: []string{"file"}, lost: map[string][]byte{"file": file}},
		{name: "LongName", only: "sealed", want: []string{"long-name ?"}, run: func(t *testing.T, b backing) { must(t, os.Remove(b.path(longish)+".name")) }},
		{name: "LongNameDamaged", only: "sealed", want: []string{"long-name ?"}, run: func(t *testing.T, b backing) { overwrite(t, b.path(longish)+".name", noise(321, 300)) }},
		{name: "LongNameReplaced", only: "sealed", want: []string{"long-name ?"}, run: func(t *testing.T, b backing) {
			replace(t, b.path(longish)+".name", func(path string) error { return os.Symlink("/etc/passwd", path) })
		}},
		{name: "OrphanName", want: []string{"orphan-name ?"}, run: func(t *testing.T, b backing) {
			overwrite(t, filepath.Join(filepath.Dir(b.path("file")), "kmsfs.long.mZ0Wq7V3o1cXbLJ5l3yXyM1n2v3Jw0m8uYHk2lq9abc.name"), noise(322, 300))
		}},
		{name: "Leftover", want: []string{"leftover ?"}, run: func(t *testing.T, b backing) {
			dir := filepath.Join(filepath.Dir(b.path("file")), "kmsfs.temp.00112233445566778899aabbccddeeff")
			must(t, os.Mkdir(dir, 0o700))
			overwrite(t, filepath.Join(dir, "kmsfs.dir"), noise(323, page))
		}},
		{name: "FullLeftover", want: []string{"leftover ?"}, run: func(t *testing.T, b backing) {
			dir := filepath.Join(filepath.Dir(b.path("file")), "kmsfs.temp.00112233445566778899aabbccddeeff")
			must(t, os.Mkdir(dir, 0o700))
			overwrite(t, filepath.Join(dir, "somebody's"), noise(323, page))
		}},
		{name: "UnknownControl", want: []string{"unknown-control ?", "unknown-control d1/?"}, run: func(t *testing.T, b backing) {
			overwrite(t, filepath.Join(filepath.Dir(b.path("file")), "kmsfs.evil"), []byte("evil"))
			overwrite(t, filepath.Join(b.path("d1"), "kmsfs.volume"), []byte("evil"))
		}},
		{name: "RecordMissing", want: []string{"record sub"}, run: func(t *testing.T, b backing) { must(t, os.Remove(b.record("sub"))) }, gone: goneSub, lost: inSub},
		{name: "RecordBit", want: []string{"record sub"}, run: func(t *testing.T, b backing) {
			content, err := os.ReadFile(b.record("sub"))
			must(t, err)
			content[100] ^= 1
			overwrite(t, b.record("sub"), content)
		}, gone: goneSub, lost: inSub},
		{name: "RecordLink", want: []string{"record sub"}, run: func(t *testing.T, b backing) {
			replace(t, b.record("sub"), func(path string) error { return os.Symlink("/etc/passwd", path) })
		}, gone: goneSub, lost: inSub},
		{name: "RecordOfMore", want: []string{"record sub"}, run: func(t *testing.T, b backing) {
			// Not everything in it can be identified.
			must(t, os.Remove(b.record("sub")))
			overwrite(t, filepath.Join(b.path("sub"), "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"), noise(324, 100))
		}, gone: goneSub, lost: inSub},
		{name: "RecordAndFile", want: []string{"record sub"}, run: func(t *testing.T, b backing) {
			// What lies beneath has a fault of its own, which only repair can see.
			must(t, os.Remove(b.record("sub")))
			b.edit("sub/deep/x", func(c []byte) []byte {
				c[header+20] ^= 1
				return c
			})
		}, gone: goneSub, lost: map[string][]byte{"sub/inner": damageFiles["sub/inner"], "x": make([]byte, 100), "x.damaged": nil}},
		{name: "ForeignRecord", want: []string{"foreign-record d1"}, run: func(t *testing.T, b backing) {
			content, err := os.ReadFile(b.record("d2"))
			must(t, err)
			overwrite(t, b.record("d1"), content)
		}, gone: []string{"d1"}, lost: map[string][]byte{"d1/x": damageFiles["d1/x"], "d1/deep/y": damageFiles["d1/deep/y"]}},
		{
			name: "SwappedDirectories", want: []string{"misplaced d1", "misplaced d2"}, run: func(_ *testing.T, b backing) { b.exchange("d1", "d2") },
			gone: []string{"d1", "d2"}, lost: map[string][]byte{"d2/x": damageFiles["d1/x"], "d1/x": damageFiles["d2/x"], "d2/deep/y": damageFiles["d1/deep/y"]},
		},
		{name: "CopiedDirectory", want: []string{"misplaced d2"}, run: func(t *testing.T, b backing) {
			d1, d2 := b.path("d1"), b.path("d2")
			must(t, os.RemoveAll(d2))
			run(t, "/", "cp", "-a", d1, d2)
		}, gone: []string{"d2"}, lost: map[string][]byte{"d2/x": nil}},
	}
	return all
}

// TestFsck plants faults of every class in a volume, has them found and repaired, and reads everything.
func TestFsck(t *testing.T) {
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

// own returns a path as it is in the damage's directory: each name ends with the damage's, so that in lost+found it tells where it came from.
func (d damage) own(path string) string {
	elements := strings.Split(path, "/")
	for i, name := range elements {
		if name == "?" {
			continue
		}
		name, ending, _ := strings.Cut(name, ".")
		elements[i] = name + "@" + d.name
		if ending != "" {
			elements[i] += "." + ending
		}
	}
	return strings.Join(elements, "/")
}

// make makes what the damage is done to.
func (d damage) make(t *testing.T, v *volume) {
	t.Helper()
	at := func(name string) string { return v.path(d.name, d.own(name)) }
	for name, content := range damageFiles {
		must(t, os.MkdirAll(filepath.Dir(at(name)), 0o755))
		write(t, at(name), content)
	}
	must(t, unix.Setxattr(at("file"), "user.attribute", []byte("value of "+d.name), 0))
	must(t, unix.Setxattr(at("sub"), "user.attribute", []byte("value"), 0))
	must(t, os.Symlink("target of "+d.name, at("sub/link")))
	for i := 1; i <= 5; i++ {
		must(t, os.Link(at("small"), at(fmt.Sprint("link", i))))
	}
}

// backing finds the damage's files in the volume.
func (d damage) backing(f *forger, dir string) backing {
	own := make(map[string]string)
	names := slices.Collect(maps.Keys(damageFiles))
	names = append(names, "sub", "sub/deep", "sub/link", "d1", "d2", "d1/deep", "link1", "link2", "link3", "link4", "link5")
	for _, name := range names {
		own[filepath.Join(d.name, name)] = f.find(dir, filepath.Join(d.name, d.own(name)))
	}
	return backing{f.t, d.name, own, nil}
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

// check reads all that there is of a damage's directory after repair, and what lies in lost+found.
func (d damage) check(t *testing.T, v *volume, plaintextNames bool, before map[string]string) {
	for name := range before {
		rest, ok := strings.CutPrefix(name, d.name+"/")
		if !ok {
			continue
		}
		path := v.path(name)
		if d.isGone(rest) {
			wantGone(t, path)
			continue
		}
		if content, other := d.contentAt(rest); other {
			wantContent(t, path, content)
		} else {
			now, err := describe(path)
			was := before[name]
			if d.changesLinks(rest) || strings.HasPrefix(was, "mode 4") { // what lies in a directory, and so its time, may have changed
				now, was = afterLinks(now), afterLinks(was)
			}
			if err != nil || now != was {
				t.Errorf("%s is %s, %v; was %s", name, now, err, was)
			}
		}
	}
	lostDir := "lost+found"
	if plaintextNames {
		lostDir += ".2"
	}
	for name, want := range d.lost {
		path := v.path(lostDir, d.own(name))
		if name == "sub/link" {
			if target, err := os.Readlink(path); err != nil || target != "target of "+d.name {
				t.Errorf("%s: target %q, %v", path, target, err)
			}
			continue
		}
		if want != nil {
			wantContent(t, path, want)
			continue
		}
		if got, err := os.ReadFile(path); err == nil {
			t.Errorf("%s: %d bytes were read of what can't be opened", path, len(got))
		} else if _, err := os.Lstat(path); err != nil && !strings.Contains(name, "/") && !errors.Is(err, unix.EIO) {
			t.Errorf("%s is not even seen: %v", path, err)
		}
	}
	if d.then != nil && !plaintextNames {
		d.then(t, v)
	}
}

func (d damage) isGone(name string) bool {
	return slices.ContainsFunc(d.gone, func(gone string) bool {
		own := d.own(gone)
		return name == own || strings.HasPrefix(name, own+"/")
	})
}

// contentAt is the content that a file has after repair, if that, or its attributes, differ from what was written.
func (d damage) contentAt(name string) (content []byte, other bool) {
	for changed, content := range d.changed {
		if d.own(changed) == name {
			return content, true
		}
	}
	return nil, false
}

// changesLinks says that a file has lost or got links.
func (d damage) changesLinks(name string) bool {
	return strings.HasPrefix(d.name, "Link") && name != d.own("file") || d.name == "PlantedLink" && name == d.own("file")
}

// afterLinks cuts what precedes the content from a description.
func afterLinks(description string) string {
	_, after, _ := strings.Cut(description, " content ")
	return after
}

// TestFsckLive checks a volume while programs work on it: there is no fault but the one that is planted.
func TestFsckLive(t *testing.T) {
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
