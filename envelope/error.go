package envelope

import (
	"errors"
	"fmt"
)

var (
	// ErrAuthentication is wrapped by every error that says that bytes are not what was sealed: damaged, tampered with,
	// in the wrong place or under another key.
	ErrAuthentication = errors.New("authentication failed")
	// ErrFormat is wrapped by every error that says that bytes have not the form that FORMAT.md gives them.
	ErrFormat = errors.New("malformed")
	// ErrTooLong says that a name, path, symlink target or attribute does not fit the format.
	ErrTooLong = errors.New("too long")
	// ErrExhausted says that a file's data key has sealed as many blocks as one key may; a copy of the file has a new one.
	ErrExhausted = errors.New("data key has sealed all the blocks that it may")
)

// PartKind is a kind of part of a sealed file.
type PartKind uint8

// The kinds of parts. The zero PartKind is none.
const (
	PartHeader PartKind = iota + 1
	// PartOverflow is the attribute that continues the header.
	PartOverflow
	// PartSize is the length of the ciphertext, and how it fits the header.
	PartSize
	PartBlock
)

// Part is a part of a sealed file.
type Part struct {
	Kind PartKind
	// Block is the block's index if Kind is PartBlock, else 0.
	Block int64
}

// BlockPart returns the part that is the block with that index.
func BlockPart(index int64) Part { return Part{Kind: PartBlock, Block: index} }

func (p Part) String() string {
	switch p.Kind {
	case PartHeader:
		return "header"
	case PartOverflow:
		return "overflow"
	case PartSize:
		return "size"
	case PartBlock:
		return fmt.Sprintf("block %d", p.Block)
	}
	return fmt.Sprintf("part %d", p.Kind)
}

// CorruptError says which part of a file can't be opened. It wraps ErrAuthentication or ErrFormat.
type CorruptError struct {
	Part Part
	// Reason says what was found, in a few words and without any content.
	Reason string
	// Err is ErrAuthentication or ErrFormat.
	Err error
}

func (e *CorruptError) Error() string { return e.Part.String() + ": " + e.Reason }

func (e *CorruptError) Unwrap() error { return e.Err }
