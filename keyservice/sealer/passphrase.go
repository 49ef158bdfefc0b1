package sealer

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"

	"golang.org/x/crypto/argon2"
)

// Argon2id's costs for new homes, from the second choice that RFC 9106, section 4, recommends: 64 MiB, three passes, four lanes.
const (
	argonTime   = 3
	argonMemory = 64 << 10 // KiB
	argonLanes  = 4
)

// What is believed of costs that are read back, so that a damaged file exhausts neither memory nor patience.
const (
	maxArgonTime   = 64
	maxArgonMemory = 1 << 20 // KiB, so 1 GiB
	maxArgonLanes  = 64
)

// passphraseHeader is the size in bytes of version, time, memory, lanes and salt.
const passphraseHeader = 1 + 4 + 4 + 1 + saltSize

type passphrase struct{ text []byte }

// NewPassphrase returns a sealer under the passphrase, which it keeps a reference to: the caller wipes it when it has
// done with the sealer. Opening takes a good part of a second by design.
func NewPassphrase(text []byte) (Sealer, error) {
	if len(text) == 0 {
		return nil, fmt.Errorf("%w: the passphrase is empty", ErrBadSecret)
	}
	return passphrase{text}, nil
}

func (passphrase) Kind() string { return KindPassphrase }

func (p passphrase) Seal(rootKey []byte) ([]byte, error) {
	header := make([]byte, passphraseHeader)
	header[0] = version
	binary.BigEndian.PutUint32(header[1:], argonTime)
	binary.BigEndian.PutUint32(header[5:], argonMemory)
	header[9] = argonLanes
	rand.Read(header[10:])
	return seal(p.key(header), header, rootKey)
}

func (p passphrase) Open(sealed []byte) ([]byte, error) {
	if !isPlausible(sealed, passphraseHeader) {
		return nil, ErrMalformed
	}
	header := sealed[:passphraseHeader]
	time, memory, lanes := costs(header)
	if time == 0 || time > maxArgonTime || lanes == 0 || lanes > maxArgonLanes ||
		memory < 8*uint32(lanes) || memory > maxArgonMemory {
		return nil, fmt.Errorf("%w: implausible costs: time %d, memory %d KiB, lanes %d", ErrMalformed, time, memory, lanes)
	}
	return open(p.key(header), sealed, passphraseHeader)
}

func (p passphrase) key(header []byte) []byte {
	time, memory, lanes := costs(header)
	return argon2.IDKey(p.text, header[10:], time, memory, lanes, keySize)
}

func costs(header []byte) (time, memory uint32, lanes uint8) {
	return binary.BigEndian.Uint32(header[1:]), binary.BigEndian.Uint32(header[5:]), header[9]
}
