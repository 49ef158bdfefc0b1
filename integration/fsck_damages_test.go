package integration

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
)

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
			gone: []string{"file"}, lost: map[string][]byte{"file": nil},
		},
		{name: "SizeLonger", run: func(_ *testing.T, b backing) {
			b.edit("file", func(c []byte) []byte { return append(c, make([]byte, 7*page-len(c))...) })
		}, want: []string{"block file"}, gone: []string{"file"}, lost: map[string][]byte{"file": append(bytes.Clone(file[:3044+4*4068]), make([]byte, 2*4068)...), "file.damaged": nil}},
		{name: "CutToHeader", run: func(t *testing.T, b backing) { must(t, os.Truncate(b.path("file"), header)) }, want: []string{"size file"}, gone: []string{"file"}, lost: map[string][]byte{"file": nil}},
		{
			name: "CutAtBlock", run: func(t *testing.T, b backing) { must(t, os.Truncate(b.path("file"), 3*page)) }, want: []string{"block file"},
			gone: []string{"file"}, lost: map[string][]byte{"file": append(bytes.Clone(file[:3044+4068]), make([]byte, 4068)...), "file.damaged": nil},
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
