package envelope

import "github.com/klauspost/compress/zstd"

// Block headers of zstd (RFC 8878, section 3.1.1.2), in bytes and bits.
const (
	frameBlockHeader = 3
	frameBlockLast   = 1 // bit 0; bits 1 and 2 are the type
	frameBlockRLE    = 1 // the type whose content is one byte, whatever the size says
)

// isFrame says whether b is exactly one zstd frame of the form in FORMAT.md, section 4: it gives
// plainSize as its content size and has neither dictionary nor checksum. Its blocks are not checked.
func isFrame(b []byte, plainSize int) bool {
	var h zstd.Header
	if h.Decode(b) != nil || h.Skippable || h.DictionaryID != 0 || h.HasCheckSum {
		return false
	}
	if !h.HasFCS || h.FrameContentSize != uint64(plainSize) {
		return false
	}
	for b = b[h.HeaderSize:]; len(b) >= frameBlockHeader; {
		head := int(b[0]) | int(b[1])<<8 | int(b[2])<<16
		size := head >> 3
		if head>>1&3 == frameBlockRLE {
			size = 1
		}
		if b = b[frameBlockHeader:]; size > len(b) {
			return false
		}
		b = b[size:]
		if head&frameBlockLast != 0 {
			return len(b) == 0
		}
	}
	return false
}
