// Package integration tests the program as its users run it: on real mounts, with real programs, and with what goes wrong.
//
// The tests want root. TestAsUser runs those that a user without privileges can run once more, as nobody, with fusermount3.
// Everything runs in a mount namespace of its own, with a copy of /etc, so that nothing outside is touched.
//
// With KMSFS_INTEGRATION_PLAIN=1, scenarios run on a plain directory instead of a mount, which tests the
// scenarios. With KMSFS_RACE=1 the program looks for data races in itself. KMSFS_TAGS are build tags for
// it: lockorder has it check the order of its locks.
package integration

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// nobody is the user without privileges.
const nobody = 65534

// The variables by which the tests run themselves again.
const (
	roleVariable   = "KMSFS_INTEGRATION_ROLE"
	suiteVariable  = "KMSFS_INTEGRATION_SUITE"
	binaryVariable = "KMSFS_INTEGRATION_BINARY"
)

var (
	// binary is the program under test; testBinary this one, where other users can run it.
	binary, testBinary string
	// suite is the directory that everything is made in. Other users may pass through it.
	suite string
	// plain says that scenarios run on plain directories.
	plain = os.Getenv("KMSFS_INTEGRATION_PLAIN") != ""
	// isRoot says that the tests run as root, not as a user.
	isRoot = os.Geteuid() == 0
)

// patience is how long anything may take that isn't measured: so long that a slow machine doesn't fail the tests.
const patience = 3 * time.Minute

func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case "lock":
		os.Exit(lockHelper(os.Args[1:]))
	case "act":
		os.Exit(act())
	case "post":
		os.Exit(post(os.Args[1:]))
	case "user":
		suite, binary, testBinary = os.Getenv(suiteVariable), os.Getenv(binaryVariable), os.Args[0]
		os.Exit(m.Run())
	}
	os.Exit(testMain(m))
}

func testMain(m *testing.M) (code int) {
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, "integration tests:", err)
		return 1
	}
	if !isRoot {
		return fail(errors.New("run them as root: they mount, and run as other users from there"))
	}
	if err := enterNamespace(); err != nil {
		return fail(err)
	}
	if err := checkTools(); err != nil {
		return fail(err)
	}
	for _, name := range []string{"KMSFS_HOME", "KMSFS_KEY_FILE", "KMSFS_PASSPHRASE_FILE", "CREDENTIALS_DIRECTORY"} {
		_ = os.Unsetenv(name)
	}
	unix.Umask(0o022)
	var err error
	if suite, err = os.MkdirTemp("", "kmsfs-integration-"); err != nil {
		return fail(err)
	}
	if suite, err = filepath.EvalSymlinks(suite); err != nil {
		return fail(err)
	}
	defer func() {
		left := mountsBelow(suite)
		for _, mountpoint := range left {
			code = fail(fmt.Errorf("%s is still mounted", mountpoint))
		}
		// Data races that the program found in itself; see KMSFS_RACE.
		races, _ := filepath.Glob(filepath.Join(suite, "race.*")) // the pattern is good
		userRaces, _ := filepath.Glob(filepath.Join(suite, "user", "race.*"))
		for _, name := range append(races, userRaces...) {
			text, err := os.ReadFile(name)
			code = fail(fmt.Errorf("data race: %s %v", text, err))
		}
		for _, pid := range processesOf(binary) {
			if !waitExit(pid, 20*time.Second) {
				code = fail(fmt.Errorf("process %d still runs", pid))
				left = append(left, "")
			}
		}
		if len(left) > 0 {
			return // not to remove what is mounted
		}
		if err := removeAll(suite); err != nil {
			code = fail(err)
		}
	}()
	if err := os.Chmod(suite, 0o755); err != nil {
		return fail(err)
	}
	if err := ownSettings(); err != nil {
		return fail(err)
	}
	binary, testBinary = filepath.Join(suite, "kmsfs"), filepath.Join(suite, "integration.test")
	if !plain {
		args := []string{"build", "-o", binary}
		if os.Getenv("KMSFS_RACE") == "1" {
			args = append(args, "-race")
			_ = os.Setenv("GORACE", "log_path="+filepath.Join(suite, "race"))
		}
		if tags := os.Getenv("KMSFS_TAGS"); tags != "" {
			args = append(args, "-tags", tags)
			_ = os.Setenv("KMSFS_LOCKORDER", filepath.Join(suite, "race")) // what lockorder finds is read as data races are
		}
		if out, err := exec.Command("go", append(args, "kmsfs/cmd/kmsfs")...).CombinedOutput(); err != nil {
			return fail(fmt.Errorf("%w\n%s", err, out))
		}
	}
	self, err := os.Executable()
	if err != nil {
		return fail(err)
	}
	if out, err := exec.Command("cp", self, testBinary).CombinedOutput(); err != nil {
		return fail(fmt.Errorf("%w\n%s", err, out))
	}
	watch()
	return m.Run()
}

// watch ends all serving processes shortly before the tests' time is over. Without that, a test that waits for one of them
// would wait for good: not even the kernel ends a process that does.
func watch() {
	flag.Parse()
	timeout, err := time.ParseDuration(flag.Lookup("test.timeout").Value.String())
	if err != nil || timeout == 0 {
		return
	}
	time.AfterFunc(timeout-20*time.Second, func() {
		for _, pid := range processesOf(binary) {
			fmt.Fprintf(os.Stderr, "integration tests: out of time: killing %d\n", pid)
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
		}
	})
}

// checkTools says what is to be installed.
func checkTools() error {
	var missing []string
	for tool, install := range map[string]string{
		"fusermount3": "fuse3", "git": "git", "sqlite3": "sqlite3", "rsync": "rsync", "setfattr": "attr", "getfattr": "attr",
		"setfacl": "acl", "getfacl": "acl", "tar": "tar", "cp": "coreutils", "diff": "diffutils", "mount": "mount", "go": "golang", "mkfs.ext4": "e2fsprogs",
		"useradd": "passwd", "groupadd": "passwd",
	} {
		if _, err := exec.LookPath(tool); err != nil {
			missing = append(missing, install)
		}
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		return fmt.Errorf("programs are missing: apt-get install %s", strings.Join(slices.Compact(missing), " "))
	}
	info, err := os.Stat("/dev/fuse")
	if err != nil {
		return fmt.Errorf("file systems can't be mounted here: %w", err)
	}
	if info.Mode().Perm()&0o006 != 0o006 {
		return errors.New("/dev/fuse is closed to users: chmod 666 /dev/fuse")
	}
	return nil
}

// tempDir returns a new directory that other users may pass through.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(suite, "test-")
	must(t, err)
	must(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() {
		if left := mountsBelow(dir); len(left) > 0 {
			t.Errorf("still mounted: %q", left)
			return
		}
		if err := removeAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// removeAll removes what may hold directories without write permission, such as Go's module caches.
func removeAll(dir string) error {
	if err := os.RemoveAll(dir); err == nil {
		return nil
	}
	_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, _ error) error {
		if entry != nil && entry.IsDir() {
			_ = os.Chmod(path, 0o700) // RemoveAll will say what doesn't work
		}
		return nil
	})
	return os.RemoveAll(dir)
}

// mountsBelow lists the mountpoints in a directory.
func mountsBelow(dir string) []string {
	var all []string
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		panic(err)
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); strings.HasPrefix(fields[4]+"/", dir+"/") {
			all = append(all, fields[4])
		}
	}
	slices.Reverse(all)
	return all
}

// mountType returns the type of the file system that is mounted there, or nothing.
func mountType(mountpoint string) string {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		panic(err)
	}
	found := ""
	for line := range strings.Lines(string(text)) {
		front, back, _ := strings.Cut(line, " - ")
		if strings.Fields(front)[4] == mountpoint {
			found = strings.Fields(back)[0]
		}
	}
	return found
}

// commandLines calls f for each process with its arguments.
func commandLines(f func(pid int, args []string)) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		panic(err)
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		text, err := os.ReadFile("/proc/" + entry.Name() + "/cmdline")
		if err == nil && len(text) > 0 {
			f(pid, strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00"))
		}
	}
}

// processesOf lists the processes that run a program.
func processesOf(program string) []int {
	var pids []int
	commandLines(func(pid int, _ []string) {
		if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil && exe == program {
			pids = append(pids, pid)
		}
	})
	return pids
}

// waitExit waits until a process has ended.
func waitExit(pid int, timeout time.Duration) bool {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return true
	}
	defer unix.Close(fd)
	deadline := time.Now().Add(timeout)
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(max(0, time.Until(deadline).Milliseconds())))
		if err == unix.EINTR {
			continue
		}
		return n > 0
	}
}

// command is a command with a time-out that leaves nothing behind.
func command(dir, name string, args ...string) (*exec.Cmd, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.WaitDelay = 10 * time.Second
	return cmd, cancel
}

// finish runs a command and returns what it prints.
func finish(cmd *exec.Cmd) (output string, err error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, tail(out.String(), 4000))
	}
	return out.String(), nil
}

// tail shortens a text to its end.
func tail(s string, n int) string {
	if len(s) > n {
		return "[...]" + s[len(s)-n:]
	}
	return s
}

// run runs a command, which must succeed, and returns what it prints.
func run(t testing.TB, dir, name string, args ...string) string {
	t.Helper()
	return runWith(t, nil, dir, name, args...)
}

// runWith is run with more in the environment.
func runWith(t testing.TB, environment []string, dir, name string, args ...string) string {
	t.Helper()
	cmd, cancel := command(dir, name, args...)
	defer cancel()
	cmd.Env = append(os.Environ(), environment...)
	out, err := finish(cmd)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// asNobody runs a command as the user without privileges.
func asNobody(dir, name string, args ...string) (output string, err error) {
	cmd, cancel := command(dir, name, args...)
	defer cancel()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	return finish(cmd)
}

// must fails the test on an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantErrno checks that an error is that one.
func wantErrno(t *testing.T, err error, want ...unix.Errno) {
	t.Helper()
	for _, errno := range want {
		if errors.Is(err, errno) {
			return
		}
	}
	t.Errorf("got error %v, want %v", err, want)
}

// soon fails the test if f takes forever; whoever calls it has to see to it that f ends.
func soon(t testing.TB, what string, f func()) bool {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
		return true
	case <-time.After(time.Minute):
		t.Errorf("%s hangs", what)
		return false
	}
}

// await waits for something that will come about by itself.
func await(t testing.TB, what string, happened func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !happened(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s is not there after a minute", what)
		}
	}
}

// noise returns n bytes that are always the same for a seed.
func noise(seed uint64, n int) []byte {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(key).Read(b) // never fails
	return b
}

// write makes a file with that content.
func write(t testing.TB, path string, content []byte) {
	t.Helper()
	must(t, os.WriteFile(path, content, 0o644))
}

// wantContent checks what is in a file.
func wantContent(t *testing.T, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
		return
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: %s", path, difference(got, want))
	}
}

// difference says where two contents differ.
func difference(got, want []byte) string {
	n := min(len(got), len(want))
	for i := range n {
		if got[i] != want[i] {
			end := min(i+16, n)
			return fmt.Sprintf("%d bytes, want %d; at %d is %x, want %x", len(got), len(want), i, got[i:end], want[i:end])
		}
	}
	return fmt.Sprintf("%d bytes, want %d; the same as far as both go", len(got), len(want))
}

// scenario is something that users do in a directory.
type scenario struct {
	name string
	run  func(t *testing.T, dir string)
	// root says that it needs privileges; once that it takes long, and is not run on every kind of mount.
	root, once bool
}

// runScenarios runs each scenario in a directory of its own in a new mount, and compares everything after a remount.
func runScenarios(t *testing.T, scenarios []scenario, once bool, initOptions ...string) {
	runScenariosOn(t, mounted(t, initOptions...), scenarios, once)
}

// runScenariosOn is runScenarios on a volume that is mounted.
func runScenariosOn(t *testing.T, v *volume, scenarios []scenario, once bool) {
	for _, s := range scenarios {
		if s.root && !isRoot || s.once && !once {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			dir := v.path(s.name)
			must(t, os.Mkdir(dir, 0o755))
			s.run(t, dir)
		})
	}
	t.Run("Remount", func(t *testing.T) {
		before := snapshot(t, v.point)
		v.remount(t)
		compare(t, before, snapshot(t, v.point))
	})
}
