package integration

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
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
	t.Parallel()
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
	t.Parallel()
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
		must(t, closeDescriptor(fd))
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
	must(t, closeDescriptor(held))
	v.remount(t)
	for _, name := range []string{"page", "header", "cut", "swapped1", "swapped2", "record/file"} {
		if _, err := os.ReadFile(v.path(name)); !errors.Is(err, unix.EIO) && !errors.Is(err, unix.ENOENT) {
			t.Errorf("%s after a remount: %v", name, err)
		}
	}
	wantContent(t, v.path("whole"), noise(200, 60000))
}
