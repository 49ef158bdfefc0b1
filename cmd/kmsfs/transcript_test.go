package main_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"kmsfs/keyservice/printable"
)

// update has TestTranscripts write what the program prints into the scripts.
var update = flag.Bool("update", false, "write the present output into testdata")

// TestTranscripts runs the scripts in testdata. Each calls the program, and ends with the
// transcript of what a user would have seen, without what differs from run to run. To take over
// changes:
//
//	go test ./cmd/kmsfs -run TestTranscripts -update
func TestTranscripts(t *testing.T) {
	requireFUSE(t)
	testscript.Run(t, testscript.Params{
		Dir:           "testdata",
		UpdateScripts: *update,
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("KMSFS_HOME", filepath.Join(env.WorkDir, "home"))
			env.Setenv("TZ", "UTC")
			transcript := &transcript{path: filepath.Join(env.WorkDir, "transcript"), labels: map[string]string{}, counts: map[string]int{}}
			env.Values[transcriptKey{}] = transcript
			return os.WriteFile(transcript.path, nil, 0o600)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"kmsfs":  runKmsfs,
			"umount": umountAtEnd,
			"set":    setFromOutput,
		},
	})
}

type transcriptKey struct{}

// transcript is the file that a script's calls are written to.
type transcript struct {
	path   string
	labels map[string]string // of what differs from run to run
	counts map[string]int    // of labels of each kind
}

// runKmsfs runs the program: "kmsfs ARGUMENTS". It succeeds whatever the exit status: the
// transcript shows that. An argument @PATTERN stands for the paths that match it, and \e for the
// escape character.
func runKmsfs(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("the transcript has the exit status")
	}
	args = globbed(ts, args)
	record := ts.Value(transcriptKey{}).(*transcript)
	err := ts.Exec(binary, args...)
	status := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		status = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "$ %s\n", quoted(append([]string{"kmsfs"}, args...)))
	b.WriteString(ts.ReadFile("stdout") + ts.ReadFile("stderr"))
	if status != 0 {
		fmt.Fprintf(&b, "[exit status %d]\n", status)
	}
	b.WriteByte('\n')
	f, err := os.OpenFile(record.path, os.O_APPEND|os.O_WRONLY, 0)
	ts.Check(err)
	defer f.Close()
	text := b.String()
	if !slices.Contains(args, "--help") { // which is always the same
		text = record.normal(text, ts.Getenv("WORK"))
	}
	_, err = f.WriteString(text)
	ts.Check(err)
}

func globbed(ts *testscript.TestScript, args []string) []string {
	var all []string
	for _, arg := range args {
		arg = strings.ReplaceAll(arg, `\e`, "\x1b")
		pattern, ok := strings.CutPrefix(arg, "@")
		if !ok {
			all = append(all, arg)
			continue
		}
		paths, err := filepath.Glob(ts.MkAbs(pattern))
		ts.Check(err)
		if len(paths) == 0 {
			ts.Fatalf("nothing matches %s", pattern)
		}
		all = append(all, paths...)
	}
	return all
}

// quoted is a list of arguments as a shell takes it.
func quoted(args []string) string {
	words := make([]string, len(args))
	for i, arg := range args {
		words[i] = arg
		if printable.Text(arg) != arg {
			words[i] = "$" + printable.Text(arg)
		} else if strings.ContainsAny(arg, " *?$'\"|&;<>()\\") || arg == "" {
			words[i] = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}

// variable is what differs from run to run.
var variable = []struct {
	kind    string
	pattern *regexp.Regexp
}{
	{"time", regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?`)},
	{"time", regexp.MustCompile(`\b1\d{9}\.\d+\b`)},
	{"port", regexp.MustCompile(`\[::\]:\d+`)},
	{"date", regexp.MustCompile(`\d{4}-\d\d-\d\d( \d\d:\d\d)?`)},
	{"uuid", regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)},
	{"id", regexp.MustCompile(`\b[0-9a-f]{64}\b|\b[0-9a-f]{32}\b`)},
	{"name", regexp.MustCompile(`\b[0-9a-f]{24}\b`)},
	{"account", regexp.MustCompile(`\b\d{12}\b`)},
	{"access key", regexp.MustCompile(`\bKMFS[A-Z2-7]{16}\b`)},
	{"secret", regexp.MustCompile(`(?m)[A-Za-z0-9+/]{40}$`)},
	{"version", regexp.MustCompile(`kmsfs \S+ go1\.\S+ \S+/\S+`)},
	{"pid", regexp.MustCompile(`\b\d+,/usr`)},
	{"sealed", regexp.MustCompile(`(/[A-Za-z0-9_-]{20,})+`)},
	{"shell", regexp.MustCompile(`/usr/bin/(ba|da)sh`)},
}

// normal replaces what differs from run to run: by its kind for times, and by its kind and a number
// for what may recur. The mounts of others, which "kmsfs status" shows too, are left out.
func (r *transcript) normal(text, work string) string {
	text = strings.ReplaceAll(text, work, "$WORK")
	text = strings.ReplaceAll(text, binary, "/usr/bin/kmsfs")
	if uid := os.Getuid(); uid != 0 {
		text = strings.ReplaceAll(text, fmt.Sprint("uid:", uid), "uid:0")
	}
	text = foreignMount.ReplaceAllString(text, "")
	for _, v := range variable {
		text = v.pattern.ReplaceAllStringFunc(text, func(value string) string { return r.label(v.kind, value) })
	}
	text = columnGap.ReplaceAllString(text, "$1  ") // columns are as wide as what was in them
	text = lineEnd.ReplaceAllString(text, "")
	text = strings.ReplaceAll(text, "MOUNTPOINT  VOLUME\n\n", "\n")
	return keyRows.ReplaceAllStringFunc(text, func(rows string) string {
		lines := strings.SplitAfter(strings.TrimSuffix(rows, "\n"), "\n")
		lines[len(lines)-1] += "\n"
		slices.Sort(lines) // keys are listed by their random IDs
		return strings.Join(lines, "")
	})
}

var (
	foreignMount = regexp.MustCompile(`(?m)^/.*\n`)
	columnGap    = regexp.MustCompile(`(\S) {2,}`)
	lineEnd      = regexp.MustCompile(`(?m) +$`)
	keyRows      = regexp.MustCompile(`(?m)(^<uuid \d+>  .*\n)+`)
)

// label stands for a value. Equal values of a kind get equal labels.
func (r *transcript) label(kind, value string) string {
	switch kind {
	case "time", "date", "version", "port", "pid", "sealed", "shell":
		return "<" + kind + ">"
	}
	label, ok := r.labels[value]
	if !ok {
		r.counts[kind]++
		label = fmt.Sprintf("<%s %d>", kind, r.counts[kind])
		r.labels[value] = label
	}
	return label
}

// umountAtEnd unmounts a mountpoint at the script's end, if it still is one.
func umountAtEnd(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	ts.Defer(func() {
		if out, err := exec.Command(binary, "umount", path).CombinedOutput(); err != nil && !strings.Contains(string(out), "not a mountpoint") {
			ts.Logf("umount: %v: %s", err, out)
		}
	})
}

// setFromOutput sets a variable to what the last command has printed.
func setFromOutput(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}
