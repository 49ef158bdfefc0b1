package main_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// binary is the program under test, built once.
var binary string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	if err := enterNamespace(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	dir, err := os.MkdirTemp("", "kmsfs-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() {
		if err := os.RemoveAll(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	if err := os.Chmod(dir, 0o755); err != nil { // for tests that run it as another user
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	binary = filepath.Join(dir, "kmsfs")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// result is what a run of the program gave.
type result struct {
	stdout, stderr string
	code           int
}

// program runs the binary in an environment of its own: an empty directory to work in, a home, no
// terminal.
type program struct {
	t           *testing.T
	dir         string
	environment []string
	// user is whom the program runs as; nil: as the test.
	user *syscall.Credential
}

func newProgram(t *testing.T) *program {
	dir := t.TempDir()
	return &program{t: t, dir: dir, environment: []string{
		"HOME=" + dir, "PATH=" + os.Getenv("PATH"), "KMSFS_HOME=" + filepath.Join(dir, "home"),
	}}
}

// path returns the absolute path of a name in the program's directory.
func (p *program) path(name string) string { return filepath.Join(p.dir, name) }

// write makes a file with that content and returns its path.
func (p *program) write(name, content string) string {
	p.t.Helper()
	if err := os.WriteFile(p.path(name), []byte(content), 0o600); err != nil {
		p.t.Fatal(err)
	}
	return p.path(name)
}

// mkdir makes a directory and returns its path.
func (p *program) mkdir(name string) string {
	p.t.Helper()
	if err := os.Mkdir(p.path(name), 0o755); err != nil {
		p.t.Fatal(err)
	}
	return p.path(name)
}

func (p *program) run(args ...string) result { return p.runAs("kmsfs", args...) }

// runAs runs the program under another name.
func (p *program) runAs(name string, args ...string) result {
	p.t.Helper()
	cmd := exec.Command(binary, args...)
	cmd.Args[0] = name
	return p.finish(cmd)
}

// finish runs a command as the program is run.
func (p *program) finish(cmd *exec.Cmd) result {
	p.t.Helper()
	cmd.Dir, cmd.Env = p.dir, p.environment
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: p.user}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		p.t.Fatal(err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// must runs the program and fails the test if it fails.
func (p *program) must(args ...string) string {
	p.t.Helper()
	r := p.run(args...)
	if r.code != 0 {
		p.t.Fatalf("kmsfs %s: exit status %d\n%s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// wantError checks that a run failed with that exit status and one line on standard error that has
// all of the texts in it.
func (r result) wantError(t *testing.T, code int, texts ...string) {
	t.Helper()
	t.Log(r.stderr)
	if r.code != code {
		t.Errorf("exit status %d, want %d", r.code, code)
	}
	if r.stdout != "" {
		t.Errorf("standard output %q, want nothing", r.stdout)
	}
	if !strings.HasPrefix(r.stderr, "kmsfs: ") || strings.Count(r.stderr, "\n") != 1 || !strings.HasSuffix(r.stderr, "\n") {
		t.Errorf("standard error %q, want one line that begins with kmsfs:", r.stderr)
	}
	for _, text := range texts {
		if !strings.Contains(r.stderr, text) {
			t.Errorf("standard error %q, want it to say %q", r.stderr, text)
		}
	}
}

// snapshot describes everything beneath the directory: names, modes, contents.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %v", path, info.Mode())
		if info.Mode().IsRegular() {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %q", content)
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestVersion(t *testing.T) {
	p := newProgram(t)
	if out := p.must("version"); !strings.HasPrefix(out, "kmsfs ") || !strings.Contains(out, " go1.") {
		t.Errorf("version says %q", out)
	}
	if p.must("--version") != p.must("version") {
		t.Error("kmsfs --version is not kmsfs version")
	}
}

func TestUsageErrors(t *testing.T) {
	for _, test := range []struct {
		name string
		args []string
		env  []string
		want string
	}{
		{"no command", nil, nil, "no command"},
		{"unknown command", []string{"nonsense"}, nil, `"nonsense"`},
		{"unknown flag", []string{"init", "--nonsense", "vault"}, nil, "--nonsense"},
		{"init without volume", []string{"init"}, nil, "VOLUME"},
		{"init with two volumes", []string{"init", "a", "b"}, nil, "VOLUME"},
		{"mount without mountpoint", []string{"mount", "vault"}, nil, "MOUNTPOINT"},
		{"mount with three", []string{"mount", "vault", "clear", "more"}, nil, "MOUNTPOINT"},
		{"umount without mountpoint", []string{"umount"}, nil, "MOUNTPOINT"},
		{"inspect without file", []string{"inspect", "--json"}, nil, "FILE"},
		{"version with argument", []string{"version", "1"}, nil, "no arguments"},
		{"unknown mount option", []string{"mount", "-o", "ro,nonsense=1", "a", "b"}, nil, `"nonsense=1"`},
		{"two secrets", []string{"init", "--key-file", "k", "--passphrase-file", "p", "vault"}, nil, "want one"},
		{"two secrets as mount options", []string{"mount", "-o", "key_file=k,passphrase_file=p", "a", "b"}, nil, "want one"},
		{
			"two secrets in the environment",
			[]string{"init", "vault"},
			[]string{"KMSFS_KEY_FILE=k", "KMSFS_PASSPHRASE_FILE=p"},
			"want one",
		},
		{"the daemon's flag", []string{"mount", "--daemon", "a", "b"}, nil, "--daemon"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := newProgram(t)
			p.environment = append(p.environment, test.env...)
			p.run(test.args...).wantError(t, 2, test.want, "--help")
			if entries, err := os.ReadDir(p.dir); err != nil || len(entries) > 0 {
				t.Errorf("left behind %v, %v", entries, err)
			}
		})
	}
}
