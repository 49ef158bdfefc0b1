package fsck_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/volume"
)

// longName is a name that is long in the volume, where names are sealed.
var longName = strings.Repeat("long", 50)

// content is that of the files of the tests: some pages, all different.
var content = func() []byte {
	b := make([]byte, 20000)
	for i := range b {
		b[i] = byte(i * i >> 7)
	}
	return b
}()

const page = 4096

// damage flips a bit in the file at a path that users see.
func (f *fixture) damage(p string, offset int) {
	f.Helper()
	at := f.at(p)
	f.flip(at.dir, at.Entry, offset)
}

// truncate cuts the file at a path that users see.
func (f *fixture) truncate(p string, size int) {
	f.Helper()
	at := f.at(p)
	file, err := at.dir.OpenFile(at.Entry, unix.O_RDWR, 0)
	f.must(err)
	defer file.Close()
	f.must(file.Truncate(int64(size)))
}

// fill fills a volume with what the damages are done to.
func (f *fixture) fill() {
	f.mkdir("/d")
	f.mkdir("/d/deep")
	f.mkdir("/e")
	for _, p := range []string{"/d/file", "/d/deep/inner", "/e/other", "/" + longName} {
		f.write(p, content, nil)
	}
	f.write("/empty", nil, nil)
	f.symlink("/d/link", "file")
}

// damage is what a crash or an attacker does to a volume.
type damage struct {
	name string
	do   func(f *fixture)
	// faults are what a check finds; where it differs for plaintext names, plainFaults.
	faults, plainFaults []string
	// kept are files whose content is the same after repair, lost those that then lie in lost+found with their
	// content, by their names there.
	kept, lost []string
	// taken are files that repair doesn't leave in their places.
	taken []string
	// only is "sealed" or "plain" where the damage is one to such names only.
	only string
}

var damages = []damage{
	{name: "None", do: func(*fixture) {}, kept: []string{"/d/file", "/d/deep/inner", "/" + longName}},
	{
		name: "HeaderBit", do: func(f *fixture) { f.damage("/d/file", 40) },
		faults: []string{"header /d/file"}, kept: []string{"/d/deep/inner", "/e/other"},
	},
	{
		name: "RecordMissing", do: func(f *fixture) { f.must(f.dir("/d").Unlink(envelope.DirectoryName)) },
		faults: []string{"record /d"}, kept: []string{"/e/other"}, lost: []string{"d/file", "d/deep/inner"},
	},
	{
		name: "RecordBit", do: func(f *fixture) { f.flip(f.dir("/d"), envelope.DirectoryName, 100) },
		faults: []string{"record /d"}, lost: []string{"d/file", "d/deep/inner"},
	},
	{
		name: "RecordOfAnother", do: func(f *fixture) {
			var record []byte
			f.edit(f.dir("/e"), envelope.DirectoryName, func(b []byte) []byte { record = b; return b })
			f.edit(f.dir("/d"), envelope.DirectoryName, func([]byte) []byte { return record })
		},
		faults: []string{"foreign-record /d"}, kept: []string{"/e/other"}, lost: []string{"d/file", "d/deep/inner"},
	},
	{
		name: "NameDamaged", only: "sealed", do: func(f *fixture) {
			s := f.at("/d/file")
			f.must(s.dir.Rename(s.Entry, s.dir, "damaged", 0))
		},
		faults: []string{"name /d/?"}, lost: []string{"file"},
	},
	{
		name: "LongNameMissing", only: "sealed", do: func(f *fixture) {
			f.must(f.dir("/").Unlink(envelope.LongFile(f.at("/" + longName).Entry)))
		},
		faults: []string{"long-name /?"}, kept: []string{"/" + longName},
	},
	{
		name: "LongNameWithoutEntry", only: "sealed", do: func(f *fixture) { f.must(f.dir("/").Unlink(f.at("/" + longName).Entry)) },
		faults: []string{"orphan-name /?"}, kept: []string{"/d/file"},
	},
	{
		name: "Leftover", do: func(f *fixture) { f.must(f.dir("/").Mkdir(envelope.TempName+".left", 0o700)) },
		faults: []string{"leftover /?"}, kept: []string{"/d/file"},
	},
	{
		name: "UnknownControl", do: func(f *fixture) { f.must(volume.WriteControl(f.dir("/"), "kmsfs.unknown", nil, false)) },
		faults: []string{"unknown-control /?"}, kept: []string{"/d/file"},
	},
	{
		name: "Marker", do: func(f *fixture) {
			f.must(volume.WriteControl(f.dir("/"), envelope.MarkName, make([]byte, envelope.MarkSize), false))
		},
		faults: []string{"mark /?"}, kept: []string{"/d/file"},
	},
	{
		name: "ForeignKey", do: func(f *fixture) {
			f.write("/d/foreign", content, func(h *envelope.Header) { h.KeyARN = otherKey })
		},
		faults: []string{"foreign-key /d/foreign"}, kept: []string{"/d/file"},
	},
	{
		name: "SizeWithoutHeader", do: func(f *fixture) { f.truncate("/d/file", 500) },
		faults: []string{"size /d/file"}, kept: []string{"/e/other"}, taken: []string{"/d/file"},
	},
	{
		name: "CutAtBlock", do: func(f *fixture) { f.truncate("/d/file", 3*page) },
		faults: []string{"block /d/file"}, kept: []string{"/e/other"}, taken: []string{"/d/file"},
	},
	{
		name: "CutWithinBlock", do: func(f *fixture) { f.truncate("/d/file", 3*page+500) },
		faults: []string{"block /d/file"}, kept: []string{"/e/other"}, taken: []string{"/d/file"},
	},
	{
		name: "CutToHeader", do: func(f *fixture) { f.truncate("/d/file", 1024) },
		faults: []string{"size /d/file"}, kept: []string{"/e/other"}, taken: []string{"/d/file"},
	},
	{
		name: "CutToNothing", do: func(f *fixture) { f.truncate("/d/file", 0) },
		faults: []string{"size /d/file"}, kept: []string{"/e/other"}, taken: []string{"/d/file"},
	},
	{
		name: "Extended", do: func(f *fixture) { f.truncate("/d/file", 7*page) },
		faults: []string{"block /d/file"}, kept: []string{"/e/other"}, taken: []string{"/d/file"},
	},
	{
		name: "Block", do: func(f *fixture) { f.damage("/d/file", 2*page+100) },
		faults: []string{"block /d/file"}, kept: []string{"/e/other"},
	},
	{
		name: "Moved", do: func(f *fixture) { f.move("/d/file", "/e/file") },
		faults: []string{"misplaced /e/file"}, lost: []string{"file"},
	},
	{
		name: "MovedDirectory", do: func(f *fixture) { f.move("/d/deep", "/e/deep") },
		faults: []string{"misplaced /e/deep"}, lost: []string{"deep/inner"}, kept: []string{"/d/file"},
	},
	{
		name: "Swapped", do: func(f *fixture) {
			a, b := f.at("/d/file"), f.at("/e/other")
			f.must(a.dir.Rename(a.Entry, b.dir, b.Entry, unix.RENAME_EXCHANGE))
		},
		faults: []string{"misplaced /d/file", "misplaced /e/other"}, lost: []string{"file", "other"},
	},
	{
		name: "PlantedLink", do: func(f *fixture) {
			a, b := f.at("/d/file"), f.at("/e/link")
			f.must(a.dir.Link(a.Entry, b.dir, b.Entry))
		},
		faults: []string{"planted-link /e/link"}, kept: []string{"/d/file"}, lost: []string{"link"},
	},
	{
		name: "StaleLocation", do: func(f *fixture) {
			f.writeRecord("/d", func(d *envelope.Directory) {
				d.Locations = append(d.Locations, envelope.Location{Directory: d.ID, Name: "gone"})
			})
		},
		faults: []string{"stale-location /d"}, kept: []string{"/d/file"},
	},
	{
		name: "StaleOwner", do: func(f *fixture) {
			f.writeRecord("/d", func(d *envelope.Directory) { d.Owners = append(d.Owners, 1000) })
		},
		faults: []string{"stale-owner /d"}, kept: []string{"/d/file"},
	},
	{
		name: "StaleOwnerOfFile", do: func(f *fixture) {
			next := uint32(1000)
			f.write("/d/given", content, func(h *envelope.Header) { h.NextOwner = &next })
		},
		faults: []string{"stale-owner /d/given"}, kept: []string{"/d/file", "/d/given"},
	},
	{
		name: "Symlink", do: func(f *fixture) {
			s := f.at("/d/link")
			f.must(s.dir.Unlink(s.Entry))
			f.must(s.dir.Symlink("file", s.Entry))
		},
		faults: []string{"symlink-target /d/link"}, kept: []string{"/d/file"},
	},
}

// Check finds each damage, and nothing else; repair mends it so that nothing is found again, and loses no content that opens.
func TestDamages(t *testing.T) {
	for _, plain := range []bool{false, true} {
		kind := map[bool]string{false: "sealed", true: "plain"}[plain]
		for _, d := range damages {
			if d.only != "" && d.only != kind {
				continue
			}
			t.Run(fmt.Sprintf("%s/%s", kind, d.name), func(t *testing.T) {
				t.Parallel()
				f := newFixture(t, plain)
				f.fill()
				d.do(f)
				want := d.faults
				if plain && d.plainFaults != nil {
					want = d.plainFaults
				}
				if found, _ := f.fsck(false); !slices.Equal(found, want) {
					t.Fatalf("a check finds %q, want %q", found, want)
				}
				f.fsck(true)
				if found, _ := f.fsck(false); len(found) > 0 {
					t.Errorf("after repair, a check finds %q", found)
				}
				for _, p := range d.kept {
					f.wantContent(p)
				}
				for _, name := range d.lost {
					f.wantContent("/lost+found/" + name)
				}
				for _, p := range d.taken {
					at := f.at(p)
					if _, err := at.dir.StatAt(at.Entry); !errors.Is(err, unix.ENOENT) {
						t.Errorf("%s is in its place after repair: %v", p, err)
					}
				}
			})
		}
	}
}

func (f *fixture) wantContent(p string) {
	f.Helper()
	if got, err := f.read(p); err != nil || !bytes.Equal(got, content) {
		f.Errorf("%s has %d bytes, not those that it should, or fails: %v", p, len(got), err)
	}
}
