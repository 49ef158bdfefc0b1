package audit

import (
	"errors"
	"fmt"
	"sync"
)

// UnreadableError says that records of a log could not be read. Readers pass on the others all the
// same.
type UnreadableError struct {
	// Records is the number of lines that could not be read.
	Records int
	// First is why the first of them could not be read.
	First error
}

func (e *UnreadableError) Error() string {
	return fmt.Sprintf("records of the audit log that can't be read: %d: %v; kmsfs audit verify says whether they were changed", e.Records, e.First)
}

func (e *UnreadableError) Unwrap() error { return e.First }

var errNoRecord = errors.New("a line is not a record")

// unreadable counts records that can't be read. It is safe for concurrent use.
type unreadable struct {
	mu    sync.Mutex // guards what follows
	count int
	first error
}

func (u *unreadable) note(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.count++; u.first == nil {
		u.first = err
	}
}

// take returns an *UnreadableError if there were any, and forgets them.
func (u *unreadable) take() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.count == 0 {
		return nil
	}
	err := &UnreadableError{u.count, u.first}
	u.count, u.first = 0, nil
	return err
}
