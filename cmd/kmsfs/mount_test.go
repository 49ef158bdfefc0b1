package main_test

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// mount mounts the volume, to be unmounted at the test's end if it still is mounted then.
func (p *program) mount(args ...string) {
	p.t.Helper()
	requireFUSE(p.t)
	p.must(append([]string{"mount"}, args...)...)
	mountpoint := args[len(args)-1]
	p.t.Cleanup(func() {
		if isMounted(p.t, mountpoint) {
			p.must("umount", mountpoint)
		}
	})
}

func isMounted(t *testing.T, path string) bool {
	t.Helper()
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(info), " "+path+" ")
}

// marked says whether a volume is marked as mounted, or not cleanly unmounted.
func marked(t *testing.T, volume string) bool {
	t.Helper()
	_, err := os.Stat(filepath.Join(volume, "kmsfs.mark"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return err == nil
}

func TestInspect(t *testing.T) {
	p := newProgram(t)
	volume, mountpoint := p.volume()
	p.mount("--passphrase-file", "passphrase", volume, mountpoint)
	p.mkdir("clear/directory")
	p.write("clear/directory/file", "content")
	if err := os.Link(p.path("clear/directory/file"), p.path("clear/link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("target", p.path("clear/symlink")); err != nil {
		t.Fatal(err)
	}

	file := inspect(t, p, "clear/directory/file")
	directory := inspect(t, p, "clear/directory")
	symlink := inspect(t, p, "clear/symlink")
	if key := keyOf(t, volume); file.Type != "file" || file.FormatVersion != 1 || len(file.FileID) != 32 || file.KeyARN != key ||
		len(file.KeyMaterialID) != 64 || !file.Authentic || file.PlaintextSize != 7 {
		t.Errorf("file: %+v", file)
	}
	if context := file.EncryptionContext; len(context) != 3 || context["kmsfs:path"] != "/directory/file" ||
		!strings.HasPrefix(context["kmsfs:owner"], "uid:") || len(context["kmsfs:volume"]) != 32 {
		t.Errorf("encryption context: %v", context)
	}
	if l := file.Locations; len(l) != 2 || l[0].Name != "file" || l[0].DirectoryID != directory.DirectoryID || l[1].Name != "link" {
		t.Errorf("locations: %+v", l)
	}
	if directory.Type != "directory" || !directory.Authentic || len(directory.Locations) != 1 || directory.Locations[0].Name != "directory" {
		t.Errorf("directory: %+v", directory)
	}
	if symlink.Type != "symlink" || !symlink.Authentic || symlink.PlaintextSize != 6 {
		t.Errorf("symlink: %+v", symlink)
	}
	for _, text := range []string{"clear/link\n", file.FileID, file.KeyARN, file.KeyMaterialID, `"/directory/file"`, "authentic       yes"} {
		if out := p.must("inspect", "clear/link"); !strings.Contains(out, text) {
			t.Errorf("inspect does not say %q:\n%s", text, out)
		}
	}

	// The same file, by the name that the volume has it under, once it isn't mounted.
	p.must("umount", mountpoint)
	p.environment = append(p.environment, "KMSFS_PASSPHRASE_FILE=passphrase")
	paths, err := filepath.Glob(p.path("vault/*/*"))
	if err != nil {
		t.Fatal(err)
	}
	var sealed string
	for _, path := range paths {
		if !strings.HasPrefix(filepath.Base(path), "kmsfs.") {
			sealed = path
		}
	}
	if got := inspect(t, p, sealed); got.FileID != file.FileID || !got.Authentic {
		t.Errorf("%s: %+v", sealed, got)
	}
	// The same with a changed header.
	f, err := os.OpenFile(sealed, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{1}, 30); err != nil { // the count of sealed blocks
		t.Fatal(err)
	}
	r := p.run("inspect", "--json", sealed)
	if !strings.Contains(r.stdout, `"authentic":false`) {
		t.Errorf("a changed header: %s", r.stdout)
	}
	r.stdout = ""
	r.wantError(t, 1, "MAC")
}

// report is what inspect --json prints.
type report struct {
	Path, Type, FileID, DirectoryID, KeyARN, KeyMaterialID string
	FormatVersion, PlaintextSize                           int
	EncryptionContext                                      map[string]string
	Locations                                              []struct{ DirectoryID, Name string }
	Flags                                                  []string
	Authentic                                              bool
}

func inspect(t *testing.T, p *program, path string) report {
	t.Helper()
	var r report
	out := p.must("inspect", "--json", path)
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if r.Path != path {
		t.Errorf("path is %q, want %q", r.Path, path)
	}
	return r
}

// TestSignals ends mounts by signals: idle ones at once, those in use when they no longer are.
func TestSignals(t *testing.T) {
	requireFUSE(t)
	p := newProgram(t)
	volume, mountpoint := p.volume()
	for _, signal := range []os.Signal{unix.SIGTERM, unix.SIGINT} {
		for _, busy := range []bool{false, true} {
			cmd := exec.Command(binary, "mount", "--foreground", "--passphrase-file", "passphrase", volume, mountpoint)
			cmd.Dir, cmd.Env = p.dir, p.environment
			stderr, err := cmd.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			log := bufio.NewScanner(stderr)
			if !log.Scan() || !strings.Contains(log.Text(), "mounted") {
				t.Fatalf("standard error begins %q", log.Text())
			}
			f, err := os.Create(p.path("clear/file"))
			if err != nil {
				t.Fatal(err)
			}
			if !busy {
				f.Close()
			}
			if err := cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			if busy {
				for log.Scan() && !strings.Contains(log.Text(), "can't unmount yet") {
				}
				for deadline := time.Now().Add(10 * time.Second); isMounted(t, mountpoint) && time.Now().Before(deadline); {
					time.Sleep(10 * time.Millisecond)
				}
				if _, err := f.WriteString("late"); err != nil {
					t.Error(err)
				}
				if err := f.Close(); err != nil {
					t.Error(err)
				}
			}
			for log.Scan() {
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("%v, in use: %v: %v", signal, busy, err)
			}
			if isMounted(t, mountpoint) || marked(t, volume) {
				t.Errorf("%v, in use: %v: still mounted, or marked as unclean", signal, busy)
			}
		}
	}
}

// TestHomeOutlivesMount has a second mount use the home through the first one's process, which
// serves it until the second ends.
func TestHomeOutlivesMount(t *testing.T) {
	p := newProgram(t)
	volume, mountpoint := p.volume()
	p.mount("--passphrase-file", "passphrase", volume, mountpoint)
	p.must("init", "second")
	p.mkdir("other")
	p.mount("second", p.path("other"))
	p.must("umount", mountpoint)
	if marked(t, volume) {
		t.Error("umount returned before the volume was marked clean")
	}
	p.write("other/file", "content")
	p.must("umount", "other")
	// No process has it open any more.
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		r := p.run("inspect", volume)
		if strings.Contains(r.stderr, "needs a passphrase") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the home is still open: %+v", r)
		}
	}
}

// TestHelper calls the program as mount(8) does.
func TestHelper(t *testing.T) {
	requireFUSE(t)
	p := newProgram(t)
	volume, mountpoint := p.volume()
	for _, test := range []struct {
		name string
		args []string
	}{
		{"mount.fuse.kmsfs", []string{volume, mountpoint, "-n", "-o", "ro,nofail,passphrase_file=" + p.path("passphrase")}},
		{"/sbin/mount.kmsfs", []string{volume, mountpoint, "-s", "-o", "ro,nonsense,passphrase_file=" + p.path("passphrase"), "-t", "fuse.kmsfs"}},
		{"kmsfs", []string{volume, mountpoint, "-o", "ro,passphrase_file=" + p.path("passphrase")}},
	} {
		if r := p.runAs(test.name, test.args...); r.code != 0 {
			t.Errorf("%s: %+v", test.name, r)
			continue
		}
		if err := os.WriteFile(p.path("clear/file"), nil, 0o600); err == nil {
			t.Errorf("%s: mounted for writing", test.name)
		}
		p.must("umount", mountpoint)
	}
	p.runAs("mount.fuse.kmsfs", volume, mountpoint, "-o", "nonsense").wantError(t, 2, "nonsense")
	if r := p.runAs("mount.fuse.kmsfs", volume, mountpoint, "-f"); r.code != 0 || isMounted(t, mountpoint) {
		t.Errorf("a mount that is not to be: %+v", r)
	}
}

// TestCredential makes and mounts a volume under a systemd credential.
func TestCredential(t *testing.T) {
	p := newProgram(t)
	p.mkdir("credentials")
	p.write("credentials/kmsfs", strings.Repeat("k", 32))
	p.environment = append(p.environment, "CREDENTIALS_DIRECTORY="+p.path("credentials"))
	p.must("init", "vault")
	p.mount("vault", p.mkdir("clear"))
}

// TestCredentialAsPassphrase opens a home that was made on a terminal, or with a file, from a
// systemd unit.
func TestCredentialAsPassphrase(t *testing.T) {
	p := newProgram(t)
	volume, mountpoint := p.volume()
	p.mkdir("credentials")
	p.write("credentials/kmsfs", passphrase)
	p.environment = append(p.environment, "CREDENTIALS_DIRECTORY="+p.path("credentials"))
	p.mount(volume, mountpoint)
}

// TestDaemonLeavesFiles sees that a mount doesn't keep open what its starter waits for.
func TestDaemonLeavesFiles(t *testing.T) {
	requireFUSE(t)
	p := newProgram(t)
	volume, mountpoint := p.volume()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command(binary, "mount", "--passphrase-file", "passphrase", volume, mountpoint)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.ExtraFiles = p.dir, p.environment, w, []*os.File{w, w, w}
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.must("umount", mountpoint) })
	w.Close()
	if err := r.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := r.Read(make([]byte, 1)); n != 0 || os.IsTimeout(err) {
		t.Errorf("the pipe is still open: %d, %v", n, err)
	}
}
