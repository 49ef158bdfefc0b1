package envelope_test

import (
	"errors"
	"testing"

	"kmsfs/envelope"
)

func TestLayout(t *testing.T) {
	const header, overhead, first, full = 1024, 12 + 16, 4096 - 1024 - 28, 4096 - 28
	for _, c := range []struct{ plain, cipher int64 }{
		{0, header},
		{1, header + overhead + 1},
		{1, 1053},
		{first - 1, page - 1},
		{first, page},
		{3044, 4096},
		{first + 1, page + overhead + 1},
		{3045, 4125},
		{5000, 6080},
		{first + full, 2 * page},
		{7112, 8192},
		{first + full + 1, 2*page + overhead + 1},
		{first + 1000*full, 1001 * page},
		{first + 1000*full + 17, 1001*page + overhead + 17},
	} {
		if got := envelope.CipherSize(c.plain); got != c.cipher {
			t.Errorf("ciphertext of %d bytes: %d, want %d", c.plain, got, c.cipher)
		}
		if got, err := envelope.PlainSize(c.cipher); err != nil || got != c.plain {
			t.Errorf("plaintext of %d bytes: %d, %v, want %d", c.cipher, got, err, c.plain)
		}
	}
	// Each size is either a file's or impossible, and then it counts as the next smaller one.
	plain := int64(-1)
	for cipher := int64(-1); cipher < 5*page; cipher++ {
		if envelope.CipherSize(plain+1) == cipher {
			plain++
		}
		got, err := envelope.PlainSize(cipher)
		var corrupt *envelope.CorruptError
		if possible := plain >= 0 && envelope.CipherSize(plain) == cipher; possible && (err != nil || got != plain) ||
			!possible && (!errors.As(err, &corrupt) || corrupt.Part.Kind != envelope.PartSize || !errors.Is(err, envelope.ErrFormat)) {
			t.Fatalf("plaintext of %d bytes: %d, %v, want %d", cipher, got, err, plain)
		}
		if got := envelope.TolerantPlainSize(cipher); got != max(plain, 0) {
			t.Fatalf("plaintext of %d bytes, with tolerance: %d, want %d", cipher, got, max(plain, 0))
		}
	}
}
