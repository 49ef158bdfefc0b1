package backing

import (
	"io"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTransferEnds has a system call move nothing: a read is at the end then, and a write has
// failed.
func TestTransferEnds(t *testing.T) {
	for _, end := range []error{io.EOF, unix.EIO} {
		calls := 0
		n, err := transfer(make([]byte, 10), 100, end, func(p []byte, off int64) (int, error) {
			calls++
			switch calls {
			case 1:
				return -1, unix.EINTR
			case 2:
				return 4, nil
			}
			if len(p) != 6 || off != 104 {
				t.Errorf("call %d is for %d bytes at %d", calls, len(p), off)
			}
			return 0, nil
		})
		if n != 4 || err != end || calls != 3 {
			t.Errorf("%d bytes, %v, after %d calls; want 4 bytes and %v after 3", n, err, calls, end)
		}
	}
}
