package envelope

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
)

// Storage is the backing file of a sealed file. Its errors are passed on, wrapped. Offsets and lengths are ciphertext's, in bytes.
type Storage interface {
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	Size() (int64, error)
	Truncate(size int64) error
	// PunchHole makes whole pages zeros, without a change of size, and frees what they took.
	PunchHole(off, n int64) error
	// Allocate reserves space, as fallocate(2) does.
	Allocate(off, n int64, keepSize bool) error
	// SeekData and SeekHole are lseek(2)'s: syscall.ENXIO says that there is none.
	SeekData(off int64) (int64, error)
	SeekHole(off int64) (int64, error)
	// Sync makes everything that was written before durable, the overflow too.
	Sync() error
	// Overflow returns the overflow attribute; nil if there is none.
	Overflow() ([]byte, error)
	// SetOverflow replaces it; nil removes it.
	SetOverflow(value []byte) error
}

// FileOptions say how a file is opened.
type FileOptions struct {
	// Tolerant says that the file was changed after the mark of an unclean end: see FORMAT.md, section 9.
	Tolerant bool
	// ReadOnly says that nothing is written to the storage: what would change it returns syscall.EROFS.
	ReadOnly bool
	// Repaired, if not nil, is called for each block, or the size, that was accepted only because of
	// Tolerant. Several goroutines may call it at once. It must not use the File.
	Repaired func(part Part, what string)
	// Fresh, if not nil, gives a new data key, and a header with its wrapped form, when the content under the old one has gone:
	// at truncation to nothing, and at the first write to a file that was opened empty. The File takes what it needs from the
	// key before the call that asked for it returns. Fresh must not use the File.
	Fresh func(old Header) (h Header, dataKey []byte, err error)
}

// File is the content and the header of one sealed file. It is safe for concurrent use. There must be only one for a
// backing file while any of them writes.
type File struct {
	volume  *Volume
	storage Storage
	options FileOptions
	layout  layout

	// mu guards what follows, and the storage: held for writing by all that changes either.
	mu     sync.RWMutex
	keys   fileKeys
	header Header // as the storage has it, except for Sealed
	size   int64  // of the plaintext
	closed bool
	// unsettled says that the storage's last page and size may not be what size and tail say: settle makes them so.
	unsettled bool
	// used says that the data key may have sealed blocks that are not there any more.
	used bool

	sealed int64 // blocks sealed under the data key
	stored int64 // what the storage's header says of that: never less
	step   int64 // how far ahead the header was counted last

	tail tail // has its own lock, since readers change it

	slots slots // of chunks that were written and not yet synced
	undo  *undo // of a replacement that has not ended

	// accepted are the parts that were accepted under tolerance and not yet reported. any says
	// whether there are some.
	accepted struct {
		any   atomic.Bool
		mu    sync.Mutex
		parts []acceptance
	}
}

type acceptance struct {
	part Part
	what string
}

const (
	// maxSealed bounds what one data key seals (FORMAT.md, section 4), in blocks.
	maxSealed = 1<<32 - 1<<24
	// leastStep and mostStep bound how far the header's count of sealed blocks runs ahead, so that few writes have to
	// store it.
	leastStep = 1 << 6
	mostStep  = 1 << 20

	// holeBlocks is the least number of blocks between the old end and the new data that become a hole, not zeros.
	holeBlocks = 16
)

// CreateFile gives st, which is empty, the header h, whose data key is dataKey and has never been used.
func (v *Volume) CreateFile(st Storage, h *Header, dataKey []byte, o FileOptions) (*File, error) {
	f, err := v.newFile(st, h.clone(), dataKey, o)
	if err != nil {
		return nil, err
	}
	next := f.header
	f.header = Header{FileID: next.FileID}
	next.Sparse, next.content, next.Sealed = false, false, 0
	if err := f.replaceHeader(next, f.keys); err != nil {
		f.keys.wipe()
		return nil, err
	}
	return f, nil
}

// OpenFile opens the file in st, whose header ReadHeader read. It returns a *CorruptError if the header is not authentic or
// the size impossible. With tolerance it repairs the file's end.
func (v *Volume) OpenFile(st Storage, h *Header, dataKey []byte, o FileOptions) (*File, error) {
	if len(h.image) != headerSize {
		return nil, errors.New("header was not read from a file")
	}
	f, err := v.newFile(st, h.clone(), dataKey, o)
	if err != nil {
		return nil, err
	}
	f.used = true
	f.header.image = slices.Clone(h.image)
	f.sealed, f.stored = int64(h.Sealed), int64(h.Sealed)
	if err = verifyHeader(f.header.image, f.keys.header); err == nil {
		err = f.openEnd()
	}
	if err != nil {
		f.keys.wipe()
		return nil, err
	}
	f.report()
	return f, nil
}

func (v *Volume) newFile(st Storage, h Header, dataKey []byte, o FileOptions) (*File, error) {
	if h.FileID == (FileID{}) {
		return nil, fmt.Errorf("file ID is zero: %w", ErrFormat)
	}
	keys, err := newFileKeys(dataKey, h.FileID)
	if err != nil {
		return nil, err
	}
	f := &File{volume: v, storage: st, options: o, layout: blocks, keys: keys, header: h}
	if h.Compression == CompressionZstd {
		f.layout = chunks
	} else {
		f.header.Compression = CompressionNone
	}
	f.tail.index, f.tail.size = -1, f.layout.pages*blockSize
	return f, nil
}

// Close makes the storage what it should be, if it isn't Settled, and forgets keys and plaintext. It leaves the storage open.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return os.ErrClosed
	}
	var err error
	if !f.options.ReadOnly {
		if err = f.settle(); err == nil {
			err = f.tidy()
		}
	}
	f.closed = true
	f.keys.wipe()
	f.tail.drop()
	return err
}

// Settled says whether the storage has all that the file has, and nothing else; if not, an error has left the end of the storage undone, or there are
// remains of chunks that were replaced. Sync and Close change the storage then.
func (f *File) Settled() bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return !f.unsettled && f.undo == nil && len(f.slots.of) == 0
}

// Header returns a copy of the file's header.
func (f *File) Header() Header {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.header.clone()
}

// Size returns the plaintext's size in bytes.
func (f *File) Size() int64 {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.size
}

// ReadAt is io.ReaderAt's. Its error is a *CorruptError if a block isn't authentic; bytes of p beyond those read hold no plaintext then.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, syscall.EINVAL
	}
	f.mu.RLock()
	n, err := f.readAt(p, off)
	f.mu.RUnlock()
	if f.accepted.any.Load() {
		f.repair(f.report())
	}
	return n, err
}

// readAt is ReadAt. The caller holds mu.
func (f *File) readAt(p []byte, off int64) (done int, err error) {
	if f.closed {
		return 0, os.ErrClosed
	}
	if off >= f.size {
		if len(p) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	want := p
	if int64(len(p)) > f.size-off {
		want, err = p[:f.size-off], io.EOF
	}
	for done < len(want) {
		n, failed := f.readRun(want[done:], off+int64(done))
		done += n
		if failed != nil {
			clear(want[done:])
			return done, failed
		}
	}
	return done, err
}

// readRun reads as much of p as it can at once.
func (f *File) readRun(p []byte, off int64) (int, error) {
	first := f.layout.of(off)
	if n := f.tail.read(p, first, int(off-f.layout.start(first))); n > 0 {
		return n, nil
	}
	last := min(f.layout.of(off+int64(len(p))-1), first+f.layout.most()-1)
	if last > first && f.tail.holds() == last {
		last--
	}
	if end := f.layout.start(last+1) - off; end < int64(len(p)) {
		p = p[:end]
	}
	units := int(last - first + 1)
	buffer := getPages(int(f.layout.page(last+1) - f.layout.page(first)))
	defer putPages(buffer)
	o := openings.Get().(*opening)
	defer openings.Put(o)
	o.file, o.p, o.off, o.first = f, p, off, first
	defer o.forget()
	var err error
	if o.sealed, err = f.readPages(buffer, first, last); err != nil {
		return 0, err
	}
	if err := share(units, f.layout.shares(units), o); err != nil {
		done := 0
		if corrupt, ok := errors.AsType[*CorruptError](err); ok {
			done = int(max(f.layout.start(f.layout.of(blockStart(corrupt.Part.Block)))-off, 0))
		}
		return done, err
	}
	return len(p), nil
}

// readPages reads what is sealed of the units first..last into buffer.
func (f *File) readPages(buffer []byte, first, last int64) ([]byte, error) {
	block := f.layout.page(first)
	start := sealedStart(block)
	n := f.layout.end(last)
	if last == f.layout.last(f.size) {
		n = CipherSize(f.size)
	}
	sealed := buffer[:n-start]
	if got, err := f.storage.ReadAt(sealed, start); got < len(sealed) {
		return nil, readFailed(max((start+int64(got))/pageSize, block), err)
	}
	f.undo.overlay(sealed, start)
	return sealed, nil
}

// readFailed is the error of a read that got too little of a block: err is the storage's, if it gave one.
func readFailed(block int64, err error) error {
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("reading block %d: %w", block, err)
	}
	return &CorruptError{Part: BlockPart(block), Reason: "cut off", Err: ErrAuthentication}
}

// opening is a request to open a run of units.
type opening struct {
	file   *File
	sealed []byte // the units, as they are stored
	first  int64  // the first one's index
	p      []byte // where the plaintext from off goes
	off    int64
}

func (o *opening) forget() { *o = opening{} }

func (o *opening) work(w *worker, from, to int) error {
	f := o.file
	end := o.off + int64(len(o.p))
	for i := o.first + int64(from); i < o.first+int64(to); i++ {
		start, n := f.layout.start(i), f.layout.size(i, f.size)
		sealed := o.sealed[sealedStart(f.layout.page(i))-sealedStart(f.layout.page(o.first)):]
		if start >= o.off && start+int64(n) <= end {
			if err := f.openUnit(w, o.p[start-o.off:][:n], sealed, i); err != nil {
				return err
			}
			continue
		}
		block := w.room(n)
		if err := f.openUnit(w, block, sealed, i); err != nil {
			return err
		}
		copy(o.p[max(start-o.off, 0):], block[max(o.off-start, 0):])
		if start+int64(n) >= end && !f.unsettled {
			f.tail.set(i, block)
		}
	}
	return nil
}

// openUnit opens unit i into dst, which has exactly its length. What is stored of it begins with sealed.
func (f *File) openUnit(w *worker, dst, sealed []byte, i int64) error {
	if f.layout == chunks && i > 0 {
		return f.openChunk(w, dst, sealed[:min(len(sealed), chunkPages*pageSize)], i)
	}
	return f.openBlock(w, dst, sealed[:len(dst)+blockOverhead], i)
}

// openBlock opens block i into dst, which has exactly its length.
func (f *File) openBlock(w *worker, dst, sealed []byte, i int64) error {
	last := i == lastBlock(f.size)
	if !last && f.isHole(sealed, i) {
		clear(dst)
		return nil
	}
	if f.keys.open(w, dst, sealed, i, last) {
		return nil
	}
	if f.options.Tolerant {
		n, what := f.keys.recover(w, dst, sealed, i, last)
		if what != "" && (!last || n == len(dst)) {
			clear(dst[n:])
			f.accept(BlockPart(i), what)
			return nil
		}
		clear(dst)
	}
	return &CorruptError{Part: BlockPart(i), Reason: "does not open", Err: ErrAuthentication}
}

// isHole says whether what is stored for block i is a hole, if the block isn't the last.
func (f *File) isHole(sealed []byte, i int64) bool {
	return f.header.Sparse && i > 0 && string(sealed) == string(zeros[:pageSize])
}

// load returns unit i's plaintext, in w. The caller holds mu.
func (f *File) load(w *worker, i int64) ([]byte, error) {
	block := w.room(f.layout.size(i, f.size))
	if f.tail.read(block, i, 0) == len(block) {
		return block, nil
	}
	buffer := getPages(int(f.layout.pages))
	defer putPages(buffer)
	sealed, err := f.readPages(buffer, i, i)
	if err != nil {
		return nil, err
	}
	return block, f.openUnit(w, block, sealed, i)
}

// Check reads the whole file. It returns the first error that it finds; under tolerance it accepts, and unless the file is
// open read-only repairs, what may be accepted. After it the file is one that needs no tolerance.
func (f *File) Check() error {
	p := make([]byte, 1<<20)
	defer clear(p)
	var off int64
	for {
		data, err := f.SeekData(off)
		if errors.Is(err, syscall.ENXIO) {
			return nil
		}
		if err != nil {
			return err
		}
		n, err := f.ReadAt(p, data)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		off = data + int64(n)
	}
}

// SeekData returns the first offset from off on that is not in a hole, and SeekHole the first that is: the file's end is one. Beyond the
// end they return syscall.ENXIO.
func (f *File) SeekData(off int64) (int64, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if err := f.seekable(off); err != nil || !f.header.Sparse {
		return off, err
	}
	l := f.layout
	last := l.last(f.size)
	at, err := f.storage.SeekData(l.page(l.of(off)) * pageSize)
	if errors.Is(err, syscall.ENXIO) {
		at, err = l.page(last)*pageSize, nil
	}
	if err != nil {
		return 0, fmt.Errorf("seeking data: %w", err)
	}
	return max(off, l.start(min(l.of(blockStart(at/pageSize)), last))), nil
}

// SeekHole returns the first offset from off on that is in a hole: see SeekData.
func (f *File) SeekHole(off int64) (int64, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if err := f.seekable(off); err != nil {
		return 0, err
	}
	if !f.header.Sparse {
		return f.size, nil
	}
	// A hole of the storage may begin or end within a unit: only whole ones are holes.
	l := f.layout
	last := l.last(f.size)
	for at := l.page(l.of(off)) * pageSize; ; {
		hole, err := f.storage.SeekHole(at)
		if errors.Is(err, syscall.ENXIO) {
			return f.size, nil
		}
		if err != nil {
			return 0, fmt.Errorf("seeking hole: %w", err)
		}
		page := max((hole+pageSize-1)/pageSize, 1)
		i := l.of(blockStart(page))
		if l.page(i) < page {
			i++
		}
		if i >= last {
			return f.size, nil
		}
		data, err := f.storage.SeekData(l.page(i) * pageSize)
		if err != nil && !errors.Is(err, syscall.ENXIO) {
			return 0, fmt.Errorf("seeking data: %w", err)
		}
		if err != nil || data >= l.end(i) {
			return max(off, l.start(i)), nil
		}
		at = data
	}
}

func (f *File) seekable(off int64) error {
	if f.closed {
		return os.ErrClosed
	}
	if off < 0 || off >= f.size {
		return syscall.ENXIO
	}
	return nil
}

// Sync makes all that was written durable.
func (f *File) Sync() error {
	f.mu.RLock()
	closed, idle := f.closed, f.options.ReadOnly || !f.unsettled && f.undo == nil && len(f.slots.of) == 0
	f.mu.RUnlock()
	if closed {
		return os.ErrClosed
	}
	var written slots
	if !idle {
		if err := f.begin(); err != nil {
			return err
		}
		written = f.written()
		f.mu.Unlock()
	}
	if err := f.storage.Sync(); err != nil {
		return fmt.Errorf("syncing: %w", err)
	}
	if len(written.of) > 0 {
		f.mu.Lock()
		f.free(written)
		f.mu.Unlock()
	}
	return nil
}
