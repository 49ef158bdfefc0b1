package memory_test

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/fs/volume/backing"
	"kmsfs/fs/volume/backing/memory"
)

// TestShortFaults has reads and writes of which half is moved, as often as the fault says.
func TestShortFaults(t *testing.T) {
	for _, times := range []int{0, 1, 2, 3} {
		for _, after := range []int{0, 2} {
			t.Run(fmt.Sprintf("times %d after %d", times, after), func(t *testing.T) {
				f := memory.New(memory.Options{})
				file := create(t, f.Root(), "f")
				write(t, file, 0, "ab")
				met := f.Inject(memory.Fault{
					On:    []memory.Op{memory.OpRead, memory.OpWrite},
					After: after, Times: times, Err: unix.ENOSPC, Short: true,
				})
				for i := range 6 {
					n, err := 0, error(nil)
					if i%2 == 0 {
						n, err = file.WriteAt(make([]byte, 2*pageSize), 0)
					} else {
						n, err = file.ReadAt(make([]byte, 2*pageSize), 0)
					}
					if faulty := i >= after && (times == 0 || i < after+times); faulty && (n != pageSize || err != unix.ENOSPC) {
						t.Errorf("call %d, which the fault concerns: %d, %v", i, n, err)
					} else if !faulty && (n != 2*pageSize || err != nil) {
						t.Errorf("call %d, which no fault concerns: %d, %v", i, n, err)
					}
				}
				want := times
				if times == 0 {
					want = 6 - after
				}
				if n := met(); n != want {
					t.Errorf("%d calls have met the fault, want %d", n, want)
				}
			})
		}
	}
}

// TestShortReadAtTheEnd has a read at a file's end fail: the fault's error counts, and not io.EOF.
func TestShortReadAtTheEnd(t *testing.T) {
	f := memory.New(memory.Options{})
	file := create(t, f.Root(), "f")
	write(t, file, 0, "a")
	_, err := file.WriteAt([]byte("abc"), pageSize)
	must(t, err)
	for _, short := range []bool{false, true} {
		f.Inject(memory.Fault{On: []memory.Op{memory.OpRead}, Err: unix.EIO, Short: short, Done: true})
		if n, err := file.ReadAt(make([]byte, 4*pageSize), 0); n != pageSize+3 || err != unix.EIO {
			t.Errorf("short %v: a read over the end: %d, %v", short, n, err)
		}
		if n, err := file.ReadAt(make([]byte, 4*pageSize), 2*pageSize); n != 0 || err != unix.EIO {
			t.Errorf("short %v: a read behind the end: %d, %v", short, n, err)
		}
		f.Heal()
	}
}

// TestDeadHandlesUseUpNoFault has calls that fail for a reason of their own before a fault's only
// call.
func TestDeadHandlesUseUpNoFault(t *testing.T) {
	f := memory.New(memory.Options{})
	file, closed := create(t, f.Root(), "f"), create(t, f.Root(), "closed")
	must(t, closed.Close())
	f.Inject(memory.Fault{Times: 1, Err: unix.EDQUOT, Short: true})
	calls := map[string]func(backing.File) error{
		"write": func(f backing.File) error { _, err := f.WriteAt([]byte("1234"), 0); return err },
		"read":  func(f backing.File) error { _, err := f.ReadAt(make([]byte, 4), 0); return err },
		"sync":  backing.File.Sync,
	}
	for name, call := range calls {
		if err := call(closed); err != unix.EBADF {
			t.Errorf("%s of a closed file: %v", name, err)
		}
	}
	if n, err := file.WriteAt(make([]byte, 3*pageSize), 1); n != pageSize-1 || err != unix.EDQUOT {
		t.Errorf("the write that the fault is for: %d, %v", n, err)
	}
	if st, err := file.Stat(); err != nil || st.Size != pageSize {
		t.Errorf("after it: %d bytes, %v", st.Size, err)
	}
}
