package integration

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// testsForUsersToo are the tests that root and a user without privileges can run: functions, not names, so that
// none is lost when it is renamed.
var testsForUsersToo = []func(*testing.T){
	TestPOSIX, TestSuite, TestPrograms, TestAttacks, TestAttackWhileMounted, TestCrash, TestSecrets, TestNoDump,
	TestCommand, TestShape, TestFsckUncleanEnd, TestFsckLimits, TestKeyUsage,
}

// TestAsUser runs the tests that need no privileges as nobody.
func TestAsUser(t *testing.T) {
	t.Parallel()
	if !isRoot {
		t.Fatal("already a user")
	}
	names := functionNames(testsForUsersToo)
	dir := filepath.Join(suite, "user")
	must(t, os.Mkdir(dir, 0o755))
	must(t, os.Chown(dir, nobody, nobody))
	cmd := exec.CommandContext(t.Context(), testBinary, "-test.v", "-test.timeout=20m",
		"-test.run=^("+strings.Join(names, "|")+")$")
	cmd.Dir = dir
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		if !slices.Contains([]string{"HOME", "TMPDIR", "USER", "LOGNAME"}, name) && !strings.HasPrefix(name, "XDG_") && !strings.HasPrefix(name, "GO") {
			cmd.Env = append(cmd.Env, variable)
		}
	}
	cmd.Env = append(cmd.Env, "HOME="+dir, "TMPDIR="+dir, "USER=nobody", "LOGNAME=nobody", "GOFLAGS="+os.Getenv("GOFLAGS"),
		roleVariable+"=user", suiteVariable+"="+dir, binaryVariable+"="+binary)
	if os.Getenv("GORACE") != "" {
		cmd.Env = append(cmd.Env, "GORACE=log_path="+filepath.Join(dir, "race"))
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}, Pdeathsig: syscall.SIGTERM}
	var output bytes.Buffer
	cmd.Stdout = io.MultiWriter(t.Output(), &output)
	cmd.Stderr = cmd.Stdout
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		t.Errorf("as nobody: %v", err)
	}
	for _, name := range names {
		if !strings.Contains(output.String(), "--- PASS: "+name+" ") {
			t.Errorf("%s has not passed as nobody", name)
		}
	}
}

// functionNames returns the names of test functions.
func functionNames(tests []func(*testing.T)) (names []string) {
	for _, test := range tests {
		full := runtime.FuncForPC(reflect.ValueOf(test).Pointer()).Name()
		names = append(names, full[strings.LastIndex(full, ".")+1:])
	}
	return names
}
