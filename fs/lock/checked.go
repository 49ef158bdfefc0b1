//go:build lockorder

package lock

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Variable is the environment variable that names where violations of the order are written: a
// path, to which the process ID is appended. The longest hold times are written beside.
const Variable = "KMSFS_LOCKORDER"

// Mutex is a mutex whose place in the order is checked.
type Mutex[K Kind] struct{ mu sync.Mutex }

// Lock locks m.
func (m *Mutex[K]) Lock() {
	l := taking[K]()
	m.mu.Lock()
	taken(l)
}

// Unlock unlocks m.
func (m *Mutex[K]) Unlock() {
	released[K]()
	m.mu.Unlock()
}

// RWMutex is a reader/writer mutex whose place in the order is checked.
type RWMutex[K Kind] struct{ mu sync.RWMutex }

// Lock locks m for writing.
func (m *RWMutex[K]) Lock() {
	l := taking[K]()
	m.mu.Lock()
	l.write = true
	taken(l)
}

// Unlock ends Lock.
func (m *RWMutex[K]) Unlock() {
	released[K]()
	m.mu.Unlock()
}

// RLock locks m for reading.
func (m *RWMutex[K]) RLock() {
	l := taking[K]()
	m.mu.RLock()
	taken(l)
}

// RUnlock ends RLock.
func (m *RWMutex[K]) RUnlock() {
	released[K]()
	m.mu.RUnlock()
}

// held is a lock that a goroutine holds.
type held struct {
	rank  Rank
	name  string
	write bool
	since time.Time
	by    string // the function that took it
}

// Hold is how long a lock was held once.
type Hold struct {
	Lock, By string
	Write    bool
	Time     time.Duration
}

// mostHolds is how many hold times are kept.
const mostHolds = 10

var state = struct {
	mu    sync.Mutex
	held  map[int64][]held // by goroutine
	holds []Hold           // the longest one of each lock and function, the longest first
}{held: map[int64][]held{}}

// goroutine returns the ID of the calling goroutine, which only a stack trace tells.
func goroutine() int64 {
	var buffer [64]byte
	text := buffer[:runtime.Stack(buffer[:], false)]
	text = bytes.TrimPrefix(text, []byte("goroutine "))
	id, _ := strconv.ParseInt(string(text[:bytes.IndexByte(text, ' ')]), 10, 64)
	return id
}

// taking checks the order, before the goroutine waits.
func taking[K Kind]() held {
	var kind K
	l := held{by: caller()}
	l.rank, l.name = kind.place()
	id := goroutine()
	state.mu.Lock()
	defer state.mu.Unlock()
	for _, other := range state.held[id] {
		if other.rank >= l.rank {
			violation(fmt.Sprintf("%s is taken while %s is held (by %s)", l.name, other.name, other.by))
		}
	}
	return l
}

// caller returns the function outside of this package that takes a lock.
func caller() string {
	var frames [8]uintptr
	callers := runtime.CallersFrames(frames[:runtime.Callers(3, frames[:])])
	for {
		frame, more := callers.Next()
		if !strings.Contains(frame.Function, "/fs/lock.") && !strings.Contains(frame.Function, "/fs/volume.(*") || !more {
			return frame.Function[strings.LastIndexByte(frame.Function, '/')+1:]
		}
	}
}

func taken(l held) {
	l.since = time.Now()
	id := goroutine()
	state.mu.Lock()
	defer state.mu.Unlock()
	state.held[id] = append(state.held[id], l)
}

func released[K Kind]() {
	var kind K
	_, name := kind.place()
	id := goroutine()
	state.mu.Lock()
	defer state.mu.Unlock()
	all := state.held[id]
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].name == name {
			note(all[i])
			all = slices.Delete(all, i, i+1)
			break
		}
	}
	if len(all) == 0 {
		delete(state.held, id)
	} else {
		state.held[id] = all
	}
}

// note keeps a hold time, if it is one of the longest.
func note(l held) {
	h := Hold{Lock: l.name, By: l.by, Write: l.write, Time: time.Since(l.since)}
	same := func(other Hold) bool { return other.Lock == h.Lock && other.By == h.By && other.Write == h.Write }
	if i := slices.IndexFunc(state.holds, same); i >= 0 {
		if state.holds[i].Time >= h.Time {
			return
		}
		state.holds = slices.Delete(state.holds, i, i+1)
	}
	state.holds = append(state.holds, h)
	slices.SortFunc(state.holds, func(a, b Hold) int { return int(b.Time - a.Time) })
	state.holds = state.holds[:min(len(state.holds), mostHolds)]
}

// AssertNone reports a goroutine that is about to wait for what must not be waited for with a lock
// held: the key service, the kernel, or a program.
func AssertNone(what string) {
	id := goroutine()
	state.mu.Lock()
	defer state.mu.Unlock()
	for _, l := range state.held[id] {
		violation(fmt.Sprintf("%s is waited for while %s is held (by %s)", what, l.name, l.by))
	}
}

func violation(text string) { write("", fmt.Sprintf("lock order: %s\n%s\n", text, debug.Stack())) }

// Longest returns the longest hold times, each of another lock or function.
func Longest() []Hold {
	state.mu.Lock()
	defer state.mu.Unlock()
	return slices.Clone(state.holds)
}

// Finish writes the longest hold times.
func Finish() {
	var text strings.Builder
	for _, h := range Longest() {
		how := "reading"
		if h.Write {
			how = "writing"
		}
		fmt.Fprintf(&text, "%v\t%s for %s\t%s\n", h.Time, h.Lock, how, h.By)
	}
	write("-holds", text.String())
}

func write(suffix, text string) {
	path := os.Getenv(Variable)
	if path == "" {
		fmt.Fprint(os.Stderr, text)
		return
	}
	f, err := os.OpenFile(fmt.Sprintf("%s%s.%d", path, suffix, os.Getpid()), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		fmt.Fprint(os.Stderr, text)
		return
	}
	defer f.Close()
	_, _ = f.WriteString(text)
}
