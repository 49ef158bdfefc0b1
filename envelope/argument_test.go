package envelope_test

import (
	"errors"
	"io"
	"math"
	"syscall"
	"testing"

	"kmsfs/envelope"
)

// TestArguments makes requests at the edges of what there can be.
func TestArguments(t *testing.T) {
	v := newVolume(t, false)
	f := mustCreate(t, v, newDisk(), envelope.FileOptions{})
	mustWrite(t, f, []byte("text"), 0)
	second := func(_ any, err error) error { return err }
	one := make([]byte, 1)
	for _, c := range []struct {
		name string
		err  error
		want error
	}{
		{"read at -1", second(f.ReadAt(one, -1)), syscall.EINVAL},
		{"read at the end", second(f.ReadAt(one, 4)), io.EOF},
		{"read far away", second(f.ReadAt(one, math.MaxInt64)), io.EOF},
		{"read nothing at the end", second(f.ReadAt(nil, 4)), nil},
		{"read nothing", second(f.ReadAt(nil, 0)), nil},
		{"write at -1", second(f.WriteAt(one, -1)), syscall.EINVAL},
		{"write far away", second(f.WriteAt(one, math.MaxInt64)), syscall.EFBIG},
		{"write nothing far away", second(f.WriteAt(nil, 1000)), nil},
		{"truncate to -1", f.Truncate(-1), syscall.EINVAL},
		{"truncate far away", f.Truncate(math.MaxInt64), syscall.EFBIG},
		{"punch at -1", f.PunchHole(-1, 1), syscall.EINVAL},
		{"punch beyond the end", f.PunchHole(1000, 1), nil},
		{"zero at -1", f.ZeroRange(-1, 1, false), syscall.EINVAL},
		{"zero too much", f.ZeroRange(1, math.MaxInt64, false), syscall.EFBIG},
		{"zero beyond the end, keeping the size", f.ZeroRange(1000, 1, true), nil},
		{"allocate nothing", f.Allocate(0, 0, false), syscall.EINVAL},
		{"allocate too much", f.Allocate(math.MaxInt64, 1, false), syscall.EFBIG},
		{"allocate beyond the end, keeping the size", f.Allocate(1000, 1, true), nil},
		{"data at -1", second(f.SeekData(-1)), syscall.ENXIO},
		{"data at the end", second(f.SeekData(4)), syscall.ENXIO},
		{"hole at the end", second(f.SeekHole(4)), syscall.ENXIO},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, c.err, c.want)
		}
	}
	mustHold(t, f, []byte("text"))
	if _, err := v.CreateFile(newDisk(), &envelope.Header{}, newKey(1), envelope.FileOptions{}); !errors.Is(err, envelope.ErrFormat) {
		t.Errorf("header without an ID: %v", err)
	}
	if _, err := v.OpenFile(newDisk(), newHeader(), newKey(1), envelope.FileOptions{}); err == nil {
		t.Error("a header that was not read is opened")
	}
}

// solid is a Storage without holes, as FAT has it.
type solid struct{ *disk }

func (solid) PunchHole(off, n int64) error { return syscall.EOPNOTSUPP }

func TestNoHoles(t *testing.T) { eachForm(t, testNoHoles) }

func testNoHoles(t *testing.T, form envelope.Compression) {
	f := mustCreateAs(t, newVolume(t, false), solid{newDisk()}, form, envelope.FileOptions{})
	const at, n = 100, 150_000
	want := text(1, 200_000, 50)
	mustWrite(t, f, want, 0)
	if err := f.PunchHole(at, n); !errors.Is(err, syscall.EOPNOTSUPP) {
		t.Errorf("punching: %v", err)
	}
	mustHold(t, f, want)
	if err := f.ZeroRange(at, n, true); err != nil {
		t.Fatal(err)
	}
	clear(want[at : at+n])
	mustHold(t, f, want)
}
