package integration

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The marks are what must not be found in a volume. They have no character in common with the file system's own texts in a row.
var marks = map[string]string{
	"content":         "Xq7contentZ9vKw2",
	"middle":          "Xq7middleJ4hTr8n",
	"name":            "Xq7nameP5mYd3sLc",
	"long name":       "Xq7longnameB6gFe1" + strings.Repeat("Uy", 110),
	"directory":       "Xq7directoryN8jQa",
	"attribute":       "Xq7attributeH2kVt",
	"attribute value": "Xq7valueR7bMx9pWz",
	"target":          "Xq7targetC3dSu6gE",
	"deleted":         "Xq7deletedT5fLo1i",
	"renamed":         "Xq7renamedG9nKy4a",
	"mapped":          "Xq7mappedD1rQv8hU",
	"temporary":       "Xq7temporaryW6jBe",
}

// inNames are the marks that the key service sees, in paths.
var inNames = []string{"name", "long name", "directory", "deleted", "renamed"}

// plantMarks has every mark written, and some deleted again.
func plantMarks(t *testing.T, dir string) {
	t.Helper()
	content := []byte(strings.Repeat(marks["content"]+" ", 2000))
	copy(content[len(content)/2:], marks["middle"])
	sub := filepath.Join(dir, marks["directory"])
	must(t, os.MkdirAll(filepath.Join(sub, marks["long name"]), 0o755))
	for _, path := range []string{
		filepath.Join(dir, marks["name"]), filepath.Join(sub, marks["name"]),
		filepath.Join(sub, marks["long name"], marks["long name"]), filepath.Join(dir, marks["deleted"]),
	} {
		write(t, path, content)
		must(t, unix.Setxattr(path, "user."+marks["attribute"], []byte(marks["attribute value"]), 0))
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		must(t, err)
		_, err = f.WriteString(marks["content"])
		must(t, err)
		must(t, f.Sync())
		must(t, f.Close())
	}
	must(t, unix.Setxattr(sub, "user."+marks["attribute"], []byte(marks["attribute value"]), 0))
	write(t, filepath.Join(dir, "small"), []byte(marks["content"]))
	must(t, os.Symlink(marks["target"], filepath.Join(dir, "link")))
	must(t, os.Symlink("/"+marks["target"]+"/"+marks["target"], filepath.Join(sub, marks["name"]+"-link")))
	must(t, unix.Mkfifo(filepath.Join(dir, marks["name"]+"-fifo"), 0o600))
	must(t, os.Link(filepath.Join(dir, marks["name"]), filepath.Join(dir, marks["name"]+"-hard")))
	for i := range 4 {
		must(t, os.Link(filepath.Join(dir, marks["name"]), filepath.Join(sub, fmt.Sprint(marks["name"], i))))
	}
	write(t, filepath.Join(dir, "before"), content)
	must(t, os.Rename(filepath.Join(dir, "before"), filepath.Join(dir, marks["renamed"])))
	must(t, os.Rename(filepath.Join(dir, marks["renamed"]), filepath.Join(dir, "after")))
	must(t, os.Remove(filepath.Join(dir, marks["deleted"])))
	must(t, os.Truncate(filepath.Join(sub, marks["name"]), 100))

	fd := open(t, filepath.Join(dir, "mapped"), unix.O_CREAT|unix.O_RDWR)
	must(t, unix.Ftruncate(fd, 10000))
	m, err := unix.Mmap(fd, 0, 10000, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	copy(m[5000:], marks["mapped"])
	must(t, unix.Msync(m, unix.MS_SYNC))
	must(t, unix.Munmap(m))
	must(t, closeDescriptor(fd))

	fd = open(t, dir, unix.O_TMPFILE|unix.O_RDWR)
	pwrite(t, fd, []byte(marks["temporary"]), 0)
	must(t, unix.Fsync(fd))
	must(t, closeDescriptor(fd))
}

// forms are the ways in which a mark may have been written down.
func forms(mark string) [][]byte {
	all := [][]byte{[]byte(mark), []byte(strings.ToLower(mark)), []byte(strings.ToUpper(mark)), []byte(hex.EncodeToString([]byte(mark))), []byte(strings.ToUpper(hex.EncodeToString([]byte(mark))))}
	// Base64 at each of the three alignments: what is the same whatever stands before and behind.
	for shift := range 3 {
		padded := append(make([]byte, shift), mark...)
		padded = padded[:len(padded)/3*3]
		for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
			text := []byte(encoding.EncodeToString(padded))
			all = append(all, text[min(shift, 1)*4:])
		}
	}
	return all
}

// findMarks says which marks are found in some bytes.
func findMarks(b []byte) []string {
	var found []string
	for _, kind := range slices.Sorted(maps.Keys(marks)) {
		for _, form := range forms(marks[kind]) {
			if bytes.Contains(b, form) {
				found = append(found, fmt.Sprintf("%s as %q", kind, form))
				break
			}
		}
	}
	return found
}

// readEverything calls see for all that there is in a directory: names, contents, targets, attributes.
func readEverything(t *testing.T, dir string, see func(path string, b []byte)) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		see(path, []byte(name))
		switch {
		case entry.Type().IsRegular():
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			see(path, content)
		case entry.Type() == fs.ModeSymlink:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			see(path, []byte(target))
		}
		all, err := attributes(path)
		for name, value := range all {
			see(path, []byte(name))
			see(path, []byte(value))
		}
		return err
	}))
}

// searchMarks checks that there is none in the volume, and in the home only those in the audit log that may be there.
func searchMarks(t *testing.T, v *volume, when string) {
	t.Helper()
	bytesSeen := 0
	readEverything(t, v.dir, func(path string, b []byte) {
		bytesSeen += len(b)
		for _, mark := range findMarks(b) {
			t.Errorf("%s: %s holds the mark of a %s", when, path, mark)
		}
	})
	if bytesSeen < 100000 {
		t.Errorf("%s: only %d bytes were searched", when, bytesSeen)
	}
	paths := false
	readEverything(t, v.home, func(path string, b []byte) {
		for _, mark := range findMarks(b) {
			kind, _, _ := strings.Cut(mark, " as ")
			if filepath.Dir(path) == filepath.Join(v.home, "audit") && slices.Contains(inNames, kind) {
				paths = true
				continue
			}
			t.Errorf("%s: %s holds the mark of a %s", when, path, mark)
		}
	})
	if !paths {
		t.Errorf("%s: the audit log holds no path, which shows that the search finds nothing", when)
	}
}

// TestSecrets searches all that is written down for what was put into the mount.
func TestSecrets(t *testing.T) {
	if plain {
		t.Log("everything is plain")
		return
	}
	v := newVolume(t)
	v.mount(t)
	plantMarks(t, v.point)
	// The search finds marks in the mount, of every kind that is left there.
	seen := make(map[string]bool)
	readEverything(t, v.point, func(_ string, b []byte) {
		for _, mark := range findMarks(b) {
			kind, _, _ := strings.Cut(mark, " as ")
			seen[kind] = true
		}
	})
	for kind := range marks {
		if gone := kind == "deleted" || kind == "renamed" || kind == "temporary"; seen[kind] == gone {
			t.Errorf("mark of a %s found in the mount: %v, want %v", kind, seen[kind], !gone)
		}
	}
	run(t, "/", "sync", "-f", v.point)
	searchMarks(t, v, "while mounted")
	v.remount(t)
	run(t, v.point, "ls", "-lR")
	searchMarks(t, v, "after a remount")
	write(t, v.path("small"), []byte(marks["content"]+marks["middle"]))
	v.kill(t)
	searchMarks(t, v, "after a kill")
	v.mount(t)
	v.awaitRecovery(t)
	v.umount(t)
	searchMarks(t, v, "at the end")
}

// TestSecretsOnDisk searches every byte of a disk, with what was deleted and the journal.
func TestSecretsOnDisk(t *testing.T) {
	if plain {
		t.Log("everything is plain")
		return
	}
	v := prepareVolume(t)
	image := loopDisk(t, v, "64M")
	v.kmsfs(t, "init", v.dir)
	v.mount(t)
	plantMarks(t, v.point)
	run(t, "/", "sync", "-f", filepath.Join(v.root, "disk"))
	v.umount(t)
	run(t, "/", "umount", filepath.Join(v.root, "disk"))
	content, err := os.ReadFile(image)
	must(t, err)
	for _, mark := range findMarks(content) {
		t.Errorf("the disk holds the mark of a %s", mark)
	}
	if !bytes.Contains(content, []byte("kmsfs.volume")) {
		t.Error("the disk does not even hold the volume's configuration")
	}
}

// TestNoDump makes sure that the memory of a serving process can't be had from a core dump, nor by other processes of the user.
func TestNoDump(t *testing.T) {
	if plain {
		t.Log("there is no process")
		return
	}
	v := newVolume(t)
	// dumps says whether a process that is ended by that signal leaves a core dump, wherever the system puts it.
	dumps := func(cmd *exec.Cmd) bool {
		t.Helper()
		if cmd.ProcessState == nil {
			t.Fatalf("%v has not ended", cmd.Args)
		}
		return cmd.ProcessState.Sys().(syscall.WaitStatus).CoreDump()
	}
	cores := func() []string {
		t.Helper()
		var all []string
		for _, dir := range []string{"/", v.root, v.point, filepath.Join(v.root, "cwd"), v.home} {
			found, err := filepath.Glob(filepath.Join(dir, "*core*"))
			must(t, err)
			all = append(all, found...)
		}
		return all
	}
	cwd := filepath.Join(v.root, "cwd")
	must(t, os.Mkdir(cwd, 0o755))
	// A process like any other leaves one here: else this test would show nothing.
	control := exec.CommandContext(t.Context(), "sh", "-c", "ulimit -c unlimited; kill -SEGV $$")
	control.Dir = cwd
	if err := control.Run(); err == nil {
		t.Error("a process survived SIGSEGV")
	}
	if pattern, err := os.ReadFile("/proc/sys/kernel/core_pattern"); err == nil && !bytes.HasPrefix(pattern, []byte("|")) && !dumps(control) {
		t.Error("even a process that takes no care leaves no core dump: set core_pattern and the hard limit so that it does")
	}
	must(t, os.RemoveAll(cwd))
	must(t, os.Mkdir(cwd, 0o755))
	before := cores()

	for _, signal := range []syscall.Signal{unix.SIGSEGV, unix.SIGABRT, unix.SIGQUIT, unix.SIGBUS, unix.SIGILL, unix.SIGTRAP} {
		// In the foreground, so that we learn from the kernel whether it dumped core; GOTRACEBACK=crash has Go try to.
		cmd := exec.CommandContext(t.Context(), "sh", "-c", `ulimit -c unlimited && exec "$@"`, "sh", binary, "mount", "--foreground", v.dir, v.point)
		cmd.Dir, cmd.Env = cwd, append(v.environment(), "GOTRACEBACK=crash")
		stderr := v.startForeground(t, cmd)
		write(t, v.path("file"), []byte(marks["content"]))
		v.checkHardened(t, cmd.Process.Pid)
		must(t, cmd.Process.Signal(signal))
		if err := cmd.Wait(); err == nil {
			t.Errorf("survived %v", signal)
		}
		if dumps(cmd) {
			t.Errorf("a core was dumped on %v", signal)
		}
		if found := cores(); !slices.Equal(found, before) {
			t.Errorf("core files after %v: %q, were %q", signal, found, before)
		}
		for _, mark := range findMarks([]byte(stderr.String())) {
			t.Errorf("standard error after %v has the mark of a %s", signal, mark)
		}
		v.detach(t)
	}
	v.mount(t)
	v.awaitRecovery(t)
	v.checkHardened(t, v.pid())
}

// transcript keeps what a process writes, and can be read meanwhile.
type transcript struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (w *transcript) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(b)
}

func (w *transcript) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// startForeground starts a mount in the foreground and waits until it is ready, by its own word: a process that is killed
// while it still mounts may wait for itself, for good.
func (v *volume) startForeground(t *testing.T, cmd *exec.Cmd) *transcript {
	t.Helper()
	stderr := new(transcript)
	cmd.Stderr = stderr
	must(t, cmd.Start())
	await(t, "the mount", func() bool { return strings.Contains(stderr.String(), "msg=mounted") })
	if got := mountType(v.point); got != "fuse.kmsfs" {
		t.Fatalf("%s: a file system of type %q is mounted", v.point, got)
	}
	return stderr
}

// checkHardened checks that a serving process keeps its memory to itself.
func (v *volume) checkHardened(t *testing.T, pid int) {
	t.Helper()
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	must(t, err)
	for line := range strings.Lines(string(limits)) {
		if rest, ok := strings.CutPrefix(line, "Max core file size"); ok {
			if fields := strings.Fields(rest); fields[0] != "0" || fields[1] != "0" {
				t.Errorf("limits of core files are %q, want 0 and 0", fields)
			}
		}
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	must(t, err)
	if strings.Contains(string(status), "VmLck:\t       0 kB") {
		t.Error("no memory is locked")
	}
	if isRoot {
		return // who may do anything
	}
	// The kernel gives the files of a process that must not be dumped to root.
	var st unix.Stat_t
	must(t, unix.Stat(fmt.Sprintf("/proc/%d/mem", pid), &st))
	if st.Uid != 0 {
		t.Errorf("/proc/%d/mem belongs to uid %d, want 0: the process can be dumped", pid, st.Uid)
	}
	for _, name := range []string{"mem", "environ", "auxv"} {
		f, err := os.Open(fmt.Sprintf("/proc/%d/%s", pid, name))
		if err == nil {
			_ = f.Close()
		}
		wantErrno(t, err, unix.EACCES, unix.EPERM)
	}
	if err := unix.PtraceSeize(pid); err != unix.EPERM {
		t.Errorf("ptrace: %v, want EPERM", err)
	}
}
