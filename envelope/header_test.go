package envelope_test

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"kmsfs/envelope"
)

// same says whether two headers say the same; what is only the storage's doesn't count.
func same(a, b *envelope.Header) bool {
	next := func(h *envelope.Header) string {
		if h.NextOwner == nil {
			return "-"
		}
		return fmt.Sprint(*h.NextOwner)
	}
	return a.FileID == b.FileID && a.KeyARN == b.KeyARN && bytes.Equal(a.WrappedKey, b.WrappedKey) &&
		a.Owner == b.Owner && next(a) == next(b) && a.Path == b.Path &&
		slices.Equal(a.Locations, b.Locations) && slices.Equal(a.LinkDigests, b.LinkDigests)
}

func TestHeader(t *testing.T) {
	for _, plaintextNames := range []bool{false, true} {
		v := newVolume(t, plaintextNames)
		rapid.Check(t, func(rt *rapid.T) {
			st := newDisk()
			h := drawHeader(rt, v)
			f, err := v.CreateFile(st, h, newKey(1), envelope.FileOptions{})
			if err != nil {
				rt.Fatal(err)
			}
			for {
				read, err := v.ReadHeader(st, false)
				if err != nil {
					rt.Fatal(err)
				}
				written := f.Header()
				if !same(read, &written) {
					rt.Fatalf("read %+v, want %+v", read, written)
				}
				for _, l := range h.Locations {
					if !v.LiesAt(read, l) {
						rt.Fatalf("does not lie at %q", l.Name)
					}
				}
				// Writing what was read changes nothing.
				before := st.clone()
				g, err := v.OpenFile(st, read, newKey(1), envelope.FileOptions{})
				if err != nil {
					rt.Fatal(err)
				}
				if err := setHeader(g, *read); err != nil {
					rt.Fatal(err)
				}
				if !bytes.Equal(st.content(), before.content()) || !bytes.Equal(st.overflow(), before.overflow()) {
					rt.Fatal("written otherwise than read")
				}
				if rapid.Bool().Draw(rt, "enough") {
					return
				}
				id := h.FileID
				h = drawHeader(rt, v)
				h.FileID = id
				f = g
				if err := setHeader(f, *h); err != nil {
					rt.Fatal(err)
				}
			}
		})
	}
}

func drawHeader(t *rapid.T, v *envelope.Volume) *envelope.Header {
	h := newHeader()
	h.WrappedKey = bytes.Repeat([]byte{'w'}, rapid.SampledFrom([]int{1, 184, 512}).Draw(t, "wrapped key"))
	h.Path = "/" + strings.Repeat("x", rapid.SampledFrom([]int{0, 1, 20, 255, 400, 600, 800, 4000}).Draw(t, "path"))
	h.Owner = rapid.Uint32().Draw(t, "owner")
	if rapid.Bool().Draw(t, "chown") {
		next := rapid.Uint32().Draw(t, "next owner")
		h.NextOwner = &next
	}
	h.Locations = nil
	all := []envelope.Location{}
	for i := range rapid.SampledFrom([]int{0, 1, 1, 2, 3, 10}).Draw(t, "locations") {
		l := envelope.Location{Directory: envelope.DirectoryID{byte(i)}, Name: strings.Repeat("n", rapid.SampledFrom([]int{1, 20, 255}).Draw(t, "name"))}
		v.AddLocation(h, l)
		all = append(all, l)
	}
	if len(all) <= 2 && len(h.LinkDigests) > 0 || len(all) > 2 && len(h.Locations) > 0 {
		t.Fatalf("%d locations: %d in the header, %d digests", len(all), len(h.Locations), len(h.LinkDigests))
	}
	return h
}

func TestHeaderContext(t *testing.T) {
	h := newHeader()
	want := map[string]string{"kmsfs:volume": "01010101010101010101010101010101", "kmsfs:path": "/some/where", "kmsfs:owner": "uid:1000"}
	if got := h.Context(volumeID); !maps.Equal(got, want) {
		t.Errorf("context %v, want %v", got, want)
	}
	if !h.OwnedBy(1000) || h.OwnedBy(1001) {
		t.Error("owner is not 1000 alone")
	}
	next := uint32(1001)
	h.NextOwner = &next
	if !h.OwnedBy(1000) || !h.OwnedBy(1001) || h.OwnedBy(0) {
		t.Error("owners are not 1000 and 1001")
	}
}

func TestManyLinks(t *testing.T) {
	v, st := newVolume(t, false), newDisk()
	f := mustCreate(t, v, st, envelope.FileOptions{})
	mustWrite(t, f, []byte("text"), 0)
	link := func(i int) envelope.Location {
		return envelope.Location{Directory: envelope.DirectoryID{byte(i), 1}, Name: fmt.Sprintf("link %d", i)}
	}
	const links = 500
	h := f.Header()
	first := h.Locations[0]
	for i := range links {
		v.AddLocation(&h, link(i))
		v.AddLocation(&h, link(i))
		if err := setHeader(f, h); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(st.overflow()); n > 4096 {
		t.Errorf("overflow has %d bytes", n)
	}
	check := func(from int) {
		t.Helper()
		h, err := v.ReadHeader(st, false)
		if err != nil {
			t.Fatal(err)
		}
		for i := range links {
			if v.LiesAt(h, link(i)) != (i >= from) {
				t.Fatalf("link %d: %v", i, i < from)
			}
		}
		if !v.LiesAt(h, first) || v.LiesAt(h, envelope.Location{Directory: first.Directory, Name: "elsewhere"}) {
			t.Fatal("wrong first link")
		}
	}
	check(0)
	for i := range links {
		h = f.Header()
		v.RemoveLocation(&h, link(i))
		if err := setHeader(f, h); err != nil {
			t.Fatal(err)
		}
		if i%50 == 0 {
			check(i + 1)
		}
	}
	check(links)
	h = f.Header()
	v.RemoveLocation(&h, first)
	if err := setHeader(f, h); err != nil {
		t.Fatal(err)
	}
	if st.overflow() != nil {
		t.Errorf("overflow of %d bytes is left", len(st.overflow()))
	}
	mustHold(t, f, []byte("text"))
}

// TestHeaderCrash stops random replacements of a header after each change of the storage, and lets each fail.
func TestHeaderCrash(t *testing.T) {
	v := newVolume(t, false)
	for seed := range uint64(repeat(200)) {
		r := rand.New(rand.NewPCG(seed, 3))
		random := func(h *envelope.Header) {
			h.Path = "/" + strings.Repeat(string(rune('a'+r.IntN(3))), []int{10, 700, 1500}[r.IntN(3)])
			h.WrappedKey = []byte(h.Path[:2] + fmt.Sprint(len(h.Path)))
			for range r.IntN(4) {
				v.AddLocation(h, envelope.Location{Name: fmt.Sprintf("%d%0*d", r.IntN(4), r.IntN(255), 0)})
			}
			if r.IntN(3) == 0 {
				h.Locations, h.LinkDigests = nil, nil
				v.AddLocation(h, envelope.Location{Name: "only"})
			}
		}
		st := newDisk()
		f := mustCreate(t, v, st, envelope.FileOptions{})
		for range 8 {
			old, before := f.Header(), st.clone()
			var states []*disk
			next := f.Header()
			random(&next)
			st.after = func(c change) {
				if c.whole() {
					states = append(states, st.clone())
				}
			}
			if err := setHeader(f, next); err != nil {
				t.Fatal(err)
			}
			check := func(st *disk) {
				t.Helper()
				h, err := v.ReadHeader(st, false)
				if err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				// The wrap and its context belong together, and the places of one of both are all there.
				if want := h.Path[:2] + fmt.Sprint(len(h.Path)); string(h.WrappedKey) != want && string(h.WrappedKey) != string(newHeader().WrappedKey) {
					t.Fatalf("seed %d: key %.10q with path %.10q", seed, h.WrappedKey, h.Path)
				}
				has := func(want *envelope.Header) bool {
					for _, l := range want.Locations {
						if !v.LiesAt(h, l) {
							return false
						}
					}
					all := *h
					for _, l := range h.Locations { // their digests, to compare them with want's
						v.AddLocation(&all, l)
					}
					for i := range 3 {
						v.AddLocation(&all, envelope.Location{Name: fmt.Sprint("x", i)})
					}
					for _, d := range want.LinkDigests {
						if !slices.Contains(all.LinkDigests, d) {
							return false
						}
					}
					return true
				}
				if !has(&old) && !has(&next) {
					t.Fatalf("seed %d: neither the old locations nor the new", seed)
				}
				g, err := v.OpenFile(st, h, newKey(1), envelope.FileOptions{})
				if err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				if err := setHeader(g, next); err != nil {
					t.Fatal(err)
				}
				if h, err = v.ReadHeader(st, false); err != nil || !same(h, ptr(g.Header())) {
					t.Fatalf("seed %d: afterwards: %v", seed, err)
				}
			}
			for _, state := range states {
				check(state)
			}
			for k := range states {
				failing := before.clone()
				g := mustOpen(t, v, failing, newKey(1), envelope.FileOptions{})
				failing.fail(k+1, false)
				err := setHeader(g, next)
				if h := g.Header(); err != nil && !same(&h, &old) && h.Path != next.Path {
					t.Fatalf("seed %d: header is neither old nor new", seed)
				}
				failing.heal()
				check(failing.clone())
				if err := setHeader(g, next); err != nil {
					t.Fatalf("seed %d: once more: %v", seed, err)
				}
				check(failing)
			}
		}
	}
}

func ptr[T any](x T) *T { return &x }

// TestHeaderMalformed changes fields of a header and gives it the right MAC again.
func TestHeaderMalformed(t *testing.T) {
	v, st := newVolume(t, true), newDisk()
	f := mustCreate(t, v, st, envelope.FileOptions{})
	details := 48 + len(f.Header().WrappedKey)
	for name, change := range map[string]func(b []byte){
		"magic":             func(b []byte) { b[0]++ },
		"version":           func(b []byte) { b[9]++ },
		"unknown flag":      func(b []byte) { b[11] |= 8 },
		"details sealed":    func(b []byte) { b[11] |= 2 },
		"cipher":            func(b []byte) { b[12] = 2 },
		"compression":       func(b []byte) { b[13] = 2 },
		"zero file ID":      func(b []byte) { clear(b[14:30]) },
		"reserved":          func(b []byte) { b[39] = 1 },
		"reserved 2":        func(b []byte) { b[47] = 1 },
		"no wrapped key":    func(b []byte) { b[40], b[41] = 0, 0 },
		"long wrapped key":  func(b []byte) { b[40], b[41] = 2, 1 },
		"long details":      func(b []byte) { b[42] = 255 },
		"short details":     func(b []byte) { b[43]-- },
		"padding":           func(b []byte) { b[991] = 1 },
		"long ARN":          func(b []byte) { b[details] = 255 },
		"next owner":        func(b []byte) { b[details+2+len(keyARN)+8] = 1 },
		"next owner's flag": func(b []byte) { b[details+2+len(keyARN)+4] = 2 },
		"path form":         func(b []byte) { b[details+2+len(keyARN)+9] = 2 },
		"relative path":     func(b []byte) { b[details+2+len(keyARN)+12] = 'x' },
		"three locations":   func(b []byte) { b[details+2+len(keyARN)+12+len("/some/where")] = 3 },
		"two locations":     func(b []byte) { b[details+2+len(keyARN)+12+len("/some/where")] = 2 },
	} {
		m := st.clone()
		m.edit(func(p []byte) {
			change(p)
			resign(t, p)
		})
		if _, err := v.ReadHeader(m, false); !errors.Is(err, envelope.ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, change := range map[string]func(h *envelope.Header){
		"no wrapped key":   func(h *envelope.Header) { h.WrappedKey = nil },
		"long wrapped key": func(h *envelope.Header) { h.WrappedKey = make([]byte, 513) },
		"long ARN":         func(h *envelope.Header) { h.KeyARN = strings.Repeat("a", 900) },
		"relative path":    func(h *envelope.Header) { h.Path = "x" },
		"empty name":       func(h *envelope.Header) { h.Locations = []envelope.Location{{}} },
		"long name":        func(h *envelope.Header) { h.Locations = []envelope.Location{{Name: strings.Repeat("n", 256)}} },
	} {
		h := f.Header()
		change(&h)
		before := st.count
		if err := setHeader(f, h); err == nil || st.count != before {
			t.Errorf("%s: %v after %d changes", name, err, st.count-before)
		}
	}
}

// resign gives a header of newKey(1) the MAC that it should have.
func resign(t testing.TB, b []byte) {
	t.Helper()
	key, err := hkdf.Key(sha256.New, newKey(1), b[14:30], "kmsfs/1 file header", 32)
	if err != nil {
		t.Fatal(err)
	}
	m := hmac.New(sha256.New, key)
	m.Write(b[:992])
	copy(b[992:1024], m.Sum(nil))
}

// TestSealedCount counts what is sealed and compares it with what the header says at any time.
func TestSealedCount(t *testing.T) {
	v, st := newVolume(t, false), newDisk()
	f := mustCreate(t, v, st, envelope.FileOptions{})
	stored := func() int64 { return int64(binary.BigEndian.Uint32(st.content()[30:])) }
	r := rand.New(rand.NewPCG(1, 4))
	sealed := int64(0)
	for range 300 {
		changes := st.record()
		mustWrite(t, f, make([]byte, 1+r.IntN(50_000)), r.Int64N(f.Size()+1))
		for _, c := range *changes {
			if n := int64(len(c.p)); n > 1024 || c.off > 0 {
				sealed += (n + page - 1) / page
			}
		}
		if stored() < sealed {
			t.Fatalf("header counts %d, sealed are %d", stored(), sealed)
		}
	}
	if stored() > 3*sealed {
		t.Errorf("header counts %d, sealed are %d", stored(), sealed)
	}

	// The last block that a data key may seal.
	st.edit(func(p []byte) {
		binary.BigEndian.PutUint32(p[30:], 1<<32-1<<24-1)
		resign(t, p)
	})
	f = mustOpen(t, v, st, newKey(1), envelope.FileOptions{})
	mustWrite(t, f, []byte{1}, 5000)
	if _, err := f.WriteAt([]byte{2}, 5000); !errors.Is(err, envelope.ErrExhausted) {
		t.Errorf("one block more: %v", err)
	}
	f = mustOpen(t, v, st, newKey(1), envelope.FileOptions{})
	if err := f.Truncate(1); !errors.Is(err, envelope.ErrExhausted) {
		t.Errorf("truncation: %v", err)
	}
	one := make([]byte, 1)
	if _, err := f.ReadAt(one, 5000); err != nil || one[0] != 1 {
		t.Errorf("read %d, %v", one, err)
	}
}
