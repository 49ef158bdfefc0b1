package envelope

import (
	"crypto/rand"
	"encoding/binary"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// The pages of a chunk that is compressed (FORMAT.md, section 4, Compression), in bytes.
const (
	chunkMagic = "kmsz" // ends a page that holds a piece of a frame

	versionIDSize = 8
	pieceHeader   = 8 + versionIDSize + 2 + 2 + 1 + 1
	pagePlain     = pageSize - blockOverhead - len(chunkMagic) // plaintext in such a page
	pieceSize     = pagePlain - pieceHeader

	// What a page with a magic is, at the end of its associated data: a block's ends without.
	kindPiece = 1
	kindUndo  = 2
)

// mask is a set of a slot's pages: bit p is page p.
type mask uint16

func pagesMask(first, n int) mask { return (1<<n - 1) << first }

// version is one form of a chunk: a zstd frame in pieces, in adjacent pages.
type version struct {
	generation   uint64 // the newest is the chunk
	id           [versionIDSize]byte
	length       int // of the plaintext
	frame        int // length of the frame
	pages, first int // in the slot
	flipped      bool
}

func (v *version) mask() mask { return pagesMask(v.first, v.pages) }

// header is what the plaintext of the version's k-th page begins with.
func (v *version) header(k int) (b [pieceHeader]byte) {
	binary.BigEndian.PutUint64(b[:], v.generation)
	copy(b[8:], v.id[:])
	rest := b[8+versionIDSize:]
	binary.BigEndian.PutUint16(rest, uint16(v.length))
	binary.BigEndian.PutUint16(rest[2:], uint16(v.frame))
	rest[4], rest[5] = byte(v.pages), byte(k)
	return b
}

// parseVersion reads the plaintext of the page with that index in a slot. Its first page may have to be before the slot: then it is not whole.
func parseVersion(plain []byte, page int) (v version, ok bool) {
	v.generation = binary.BigEndian.Uint64(plain)
	copy(v.id[:], plain[8:])
	rest := plain[8+versionIDSize:]
	v.length, v.frame = int(binary.BigEndian.Uint16(rest)), int(binary.BigEndian.Uint16(rest[2:]))
	v.pages, v.first = int(rest[4]), page-int(rest[5])
	ok = v.length > 0 && v.length <= chunkSize && v.frame > 0 && v.pages == pagesFor(v.frame) && v.pages < chunkPages && int(rest[5]) < v.pages
	return v, ok
}

// pagesFor returns how many pages a frame of that length takes.
func pagesFor(frame int) int { return (frame + pieceSize - 1) / pieceSize }

// openChunk opens chunk i into dst, which has exactly its length. sealed is all that is stored in its slot, and is overwritten.
func (f *File) openChunk(w *worker, dst, sealed []byte, i int64) error {
	first, last := f.layout.page(i), i == f.layout.last(f.size)
	s := f.readVersions(w, sealed, first, last, f.options.Tolerant)
	if s.found {
		v := &s.newest
		if v.flipped {
			f.accept(BlockPart(first), "last flag")
		}
		if v.length != len(dst) {
			if !f.options.Tolerant || last || v.length > len(dst) {
				return &CorruptError{Part: BlockPart(first), Reason: "has another length", Err: ErrAuthentication}
			}
			f.accept(BlockPart(first), "not yet grown")
		}
		if !w.codec.unpack(dst[:v.length], v) {
			return &CorruptError{Part: BlockPart(first), Reason: "does not decompress", Err: ErrFormat}
		}
		clear(dst[v.length:])
		return nil
	}
	if s.opened != 0 && f.options.Tolerant {
		s.clearPages(sealed)
		f.accept(BlockPart(first), "cut short")
	}
	for p := 0; p*blockSize < len(dst); p++ {
		block := dst[p*blockSize : min((p+1)*blockSize, len(dst))]
		if err := f.openBlock(w, block, sealed[p*pageSize:][:len(block)+blockOverhead], first+int64(p)); err != nil {
			return err
		}
	}
	return nil
}

// contents are the versions of a chunk that a slot holds.
type contents struct {
	opened     mask   // pages that hold authentic pieces
	generation uint64 // the highest, of whole versions and of others
	found      bool
	newest     version // the newest whole one, if found; its pieces are in the worker's codec
}

// clearPages makes the pages of versions zeros, if none is whole: what was there before them is what is there without them.
func (c *contents) clearPages(sealed []byte) {
	for p := range chunkPages {
		if c.opened&pagesMask(p, 1) != 0 {
			clear(sealed[p*pageSize:][:pageSize])
		}
	}
}

// readVersions looks for versions of the chunk whose slot begins with page first: with the last flag last or, with either, with any.
func (f *File) readVersions(w *worker, sealed []byte, first int64, last, either bool) (c contents) {
	var versions [chunkPages]version
	for p := 0; (p+1)*pageSize <= len(sealed); p++ {
		page := sealed[p*pageSize:][:pageSize]
		if string(page[pageSize-len(chunkMagic):]) != chunkMagic {
			continue
		}
		plain := w.forChunks().pages[p][:]
		flipped := false
		ok := f.keys.openPage(w, plain, page, first+int64(p), last, kindPiece)
		if !ok && either {
			flipped = true
			ok = f.keys.openPage(w, plain, page, first+int64(p), !last, kindPiece)
		}
		if !ok {
			continue
		}
		v, ok := parseVersion(plain, p)
		if !ok {
			continue
		}
		v.flipped = flipped
		versions[p] = v
		c.opened |= pagesMask(p, 1)
		c.generation = max(c.generation, v.generation)
	}
	for p, v := range versions {
		if v.pages == 0 || v.first != p || p+v.pages > chunkPages || c.found && v.generation <= c.newest.generation {
			continue
		}
		whole := true
		for k := range v.pages {
			whole = whole && versions[p+k] == v
		}
		if whole {
			c.found, c.newest = true, v
		}
	}
	return c
}

// openPage opens a page with a magic into dst. If it fails, dst is zeros.
func (k *fileKeys) openPage(w *worker, dst, page []byte, i int64, last bool, kind byte) bool {
	sealed := page[nonceSize : pageSize-len(chunkMagic)]
	_, err := k.content.Open(dst[:0:pagePlain], page[:nonceSize], sealed, w.associateKind(k.id, i, last, kind))
	if err != nil {
		clear(dst[:pagePlain])
	}
	return err == nil
}

// sealPage seals plain, of pagePlain bytes, as a page with that magic.
func (k *fileKeys) sealPage(w *worker, page, plain []byte, i int64, last bool, kind byte, magic string) {
	rand.Read(page[:nonceSize])
	k.content.Seal(page[nonceSize:nonceSize], page[:nonceSize], plain, w.associateKind(k.id, i, last, kind))
	copy(page[pageSize-len(magic):], magic)
}

func (w *worker) associateKind(id FileID, i int64, last bool, kind byte) []byte {
	w.associate(id, i, last)
	w.associated[associatedSize] = kind
	return w.associated[:]
}

// sealVersion seals the frame that codec holds, a version of the chunk that begins with page first, into the slot's pages.
func (k *fileKeys) sealVersion(w *worker, slot []byte, v version, first int64, last bool) {
	rand.Read(v.id[:])
	c := w.codec
	plain := c.pages[0][:]
	for p := range v.pages {
		header := v.header(p)
		n := copy(plain, header[:])
		n += copy(plain[n:], c.frame[p*pieceSize:])
		clear(plain[n:])
		k.sealPage(w, slot[(v.first+p)*pageSize:][:pageSize], plain, first+int64(v.first+p), last, kindPiece, chunkMagic)
	}
}

// codec is what a worker needs for chunks.
type codec struct {
	encoder *zstd.Encoder
	decoder *zstd.Decoder
	chunk   [chunkSize]byte              // plaintext
	pages   [chunkPages][pagePlain]byte  // plaintext of a slot's pages
	frame   []byte                       // of capacity frameRoom
	room    [chunkPages * pieceSize]byte // for frame, to read it
}

// frameRoom is more than the longest frame of a chunk (RFC 8878: a block's header for each 128 KiB, and the frame's).
const frameRoom = chunkSize + 1024

var codecs = sync.Pool{New: func() any {
	// A frame has a chunk's length in its header, and no checksum: it is authenticated.
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithWindowSize(64<<10), zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true))
	if err != nil {
		panic(err) // the options are constant
	}
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(128<<10), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		panic(err)
	}
	return &codec{encoder: encoder, decoder: decoder, frame: make([]byte, 0, frameRoom)}
}}

func (w *worker) forChunks() *codec {
	if w.codec == nil {
		w.codec = codecs.Get().(*codec)
	}
	return w.codec
}

// release wipes c, as far as the library lets one, and gives it back.
func (c *codec) release() {
	clear(c.chunk[:])
	clear(c.pages[:])
	clear(c.room[:])
	clear(c.frame)
	c.frame = c.frame[:0]
	codecs.Put(c)
}

// pack compresses a chunk into c.frame.
func (c *codec) pack(plaintext []byte) {
	c.frame = c.encoder.EncodeAll(plaintext, c.frame[:0])
}

// unpack decompresses v, whose pages c holds, into dst, which has exactly its length.
func (c *codec) unpack(dst []byte, v *version) bool {
	frame := c.room[:0]
	for p := range v.pages {
		frame = append(frame, c.pages[v.first+p][pieceHeader:]...)
	}
	for _, x := range frame[v.frame:] {
		if x != 0 {
			return false
		}
	}
	if !isFrame(frame[:v.frame], len(dst)) {
		return false
	}
	out, err := c.decoder.DecodeAll(frame[:v.frame], dst[:0:len(dst)])
	return err == nil && len(out) == len(dst)
}
