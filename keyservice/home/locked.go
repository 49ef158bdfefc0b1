package home

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// lockedKey is a key in memory of its own, outside Go's heap, that is neither copied by the garbage collector nor dumped nor, where the limit
// on locked memory allows it, swapped.
type lockedKey struct {
	memory []byte
	size   int
	// locked says whether the memory can't be swapped.
	locked bool
}

// lockKey moves the key there: the original is wiped.
func lockKey(key []byte) (*lockedKey, error) {
	defer clear(key)
	memory, err := unix.Mmap(-1, 0, unix.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("map memory for the root key: %w", err)
	}
	if len(key) > len(memory) {
		return nil, fmt.Errorf("root key of %d bytes: want at most %d", len(key), len(memory))
	}
	k := &lockedKey{memory: memory, size: len(key), locked: unix.Mlock(memory) == nil}
	if err := unix.Madvise(memory, unix.MADV_DONTDUMP); err != nil {
		return nil, fmt.Errorf("keep the root key out of core dumps: %w (%w)", err, k.close())
	}
	copy(memory, key)
	return k, nil
}

// bytes is the key, until close.
func (k *lockedKey) bytes() []byte { return k.memory[:k.size] }

// close wipes the key and gives the memory back.
func (k *lockedKey) close() error {
	clear(k.memory)
	err := unix.Munmap(k.memory)
	k.memory, k.size = nil, 0
	return err
}
