package envelope

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"runtime"
	"sync"
	"sync/atomic"
)

const (
	contentLabel = "kmsfs/1 file content"
	macLabel     = "kmsfs/1 file header"

	associatedSize = IDSize + 8 + 1 // file ID || block index || last

	// requestPages is how many pages are read or written at once at most: those that 1 MiB of plaintext can touch.
	requestPages = 1<<20/blockSize + 3
	// smallPages is the same for 128 KiB, the largest request of a mount that doesn't ask for more.
	smallPages = 128<<10/blockSize + 3

	// parallelBlocks is the least number of blocks that is shared between goroutines, and shareBlocks what one takes at
	// a time.
	parallelBlocks = 64
	shareBlocks    = 16
)

// zeros is what a hole opens to. It is never changed.
var zeros [chunkSize]byte

// fileKeys are the keys under a file's data key.
type fileKeys struct {
	id      FileID
	content cipher.AEAD
	header  []byte
}

func newFileKeys(dataKey []byte, id FileID) (fileKeys, error) {
	contentKey, err := derive(dataKey, id[:], contentLabel, KeySize)
	if err != nil {
		return fileKeys{}, err
	}
	defer clear(contentKey)
	headerKey, err := derive(dataKey, id[:], macLabel, KeySize)
	if err != nil {
		return fileKeys{}, err
	}
	block, err := aes.NewCipher(contentKey)
	if err != nil {
		return fileKeys{}, err
	}
	content, err := cipher.NewGCM(block)
	return fileKeys{id, content, headerKey}, err
}

// wipe forgets the keys, as far as Go lets one.
func (k *fileKeys) wipe() {
	clear(k.header)
	*k = fileKeys{id: k.id}
}

// seal seals block i into dst, which begins with a fresh nonce and has room for the rest.
func (k *fileKeys) seal(w *worker, dst, plaintext []byte, i int64, last bool) {
	k.content.Seal(dst[nonceSize:nonceSize], dst[:nonceSize], plaintext, w.associate(k.id, i, last))
}

// open opens block i into dst, which has exactly its length and doesn't overlap sealed. If it fails, dst is zeros.
func (k *fileKeys) open(w *worker, dst, sealed []byte, i int64, last bool) bool {
	_, err := k.content.Open(dst[:0:len(dst)], sealed[:nonceSize], sealed[nonceSize:], w.associate(k.id, i, last))
	if err != nil {
		clear(dst)
	}
	return err == nil
}

// recover opens, under tolerance, what lies in the place of block i but is not block i whole (FORMAT.md, section 9). It returns
// how much plaintext it opened into dst, which has room for a full block, and what it had to accept: "" if nothing opens.
func (k *fileKeys) recover(w *worker, dst, sealed []byte, i int64, last bool) (n int, accepted string) {
	open := func(n int, last bool) bool {
		return n > blockOverhead && n <= len(sealed) && k.open(w, dst[:n-blockOverhead], sealed[:n], i, last)
	}
	room := len(sealed)
	if room == int(sealedEnd(i)-sealedStart(i)) {
		if open(room, !last) {
			return room - blockOverhead, "last flag"
		}
		given := int(binary.BigEndian.Uint16(sealed[room-tornLength:]))
		for _, n := range []int{min(given, room-tornLength), room - 1, room - 2} {
			if open(n, true) {
				return n - blockOverhead, "cut short"
			}
		}
	}
	for room > 0 && sealed[room-1] == 0 {
		room--
	}
	for n := room; n < min(room+tagSize, len(sealed)); n++ {
		if open(n, true) {
			return n - blockOverhead, "not yet grown"
		}
	}
	return 0, ""
}

// tornLength is the size of the length at the end of a page that is about to be cut short.
const tornLength = 2

// worker is what one goroutine needs to seal and open blocks.
type worker struct {
	associated [associatedSize + 1]byte
	block      [blockSize]byte // plaintext; wiped when the worker is released
	codec      *codec          // nil until a chunk is worked on
}

// room returns room for the plaintext of a block or chunk of n bytes.
func (w *worker) room(n int) []byte {
	if n <= blockSize {
		return w.block[:n]
	}
	return w.forChunks().chunk[:n]
}

func (w *worker) associate(id FileID, i int64, last bool) []byte {
	copy(w.associated[:], id[:])
	binary.BigEndian.PutUint64(w.associated[IDSize:], uint64(i))
	w.associated[associatedSize-1] = 0
	if last {
		w.associated[associatedSize-1] = 1
	}
	return w.associated[:associatedSize]
}

// The pools hold what requests need in common; nothing in them outlives a request.
var (
	workers    = sync.Pool{New: func() any { return new(worker) }}
	openings   = sync.Pool{New: func() any { return new(opening) }}
	sealings   = sync.Pool{New: func() any { return new(sealing) }}
	smallPools = sync.Pool{New: func() any { return new([smallPages * pageSize]byte) }}
	largePools = sync.Pool{New: func() any { return new([requestPages * pageSize]byte) }}
)

// unitRoom returns how much room is made for the plaintext of a block or chunk of n bytes.
func unitRoom(n int) int {
	if n <= blockSize {
		return blockSize
	}
	return chunkSize
}

func getWorker() *worker { return workers.Get().(*worker) }

func (w *worker) release() {
	clear(w.block[:])
	if w.codec != nil {
		w.codec.release()
		w.codec = nil
	}
	workers.Put(w)
}

// getPages returns room for the sealed form of that many pages, at most requestPages. It never holds plaintext.
func getPages(pages int) []byte {
	if pages <= smallPages {
		return smallPools.Get().(*[smallPages * pageSize]byte)[:]
	}
	return largePools.Get().(*[requestPages * pageSize]byte)[:]
}

func putPages(b []byte) {
	if len(b) == smallPages*pageSize {
		smallPools.Put((*[smallPages * pageSize]byte)(b))
	} else {
		largePools.Put((*[requestPages * pageSize]byte)(b))
	}
}

// shareable is work on a run of units.
type shareable interface {
	// work does the units from..to-1, counted from the run's first.
	work(w *worker, from, to int) error
}

// share does the first n units of s in so many shares, in parallel if they are several, and returns the error of the foremost that fails.
func share(n, shares int, s shareable) error {
	if helpers := min(runtime.GOMAXPROCS(0), shares) - 1; helpers > 0 {
		return newShared(n, shares, s).do(helpers)
	}
	w := getWorker()
	defer w.release()
	return s.work(w, 0, n)
}

// shared is work that goroutines take shares of until none is left. One that comes too late finds none, and nobody waits for it: to
// wake a processor may take longer than the work.
type shared struct {
	work shareable
	n    int
	errs []error // of each share

	next, left atomic.Int64 // shares that are not taken, and not done
	done       chan struct{}
}

func newShared(n, shares int, s shareable) *shared {
	g := &shared{work: s, n: n, errs: make([]error, shares), done: make(chan struct{})}
	g.left.Store(int64(shares))
	return g
}

func (g *shared) do(helpers int) error {
	for range helpers {
		go g.help()
	}
	g.help()
	<-g.done
	for _, err := range g.errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (g *shared) help() {
	shares := len(g.errs)
	k := int(g.next.Add(1)) - 1
	if k >= shares {
		return
	}
	w := getWorker()
	defer w.release()
	for ; k < shares; k = int(g.next.Add(1)) - 1 {
		g.errs[k] = g.work.work(w, g.n*k/shares, g.n*(k+1)/shares)
		if g.left.Add(-1) == 0 {
			close(g.done)
		}
	}
}

// tail is the plaintext of one unit: the one last written or read in part, so that small requests one after another open it once.
// While the file is unsettled it is the last unit's, and the only place where that is sure to be.
type tail struct {
	mu    sync.Mutex // guards all
	index int64      // -1: none
	block []byte     // nil or of capacity size
	size  int64      // of a full unit
}

// set keeps unit i.
func (t *tail) set(i int64, plaintext []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.block == nil {
		t.block = make([]byte, 0, t.size)
	}
	t.index, t.block = i, append(t.block[:0], plaintext...)
}

// drop forgets the unit.
func (t *tail) drop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.block[:cap(t.block)])
	t.index = -1
}

// holds returns the index of the unit, or -1.
func (t *tail) holds() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.index
}

// read copies from unit i, beginning at byte `from` of it, to p, and returns how many bytes it copied: 0 if it is not kept.
func (t *tail) read(p []byte, i int64, from int) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.index != i || from >= len(t.block) {
		return 0
	}
	return copy(p, t.block[from:])
}
