package envelope

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"
)

// LocationDigest stands for a Location in a header's overflow.
type LocationDigest [8]byte

// overflow is the content of a header's overflow attribute (FORMAT.md, section 5).
type overflow struct {
	paths   []string         // whole paths too long for the header, sorted: two only while one replaces the other
	digests []LocationDigest // sorted, none twice
}

const (
	maxOverflowPaths = 2
	overflowLabel    = "kmsfs/1 overflow"
)

// union returns what holds all that o and p hold.
func (o overflow) union(p overflow) overflow {
	u := overflow{slices.Concat(o.paths, p.paths), slices.Concat(o.digests, p.digests)}
	slices.Sort(u.paths)
	slices.SortFunc(u.digests, compareDigests)
	u.paths, u.digests = slices.Compact(u.paths), slices.Compact(u.digests)
	return u
}

// sealOverflow returns the attribute's value: nil if o holds nothing, since then there is no attribute.
func (v *Volume) sealOverflow(o overflow, id FileID) ([]byte, error) {
	if len(o.paths) == 0 && len(o.digests) == 0 {
		return nil, nil
	}
	b := []byte{byte(len(o.paths))}
	for _, path := range o.paths {
		b = appendLen16(b, path)
	}
	if len(o.digests) > 1<<16-1 {
		return nil, ErrTooLong
	}
	b = binary.BigEndian.AppendUint16(b, uint16(len(o.digests)))
	for _, d := range o.digests {
		b = append(b, d[:]...)
	}
	if v.config.PlaintextNames {
		return b, nil
	}
	return v.details.EncryptDeterministically(b, v.associate(overflowLabel, id))
}

// openOverflow is the inverse of sealOverflow.
func (v *Volume) openOverflow(value []byte, id FileID) (o overflow, err error) {
	b := value
	if !v.config.PlaintextNames {
		if b, err = v.details.DecryptDeterministically(value, v.associate(overflowLabel, id)); err != nil {
			return overflow{}, corruptOverflow("does not open", ErrAuthentication)
		}
	}
	d := decoder{b: b}
	paths := int(d.uint8())
	if paths > maxOverflowPaths {
		d.bad = true
	}
	for range paths {
		if d.bad {
			break
		}
		o.paths = append(o.paths, string(d.len16()))
	}
	digests := d.take(int(d.uint16()) * len(LocationDigest{}))
	for each := range slices.Chunk(digests, len(LocationDigest{})) {
		o.digests = append(o.digests, LocationDigest(each))
	}
	ascending := func(i int) bool { return compareDigests(o.digests[i-1], o.digests[i]) < 0 }
	for i := 1; i < len(o.digests); i++ {
		d.bad = d.bad || !ascending(i)
	}
	if len(o.paths) == 2 && strings.Compare(o.paths[0], o.paths[1]) >= 0 {
		d.bad = true
	}
	if !d.done() {
		return overflow{}, corruptOverflow("malformed", ErrFormat)
	}
	return o, nil
}

func corruptOverflow(reason string, err error) error {
	return &CorruptError{Part: Part{Kind: PartOverflow}, Reason: reason, Err: err}
}

// digest returns what stands for l in the overflow of the file with that ID.
func (v *Volume) digest(id FileID, l Location) LocationDigest {
	m := hmac.New(sha256.New, v.locationKey)
	m.Write(id[:])
	m.Write(l.Directory[:])
	m.Write([]byte(l.Name))
	return LocationDigest(m.Sum(nil)[:len(LocationDigest{})])
}

// associate returns label || volume ID || file ID.
func (v *Volume) associate(label string, id FileID) []byte {
	return slices.Concat([]byte(label), v.config.VolumeID[:], id[:])
}

func compareDigests(a, b LocationDigest) int { return bytes.Compare(a[:], b[:]) }
