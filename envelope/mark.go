package envelope

import (
	"crypto/hmac"
	"encoding/binary"
	"fmt"
	"time"
)

// MarkSize is the size in bytes of the mark of an unclean end.
const MarkSize = 64

// Offsets in the mark (FORMAT.md, section 9), in bytes.
const (
	markMagic = "kmsfm\r\n\x1a"
	markBoot  = 16
	markMAC   = 32
)

// Mark says that a volume is being changed, or was when its mount ended.
type Mark struct {
	// Time is when the mount began, to the nanosecond.
	Time time.Time
	// BootID is the kernel's boot ID then.
	BootID [16]byte
}

// SealMark returns the mark's file: MarkSize bytes.
func (v *Volume) SealMark(m Mark) []byte {
	b := make([]byte, markMAC, MarkSize)
	copy(b, markMagic)
	binary.BigEndian.PutUint64(b[len(markMagic):], uint64(m.Time.UnixNano()))
	copy(b[markBoot:], m.BootID[:])
	return append(b, mac(v.markKey, v.config.VolumeID[:], b)...)
}

// OpenMark is the inverse of SealMark. The error wraps ErrFormat or ErrAuthentication.
func (v *Volume) OpenMark(b []byte) (Mark, error) {
	if len(b) != MarkSize || string(b[:len(markMagic)]) != markMagic {
		return Mark{}, fmt.Errorf("not a mark: %w", ErrFormat)
	}
	if !hmac.Equal(b[markMAC:], mac(v.markKey, v.config.VolumeID[:], b[:markMAC])) {
		return Mark{}, fmt.Errorf("mark: %w", ErrAuthentication)
	}
	m := Mark{Time: time.Unix(0, int64(binary.BigEndian.Uint64(b[len(markMagic):])))}
	copy(m.BootID[:], b[markBoot:])
	return m, nil
}
