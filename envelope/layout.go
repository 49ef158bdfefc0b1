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
)

// maxSize is the largest plaintext size: its ciphertext's is still an int64.
const maxSize = math.MaxInt64 / 2

// blockOf returns the index of the block that holds the plaintext offset.
func blockOf(plainOff int64) int64 {
	if plainOff < firstBlockSize {
		return 0
	}
	return 1 + (plainOff-firstBlockSize)/blockSize
}

// blockStart returns the plaintext offset at which block i begins.
func blockStart(i int64) int64 {
	if i == 0 {
		return 0
	}
	return firstBlockSize + (i-1)*blockSize
}

// blockLen returns how many bytes of plaintext block i has in a file of that plaintext size.
func blockLen(i, plainSize int64) int {
	return int(min(blockStart(i+1), plainSize) - blockStart(i))
}

// lastBlock returns the index of the last block in a file of that plaintext size: -1 if it is empty.
func lastBlock(plainSize int64) int64 {
	if plainSize == 0 {
		return -1
	}
	return blockOf(plainSize - 1)
}

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
		return 0, &CorruptError{Block: -2, Reason: fmt.Sprintf("no sealed file has %d bytes", cipherSize), Err: ErrFormat}
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
