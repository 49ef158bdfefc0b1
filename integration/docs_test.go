package integration

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestDocs runs the commands that README.md, CONTRIBUTING.md and docs show, page by page.
//
// A page's blocks run in their order, in one shell, in a mount namespace of their own, as root. HOME is
// an empty directory, where the shell begins; kmsfs is on the PATH. The users alice and bob and the group finance exist.
//
//   - In a ```sh block, each command must succeed.
//   - In a ```console block, lines that begin with "$ " are commands, and what follows is what they print. There,
//     "..." stands for any text, and as a line of its own for any number of lines. "[exit status N]" as
//     the last line says how the command ends; without it, it must succeed.
//   - <!-- setup, commands, and -->, each on lines of their own, are run and not shown.
//   - <!-- terminal: LINE | LINE --> before a block has it run on a terminal in a new clone of the
//     repository; the lines are typed when the program asks for a passphrase.
//   - <!-- not run: REASON --> before a block leaves it out. notRun counts those of each page.
//
// Blocks of other languages are not run.
func TestDocs(t *testing.T) {
	if plain {
		t.Log("there is no program")
		return
	}
	pages, err := filepath.Glob("../docs/*.md")
	must(t, err)
	run(t, "/", "groupadd", "finance")
	run(t, "/", "useradd", "--no-create-home", "alice")
	run(t, "/", "useradd", "--no-create-home", "bob")
	for _, path := range append(pages, "../README.md", "../CONTRIBUTING.md") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(path)
			must(t, err)
			page, err := parsePage(string(text))
			must(t, err)
			if want := notRun[filepath.Base(path)]; page.notRun != want {
				t.Errorf("%d blocks are not run, want %d", page.notRun, want)
			}
			page.run(t)
		})
	}
}

// notRun is how many blocks of each page are not run.
var notRun = map[string]int{"README.md": 1, "CONTRIBUTING.md": 2, "aws-api.md": 1, "several-hosts.md": 1, "service.md": 2}

// docsPage is what is to be run of a page.
type docsPage struct {
	commands []docsCommand
	notRun   int
}

// docsCommand is a command, or several that are run together.
type docsCommand struct {
	line  int // in the page
	text  string
	shown bool     // what it prints is shown
	want  []string // what it prints
	typed []string // what is typed on a terminal; nil for none
	exit  string
}

var (
	typedComment  = regexp.MustCompile(`^<!-- terminal: (.*) -->$`)
	notRunComment = regexp.MustCompile(`^<!-- not run: .+ -->$`)
	exitLine      = regexp.MustCompile(`^\[exit status (\d+)\]$`)
)

// parsePage finds a page's commands.
func parsePage(text string) (docsPage, error) {
	var page docsPage
	lines := strings.Split(text, "\n")
	var typed []string
	skip := false
	for i := 0; i < len(lines); i++ {
		line, start := lines[i], i+1
		if found := typedComment.FindStringSubmatch(line); found != nil {
			typed = strings.Split(found[1], " | ")
			continue
		}
		switch {
		case notRunComment.MatchString(line):
			skip = true
			continue
		case line == "<!-- setup":
			end := slices.Index(lines[start:], "-->")
			if end < 0 {
				return page, fmt.Errorf("line %d: no end of the setup", start)
			}
			page.commands = append(page.commands, docsCommand{line: start + 1, text: strings.Join(lines[start:start+end], "\n"), exit: "0"})
			i = start + end
		case strings.HasPrefix(line, "<!--"):
			return page, fmt.Errorf("line %d: an unknown comment: %s", start, line)
		case strings.HasPrefix(line, "```") && line != "```":
			end := slices.Index(lines[start:], "```")
			if end < 0 {
				return page, fmt.Errorf("line %d: no end of the block", start)
			}
			body := lines[start : start+end]
			i = start + end
			language := line[3:]
			switch {
			case language != "sh" && language != "console":
			case skip:
				page.notRun++
			case language == "sh":
				page.commands = append(page.commands, docsCommand{line: start + 1, text: strings.Join(body, "\n"), typed: typed, exit: "0"})
			default:
				page.commands = append(page.commands, parseConsole(body, start+1)...)
			}
		default:
			continue
		}
		skip, typed = false, nil
	}
	return page, nil
}

// parseConsole finds the commands of a block that shows what they print.
func parseConsole(body []string, line int) (commands []docsCommand) {
	for i, text := range body {
		if command, ok := strings.CutPrefix(text, "$ "); ok {
			commands = append(commands, docsCommand{line: line + i, text: command, shown: true, exit: "0"})
			continue
		}
		if len(commands) == 0 {
			continue
		}
		last := &commands[len(commands)-1]
		if found := exitLine.FindStringSubmatch(text); found != nil {
			last.exit = found[1]
		} else if more, ok := strings.CutPrefix(text, "> "); ok && len(last.want) == 0 {
			last.text += "\n" + more
		} else {
			last.want = append(last.want, text)
		}
	}
	return commands
}

// run runs a page's commands in one shell.
func (p docsPage) run(t *testing.T) {
	if len(p.commands) == 0 {
		return
	}
	dir := tempDir(t)
	home := filepath.Join(dir, "root")
	must(t, os.Mkdir(home, 0o755))
	var script strings.Builder
	script.WriteString("cd ~\n")
	for i, c := range p.commands {
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprint("command", i)), []byte(c.text), 0o644))
		redirection, before, after := fmt.Sprintf(">'%s/output%d' 2>&1 </dev/null", dir, i), "", ""
		if c.typed != nil {
			run(t, dir, "git", "clone", "--quiet", repository(t), "clone")
			redirection, before, after = "", fmt.Sprintf("cd '%s/clone'\n", dir), "cd ~\n"
		}
		if !c.shown { // the first command that fails ends the block, and the page
			before += fmt.Sprintf("trap 'echo \"$? from: $BASH_COMMAND\" >\"%s/failed%d\"' ERR\nset -eE\n", dir, i)
			after = "set +eE\ntrap - ERR\n" + after
		}
		fmt.Fprintf(&script, "%seval \"$(cat '%s/command%d')\" %s\necho $? >'%s/status%d'\n%s", before, dir, i, redirection, dir, i, after)
	}
	t.Cleanup(func() {
		for _, mountpoint := range mountsBelow(dir) {
			_ = unix.Unmount(mountpoint, unix.MNT_DETACH) // what a page leaves mounted
		}
	})
	output := p.shell(t, dir, home, script.String())
	for i, c := range p.commands {
		p.check(t, dir, i, c, output)
	}
}

// repository is the directory of the repository under test.
func repository(t *testing.T) string {
	t.Helper()
	top, err := filepath.Abs("..")
	must(t, err)
	return top
}

// shell runs a script on a terminal, and types what is to be typed. It returns what the terminal showed.
func (p docsPage) shell(t *testing.T, dir, home, script string) string {
	t.Helper()
	path := filepath.Join(dir, "script")
	must(t, os.WriteFile(path, []byte(script), 0o644))
	cmd := exec.CommandContext(t.Context(), "bash", path)
	cmd.Dir = home
	cmd.Env = docsEnvironment(dir, home)
	master, terminal := newTerminal(t)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, terminal, terminal
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: syscall.SIGKILL}
	must(t, cmd.Start())
	terminal.Close()
	var typed []string
	for _, c := range p.commands {
		typed = append(typed, c.typed...)
	}
	var shown bytes.Buffer
	var reading sync.WaitGroup
	reading.Go(func() { converse(master, &shown, typed) })
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // what failed is in the files
	}()
	select {
	case <-ended:
	case <-time.After(10 * time.Minute):
		_ = cmd.Process.Kill() // it may have ended
		t.Error("the page does not end")
		<-ended
	}
	endSession(cmd.Process.Pid)
	reading.Wait()
	return shown.String()
}

// docsEnvironment is what a reader's shell has, and where Go keeps what it has built.
func docsEnvironment(dir, home string) []string {
	environment := []string{
		"HOME=" + home, "PATH=" + filepath.Dir(binary) + ":" + os.Getenv("PATH"), "KMSFS_HOME=" + dir + "/home",
		"LC_ALL=C.UTF-8", "TERM=dumb", "USER=root", "DEBIAN_FRONTEND=noninteractive",
	}
	for _, name := range []string{"GOCACHE", "GOMODCACHE", "GOPROXY", "GOFLAGS", "GOSUMDB", "GONOSUMDB", "GONOSUMCHECK"} {
		out, err := exec.Command("go", "env", name).Output()
		if value := strings.TrimSpace(string(out)); err == nil && value != "" {
			environment = append(environment, name+"="+value)
		}
	}
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasSuffix(strings.ToLower(name), "_proxy") || strings.HasPrefix(name, "SSL_CERT") {
			environment = append(environment, variable)
		}
	}
	return environment
}

// newTerminal makes a pseudo-terminal.
func newTerminal(t *testing.T) (master, terminal *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	t.Cleanup(func() { master.Close() })
	must(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	must(t, err)
	terminal, err = os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	return master, terminal
}

// passphrasePrompt is how the program asks for a passphrase.
var passphrasePrompt = regexp.MustCompile(`(?i)(passphrase|again)[^\n]*: `)

// converse reads what a terminal shows until nobody has it open, and types a line whenever a passphrase is asked for.
func converse(master *os.File, shown *bytes.Buffer, typed []string) {
	answered := 0
	buffer := make([]byte, 4096)
	for {
		n, err := master.Read(buffer)
		shown.Write(buffer[:n])
		if err != nil && !errors.Is(err, io.EOF) || n == 0 {
			return // EIO: the last one has closed it
		}
		prompts := len(passphrasePrompt.FindAllString(shown.String(), -1))
		for answered < min(prompts, len(typed)) {
			_, _ = io.WriteString(master, typed[answered]+"\n") // the program says if it doesn't come
			answered++
		}
	}
}

// endSession ends all processes of a session but the mounts' own, which end with their mounts.
func endSession(session int) {
	commandLines(func(pid int, _ []string) {
		if of, err := unix.Getsid(pid); err == nil && of == session {
			_ = unix.Kill(pid, unix.SIGTERM) // it may have ended
		}
	})
}

// check compares what a command did with what the page says.
func (p docsPage) check(t *testing.T, dir string, i int, c docsCommand, terminal string) {
	t.Helper()
	output, _ := os.ReadFile(filepath.Join(dir, fmt.Sprint("output", i))) // there is none on a terminal
	if c.typed != nil {
		output = []byte(terminal)
	}
	status, err := os.ReadFile(filepath.Join(dir, fmt.Sprint("status", i)))
	if err != nil {
		failed, _ := os.ReadFile(filepath.Join(dir, fmt.Sprint("failed", i))) // if it is there
		t.Errorf("line %d: not done; %s\n%s\n%s", c.line, failed, c.text, output)
		return
	}
	if got := strings.TrimSpace(string(status)); got != c.exit {
		t.Errorf("line %d: exit status %s, want %s\n%s\n%s", c.line, got, c.exit, c.text, output)
	}
	if !c.shown {
		return
	}
	got := strings.Split(strings.TrimSuffix(string(output), "\n"), "\n")
	if len(output) == 0 {
		got = nil
	}
	if !matchLines(c.want, got) {
		t.Errorf("line %d: %s\nprints\n%s\nwhere the page has\n%s", c.line, c.text, output, strings.Join(c.want, "\n"))
	}
}

// matchLines says whether lines are as a page shows them.
func matchLines(want, got []string) bool {
	if len(want) == 0 {
		return len(got) == 0
	}
	if want[0] == "..." {
		for skipped := range len(got) + 1 {
			if matchLines(want[1:], got[skipped:]) {
				return true
			}
		}
		return false
	}
	return len(got) > 0 && matchLine(want[0], got[0]) && matchLines(want[1:], got[1:])
}

// matchLine says whether a line is as a page shows it.
func matchLine(want, got string) bool {
	parts := strings.Split(want, "...")
	for i, part := range parts {
		parts[i] = regexp.QuoteMeta(part)
	}
	return regexp.MustCompile("^" + strings.Join(parts, ".*") + "$").MatchString(strings.TrimRight(got, " "))
}
