package volume

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	disk "kmsfs/fs/volume"
)

func TestWhenFree(t *testing.T) {
	var o mountOptions
	o.Volume = t.TempDir()
	failed := errors.New("failed")
	for _, test := range []struct {
		name    string
		results []error
		want    error
	}{
		{"free", []error{nil}, nil},
		{"another error", []error{failed}, failed},
		{"the volume is in use for a while", []error{fmt.Errorf("v: %w", disk.ErrInUse), disk.ErrInUse, nil}, nil},
		{"its journal is in use for a while", []error{unix.EWOULDBLOCK, nil}, nil},
		{"another error after a while", []error{disk.ErrInUse, failed}, failed},
	} {
		calls := 0
		err := o.whenFree(nil, func() error {
			calls++
			return test.results[calls-1]
		})
		if err != test.want || calls != len(test.results) {
			t.Errorf("%s: %v after %d calls, want %v after %d", test.name, err, calls, test.want, len(test.results))
		}
	}

	// A signal ends the waiting.
	signals := make(chan os.Signal, 1)
	signals <- unix.SIGTERM
	if err := o.whenFree(signals, func() error { return disk.ErrInUse }); !errors.Is(err, disk.ErrInUse) {
		t.Errorf("after a signal: %v", err)
	}
}
