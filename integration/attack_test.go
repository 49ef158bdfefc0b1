package integration

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// page is the unit of a sealed file, header that of its first one (envelope/FORMAT.md).
const (
	page   = 4096
	header = 1024
)

// TestAttacks changes a volume behind its mount. What was changed has to fail, in time, and everything else to be as it was.
func TestAttacks(t *testing.T) {
	t.Run("Encrypted", func(t *testing.T) { runAttacks(t, false) })
	t.Run("PlaintextNames", func(t *testing.T) { runAttacks(t, true) })
}

// An attack is one change to a directory with the files of attackFiles.
type attack struct {
	name string
	// prepare saves something from the volume, and change is what the user does then; both may be nil.
	prepare func(t *testing.T, b backing)
	change  func(t *testing.T, dir string)
	// run changes the volume while it isn't mounted.
	run func(t *testing.T, b backing)
	// bad are the files that must fail then, separated by blanks.
	bad string
	// either are files that may fail, or be right.
	either string
	// absent are paths where nothing may be found to read.
	absent string
	// mismatch says that the audit log must tell of a ContextMismatch.
	mismatch, root bool
	// closed says that the bad ones may be impossible to remove, as their directory is what is broken.
	closed bool
}

// attackFiles are what each attack finds in its directory.
var attackFiles = map[string][]byte{
	"a": noise(101, 20000), "b": noise(102, 20000), "empty": nil, "small": noise(103, 100), "other": noise(104, 9000),
	"d1/x": noise(105, 5000), "d2/x": noise(106, 5000), "d1/sub/y": noise(107, 100), "d2/sub/y": noise(108, 100), longName: noise(109, 5000),
}

var longName = strings.Repeat("long", 60)

// backing finds what lies in the volume for the paths of one attack.
type backing struct {
	t    *testing.T
	dir  string            // the attack's directory in the mount's terms, relative to its root
	find map[string]string // all paths in the mount's terms, and in the volume
	keep map[string][]byte // what prepare saves
}

func (b backing) path(name string) string {
	b.t.Helper()
	path, ok := b.find[filepath.Join(b.dir, name)]
	if !ok {
		b.t.Fatalf("%s is not found in the volume", name)
	}
	return path
}

func (b backing) read(name string) []byte {
	b.t.Helper()
	content, err := os.ReadFile(b.path(name))
	must(b.t, err)
	return content
}

// put writes content over the file, which stays the same inode.
func (b backing) put(name string, content []byte) {
	b.t.Helper()
	overwrite(b.t, b.path(name), content)
}

func overwrite(t *testing.T, path string, content []byte) {
	t.Helper()
	must(t, os.WriteFile(path, content, 0o600))
}

// edit changes the ciphertext.
func (b backing) edit(name string, f func(content []byte) []byte) {
	b.t.Helper()
	b.put(name, f(b.read(name)))
}

// record is the directory record's path.
func (b backing) record(name string) string { return filepath.Join(b.path(name), "kmsfs.dir") }

func (b backing) exchange(x, y string) {
	b.t.Helper()
	must(b.t, unix.Renameat2(unix.AT_FDCWD, b.path(x), unix.AT_FDCWD, b.path(y), unix.RENAME_EXCHANGE))
}

// replace puts something else in a file's place.
func replace(t *testing.T, path string, make func(path string) error) {
	t.Helper()
	must(t, os.RemoveAll(path))
	must(t, make(path))
}

// substitutes are what somebody may put where a control file was.
var substitutes = map[string]func(path string) error{
	"FIFO":      func(path string) error { return unix.Mkfifo(path, 0o666) },
	"Dangling":  func(path string) error { return os.Symlink("nowhere", path) },
	"Symlink":   func(path string) error { return os.Symlink("/etc/passwd", path) },
	"Zeros":     func(path string) error { return os.Symlink("/dev/zero", path) },
	"Empty":     func(path string) error { return os.WriteFile(path, nil, 0o600) },
	"Noise":     func(path string) error { return os.WriteFile(path, noise(110, page), 0o600) },
	"Directory": func(path string) error { return os.Mkdir(path, 0o700) },
	"Socket":    func(path string) error { return unix.Mknod(path, unix.S_IFSOCK|0o666, 0) },
	"Huge": func(path string) error {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			return err
		}
		return os.Truncate(path, 1<<40)
	},
}

// flip is an attack that flips one bit.
func flip(name string, at int, bit byte) attack {
	return attack{name: "Flip" + name, bad: "a", run: func(t *testing.T, b backing) {
		b.edit("a", func(c []byte) []byte {
			if at < 0 {
				at += len(c)
			}
			c[at] ^= bit
			return c
		})
	}}
}

// cut is an attack that shortens the ciphertext.
func cut(file string, size int64) attack {
	return attack{name: fmt.Sprint("Cut", file, size), bad: file, run: func(t *testing.T, b backing) { must(t, os.Truncate(b.path(file), size)) }}
}

func attacks() []attack {
	zero := func(at int) func(c []byte) []byte {
		return func(c []byte) []byte {
			clear(c[at*page : min((at+1)*page, len(c))])
			return c
		}
	}
	all := []attack{
		{name: "None", run: func(*testing.T, backing) {}},
		{name: "SwapFiles", bad: "a b", mismatch: true, run: func(_ *testing.T, b backing) { b.exchange("a", "b") }},
		{name: "SwapWithOtherDirectory", bad: "a d1/x", mismatch: true, run: func(_ *testing.T, b backing) { b.exchange("a", "d1/x") }},
		{name: "SwapSameNames", bad: "d1/x d2/x", mismatch: true, run: func(_ *testing.T, b backing) { b.exchange("d1/x", "d2/x") }},
		{name: "MoveOver", bad: "a d1/x", mismatch: true, run: func(t *testing.T, b backing) {
			must(t, os.Rename(b.path("a"), b.path("d1/x")))
		}},
		{name: "MoveToOtherDirectory", bad: "a", absent: "d1/a", run: func(t *testing.T, b backing) {
			must(t, os.Rename(b.path("a"), filepath.Join(b.path("d1"), filepath.Base(b.path("a")))))
		}},
		{name: "CopyOver", bad: "b", mismatch: true, run: func(_ *testing.T, b backing) { b.put("b", b.read("a")) }},
		{name: "CopyOverEmpty", bad: "empty", mismatch: true, run: func(_ *testing.T, b backing) { b.put("empty", b.read("a")) }},
		{name: "EmptyOver", bad: "a", mismatch: true, run: func(_ *testing.T, b backing) { b.put("a", b.read("empty")) }},
		{name: "LinkOver", bad: "b", either: "a", mismatch: true, run: func(t *testing.T, b backing) {
			must(t, os.Remove(b.path("b")))
			must(t, os.Link(b.path("a"), b.path("b")))
		}},
		{name: "PlantHeader", bad: "empty", run: func(_ *testing.T, b backing) { b.put("empty", b.read("a")[:header]) }},
		{name: "PlantHeaderOnAnother", bad: "b", run: func(_ *testing.T, b backing) {
			b.edit("b", func(c []byte) []byte { return append(b.read("a")[:header:header], c[header:]...) })
		}},
		{name: "Chown", bad: "a", mismatch: true, root: true, run: func(t *testing.T, b backing) { must(t, os.Lchown(b.path("a"), nobody, nobody)) }},
		{name: "SwapDirectories", bad: "d1/x d2/x d1/sub/y d2/sub/y", mismatch: true, closed: true, run: func(_ *testing.T, b backing) { b.exchange("d1", "d2") }},
		{name: "SwapInnerDirectories", bad: "d1/sub/y d2/sub/y", mismatch: true, closed: true, run: func(_ *testing.T, b backing) { b.exchange("d1/sub", "d2/sub") }},
		{name: "MoveDirectory", bad: "d1/x d1/sub/y", absent: "d2/d1/x", closed: true, run: func(t *testing.T, b backing) {
			must(t, os.Rename(b.path("d1"), filepath.Join(b.path("d2"), filepath.Base(b.path("d1")))))
		}},
		{name: "MoveDirectoryOver", bad: "d1/x d1/sub/y d2/sub/y", mismatch: true, closed: true, run: func(t *testing.T, b backing) {
			to := b.path("d2/sub")
			must(t, os.RemoveAll(to))
			must(t, os.Rename(b.path("d1"), to))
		}, absent: "d2/sub/x d2/sub/sub/y"},
		{name: "CopyRecord", bad: "d1/x d1/sub/y", mismatch: true, closed: true, run: func(t *testing.T, b backing) {
			content, err := os.ReadFile(b.record("d2"))
			must(t, err)
			overwrite(t, b.record("d1"), content)
		}},
		{
			name: "OldRecord", bad: "d1/x d1/sub/y", absent: "d3/x d3/sub/y", mismatch: true, closed: true,
			prepare: func(t *testing.T, b backing) {
				content, err := os.ReadFile(b.record("d1"))
				must(t, err)
				b.keep["record"] = content
			},
			change: func(t *testing.T, dir string) {
				must(t, os.Rename(filepath.Join(dir, "d1"), filepath.Join(dir, "d3")))
				run(t, dir, "sync", "-f", ".")
			},
			run: func(t *testing.T, b backing) { overwrite(t, b.record("d3"), b.keep["record"]) },
		},
		{
			name: "OldFileAtNewName", bad: "a", absent: "a2", mismatch: true,
			prepare: func(_ *testing.T, b backing) { b.keep["a"] = b.read("a") },
			change: func(t *testing.T, dir string) {
				must(t, os.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "a2")))
			},
			run: func(_ *testing.T, b backing) { b.put("a2", b.keep["a"]) },
		},
		{
			name: "OldBlockUnderNewKey", bad: "a",
			prepare: func(_ *testing.T, b backing) { b.keep["a"] = b.read("a") },
			change:  func(t *testing.T, dir string) { write(t, filepath.Join(dir, "a"), noise(111, 20000)) },
			run: func(_ *testing.T, b backing) {
				b.edit("a", func(c []byte) []byte {
					copy(c[page:], b.keep["a"][page:2*page])
					return c
				})
			},
		},
		{name: "AppendNoise", bad: "a", run: func(_ *testing.T, b backing) {
			b.edit("a", func(c []byte) []byte { return append(c, noise(112, 100)...) })
		}},
		{name: "AppendZeros", bad: "a", run: func(_ *testing.T, b backing) {
			b.edit("a", func(c []byte) []byte { return append(c, make([]byte, 7*page-len(c))...) })
		}},
		{name: "AppendPage", bad: "a", run: func(_ *testing.T, b backing) {
			b.edit("a", func(c []byte) []byte { return append(append(c, make([]byte, 6*page-len(c))...), c[page:2*page]...) })
		}},
		{name: "AppendToEmpty", bad: "empty", run: func(_ *testing.T, b backing) {
			b.edit("empty", func(c []byte) []byte { return append(c, b.read("small")[header:]...) })
		}},
		{name: "ZeroPage", bad: "a", run: func(_ *testing.T, b backing) { b.edit("a", zero(2)) }},
		{name: "ZeroFirst", bad: "a", run: func(_ *testing.T, b backing) { b.edit("a", zero(0)) }},
		{name: "ZeroLast", bad: "a", run: func(_ *testing.T, b backing) { b.edit("a", zero(5)) }},
		{name: "PunchPage", bad: "a", run: func(t *testing.T, b backing) {
			fd := open(t, b.path("a"), unix.O_RDWR)
			must(t, unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, page, page))
		}},
		{name: "SwapPages", bad: "a", run: func(_ *testing.T, b backing) {
			b.edit("a", func(c []byte) []byte {
				return slices.Concat(c[:page], c[2*page:3*page], c[page:2*page], c[3*page:])
			})
		}},
		{name: "RepeatPage", bad: "a", run: func(_ *testing.T, b backing) {
			b.edit("a", func(c []byte) []byte {
				copy(c[2*page:], c[page:2*page])
				return c
			})
		}},
		{name: "ReplayPage", bad: "a", run: func(_ *testing.T, b backing) {
			b.edit("a", func(c []byte) []byte {
				copy(c[page:], b.read("b")[page:2*page])
				return c
			})
		}},
		{name: "ReplayLastPage", bad: "a", run: func(_ *testing.T, b backing) {
			b.edit("a", func(c []byte) []byte { return append(c[:5*page:5*page], b.read("b")[5*page:]...) })
		}},
		{name: "DeleteRecord", bad: "d1/x d1/sub/y", closed: true, run: func(t *testing.T, b backing) { must(t, os.Remove(b.record("d1"))) }},
		{name: "FlipRecord", bad: "d1/x d1/sub/y", closed: true, run: func(t *testing.T, b backing) {
			content, err := os.ReadFile(b.record("d1"))
			must(t, err)
			content[40] ^= 1
			overwrite(t, b.record("d1"), content)
		}},
		{name: "SwapRecords", bad: "d1/x d1/sub/y d2/x d2/sub/y", mismatch: true, closed: true, run: func(t *testing.T, b backing) {
			must(t, unix.Renameat2(unix.AT_FDCWD, b.record("d1"), unix.AT_FDCWD, b.record("d2"), unix.RENAME_EXCHANGE))
		}},
		{name: "SwapDirectoriesWithRecords", bad: "d1/x d1/sub/y d2/x d2/sub/y", closed: true, run: func(t *testing.T, b backing) {
			must(t, unix.Renameat2(unix.AT_FDCWD, b.record("d1"), unix.AT_FDCWD, b.record("d2"), unix.RENAME_EXCHANGE))
			b.exchange("d1", "d2")
		}},
		{name: "ChownDirectory", bad: "d1/x d1/sub/y", mismatch: true, closed: true, root: true, run: func(t *testing.T, b backing) {
			must(t, os.Lchown(b.path("d1"), nobody, nobody))
		}},
		{
			name: "RecordOfFormerOwner", bad: "d1/x d1/sub/y", mismatch: true, closed: true, root: true,
			prepare: func(t *testing.T, b backing) {
				content, err := os.ReadFile(b.record("d1"))
				must(t, err)
				b.keep["record"] = content
			},
			change: func(t *testing.T, dir string) { must(t, os.Chown(filepath.Join(dir, "d1"), nobody, nobody)) },
			run:    func(t *testing.T, b backing) { overwrite(t, b.record("d1"), b.keep["record"]) },
		},
		{name: "CopyDirectory", absent: "d2/d1/x d2/d1/sub/y", run: func(t *testing.T, b backing) {
			run(t, "/", "cp", "-a", b.path("d1"), b.path("d2"))
		}},
		{name: "SwapLongName", either: longName, run: func(t *testing.T, b backing) {
			path := b.path(longName) + ".name"
			if _, err := os.Lstat(path); err == nil { // else names are plaintext: there is none
				overwrite(t, path, []byte(filepath.Base(b.path("a"))))
			}
		}},
		{name: "LinkRecord", bad: "d1/x d1/sub/y", closed: true, run: func(t *testing.T, b backing) {
			must(t, os.Remove(b.record("d1")))
			must(t, os.Symlink(b.record("d2"), b.record("d1")))
		}},
		{name: "HugeFile", bad: "a", run: func(t *testing.T, b backing) { must(t, os.Truncate(b.path("a"), 1<<40)) }},
		{name: "SwapAttributes", run: func(t *testing.T, b backing) {
			for _, name := range []string{"a", "b"} {
				other := map[string]string{"a": "b", "b": "a"}[name]
				for attribute, value := range b.attributes(other) {
					b.keep[name+" "+attribute] = []byte(value)
				}
			}
			for _, name := range []string{"a", "b"} {
				for attribute := range b.attributes(name) {
					must(t, unix.Removexattr(b.path(name), attribute))
				}
			}
			for key, value := range b.keep {
				name, attribute, _ := strings.Cut(key, " ")
				must(t, unix.Setxattr(b.path(name), attribute, value, 0))
			}
		}},
		{name: "MixAttributes", run: func(t *testing.T, b backing) {
			// The value of one attribute under the name of the other.
			values := b.attributes("a")
			if len(values) < 2 {
				t.Fatalf("%d attributes in the volume, want two", len(values))
			}
			keys := slices.Sorted(func(yield func(string) bool) {
				for k := range values {
					if !yield(k) {
						return
					}
				}
			})
			must(t, unix.Setxattr(b.path("a"), keys[0], []byte(values[keys[1]]), 0))
			must(t, unix.Setxattr(b.path("a"), keys[1], []byte(values[keys[0]]), 0))
		}},
		flip("Magic", 0, 1), flip("Version", 9, 3), flip("Flags", 11, 1), flip("DetailsFlag", 11, 2), flip("ContentFlag", 11, 4), flip("Cipher", 12, 2), flip("Compression", 13, 1),
		flip("FileID", 14, 0x80), flip("Sealed", 33, 1), flip("Reserved", 39, 1), flip("WrappedLength", 41, 1), flip("DetailsLength", 43, 1),
		flip("Wrapped", 60, 4), flip("WrappedVersion", 48, 1), flip("Padding", 980, 1), flip("MAC", 1000, 1),
		flip("Nonce", header, 1), flip("Block", header+500, 1), flip("Tag", page-1, 1), flip("Block3", 3*page+2000, 0x10), flip("LastBlock", -20, 1), flip("LastTag", -1, 0x80),
		cut("a", 0), cut("a", 1), cut("a", header-1), cut("a", header), cut("a", header+1), cut("a", header+28), cut("a", header+29), cut("a", page), cut("a", 2*page), cut("a", 4*page), cut("a", 5*page),
		cut("a", 5*page+28), cut("a", 5*page+29), cut("small", header), cut("small", 0), cut("empty", 0), cut("empty", 500),
	}
	for name, make := range substitutes {
		all = append(all, attack{name: "Record" + name, bad: "d1/x d1/sub/y", closed: true, run: func(t *testing.T, b backing) {
			replace(t, b.record("d1"), make)
		}})
		// Types that aren't encrypted are shown as what they are: they have no content.
		all = append(all, attack{name: "File" + name, bad: "a", run: func(t *testing.T, b backing) { replace(t, b.path("a"), make) }})
		// A name can be looked up without reading its file; it is either right, or not there.
		all = append(all, attack{name: "LongName" + name, either: longName, run: func(t *testing.T, b backing) {
			path := b.path(longName) + ".name"
			if _, err := os.Lstat(path); err != nil {
				return // names are plaintext: there is none
			}
			replace(t, path, make)
		}})
	}
	return slices.DeleteFunc(all, func(a attack) bool { return a.root && !isRoot })
}

// attributes are the backing file's own.
func (b backing) attributes(name string) map[string]string {
	b.t.Helper()
	all, err := attributes(b.path(name))
	must(b.t, err)
	return all
}

// locate finds where in the volume everything in the mount lies: by the IDs that inspect tells for both.
func (v *volume) locate(t *testing.T) map[string]string {
	t.Helper()
	return v.locateWith(t)
}

// locateWith is locate with options of inspect.
func (v *volume) locateWith(t *testing.T, options ...string) map[string]string {
	t.Helper()
	inspect := func(root string) map[string]string {
		var paths []string
		must(t, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if base := filepath.Base(path); entry != nil && (entry.IsDir() && base != "kmsfs.temp" || entry.Type().IsRegular()) &&
				base != "kmsfs.dir" && base != "kmsfs.volume" && base != "kmsfs.mark" && !(strings.HasPrefix(base, "kmsfs.long.") && strings.HasSuffix(base, ".name")) {
				paths = append(paths, path)
			}
			return err
		}))
		ids := make(map[string]string)
		for chunk := range slices.Chunk(paths, 500) {
			out := v.kmsfs(t, slices.Concat([]string{"inspect", "--json"}, options, chunk)...)
			for line := range strings.Lines(out) {
				var report struct{ Path, FileID, DirectoryID string }
				must(t, json.Unmarshal([]byte(line), &report))
				ids[report.FileID+report.DirectoryID] = report.Path
			}
		}
		return ids
	}
	sealed, clear := inspect(v.dir), inspect(v.point)
	found := make(map[string]string)
	for id, path := range clear {
		name, err := filepath.Rel(v.point, path)
		must(t, err)
		if sealed[id] == "" {
			t.Fatalf("%s has the ID %s, which nothing in the volume has", name, id)
		}
		found[name] = sealed[id]
	}
	return found
}

// auditRecord is what the tests look at in a record.
type auditRecord struct {
	EventName, ErrorCode string
	ServiceEventDetails  json.RawMessage
	RequestParameters    json.RawMessage
	text                 string
}

// audit reads the audit log.
func (v *volume) audit(t *testing.T) []auditRecord {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(v.home, "audit", "*.jsonl"))
	must(t, err)
	if len(files) == 0 {
		t.Fatal("no audit log")
	}
	var all []auditRecord
	for _, name := range files {
		f, err := os.Open(name)
		must(t, err)
		defer f.Close()
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			record := auditRecord{text: lines.Text()}
			must(t, json.Unmarshal(lines.Bytes(), &record))
			all = append(all, record)
		}
		must(t, lines.Err())
	}
	return all
}

// mismatches counts the records of things found where they don't belong, that say where they were found and where they belong.
func (v *volume) mismatches(t *testing.T) int {
	t.Helper()
	n := 0
	for _, record := range v.audit(t) {
		if record.EventName != "ContextMismatch" {
			continue
		}
		d := details(t, record)
		if d["foundPath"] == "" || d["foundDirectory"] == "" || d["foundOwner"] == "" || d["sealedDirectory0"] == "" || d["sealedName0"] == "" {
			t.Errorf("a record of a mismatch lacks a place: %s", record.text)
		}
		n++
	}
	return n
}

// tryRead reads a file as a program would that knows nothing of FIFOs: without waiting for any.
func tryRead(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var content bytes.Buffer
	if info, err := f.Stat(); err != nil || info.Size() > 1<<30 {
		// Too much to read all: the beginning, the end and what lies between 1 MiB from the beginning.
		b := make([]byte, 1<<20)
		n, err := f.Read(b)
		return b[:max(n, 0)], errors.Join(err, readAt(f, info.Size()-10))
	}
	_, err = content.ReadFrom(f)
	return content.Bytes(), err
}

func readAt(f *os.File, offset int64) error {
	_, err := f.ReadAt(make([]byte, 1), offset)
	return err
}

func runAttacks(t *testing.T, plaintextNames bool) {
	var options []string
	if plaintextNames {
		options = append(options, "--plaintext-names")
	}
	v := mounted(t, options...)
	list := attacks()
	for _, a := range list {
		for name, content := range attackFiles {
			path := v.path(a.name, name)
			must(t, os.MkdirAll(filepath.Dir(path), 0o755))
			write(t, path, content)
		}
		for _, name := range []string{"a", "b"} {
			must(t, unix.Setxattr(v.path(a.name, name), "user.first", []byte("first of "+name), 0))
			must(t, unix.Setxattr(v.path(a.name, name), "user.second", []byte("second of "+name), 0))
		}
	}
	v.remount(t)
	found := v.locate(t)
	keep := make(map[string]map[string][]byte)
	for _, a := range list {
		keep[a.name] = make(map[string][]byte)
		if a.prepare != nil {
			a.prepare(t, backing{t, a.name, found, keep[a.name]})
		}
	}
	for _, a := range list {
		if a.change != nil {
			a.change(t, v.path(a.name))
		}
	}
	found = v.locate(t)
	v.umount(t)
	for _, a := range list {
		a.run(t, backing{t, a.name, found, keep[a.name]})
	}
	v.mount(t)
	pid := v.pid()
	for _, a := range list {
		t.Run(a.name, func(t *testing.T) {
			if !soon(t, "reading", func() { a.check(t, v) }) {
				// Whatever hangs ends with the process; the tests after this have none to talk to.
				v.kill(t)
			}
			if got := v.pid(); got != pid {
				t.Fatalf("the serving process is %d, was %d: it has died", got, pid)
			}
		})
	}
	// What is broken does not keep the volume from being unmounted and mounted.
	v.remount(t)
	wantContent(t, v.path("None", "a"), attackFiles["a"])
}

// check checks, in the mount, what an attack has done.
func (a attack) check(t *testing.T, v *volume) {
	var before int
	if a.mismatch {
		before = v.mismatches(t)
	}
	bad := strings.Fields(a.bad)
	at := func(name string) string { return v.path(a.name, name) }
	listed, err := exec2(t, "ls", "-lR", v.path(a.name)) // whatever it says, it ends
	_ = err
	for _, name := range bad {
		content, err := tryRead(at(name))
		switch {
		case err == nil && name == "a" && strings.HasPrefix(a.name, "File"):
			// A FIFO, say, where the file was: it has no content.
			if info, err := os.Lstat(at(name)); err != nil || info.Mode().IsRegular() || len(content) > 0 {
				t.Errorf("%s: %d bytes were read from %v", name, len(content), info)
			}
		case err == nil:
			t.Errorf("%s: %d bytes were read without an error", name, len(content))
		case !errors.Is(err, unix.EIO) && !errors.Is(err, unix.ENOENT) && !strings.HasPrefix(a.name, "File"):
			t.Errorf("%s: %v, want EIO, or that it isn't there", name, err)
		}
		// What was read before the error is genuine.
		if !bytes.HasPrefix(attackFiles[name], content) && !(a.change != nil && bytes.HasPrefix(noise(111, 20000), content)) {
			t.Errorf("%s: wrong content was read: %s", name, difference(content, attackFiles[name]))
		}
	}
	for name := range strings.FieldsSeq(a.absent) {
		if content, err := tryRead(at(name)); err == nil {
			t.Errorf("%s: %d bytes were read without an error", name, len(content))
		}
	}
	for name, content := range attackFiles {
		if slices.Contains(strings.Fields(a.either), name) {
			if got, err := tryRead(at(name)); err == nil && !bytes.Equal(got, content) {
				t.Errorf("%s: wrong content was read: %s", name, difference(got, content))
			}
		} else if !slices.Contains(bad, name) {
			wantContent(t, at(name), content)
		}
	}
	for _, name := range []string{"a", "b"} {
		for attribute, want := range map[string]string{"user.first": "first of " + name, "user.second": "second of " + name} {
			b := make([]byte, 100)
			n, err := unix.Lgetxattr(at(name), attribute, b)
			if err == nil && string(b[:n]) != want {
				t.Errorf("attribute %s of %s is %q", attribute, name, b[:n])
			}
			if err != nil && !slices.Contains(bad, name) && !strings.HasSuffix(a.name, "Attributes") {
				t.Errorf("attribute %s of %s: %v", attribute, name, err)
			}
			if err == nil && strings.HasSuffix(a.name, "Attributes") && (name == "a" || a.name == "SwapAttributes") {
				t.Errorf("attribute %s of %s was read, as %q", attribute, name, b[:n])
			}
		}
	}
	if a.mismatch && v.mismatches(t) == before {
		t.Errorf("the audit log tells of no ContextMismatch with both places; ls says\n%s", tail(listed, 2000))
	}
	if a.closed {
		return
	}
	for _, name := range bad {
		if _, err := os.Lstat(at(name)); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := os.RemoveAll(at(name)); err != nil {
			t.Errorf("a corrupt file can't be removed: %v", err)
		}
		wantGone(t, at(name))
		write(t, at(name), attackFiles[name])
		wantContent(t, at(name), attackFiles[name])
	}
}

// exec2 runs a command that may fail.
func exec2(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	cmd, cancel := command("/", name, args...)
	defer cancel()
	return finish(cmd)
}

// TestControlFiles replaces the control files of the volume's root: what can't be trusted isn't mounted.
func TestControlFiles(t *testing.T) {
	v := mounted(t)
	write(t, v.path("file"), []byte("content"))
	v.umount(t)
	copyOf := filepath.Join(v.root, "copy")
	run(t, v.root, "cp", "-a", v.dir, copyOf)
	restore := func() {
		t.Helper()
		must(t, os.RemoveAll(v.dir))
		run(t, v.root, "cp", "-a", copyOf, v.dir)
	}
	changes := map[string]func(path string) error{
		"Missing": func(string) error { return nil },
		"Flip": func(path string) error {
			content, err := os.ReadFile(filepath.Join(copyOf, filepath.Base(path)))
			if err != nil {
				return err
			}
			content[60] ^= 1
			return os.WriteFile(path, content, 0o600)
		},
		"Longer": func(path string) error {
			content, err := os.ReadFile(filepath.Join(copyOf, filepath.Base(path)))
			if err != nil {
				return err
			}
			return os.WriteFile(path, append(content, '\n'), 0o600)
		},
	}
	for name, change := range substitutes {
		changes[name] = change
	}
	for _, control := range []string{"kmsfs.volume", "kmsfs.dir"} {
		for name, change := range changes {
			t.Run(control+"/"+name, func(t *testing.T) {
				restore()
				replace(t, filepath.Join(v.dir, control), change)
				v.refused(t, []string{"mount", v.dir, v.point})
				if got := mountType(v.point); got != "" {
					t.Fatalf("%s is mounted", v.point)
				}
			})
		}
	}
	for name, change := range substitutes {
		t.Run("kmsfs.mark/"+name, func(t *testing.T) {
			restore()
			replace(t, filepath.Join(v.dir, "kmsfs.mark"), change)
			// Refused or taken for what it is: an end that was not clean.
			if _, err := v.try("mount", v.dir, v.point); err == nil {
				wantContent(t, v.path("file"), []byte("content"))
				v.umount(t)
			}
		})
	}
	restore()
	v.mount(t)
	wantContent(t, v.path("file"), []byte("content"))
}

// TestAttackWhileMounted changes ciphertext under a mount: what the kernel has no copy of any more fails.
func TestAttackWhileMounted(t *testing.T) {
	if plain {
		t.Log("there is no ciphertext")
		return
	}
	v := mounted(t)
	for _, name := range []string{"page", "header", "cut", "swapped1", "swapped2", "record/file", "whole"} {
		must(t, os.MkdirAll(filepath.Dir(v.path(name)), 0o755))
		write(t, v.path(name), noise(200, 60000))
	}
	v.remount(t) // so that everything is written, and nothing is in a cache
	at := v.locate(t)
	held := open(t, v.path("page"), unix.O_RDONLY)
	wantRead(t, held, 0, noise(200, 60000)[:4096])
	flipAt := func(path string, offset int64) {
		t.Helper()
		fd := open(t, path, unix.O_RDWR)
		b := pread(t, fd, 1, offset)
		pwrite(t, fd, []byte{b[0] ^ 1}, offset)
		must(t, unix.Close(fd))
	}
	flipAt(at["page"], 12*page+100)
	flipAt(at["header"], 100)
	must(t, os.Truncate(at["cut"], 5*page))
	must(t, unix.Renameat2(unix.AT_FDCWD, at["swapped1"], unix.AT_FDCWD, at["swapped2"], unix.RENAME_EXCHANGE))
	flipAt(filepath.Join(at["record"], "kmsfs.dir"), 100)

	must(t, unix.Fadvise(held, 0, 0, unix.FADV_DONTNEED))
	wantRead(t, held, 0, noise(200, 60000)[:4096])
	_, err := unix.Pread(held, make([]byte, 100), 12*page)
	wantErrno(t, err, unix.EIO)
	for _, name := range []string{"page", "header", "cut", "swapped1", "swapped2"} {
		got, err := os.ReadFile(v.path(name))
		if err == nil {
			t.Errorf("%s: %d bytes were read without an error", name, len(got))
			continue
		}
		wantErrno(t, err, unix.EIO, unix.ESTALE, unix.ENOENT)
		if !bytes.HasPrefix(noise(200, 60000), got) {
			t.Errorf("%s: wrong content before the error", name)
		}
	}
	wantContent(t, v.path("whole"), noise(200, 60000))
	must(t, unix.Close(held))
	v.remount(t)
	for _, name := range []string{"page", "header", "cut", "swapped1", "swapped2", "record/file"} {
		if _, err := os.ReadFile(v.path(name)); !errors.Is(err, unix.EIO) && !errors.Is(err, unix.ENOENT) {
			t.Errorf("%s after a remount: %v", name, err)
		}
	}
	wantContent(t, v.path("whole"), noise(200, 60000))
}
