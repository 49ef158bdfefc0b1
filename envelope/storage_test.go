package envelope_test

import (
	"bytes"
	"io"
	"testing"

	"kmsfs/envelope"
)

// newVolume returns a volume, the same for each call.
func newVolume(t testing.TB, plaintextNames bool) *envelope.Volume {
	t.Helper()
	metadataKey := bytes.Repeat([]byte{7}, envelope.KeySize)
	config := &envelope.Config{
		Format:         1,
		VolumeID:       volumeID,
		PlaintextNames: plaintextNames,
		Owner:          1000,
		KeyARN:         keyARN,
		KeyARNs:        []string{keyARN},
		MetadataKeyARN: keyARN,
		MetadataKey:    []byte("wrapped metadata key"),
	}
	b, err := config.Marshal(metadataKey)
	if err != nil {
		t.Fatal(err)
	}
	v, err := envelope.OpenVolume(b, metadataKey)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

var volumeID = envelope.VolumeID(bytes.Repeat([]byte{1}, envelope.IDSize))

const keyARN = "arn:kmsfs:kms:here:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"

// newHeader returns a header that has what every header has.
func newHeader() *envelope.Header {
	return &envelope.Header{
		FileID:     envelope.NewFileID(),
		KeyARN:     keyARN,
		WrappedKey: bytes.Repeat([]byte("wrapped"), 20),
		Owner:      1000,
		Path:       "/some/where",
		Locations:  []envelope.Location{{Directory: envelope.DirectoryID{1}, Name: "where"}},
	}
}

func newKey(x byte) []byte { return bytes.Repeat([]byte{x}, envelope.KeySize) }

// fatalf is of testing.TB and rapid.T.
type fatalf interface {
	Helper()
	Fatalf(format string, args ...any)
}

func mustCreate(t fatalf, v *envelope.Volume, st envelope.Storage, o envelope.FileOptions) *envelope.File {
	t.Helper()
	return mustCreateAs(t, v, st, envelope.CompressionNone, o)
}

func mustCreateAs(t fatalf, v *envelope.Volume, st envelope.Storage, c envelope.Compression, o envelope.FileOptions) *envelope.File {
	t.Helper()
	h := newHeader()
	h.Compression = c
	f, err := v.CreateFile(st, h, newKey(1), o)
	if err != nil {
		t.Fatalf("creating: %v", err)
	}
	return f
}

func open(v *envelope.Volume, st envelope.Storage, key []byte, o envelope.FileOptions) (*envelope.File, error) {
	h, err := v.ReadHeader(st, o.Tolerant)
	if err != nil {
		return nil, err
	}
	return v.OpenFile(st, h, key, o)
}

func mustOpen(t fatalf, v *envelope.Volume, st envelope.Storage, key []byte, o envelope.FileOptions) *envelope.File {
	t.Helper()
	f, err := open(v, st, key, o)
	if err != nil {
		t.Fatalf("opening: %v", err)
	}
	return f
}

func mustWrite(t fatalf, f *envelope.File, p []byte, off int64) {
	t.Helper()
	if n, err := f.WriteAt(p, off); n != len(p) || err != nil {
		t.Fatalf("writing %d bytes at %d: %d, %v", len(p), off, n, err)
	}
}

// readAll returns the whole content.
func readAll(f *envelope.File) ([]byte, error) {
	p := make([]byte, f.Size())
	n, err := f.ReadAt(p, 0)
	if err == io.EOF {
		err = nil
	}
	return p[:n], err
}

func mustHold(t fatalf, f *envelope.File, want []byte) {
	t.Helper()
	got, err := readAll(f)
	if err != nil {
		t.Fatalf("reading: %v", err)
	}
	if !bytes.Equal(got, want) {
		at := 0
		for at < min(len(got), len(want)) && got[at] == want[at] {
			at++
		}
		t.Fatalf("content of %d bytes, want %d, differs at %d", len(got), len(want), at)
	}
}

// pattern returns n bytes that differ from place to place and from seed to seed.
func pattern(seed byte, n int) []byte {
	p := make([]byte, n)
	x := uint32(seed)*2654435761 + 1
	for i := range p {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		p[i] = byte(x)
	}
	return p
}

// text returns n bytes that differ from place to place and from seed to seed, of which zstd saves about that many in hundred.
func text(seed byte, n, saved int) []byte {
	p := pattern(seed, n)
	for at := 0; at < n; at += 100 {
		clear(p[at:min(at+saved, n)])
	}
	return p
}

// forms are how a file's content can be stored.
var forms = map[string]envelope.Compression{"plain": envelope.CompressionNone, "zstd": envelope.CompressionZstd}

// eachForm runs a test for files of each form.
func eachForm(t *testing.T, test func(t *testing.T, c envelope.Compression)) {
	for name, c := range forms {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, c)
		})
	}
}
