package envelope

import (
	"fmt"
	"math"
)

// The layout of a sealed file (FORMAT.md, section 4), in bytes.
const (
	pageSize      = 4096 // what disks and kernels replace at once
	headerSize    = 1024 // in front of page 0's block
	nonceSize     = 12
	tagSize       = 16
	blockOverhead = nonceSize + tagSize

	blockSize      = pageSize - blockOverhead              // plaintext in a full block
	firstBlockSize = pageSize - headerSize - blockOverhead // plaintext in a full block 0

	chunkPages = 16                     // of a chunk's slot
	chunkSize  = chunkPages * blockSize // plaintext in a full chunk
)

// maxSize is the largest plaintext size: its ciphertext's is still an int64.
const maxSize = math.MaxInt64 / 2

// layout is how a file's content is divided into units, which are loaded and stored whole: unit 0 is block 0, and the others are
// so many blocks each, as their pages are.
type layout struct{ pages int64 }

var (
	blocks = layout{1}
	chunks = layout{chunkPages}
)

// of returns the index of the unit that holds the plaintext offset.
func (l layout) of(plainOff int64) int64 {
	if plainOff < firstBlockSize {
		return 0
	}
	return 1 + (plainOff-firstBlockSize)/(l.pages*blockSize)
}

// start returns the plaintext offset at which unit i begins.
func (l layout) start(i int64) int64 {
	if i == 0 {
		return 0
	}
	return firstBlockSize + (i-1)*l.pages*blockSize
}

// size returns how many bytes of plaintext unit i has in a file of that plaintext size.
func (l layout) size(i, plainSize int64) int {
	return int(min(l.start(i+1), plainSize) - l.start(i))
}

// last returns the index of the last unit in a file of that plaintext size: -1 if it is empty.
func (l layout) last(plainSize int64) int64 {
	if plainSize == 0 {
		return -1
	}
	return l.of(plainSize - 1)
}

// page returns the index of unit i's first page, which is also that of its first block.
func (l layout) page(i int64) int64 {
	if i == 0 {
		return 0
	}
	return 1 + (i-1)*l.pages
}

// end returns the ciphertext offset at which unit i's last page ends.
func (l layout) end(i int64) int64 { return l.page(i+1) * pageSize }

// most returns how many units are read or written at once.
func (l layout) most() int64 { return requestPages / l.pages }

// shares returns into how many shares work on n units is divided.
func (l layout) shares(n int) int {
	if l == blocks && n < parallelBlocks {
		return 1
	}
	return max(n*int(l.pages)/shareBlocks, 1)
}

func blockOf(plainOff int64) int64    { return blocks.of(plainOff) }
func blockStart(i int64) int64        { return blocks.start(i) }
func blockLen(i, plainSize int64) int { return blocks.size(i, plainSize) }
func lastBlock(plainSize int64) int64 { return blocks.last(plainSize) }

// sealedStart returns the ciphertext offset at which block i's nonce lies.
func sealedStart(i int64) int64 {
	if i == 0 {
		return headerSize
	}
	return i * pageSize
}

// sealedEnd returns the ciphertext offset at which page i ends.
func sealedEnd(i int64) int64 { return (i + 1) * pageSize }

// CipherSize returns the size of the sealed file that holds plainSize bytes, which are not negative.
func CipherSize(plainSize int64) int64 {
	last := lastBlock(plainSize)
	if last < 0 {
		return headerSize
	}
	return sealedStart(last) + plainSize - blockStart(last) + blockOverhead
}

// PlainSize returns how many bytes a sealed file of that size holds. Its error is a *CorruptError: no sealed file has that size.
func PlainSize(cipherSize int64) (int64, error) {
	plainSize := TolerantPlainSize(cipherSize)
	if CipherSize(plainSize) != cipherSize {
		return 0, &CorruptError{Part: Part{Kind: PartSize}, Reason: fmt.Sprintf("no sealed file has %d bytes", cipherSize), Err: ErrFormat}
	}
	return plainSize, nil
}

// TolerantPlainSize is PlainSize, but a size that no sealed file has counts as the next smaller one that some have
// (FORMAT.md, section 9), and what is too short for a header as an empty file.
func TolerantPlainSize(cipherSize int64) int64 {
	if cipherSize < headerSize+blockOverhead+1 {
		return 0
	}
	last := (cipherSize - 1) / pageSize
	n := cipherSize - sealedStart(last) - blockOverhead
	return blockStart(last) + max(n, 0)
}
