package envelope_test

import (
	"errors"
	"io"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/fs/volume/backing"
	"kmsfs/fs/volume/backing/memory"
)

const page = 4096

// disk is the Storage of one file on a backing directory: in memory, or a real one.
type disk struct {
	fs   *memory.FS // nil: a real one
	file backing.File

	mu     sync.Mutex
	count  int // changes that were made, or tried
	after  func(change)
	failed func() int
}

// change is one change of a disk.
type change struct {
	kind byte // write, truncate, punch, allocate, overflow, sync
	off  int64
	p    []byte // of a write
	done int    // of a write: so many bytes of p are written
}

// whole says whether the change was made to its end.
func (c change) whole() bool { return c.done == len(c.p) }

const fileName = "sealed"

// newDisk returns a disk that loses nothing in a crash.
func newDisk() *disk { return newDiskOf(memory.Options{Durable: true}) }

// newDiskOf returns an empty file on a disk of that kind. The file itself is durable.
func newDiskOf(o memory.Options) *disk {
	o.AttributeRoom = 1 << 17 // more than an overflow can have
	fs := memory.New(o)
	d := &disk{fs: fs, file: mustBe(fs.Root().OpenFile(fileName, unix.O_RDWR|unix.O_CREAT, 0o600))}
	fs.Sync()
	return d
}

// newRealDisk returns an empty file in a temporary directory.
func newRealDisk(t testing.TB) *disk {
	root, err := backing.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	file, err := root.OpenFile(fileName, unix.O_RDWR|unix.O_CREAT, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return &disk{file: file}
}

// mustBe returns what a call gives that can't fail.
func mustBe[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// clone returns a copy: what a kill of the process leaves.
func (d *disk) clone() *disk { return onDisk(d.fs.Clone()) }

// crash returns what a power cut may leave.
func (d *disk) crash(point int, seed uint64) *disk { return onDisk(d.fs.Crash(point, seed)) }

func onDisk(fs *memory.FS) *disk {
	return &disk{fs: fs, file: mustBe(fs.Root().OpenFile(fileName, unix.O_RDWR, 0))}
}

// fail has the k-th change from now on fail, and with always all that come after it.
func (d *disk) fail(k int, always bool) {
	fault := memory.Fault{
		On: []memory.Op{
			memory.OpWrite, memory.OpTruncate, memory.OpAllocate, memory.OpAttribute, memory.OpSync,
		},
		After: k - 1, Times: 1, Err: unix.ENOSPC, Short: true,
	}
	if always {
		fault.Times, fault.Err = 0, unix.EIO
	}
	d.failed = d.fs.Inject(fault)
}

// hasFailed says whether it came to the change that fails.
func (d *disk) hasFailed() bool { return d.failed() > 0 }

func (d *disk) heal() { d.fs.Heal() }

// changed counts a change, and tells of it if it was made.
func (d *disk) changed(c change, err error) error {
	d.mu.Lock()
	d.count++
	after := d.after
	d.mu.Unlock()
	if err == nil && after != nil {
		after(c)
	}
	return err
}

// record returns the changes that are made from now on.
func (d *disk) record() (changes *[]change) {
	changes = new([]change)
	d.after = func(c change) {
		if c.whole() {
			*changes = append(*changes, c)
		}
	}
	return changes
}

// state is a disk as it was after a change.
type state struct {
	change
	disk *disk
}

// states returns what the disk is after each change from now on, and after some pages of a write.
func (d *disk) states() (states *[]state) {
	states = new([]state)
	d.after = func(c change) {
		if pages := (c.done + page - 1) / page; c.whole() || pages < 4 || pages%(pages/4) == 0 {
			*states = append(*states, state{c, d.clone()})
		}
	}
	return states
}

func (d *disk) ReadAt(p []byte, off int64) (int, error) { return d.file.ReadAt(p, off) }

func (d *disk) WriteAt(p []byte, off int64) (int, error) {
	if d.after == nil {
		n, err := d.file.WriteAt(p, off)
		return n, d.changed(change{}, err)
	}
	c := change{kind: 'w', off: off, p: append([]byte(nil), p...)}
	for c.done < len(p) { // page by page
		at := off + int64(c.done)
		n, err := d.file.WriteAt(p[c.done:min(c.done+page-int(at%page), len(p))], at)
		c.done += n
		if err := d.changed(c, err); err != nil {
			return c.done, err
		}
	}
	return len(p), nil
}

func (d *disk) Size() (int64, error) {
	st, err := d.file.Stat()
	return st.Size, err
}

func (d *disk) Truncate(size int64) error {
	return d.changed(change{kind: 't', off: size}, d.file.Truncate(size))
}

func (d *disk) PunchHole(off, n int64) error {
	return d.changed(change{kind: 'p', off: off}, d.file.Allocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n))
}

func (d *disk) Allocate(off, n int64, keepSize bool) error {
	var mode uint32
	if keepSize {
		mode = unix.FALLOC_FL_KEEP_SIZE
	}
	return d.changed(change{kind: 'a', off: off}, d.file.Allocate(mode, off, n))
}

func (d *disk) SeekData(off int64) (int64, error) { return d.file.Seek(off, unix.SEEK_DATA) }
func (d *disk) SeekHole(off int64) (int64, error) { return d.file.Seek(off, unix.SEEK_HOLE) }

func (d *disk) Sync() error { return d.changed(change{kind: 's'}, d.file.Datasync()) }

const overflowName = "user.kmsfs.more"

func (d *disk) Overflow() ([]byte, error) {
	p := make([]byte, 1<<16)
	n, err := d.file.Getxattr(overflowName, p)
	if errors.Is(err, unix.ENODATA) {
		return nil, nil
	}
	return p[:max(n, 0)], err
}

func (d *disk) SetOverflow(value []byte) error {
	if value == nil {
		return d.changed(change{kind: 'o'}, d.file.Removexattr(overflowName))
	}
	return d.changed(change{kind: 'o'}, d.file.Setxattr(overflowName, value, 0))
}

// What follows changes and shows the disk behind the back of the code under test.

// content returns all bytes.
func (d *disk) content() []byte {
	p := make([]byte, mustBe(d.Size()))
	if _, err := d.file.ReadAt(p, 0); err != nil && !errors.Is(err, io.EOF) {
		panic(err)
	}
	return p
}

// overflow returns the overflow; nil: there is none.
func (d *disk) overflow() []byte { return mustBe(d.Overflow()) }

// edit changes bytes.
func (d *disk) edit(do func(p []byte)) {
	p := d.content()
	do(p)
	d.put(p, 0)
}

// use returns how many bytes the file takes on the disk.
func (d *disk) use(t testing.TB) int64 {
	t.Helper()
	st, err := d.file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// put writes bytes. Pages that have them already stay as they are: holes, too.
func (d *disk) put(p []byte, off int64) {
	have := d.content()
	for len(p) > 0 {
		n := min(page-int(off%page), len(p))
		if end := off + int64(n); end > int64(len(have)) || string(have[off:end]) != string(p[:n]) {
			mustBe(d.file.WriteAt(p[:n], off))
		}
		p, off = p[n:], off+int64(n)
	}
}

func (d *disk) resize(size int64) {
	if err := d.file.Truncate(size); err != nil {
		panic(err)
	}
}

func (d *disk) punch(off, n int64) {
	if err := d.file.Allocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n); err != nil {
		panic(err)
	}
}

// setOverflow sets the overflow; nil: none.
func (d *disk) setOverflow(value []byte) {
	if value == nil {
		_ = d.file.Removexattr(overflowName)
		return
	}
	if err := d.file.Setxattr(overflowName, value, 0); err != nil {
		panic(err)
	}
}
