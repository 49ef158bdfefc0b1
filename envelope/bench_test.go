package envelope_test

import (
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"kmsfs/envelope"
)

const request = 1 << 20

// sink is a Storage of which writes, once it is full, cost nothing: what remains is what envelope does.
type sink struct {
	*disk
	full bool
}

func (s *sink) WriteAt(p []byte, off int64) (int, error) {
	if s.full {
		return len(p), nil
	}
	return s.disk.WriteAt(p, off)
}

// BenchmarkAEAD is the cipher's own speed: what BenchmarkSeal and BenchmarkOpen are compared with.
func BenchmarkAEAD(b *testing.B) {
	for _, size := range []int{4068, request} {
		c, err := aes.NewCipher(newKey(1))
		if err != nil {
			b.Fatal(err)
		}
		aead, err := cipher.NewGCM(c)
		if err != nil {
			b.Fatal(err)
		}
		// Memory is touched as a request of 1 MiB touches it: from one buffer to another.
		plaintext, sealed, nonce, associated := make([]byte, request), make([]byte, request/size*(size+16)), make([]byte, 12), make([]byte, 25)
		each := func(do func(p, s []byte)) {
			for i := range request / size {
				do(plaintext[i*size:][:size], sealed[i*(size+16):][:size+16])
			}
		}
		b.Run(fmt.Sprintf("seal/%d", size), func(b *testing.B) {
			b.SetBytes(int64(request / size * size))
			b.ReportAllocs()
			for b.Loop() {
				each(func(p, s []byte) { aead.Seal(s[:0], nonce, p, associated) })
			}
		})
		b.Run(fmt.Sprintf("open/%d", size), func(b *testing.B) {
			b.SetBytes(int64(request / size * size))
			b.ReportAllocs()
			for b.Loop() {
				each(func(p, s []byte) {
					if _, err := aead.Open(p[:0], nonce, s, associated); err != nil {
						b.Fatal(err)
					}
				})
			}
		})
	}
}

// BenchmarkSeal writes to a file of 4 MiB.
func BenchmarkSeal(b *testing.B) {
	for _, size := range []int{1, 4096, 128 << 10, request} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			st := &sink{disk: newDisk()}
			f := mustCreate(b, newVolume(b, false), st, envelope.FileOptions{})
			p := pattern(1, request)
			for i := range int64(4) {
				mustWrite(b, f, p, i*request)
			}
			st.full = true
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for i := int64(0); b.Loop(); i++ {
				mustWrite(b, f, p[:size], i*int64(size)%(4*request))
			}
		})
	}
}

// BenchmarkOpen reads a file of 4 MiB, one request after another.
func BenchmarkOpen(b *testing.B) {
	for _, size := range []int{1, 4096, 128 << 10, request} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			f := mustCreate(b, newVolume(b, false), newDisk(), envelope.FileOptions{})
			p := pattern(1, request)
			for i := range int64(4) {
				mustWrite(b, f, p, i*request)
			}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for i := int64(0); b.Loop(); i++ {
				if _, err := f.ReadAt(p[:size], i*int64(size)%(4*request)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkSmallFile creates a file of 1000 bytes.
func BenchmarkSmallFile(b *testing.B) {
	v, p := newVolume(b, false), pattern(1, 1000)
	b.ReportAllocs()
	for b.Loop() {
		f := mustCreate(b, v, &sink{disk: newDisk(), full: true}, envelope.FileOptions{})
		mustWrite(b, f, p, 0)
		_ = f.Close()
	}
}

// samples are what compressed files are measured with: this package's text, and what doesn't compress.
func samples(b *testing.B) map[string][]byte {
	names, err := filepath.Glob("*.go")
	if err != nil {
		b.Fatal(err)
	}
	var text []byte
	for len(text) < 4*request {
		for _, name := range names {
			p, err := os.ReadFile(name)
			if err != nil {
				b.Fatal(err)
			}
			text = append(text, p...)
		}
	}
	return map[string][]byte{"text": text[:4*request], "random": pattern(1, 4*request)}
}

// BenchmarkCompress writes compressed files of 4 MiB, one request after another.
func BenchmarkCompress(b *testing.B) {
	for name, p := range samples(b) {
		for _, size := range []int{4096, 128 << 10, request} {
			b.Run(fmt.Sprint(name, "/", size), func(b *testing.B) {
				v := newVolume(b, false)
				var f *envelope.File
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for at := 0; b.Loop(); at = (at + size) % (4 * request) {
					if at == 0 {
						b.StopTimer()
						f = mustCreateAs(b, v, newDisk(), envelope.CompressionZstd, envelope.FileOptions{})
						b.StartTimer()
					}
					mustWrite(b, f, p[at:at+size], int64(at))
				}
			})
		}
	}
}

// BenchmarkRewrite writes 4 KiB anywhere in a compressed file of 4 MiB.
func BenchmarkRewrite(b *testing.B) {
	for name, p := range samples(b) {
		b.Run(name, func(b *testing.B) {
			f := mustCreateAs(b, newVolume(b, false), newDisk(), envelope.CompressionZstd, envelope.FileOptions{})
			mustWrite(b, f, p, 0)
			b.SetBytes(4096)
			b.ReportAllocs()
			r := rand.New(rand.NewPCG(1, 1))
			for b.Loop() {
				at := r.IntN(len(p)/4096) * 4096
				mustWrite(b, f, p[at:at+4096], int64(at))
			}
		})
	}
}

// BenchmarkDecompress reads compressed files of 4 MiB, one request after another.
func BenchmarkDecompress(b *testing.B) {
	for name, p := range samples(b) {
		for _, size := range []int{4096, 128 << 10, request} {
			b.Run(fmt.Sprint(name, "/", size), func(b *testing.B) {
				f := mustCreateAs(b, newVolume(b, false), newDisk(), envelope.CompressionZstd, envelope.FileOptions{})
				mustWrite(b, f, p, 0)
				got := make([]byte, size)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for at := 0; b.Loop(); at = (at + size) % (4 * request) {
					if _, err := f.ReadAt(got, int64(at)); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
