package envelope_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
)

const page = 4096

// memory is a Storage that models a sparse file. It can record its changes and fail at one of them.
type memory struct {
	mu       sync.RWMutex // guards all
	data     []byte
	present  []bool // of each page: whether it is data
	overflow []byte

	record  bool
	changes []change
	failAt  int // the change that fails, counted from 1; 0: none
	broken  bool
	count   int
}

// change is one change of a memory.
type change struct {
	kind byte // write, truncate, punch, overflow, sync
	off  int64
	p    []byte
}

// fails counts a change and says whether it fails.
func (m *memory) fails(c change) bool {
	m.count++
	failed := m.count == m.failAt || m.broken && m.failAt > 0 && m.count > m.failAt
	if m.record && !failed {
		m.changes = append(m.changes, c)
	}
	return failed
}

func (m *memory) resize(size int64) {
	if n := int64(len(m.data)); size <= n {
		clear(m.data[size:])
		m.data = m.data[:size]
	} else {
		m.data = append(m.data, make([]byte, size-n)...)
	}
	pages := int(size+page-1) / page
	for len(m.present) < pages {
		m.present = append(m.present, false)
	}
	m.present = m.present[:pages]
}

func (m *memory) ReadAt(p []byte, off int64) (int, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if off >= int64(len(m.data)) {
		return 0, io.EOF
	}
	n := copy(p, m.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fails(change{'w', off, slices.Clone(p)}) {
		// Half of the pages are written: what a full disk does.
		pages := (off+int64(len(p))+page-1)/page - off/page
		p = p[:max(min((off/page+pages/2)*page-off, int64(len(p))), 0)]
		m.write(p, off)
		return len(p), syscall.ENOSPC
	}
	m.write(p, off)
	return len(p), nil
}

func (m *memory) write(p []byte, off int64) {
	if len(p) == 0 {
		return
	}
	if end := off + int64(len(p)); end > int64(len(m.data)) {
		m.resize(end)
	}
	copy(m.data[off:], p)
	for i := off / page; i <= (off+int64(len(p))-1)/page; i++ {
		m.present[i] = true
	}
}

func (m *memory) Size() (int64, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return int64(len(m.data)), nil
}

func (m *memory) Truncate(size int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fails(change{'t', size, nil}) {
		return syscall.EIO
	}
	m.resize(size)
	return nil
}

func (m *memory) PunchHole(off, n int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if off%page != 0 || n%page != 0 || off+n > int64(len(m.data)) {
		panic("hole is not whole pages of the file")
	}
	if m.fails(change{'p', off, make([]byte, n)}) {
		return syscall.EIO
	}
	m.punch(off, n)
	return nil
}

func (m *memory) punch(off, n int64) {
	clear(m.data[off : off+n])
	for i := off / page; i < (off+n)/page; i++ {
		m.present[i] = false
	}
}

func (m *memory) Allocate(_, _ int64, keepSize bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !keepSize {
		panic("only the file knows its size")
	}
	if m.fails(change{kind: 's'}) {
		return syscall.ENOSPC
	}
	return nil
}

func (m *memory) seek(off int64, data bool) (int64, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if off >= int64(len(m.data)) {
		return 0, syscall.ENXIO
	}
	for i := off / page; i < int64(len(m.present)); i++ {
		if m.present[i] == data {
			return max(off, i*page), nil
		}
	}
	if data {
		return 0, syscall.ENXIO
	}
	return int64(len(m.data)), nil
}

func (m *memory) SeekData(off int64) (int64, error) { return m.seek(off, true) }
func (m *memory) SeekHole(off int64) (int64, error) { return m.seek(off, false) }

func (m *memory) Sync() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fails(change{kind: 's'}) {
		return syscall.EIO
	}
	return nil
}

func (m *memory) Overflow() ([]byte, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.overflow, nil
}

func (m *memory) SetOverflow(value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fails(change{'o', 0, slices.Clone(value)}) {
		return syscall.ENOSPC
	}
	m.overflow = slices.Clone(value)
	return nil
}

// clone returns a copy that neither records nor fails.
func (m *memory) clone() *memory {
	return &memory{data: slices.Clone(m.data), present: slices.Clone(m.present), overflow: slices.Clone(m.overflow)}
}

// apply repeats a change that was recorded; of a write, only the first pages pages, if that is not negative.
func (m *memory) apply(c change, pages int64) {
	switch c.kind {
	case 'w':
		p := c.p
		if pages >= 0 {
			p = p[:max(min((c.off/page+pages)*page-c.off, int64(len(p))), 0)]
		}
		m.write(p, c.off)
	case 't':
		m.resize(c.off)
	case 'p':
		m.punch(c.off, int64(len(c.p)))
	case 'o':
		m.overflow = slices.Clone(c.p)
	}
}

// backing is a Storage that is a real file.
type backing struct{ *os.File }

func newBacking(t testing.TB) backing {
	f, err := os.Create(filepath.Join(t.TempDir(), "sealed"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return backing{f}
}

func (b backing) fd() int { return int(b.Fd()) }

func (b backing) Size() (int64, error) {
	info, err := b.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (b backing) PunchHole(off, n int64) error {
	return unix.Fallocate(b.fd(), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

func (b backing) Allocate(off, n int64, keepSize bool) error {
	var mode uint32
	if keepSize {
		mode = unix.FALLOC_FL_KEEP_SIZE
	}
	return unix.Fallocate(b.fd(), mode, off, n)
}

func (b backing) SeekData(off int64) (int64, error) { return unix.Seek(b.fd(), off, unix.SEEK_DATA) }

func (b backing) SeekHole(off int64) (int64, error) { return unix.Seek(b.fd(), off, unix.SEEK_HOLE) }
func (b backing) Sync() error                       { return unix.Fdatasync(b.fd()) }

const overflowName = "user.kmsfs.more"

func (b backing) Overflow() ([]byte, error) {
	p := make([]byte, 1<<16)
	n, err := unix.Fgetxattr(b.fd(), overflowName, p)
	if err == unix.ENODATA {
		return nil, nil
	}
	return p[:max(n, 0)], err
}

func (b backing) SetOverflow(value []byte) error {
	if value == nil {
		return unix.Fremovexattr(b.fd(), overflowName)
	}
	return unix.Fsetxattr(b.fd(), overflowName, value, 0)
}

// newVolume returns a volume, the same for each call.
func newVolume(t testing.TB, plaintextNames bool) *envelope.Volume {
	t.Helper()
	metadataKey := bytes.Repeat([]byte{7}, envelope.KeySize)
	config := &envelope.Config{
		Format:         1,
		VolumeID:       volumeID,
		PlaintextNames: plaintextNames,
		Owner:          1000,
		KeyARN:         keyARN,
		KeyARNs:        []string{keyARN},
		MetadataKeyARN: keyARN,
		MetadataKey:    []byte("wrapped metadata key"),
	}
	b, err := config.Marshal(metadataKey)
	if err != nil {
		t.Fatal(err)
	}
	v, err := envelope.OpenVolume(b, metadataKey)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

var volumeID = envelope.VolumeID(bytes.Repeat([]byte{1}, envelope.IDSize))

const keyARN = "arn:kmsfs:kms:here:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"

// newHeader returns a header that has what every header has.
func newHeader() *envelope.Header {
	return &envelope.Header{
		FileID:     envelope.NewFileID(),
		KeyARN:     keyARN,
		WrappedKey: bytes.Repeat([]byte("wrapped"), 20),
		Owner:      1000,
		Path:       "/some/where",
		Locations:  []envelope.Location{{Directory: envelope.DirectoryID{1}, Name: "where"}},
	}
}

func newKey(x byte) []byte { return bytes.Repeat([]byte{x}, envelope.KeySize) }

// fatalf is of testing.TB and rapid.T.
type fatalf interface {
	Helper()
	Fatalf(format string, args ...any)
}

func mustCreate(t fatalf, v *envelope.Volume, st envelope.Storage, o envelope.FileOptions) *envelope.File {
	t.Helper()
	return mustCreateAs(t, v, st, envelope.CompressionNone, o)
}

func mustCreateAs(t fatalf, v *envelope.Volume, st envelope.Storage, c envelope.Compression, o envelope.FileOptions) *envelope.File {
	t.Helper()
	h := newHeader()
	h.Compression = c
	f, err := v.CreateFile(st, h, newKey(1), o)
	if err != nil {
		t.Fatalf("creating: %v", err)
	}
	return f
}

func open(v *envelope.Volume, st envelope.Storage, key []byte, o envelope.FileOptions) (*envelope.File, error) {
	h, err := v.ReadHeader(st, o.Tolerant)
	if err != nil {
		return nil, err
	}
	return v.OpenFile(st, h, key, o)
}

func mustOpen(t fatalf, v *envelope.Volume, st envelope.Storage, key []byte, o envelope.FileOptions) *envelope.File {
	t.Helper()
	f, err := open(v, st, key, o)
	if err != nil {
		t.Fatalf("opening: %v", err)
	}
	return f
}

func mustWrite(t fatalf, f *envelope.File, p []byte, off int64) {
	t.Helper()
	if n, err := f.WriteAt(p, off); n != len(p) || err != nil {
		t.Fatalf("writing %d bytes at %d: %d, %v", len(p), off, n, err)
	}
}

// readAll returns the whole content.
func readAll(f *envelope.File) ([]byte, error) {
	p := make([]byte, f.Size())
	n, err := f.ReadAt(p, 0)
	if err == io.EOF {
		err = nil
	}
	return p[:n], err
}

func mustHold(t fatalf, f *envelope.File, want []byte) {
	t.Helper()
	got, err := readAll(f)
	if err != nil {
		t.Fatalf("reading: %v", err)
	}
	if !bytes.Equal(got, want) {
		at := 0
		for at < min(len(got), len(want)) && got[at] == want[at] {
			at++
		}
		t.Fatalf("content of %d bytes, want %d, differs at %d", len(got), len(want), at)
	}
}

// pattern returns n bytes that differ from place to place and from seed to seed.
func pattern(seed byte, n int) []byte {
	p := make([]byte, n)
	x := uint32(seed)*2654435761 + 1
	for i := range p {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		p[i] = byte(x)
	}
	return p
}

// text returns n bytes that differ from place to place and from seed to seed, of which zstd saves about that many in hundred.
func text(seed byte, n, saved int) []byte {
	p := pattern(seed, n)
	for at := 0; at < n; at += 100 {
		clear(p[at:min(at+saved, n)])
	}
	return p
}

// forms are how a file's content can be stored.
var forms = map[string]envelope.Compression{"plain": envelope.CompressionNone, "zstd": envelope.CompressionZstd}

// eachForm runs a test for files of each form.
func eachForm(t *testing.T, test func(t *testing.T, c envelope.Compression)) {
	for name, c := range forms {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, c)
		})
	}
}

// blocksOf returns how many blocks of 512 bytes a file takes.
func blocksOf(info os.FileInfo) int64 { return info.Sys().(*syscall.Stat_t).Blocks }
