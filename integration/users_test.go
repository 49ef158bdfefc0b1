package integration

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// account is a user or group of the system's, made for a test.
type account struct {
	name string
	id   uint32
}

// newUser makes a user, who is there until the test ends.
func newUser(t testing.TB) account {
	return newAccount(t, "useradd", "userdel", "--no-create-home", "--user-group")
}

// newGroup makes a group, which is there until the test ends.
func newGroup(t testing.TB) account { return newAccount(t, "groupadd", "groupdel") }

func newAccount(t testing.TB, add, remove string, options ...string) account {
	t.Helper()
	var random [6]byte
	_, _ = rand.Read(random[:]) // never fails
	a := account{name: "kmsfs-" + hex.EncodeToString(random[:])}
	must(t, changeAccounts(add, append(options, a.name)...))
	t.Cleanup(func() {
		if err := changeAccounts(remove, a.name); err != nil {
			t.Error(err)
		}
	})
	var id string
	if add == "useradd" {
		found, err := user.Lookup(a.name)
		must(t, err)
		id = found.Uid
	} else {
		found, err := user.LookupGroup(a.name)
		must(t, err)
		id = found.Gid
	}
	n, err := strconv.ParseUint(id, 10, 32)
	must(t, err)
	a.id = uint32(n)
	return a
}

// changeAccounts runs a program that changes the system's user database, again and again while another one does.
func changeAccounts(program string, args ...string) error {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		cmd, cancel := command("/", program, args...)
		_, err := finish(cmd)
		cancel()
		exit, ok := errors.AsType[*exec.ExitError](err)
		if locked := ok && (exit.ExitCode() == 1 || exit.ExitCode() == 10); !locked || time.Now().After(deadline) { // "can't update" or lock the file
			return err
		}
	}
}

// order is what a user's process is told to do: one system call, or what is named in deeds below.
type order struct {
	Do   string
	Path string `json:",omitempty"`
	To   string `json:",omitempty"`
	// File is the number of one of the process's open files, from 1; it is the process's own count.
	File  int    `json:",omitempty"`
	Into  int    `json:",omitempty"` // another one
	Flags int    `json:",omitempty"`
	Mode  uint32 `json:",omitempty"`
	Off   int64  `json:",omitempty"`
	Len   int    `json:",omitempty"`
	Data  []byte `json:",omitempty"`
	// For is how long a deed is repeated.
	For time.Duration `json:",omitempty"`
}

// answer is what came of an order.
type answer struct {
	// Errno is that of the system call; EFAULT stands for a SIGBUS.
	Errno unix.Errno
	N     int64
	Data  []byte `json:",omitempty"`
	// Refused counts those of the N repeated deeds that failed with EACCES, and Longest is the longest of them in nanoseconds.
	Refused int64         `json:",omitempty"`
	Longest time.Duration `json:",omitempty"`
}

// actor is the state of a user's process: what it has open and mapped.
type actor struct {
	files map[int]int
	maps  map[int][]byte
	last  int
}

// act is the user's process: it takes orders from its standard input, as JSON, a line each, and answers likewise.
func act() int {
	debug.SetPanicOnFault(true) // a SIGBUS is an answer
	unix.Umask(0)
	a := &actor{files: map[int]int{}, maps: map[int][]byte{}}
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var o order
		if err := in.Decode(&o); err != nil {
			return 0
		}
		var result answer
		if err := a.obey(&o, &result); err != nil {
			errno, ok := errors.AsType[unix.Errno](err)
			if !ok {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
			result.Errno = errno
		}
		if err := out.Encode(result); err != nil {
			return 0
		}
	}
}

// deeds are what a user's process can be told to do with a file that it has open.
var deeds = map[string]func(fd int, o *order, r *answer) (n int, err error){
	"read": func(fd int, o *order, r *answer) (int, error) {
		return fill(r, o, func(b []byte) (int, error) { return unix.Read(fd, b) })
	},
	"pread": func(fd int, o *order, r *answer) (int, error) {
		return fill(r, o, func(b []byte) (int, error) { return unix.Pread(fd, b, o.Off) })
	},
	"preadv": func(fd int, o *order, r *answer) (int, error) {
		return fill(r, o, func(b []byte) (int, error) { return unix.Preadv(fd, [][]byte{b[:len(b)/2], b[len(b)/2:]}, o.Off) })
	},
	"write":     func(fd int, o *order, _ *answer) (int, error) { return unix.Write(fd, o.Data) },
	"pwrite":    func(fd int, o *order, _ *answer) (int, error) { return unix.Pwrite(fd, o.Data, o.Off) },
	"fsync":     func(fd int, _ *order, _ *answer) (int, error) { return 0, unix.Fsync(fd) },
	"ftruncate": func(fd int, o *order, _ *answer) (int, error) { return 0, unix.Ftruncate(fd, o.Off) },
	"fallocate": func(fd int, o *order, _ *answer) (int, error) {
		return 0, unix.Fallocate(fd, o.Mode, o.Off, int64(o.Len))
	},
	"seek": func(fd int, o *order, _ *answer) (int, error) {
		n, err := unix.Seek(fd, o.Off, o.Flags)
		return int(n), err
	},
	"fstat":    func(fd int, _ *order, _ *answer) (int, error) { return 0, unix.Fstat(fd, new(unix.Stat_t)) },
	"sendfile": sendToPipe(func(pipe, fd int, o *order) (int, error) { return unix.Sendfile(pipe, fd, &o.Off, o.Len) }),
	"splice": sendToPipe(func(pipe, fd int, o *order) (int, error) {
		n, err := unix.Splice(fd, &o.Off, pipe, nil, o.Len, 0)
		return int(n), err
	}),
}

// fill reads into a buffer that O_DIRECT is content with, and answers what was read.
func fill(r *answer, o *order, read func(b []byte) (int, error)) (int, error) {
	b := alignedBuffer(o.Len)
	n, err := read(b)
	if n > 0 {
		r.Data = b[:n]
	}
	return n, err
}

func alignedBuffer(n int) []byte {
	const page = 4096
	b := make([]byte, n+page)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) & (page - 1)
	return b[skip : skip+n]
}

func sendToPipe(send func(pipe, fd int, o *order) (int, error)) func(fd int, o *order, r *answer) (int, error) {
	return func(fd int, o *order, r *answer) (int, error) {
		var pipe [2]int
		if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
			return 0, err
		}
		defer unix.Close(pipe[0])
		defer unix.Close(pipe[1])
		o.Len = min(o.Len, 1<<15) // fits a pipe
		n, err := send(pipe[1], fd, o)
		if n <= 0 {
			return n, err
		}
		return fill(r, &order{Len: n}, func(b []byte) (int, error) { return unix.Read(pipe[0], b) })
	}
}

func (a *actor) obey(o *order, r *answer) (err error) {
	if deed := deeds[o.Do]; deed != nil {
		n, err := deed(a.files[o.File], o, r)
		r.N = int64(n)
		return err
	}
	switch o.Do {
	case "open":
		fd, err := unix.Open(o.Path, o.Flags|unix.O_CLOEXEC, o.Mode)
		if err != nil {
			return err
		}
		a.last++
		a.files[a.last], r.N = fd, int64(a.last)
		return nil
	case "close":
		fd := a.files[o.File]
		delete(a.files, o.File)
		return unix.Close(fd)
	case "copy":
		n, err := unix.CopyFileRange(a.files[o.File], &o.Off, a.files[o.Into], new(int64), o.Len, 0)
		r.N = int64(n)
		return err
	case "mmap":
		prot := unix.PROT_READ
		if o.Flags != unix.O_RDONLY {
			prot |= unix.PROT_WRITE
		}
		a.maps[o.File], err = unix.Mmap(a.files[o.File], 0, o.Len, prot, unix.MAP_SHARED)
		return err
	case "msync":
		return unix.Msync(a.maps[o.File], unix.MS_SYNC)
	case "munmap":
		m := a.maps[o.File]
		delete(a.maps, o.File)
		return unix.Munmap(m)
	case "peek", "poke":
		return a.touch(o, r)
	case "hammer":
		return a.hammer(o, r)
	case "readAll": // one byte of each open file
		for _, fd := range a.files {
			if _, err := unix.Pread(fd, make([]byte, 1), 0); err == unix.EACCES {
				r.Refused++
			} else if err != nil {
				return err
			}
			r.N++
		}
		return nil
	case "number":
		return a.number(o, r)
	}
	return a.name(o, r)
}

// touch reads from, or writes to, a mapping.
func (a *actor) touch(o *order, r *answer) (err error) {
	defer func() {
		if fault := recover(); fault != nil {
			r.Data, err = nil, unix.EFAULT
		}
	}()
	m := a.maps[o.File]
	if o.Do == "poke" {
		copy(m[o.Off:], o.Data)
		return nil
	}
	r.Data = bytes.Clone(m[o.Off:][:o.Len])
	return nil
}

// hammer does what o.To says at offsets all over the first o.Off bytes of the file, o.Len bytes each, for some time.
func (a *actor) hammer(o *order, r *answer) error {
	again := *o
	again.Do = o.To
	for i, end := int64(0), time.Now().Add(o.For); time.Now().Before(end); i++ {
		again.Off = i * 7919 * int64(o.Len) % o.Off
		var one answer
		began := time.Now()
		err := a.obey(&again, &one)
		r.Longest = max(r.Longest, time.Since(began))
		r.N++
		switch err {
		case nil:
		case unix.EACCES, unix.EFAULT:
			r.Refused++
		default:
			return err
		}
	}
	return nil
}

// numbered is the size in bytes of the blocks that number writes: one can't be split.
const numbered = 4000

// number appends numbered blocks, and counts them, until it is refused.
func (a *actor) number(o *order, r *answer) error {
	for block := make([]byte, numbered); ; r.N++ {
		copy(block, fmt.Sprintf("%09d", r.N))
		if n, err := unix.Pwrite(a.files[o.File], block, r.N*numbered); n != numbered {
			if err == unix.EACCES {
				return nil
			}
			return err
		}
	}
}

// name does what concerns names.
func (a *actor) name(o *order, r *answer) error {
	switch o.Do {
	case "truncate":
		return unix.Truncate(o.Path, o.Off)
	case "stat":
		return unix.Lstat(o.Path, new(unix.Stat_t))
	case "list":
		entries, err := os.ReadDir(o.Path)
		r.N = int64(len(entries))
		return err
	case "mkdir":
		return unix.Mkdir(o.Path, o.Mode)
	case "rename":
		return unix.Rename(o.Path, o.To)
	case "exchange":
		return unix.Renameat2(unix.AT_FDCWD, o.Path, unix.AT_FDCWD, o.To, unix.RENAME_EXCHANGE)
	case "link":
		return unix.Link(o.Path, o.To)
	case "unlink":
		return unix.Unlink(o.Path)
	case "chmod":
		return unix.Chmod(o.Path, o.Mode)
	case "chown":
		return unix.Lchown(o.Path, o.Len, -1)
	case "setxattr":
		return unix.Setxattr(o.Path, o.To, o.Data, 0)
	case "removexattr":
		return unix.Removexattr(o.Path, o.To)
	}
	return fmt.Errorf("unknown order %q", o.Do)
}

// process is a user's process.
type process struct {
	t   testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	mu  sync.Mutex // held while an order is under way
}

// as starts a process of a user with further groups.
func (a account) as(t testing.TB, groups ...account) *process {
	t.Helper()
	credential := &syscall.Credential{Uid: a.id, Gid: a.id}
	for _, g := range groups {
		credential.Groups = append(credential.Groups, g.id)
	}
	p := &process{t: t, cmd: exec.Command(testBinary)}
	p.cmd.Dir, p.cmd.Stderr = "/", t.Output()
	p.cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "GORACE") }), roleVariable+"=act")
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential, Pdeathsig: syscall.SIGKILL}
	var err error
	p.in, err = p.cmd.StdinPipe()
	must(t, err)
	out, err := p.cmd.StdoutPipe()
	must(t, err)
	p.out = bufio.NewReader(out)
	must(t, p.cmd.Start())
	t.Cleanup(p.end)
	return p
}

// theRoot is the user who may do everything, as far as modes go.
var theRoot = account{name: "root"}

func (p *process) pid() int { return p.cmd.Process.Pid }

// end has the process close what it has open.
func (p *process) end() {
	if p.cmd.ProcessState == nil {
		p.in.Close()
		_ = p.cmd.Wait() // what it has to say, it has said
	}
}

// do gives an order. Those of several goroutines wait for each other.
func (p *process) do(o order) (answer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	line, err := json.Marshal(o)
	if err == nil {
		_, err = p.in.Write(append(line, '\n'))
	}
	var a answer
	if err == nil {
		line, err = p.out.ReadBytes('\n')
	}
	if err == nil {
		err = json.Unmarshal(line, &a)
	}
	if err != nil {
		p.t.Errorf("process %d: %v", p.pid(), err)
		return a, err
	}
	if a.Errno != 0 {
		return a, a.Errno
	}
	return a, nil
}

// open opens a file; with O_CREAT, everybody may use it as far as its mode goes.
func (p *process) open(path string, flags int) (*opened, error) {
	a, err := p.do(order{Do: "open", Path: path, Flags: flags, Mode: 0o666})
	return &opened{p, int(a.N)}, err
}

// mustOpen is open that must succeed.
func (p *process) mustOpen(path string, flags int) *opened {
	p.t.Helper()
	f, err := p.open(path, flags)
	if err != nil {
		p.t.Fatalf("open %s: %v", path, err)
	}
	return f
}

// content reads a file.
func (p *process) content(path string) (string, error) {
	f, err := p.open(path, unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	a, err := f.do(order{Do: "pread", Len: 1 << 20})
	if _, closed := f.do(order{Do: "close"}); err == nil {
		err = closed
	}
	return string(a.Data), err
}

// put writes a file anew.
func (p *process) put(path, content string) error {
	f, err := p.open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = f.do(order{Do: "write", Data: []byte(content)})
	if _, closed := f.do(order{Do: "close"}); err == nil {
		err = closed
	}
	return err
}

// opened is a file that a process has open.
type opened struct {
	p    *process
	file int
}

func (f *opened) do(o order) (answer, error) {
	o.File = f.file
	return f.p.do(o)
}

// openToAll makes a directory of the mount one in which every user may make files, as far as its mode goes.
func openToAll(t testing.TB, elements ...string) string {
	t.Helper()
	dir := filepath.Join(elements...)
	must(t, os.MkdirAll(dir, 0o755))
	must(t, os.Chmod(dir, 0o777))
	return dir
}
