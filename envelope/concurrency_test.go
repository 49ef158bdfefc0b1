package envelope_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"testing"

	"kmsfs/envelope"
)

// TestConcurrency has writers, each in its own part of a file, readers, and others that change its size and its header.
func TestConcurrency(t *testing.T) { eachForm(t, testConcurrency) }

func testConcurrency(t *testing.T, form envelope.Compression) {
	v := newVolume(t, false)
	f := mustCreateAs(t, v, newDisk(), form, envelope.FileOptions{})
	const part, parts, rounds = 300_000, 4, 40
	var group sync.WaitGroup
	for i := range parts {
		group.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 5))
			want := make([]byte, part)
			base := int64(i) * part
			mustWrite(t, f, want, base)
			for round := range rounds {
				at, n := r.IntN(part), r.IntN(part)
				p := text(byte(round), min(n, part-at), 25*round%100)
				if round%3 == 0 {
					clear(p)
					if err := f.PunchHole(base+int64(at), int64(len(p))); err != nil {
						t.Error(err)
					}
				} else {
					mustWrite(t, f, p, base+int64(at))
				}
				copy(want[at:], p)
				got := make([]byte, part)
				if n, err := f.ReadAt(got, base); n < part && err != io.EOF || !bytes.Equal(got, want) {
					t.Errorf("part %d, round %d: wrong bytes, %v", i, round, err)
					return
				}
			}
		})
	}
	group.Go(func() {
		for i := range rounds {
			h := f.Header()
			v.AddLocation(&h, envelope.Location{Name: fmt.Sprint(i)})
			if err := setHeader(f, h); err != nil {
				t.Error(err)
			}
		}
	})
	group.Go(func() {
		for range rounds {
			if err := errors.Join(f.Truncate(f.Size()+part*parts), f.Sync(), f.Truncate(part*parts)); err != nil {
				t.Error(err)
			}
		}
	})
	group.Go(func() {
		for range rounds {
			if err := f.Check(); err != nil {
				t.Error(err)
			}
		}
	})
	group.Wait()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadAt(make([]byte, 1), 0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("read after closing: %v", err)
	}
	if _, err := f.WriteAt(make([]byte, 1), 0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("write after closing: %v", err)
	}
	if err := errors.Join(f.Truncate(0)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("truncation after closing: %v", err)
	}
	if err := f.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("closing again: %v", err)
	}
}
