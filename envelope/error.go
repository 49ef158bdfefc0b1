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
	// ErrOverflow is wrapped, besides, if what is wrong with a header is its overflow.
	ErrOverflow = errors.New("overflow")
	// ErrTooLong says that a name, path, symlink target or attribute does not fit the format.
	ErrTooLong = errors.New("too long")
	// ErrExhausted says that a file's data key has sealed as many blocks as one key may; a copy of the file has a new one.
	ErrExhausted = errors.New("data key has sealed all the blocks that it may")
)

// CorruptError says which part of a file can't be opened. It wraps ErrAuthentication or ErrFormat.
type CorruptError struct {
	// Block is the block's index; -1 means the header, -2 the file's size.
	Block int64
	// Reason says what was found, in a few words and without any content.
	Reason string
	// Err is ErrAuthentication or ErrFormat, or wraps one of them and ErrOverflow.
	Err error
}

func (e *CorruptError) Error() string {
	switch e.Block {
	case -1:
		return "header: " + e.Reason
	case -2:
		return "size: " + e.Reason
	}
	return fmt.Sprintf("block %d: %s", e.Block, e.Reason)
}

func (e *CorruptError) Unwrap() error { return e.Err }
