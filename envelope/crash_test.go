package envelope_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"

	"kmsfs/envelope"
)

// keyOf returns the data key that a model's header wraps.
func keyOf(h *envelope.Header) []byte {
	var n int
	if _, err := fmt.Sscanf(string(h.WrappedKey), "wrapped key %d", &n); err != nil {
		return newKey(1)
	}
	return newKey(byte(1 + n))
}

func draws(r *rand.Rand) func(string, int64, int64) int64 {
	return func(_ string, from, to int64) int64 { return from + r.Int64N(to-from+1) }
}

// oldOrNew says whether each block of got is one of old, or one of new: what a crash may leave.
func oldOrNew(got, old, new []byte) error {
	part := func(p []byte, from, to int64) []byte {
		n := int64(len(p))
		return slices.Concat(p[min(from, n):min(to, n)], make([]byte, max(to, n)-max(from, n)))[:to-from]
	}
	if n := len(got); n < min(len(old), len(new)) {
		return fmt.Errorf("size %d, though it was %d and becomes %d", n, len(old), len(new))
	}
	for i := int64(0); blockStart(i) < int64(len(got)); i++ {
		from, to := blockStart(i), min(blockStart(i+1), int64(len(got)))
		if block := got[from:to]; !bytes.Equal(block, part(old, from, to)) && !bytes.Equal(block, part(new, from, to)) {
			return fmt.Errorf("block %d of a file of %d bytes (was %d, becomes %d) is neither old nor new", i, len(got), len(old), len(new))
		}
	}
	return nil
}

// checkCrashed checks what st holds after a crash during a change from old to new.
func checkCrashed(t *testing.T, v *envelope.Volume, st *disk, old, new []byte, at string) {
	t.Helper()
	// A reader without tolerance is right or says that something is wrong.
	if h, err := v.ReadHeader(st, false); err == nil {
		if f, err := v.OpenFile(st, h, keyOf(h), envelope.FileOptions{ReadOnly: true}); err == nil {
			if got, err := readAll(f); err == nil {
				if len(got) != len(old) && len(got) != len(new) {
					t.Fatalf("%s: without tolerance: size %d, was %d, becomes %d", at, len(got), len(old), len(new))
				}
				if err := oldOrNew(got, old, new); err != nil {
					t.Fatalf("%s: without tolerance: %v", at, err)
				}
			}
		}
	}
	// One with tolerance opens everything, and mends it.
	var got []byte
	for _, o := range []envelope.FileOptions{{Tolerant: true, ReadOnly: true}, {Tolerant: true}, {}} {
		h, err := v.ReadHeader(st, o.Tolerant)
		if errors.Is(err, envelope.ErrEmpty) && len(old) == 0 {
			return
		}
		if err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		f, err := v.OpenFile(st, h, keyOf(h), o)
		if err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		if err := f.Check(); err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		before := got
		if got, err = readAll(f); err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		if err := oldOrNew(got, old, new); err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		if before != nil && !bytes.Equal(got, before) {
			t.Fatalf("%s: the repair changed the content", at)
		}
		if err := f.Close(); err != nil {
			t.Fatalf("%s: %v", at, err)
		}
	}
}

// TestCrash stops random changes at every point: after each change of the storage, and within one
// after each page.
func TestCrash(t *testing.T) { eachForm(t, testCrash) }

func testCrash(t *testing.T, form envelope.Compression) {
	v := newVolume(t, false)
	points := 0
	for seed := range uint64(seeds(form)) {
		r := rand.New(rand.NewPCG(seed, 1))
		st := newDisk()
		m := newModel(t, v, st, form)
		for range 12 {
			old := bytes.Clone(m.want)
			states := st.states()
			name, err := m.step(t, draws(r))
			if err != nil {
				t.Fatalf("seed %d: %s: %v", seed, name, err)
			}
			for k, s := range *states {
				at := fmt.Sprintf("seed %d: %s from %d bytes: change %d of %d (%c at %d, %d of %d bytes)",
					seed, name, len(old), k+1, len(*states), s.kind, s.off, s.done, len(s.p))
				checkCrashed(t, v, s.disk, old, m.want, at)
				points++
			}
		}
	}
	t.Logf("%d points", points)
}

// TestFailure lets each change of the storage fail, once and for good.
func TestFailure(t *testing.T) { eachForm(t, testFailure) }

func testFailure(t *testing.T, form envelope.Compression) {
	v := newVolume(t, false)
	points := 0
	for seed := range uint64(seeds(form)) {
		r := rand.New(rand.NewPCG(seed, 2))
		base := newDisk()
		m := newModel(t, v, base, form)
		for range 12 {
			old, state := bytes.Clone(m.want), base.clone()
			if _, err := m.step(t, draws(r)); err != nil {
				t.Fatal(err)
			}
			for _, broken := range []bool{false, true} {
				for k := 1; ; k++ {
					if !failAt(t, v, state.clone(), k, broken, old, m.want, m.seed, seed) {
						break
					}
					points++
				}
			}
			// The next step begins where this one, repeated in failAt, does.
			if err := m.file.Close(); err != nil {
				t.Fatal(err)
			}
			m.file = mustOpen(t, v, base, m.key, m.options)
			r = rand.New(rand.NewPCG(seed, 2+uint64(m.seed)))
		}
	}
	t.Logf("%d points", points)
}

// failAt repeats the step seed of a model in st, which fails at its k-th change, and says whether
// it came to that.
func failAt(t *testing.T, v *envelope.Volume, st *disk, k int, broken bool, old, new []byte, step byte, seed uint64) bool {
	t.Helper()
	h, err := v.ReadHeader(st, false)
	if err != nil {
		t.Fatal(err)
	}
	m := &model{volume: v, storage: st, key: keyOf(h), want: bytes.Clone(old), seed: step - 1, form: h.Compression}
	m.options.Fresh = func(old envelope.Header) (envelope.Header, []byte, error) {
		m.keys++
		old.WrappedKey = fmt.Appendf(nil, "wrapped key %d", 100+m.keys)
		m.key = newKey(byte(101 + m.keys))
		return old, m.key, nil
	}
	m.file = mustOpen(t, v, st, m.key, m.options)
	st.fail(k, broken)
	stream := uint64(2)
	if step > 1 {
		stream += uint64(step - 1)
	}
	name, err := m.step(t, draws(rand.New(rand.NewPCG(seed, stream))))
	if !st.hasFailed() {
		return false
	}
	if err == nil && !broken {
		// What failed did no harm.
		mustHold(t, m.file, new)
		return true
	}
	if err != nil && !errors.Is(err, syscall.EIO) && !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("%s: %v is not the storage's error", name, err)
	}
	got, readErr := readAll(m.file)
	if readErr != nil {
		t.Fatalf("%s, failing at %d: reading: %v", name, k, readErr)
	}
	if err := oldOrNew(got, old, new); err != nil {
		t.Fatalf("%s, failing at %d: %v", name, k, err)
	}
	st.heal()
	if broken {
		checkCrashed(t, v, st.clone(), old, new, fmt.Sprintf("%s, failing from %d on", name, k))
	}
	if err := m.file.Close(); err != nil {
		t.Fatalf("%s, failing at %d: closing: %v", name, k, err)
	}
	h, err = v.ReadHeader(st, false)
	if err != nil {
		t.Fatal(err)
	}
	f := mustOpen(t, v, st, keyOf100(h), envelope.FileOptions{})
	mustHold(t, f, got)
	return true
}

func keyOf100(h *envelope.Header) []byte { return keyOf(h) }

// seeds returns how many random histories of a file of that form are tested: one of a compressed
// file takes longer.
func seeds(form envelope.Compression) int {
	if form == envelope.CompressionZstd {
		return repeat(10)
	}
	return repeat(40)
}

// soak asks for all random histories and all damaged bytes: minutes instead of seconds. The kinds
// of cases are the same without it.
var soak = flag.Bool("soak", false, "test more random histories and more damaged bytes")

// repeat returns how often a random test is repeated: n times with -soak, else a fraction of that.
func repeat(n int) int {
	if *soak {
		return n
	}
	return max(n/6, 2)
}
