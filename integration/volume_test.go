package integration

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// volume is a volume with a key service home of its own, and where it is mounted.
type volume struct {
	// root is the directory that holds it all.
	root, home, key, dir, point string
	// options are those of the last mount.
	options []string
	// also is further environment of the program's.
	also []string
}

// newVolume makes a volume. It is unmounted when the test ends.
func newVolume(t testing.TB, initOptions ...string) *volume {
	t.Helper()
	v := prepareVolume(t)
	if !plain {
		v.kmsfs(t, append(append([]string{"init"}, initOptions...), v.dir)...)
	}
	return v
}

// prepareVolume makes what there is before a volume.
func prepareVolume(t testing.TB) *volume {
	t.Helper()
	root := tempDir(t)
	v := &volume{
		root: root, home: filepath.Join(root, "home"), key: filepath.Join(root, "key"),
		dir: filepath.Join(root, "volume"), point: filepath.Join(root, "clear"),
	}
	must(t, os.Mkdir(v.point, 0o755))
	t.Cleanup(func() { v.end(t) })
	return v
}

// mounted makes a volume and mounts it.
func mounted(t *testing.T, initOptions ...string) *volume {
	t.Helper()
	v := newVolume(t, initOptions...)
	v.mount(t)
	return v
}

// environment is that of the program's runs.
func (v *volume) environment() []string {
	return append(append(os.Environ(), "HOME="+v.root, "KMSFS_HOME="+v.home, "KMSFS_KEY_FILE="+v.key), v.also...)
}

// try runs the program.
func (v *volume) try(args ...string) (output string, err error) {
	cmd, cancel := command(v.root, binary, args...)
	defer cancel()
	cmd.Env = v.environment()
	return finish(cmd)
}

// kmsfs runs the program, which must succeed.
func (v *volume) kmsfs(t testing.TB, args ...string) string {
	t.Helper()
	out, err := v.try(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// refused runs the program, which must fail with one line that says all of the texts.
func (v *volume) refused(t *testing.T, args []string, texts ...string) {
	t.Helper()
	cmd, cancel := command(v.root, binary, args...)
	defer cancel()
	cmd.Env = v.environment()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := cmd.Run()
	line := stderr.String()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("kmsfs %s: %v, want exit status 1\n%s", strings.Join(args, " "), err, line)
	}
	if !strings.HasPrefix(line, "kmsfs: ") || strings.Count(line, "\n") != 1 {
		t.Errorf("kmsfs %s: standard error is %q, want one line that begins with kmsfs:", strings.Join(args, " "), line)
	}
	for _, text := range texts {
		if !strings.Contains(line, text) {
			t.Errorf("kmsfs %s: standard error is %q, want it to say %q", strings.Join(args, " "), line, text)
		}
	}
}

func (v *volume) mount(t testing.TB, options ...string) {
	t.Helper()
	v.options = options
	if plain {
		return
	}
	v.kmsfs(t, append(append([]string{"mount"}, options...), v.dir, v.point)...)
	if got := mountType(v.point); got != "fuse.kmsfs" {
		t.Fatalf("%s: a file system of type %q is mounted, want fuse.kmsfs", v.point, got)
	}
	if v.pid() == 0 {
		t.Fatalf("no process serves %s", v.point)
	}
}

// pid returns the process that serves the mount, or 0.
func (v *volume) pid() int {
	found := 0
	commandLines(func(pid int, args []string) {
		if filepath.Base(args[0]) == "kmsfs" && slices.Contains(args, v.dir) && slices.Contains(args, v.point) {
			found = pid
		}
	})
	return found
}

// umount unmounts with the program, and checks that the mount and its process are gone and the volume is marked clean.
func (v *volume) umount(t testing.TB) {
	t.Helper()
	if plain {
		return
	}
	pid := v.pid()
	v.kmsfs(t, "umount", v.point)
	v.checkUnmounted(t, pid)
}

// checkUnmounted checks that the mount and its process are gone and the volume is marked clean.
func (v *volume) checkUnmounted(t testing.TB, pid int) {
	t.Helper()
	if pid != 0 && !waitExit(pid, 30*time.Second) {
		t.Errorf("process %d still runs after umount", pid)
	}
	if got := mountType(v.point); got != "" {
		t.Errorf("%s is still mounted (%s)", v.point, got)
	}
	if _, err := os.Lstat(filepath.Join(v.dir, "kmsfs.mark")); !errors.Is(err, fs.ErrNotExist) {
		log, _ := os.ReadFile(v.log()) // for the message
		t.Errorf("kmsfs.mark is there after umount (%v); the log ends with\n%s", err, tail(string(log), 1000))
	}
}

// log is where the mount's process logs, if the system has no log.
func (v *volume) log() string {
	if slices.Contains(v.options, "--kms") {
		return filepath.Join(v.home+"-remote", "kmsfs.log")
	}
	return filepath.Join(v.home, "kmsfs.log")
}

// remount unmounts and mounts as before.
func (v *volume) remount(t *testing.T) {
	t.Helper()
	v.umount(t)
	v.mount(t, v.options...)
}

// kill ends the serving process without warning and takes the dead mount away.
func (v *volume) kill(t *testing.T) {
	t.Helper()
	v.killServer(t)
	v.detach(t)
}

// killServer ends the serving process without warning. The dead mount stays, so that whoever still works on it doesn't
// find an empty directory in its place.
func (v *volume) killServer(t *testing.T) {
	t.Helper()
	pid := v.pid()
	if pid == 0 {
		t.Fatalf("no process serves %s", v.point)
	}
	must(t, syscall.Kill(pid, syscall.SIGKILL))
	if !waitExit(pid, patience) {
		t.Fatalf("process %d survived SIGKILL", pid)
	}
}

// awaitRecovery waits until everything that an unclean end may have left behind has been looked at. A volume that is
// unmounted earlier stays marked.
func (v *volume) awaitRecovery(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("/dev/log"); err == nil {
		v.awaitRecoveryUnseen(t) // the log is the system's
		return
	}
	await(t, "the end of the search in the log", func() bool {
		log, err := os.ReadFile(v.log())
		must(t, err)
		found := bytes.LastIndex(log, []byte("was not unmounted cleanly"))
		return found >= 0 && bytes.Contains(log[found:], []byte("left behind are checked"))
	})
}

// awaitRecoveryUnseen gives the search more and more time, until the volume is clean after an unmount.
func (v *volume) awaitRecoveryUnseen(t *testing.T) {
	t.Helper()
	for pause := 50 * time.Millisecond; pause < time.Minute; pause *= 2 {
		time.Sleep(pause)
		v.kmsfs(t, "umount", v.point)
		_, err := os.Lstat(filepath.Join(v.dir, "kmsfs.mark"))
		v.mount(t, v.options...)
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
	}
	t.Fatal("the search for what an unclean end left behind has no end")
}

// detach takes a mount away, even if it is dead or in use.
func (v *volume) detach(t testing.TB) {
	t.Helper()
	if isRoot {
		run(t, "/", "umount", "-l", v.point)
	} else {
		run(t, "/", "fusermount3", "-u", "-z", v.point)
	}
}

// end leaves nothing mounted and no process behind, and complains if it has to use force.
func (v *volume) end(t testing.TB) {
	pid := v.pid()
	if mountType(v.point) != "" {
		out, err := v.try("umount", v.point)
		if err == nil {
			v.checkUnmounted(t, pid)
			return
		}
		t.Errorf("%v\n%s", err, out)
		if pid != 0 {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it is ours, and waitExit will tell
		}
		v.detach(t)
	}
	if pid != 0 && !waitExit(pid, 30*time.Second) {
		t.Errorf("process %d still serves %s, which is not mounted any more", pid, v.point)
		_ = syscall.Kill(pid, syscall.SIGKILL) // so that the next test doesn't suffer from it
	}
}

// path returns the path of a name in the mount.
func (v *volume) path(elements ...string) string {
	return filepath.Join(append([]string{v.point}, elements...)...)
}
