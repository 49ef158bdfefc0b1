package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
)

// Position is a place in the chain of records: behind the one of that number, counted from 1, whose
// hash that is. The zero Position is where a log begins.
type Position struct {
	Sequence uint64
	Hash     [sha256.Size]byte // of the record's line
}

// Each line ends with its number, padded with spaces, which JSON passes over, and the hash of the
// line before it. So they can be filled in where they lie, in the order in which lines are written.
const (
	sequenceMember = `,"sequence":`
	hashMember     = `,"previousRecordHash":"`
	lineEnd        = `"}` + "\n"

	sequenceWidth = 15
	hashWidth     = 2 * sha256.Size

	sequenceAt = len(sequenceMember)
	hashAt     = sequenceAt + sequenceWidth + len(hashMember)
	linkSize   = hashAt + hashWidth + len(lineEnd)
)

// emptyLink is a line's end before it is filled in.
var emptyLink = sequenceMember + string(bytes.Repeat([]byte(" "), sequenceWidth)) + hashMember +
	string(bytes.Repeat([]byte("0"), hashWidth)) + lineEnd

// A line's hash is that of its body's hash and of what stands behind the body, without the newline.
// So all that is long is hashed before the lines before it are known.
func lineHash(body [sha256.Size]byte, line []byte) [sha256.Size]byte {
	var short [sha256.Size + linkSize - 1]byte
	copy(short[copy(short[:], body[:]):], line[len(line)-linkSize:])
	return sha256.Sum256(short[:])
}

// bodyHash is that of a line's body.
func bodyHash(line []byte) [sha256.Size]byte { return sha256.Sum256(line[:len(line)-linkSize]) }

// link makes line, which ends with an empty link, the one behind p, and returns the position behind
// it.
func (p Position) link(line []byte, body [sha256.Size]byte) Position {
	end := line[len(line)-linkSize:]
	p.Sequence++
	var digits [20]byte
	number := strconv.AppendUint(digits[:0], p.Sequence, 10)
	copy(end[sequenceAt+sequenceWidth-len(number):], number)
	hex.Encode(end[hashAt:], p.Hash[:])
	p.Hash = lineHash(body, line)
	return p
}

// parseLink returns the position behind which a line, with its newline, says that it is.
func parseLink(line []byte) (before Position, ok bool) {
	if len(line) < linkSize+1 || line[0] != '{' {
		return before, false
	}
	end := line[len(line)-linkSize:]
	hash, digits := end[hashAt:][:hashWidth], bytes.TrimLeft(end[sequenceAt:][:sequenceWidth], " ")
	if string(end[:sequenceAt]) != sequenceMember || string(end[sequenceAt+sequenceWidth:hashAt]) != hashMember || string(end[hashAt+hashWidth:]) != lineEnd ||
		len(digits) == 0 || digits[0] == '0' || digits[0] == '+' {
		return before, false
	}
	sequence, err := strconv.ParseUint(string(digits), 10, 64)
	if err != nil {
		return before, false
	}
	for _, digit := range hash {
		if digit >= 'A' && digit <= 'F' {
			return before, false
		}
	}
	if _, err := hex.Decode(before.Hash[:], hash); err != nil {
		return before, false
	}
	before.Sequence = sequence - 1
	return before, true
}

// step returns the position behind a line, with its newline, if that is one whose place is behind
// p.
func (p Position) step(line []byte) (Position, bool) {
	before, ok := parseLink(line)
	if !ok || before != p {
		return p, false
	}
	return Position{Sequence: p.Sequence + 1, Hash: hashOf(line)}, true
}

// hashOf is the hash of a line, with its newline; of anything else, something.
func hashOf(line []byte) [sha256.Size]byte {
	if len(line) < linkSize {
		return sha256.Sum256(line)
	}
	return lineHash(bodyHash(line), line)
}
