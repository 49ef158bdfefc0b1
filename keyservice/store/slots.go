package store

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// SlotSize is the size of a slot in bytes.
const SlotSize = 32

// Slots is a file of random numbers that key materials are wrapped with, besides the root key. A
// database leaves old pages in its file; a slot lies in a place of its own and is overwritten
// there, so that what was wrapped with it can be destroyed. Its methods are safe for concurrent
// use.
type Slots struct {
	file *os.File

	mu   sync.Mutex // guards what follows, and writing
	end  uint32     // the number of slots in the file
	free []uint32   // those that are empty: all zeros
}

// OpenSlots takes over the file, which may be empty.
func OpenSlots(file *os.File) (*Slots, error) {
	s := &Slots{file: file}
	buffer := make([]byte, 2048*SlotSize)
	for {
		n, err := io.ReadFull(io.NewSectionReader(file, int64(s.end)*SlotSize, int64(len(buffer))), buffer)
		for at := 0; at+SlotSize <= n; at += SlotSize {
			if isEmpty(buffer[at : at+SlotSize]) {
				s.free = append(s.free, s.end)
			}
			s.end++
		}
		clear(buffer[:n])
		// A slot that was cut short by a power cut was never used.
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return s, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

func isEmpty(slot []byte) bool {
	return [SlotSize]byte(slot) == [SlotSize]byte{}
}

// Take fills an empty slot, durably, and returns it with what is in it.
func (s *Slots) Take() (slot uint32, content [SlotSize]byte, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rand.Read(content[:])
	slot = s.end
	if n := len(s.free); n > 0 {
		slot = s.free[n-1]
	}
	if err := s.write(slot, content[:]); err != nil {
		return 0, content, err
	}
	if slot == s.end {
		s.end++
	} else {
		s.free = s.free[:len(s.free)-1]
	}
	return slot, content, nil
}

// Read returns what is in a slot.
func (s *Slots) Read(slot uint32) (content [SlotSize]byte, err error) {
	if _, err := s.file.ReadAt(content[:], int64(slot)*SlotSize); err != nil {
		return content, fmt.Errorf("%w: slot %d: %w", ErrDamaged, slot, err)
	}
	return content, nil
}

// Erase overwrites a slot, durably. Erasing an empty one does no harm.
func (s *Slots) Erase(slot uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	content, err := s.Read(slot)
	if err != nil {
		return err
	}
	if isEmpty(content[:]) {
		return nil
	}
	if err := s.write(slot, make([]byte, SlotSize)); err != nil {
		return err
	}
	s.free = append(s.free, slot)
	return nil
}

func (s *Slots) write(slot uint32, content []byte) error {
	if _, err := s.file.WriteAt(content, int64(slot)*SlotSize); err != nil {
		return err
	}
	return unix.Fdatasync(int(s.file.Fd()))
}

// WriteTo writes a copy of the file.
func (s *Slots) WriteTo(w io.Writer) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return io.Copy(w, io.NewSectionReader(s.file, 0, int64(s.end)*SlotSize))
}

// Close closes the file.
func (s *Slots) Close() error { return s.file.Close() }
