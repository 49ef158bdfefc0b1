package envelope

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// ErrEmpty says that a file that may have been left so by an unclean end has no header: it is to be given one.
var ErrEmpty = errors.New("file has no header")

// Offsets in the header, and its bounds (FORMAT.md, section 5), in bytes.
const (
	headerMagic   = "kmsfs\r\n\x1a"
	headerVersion = 1

	versionAt     = 8
	flagsAt       = 10
	cipherAt      = 12
	compressionAt = 13
	fileIDAt      = 14
	sealedAt      = 30
	reservedAt    = 34
	wrapLenAt     = 40
	detailsLenAt  = 42
	reserved2At   = 44
	variableAt    = 48
	macAt         = headerSize - macSize
	macSize       = sha256.Size

	maxWrappedKey = 512
	maxVariable   = macAt - variableAt // wrapped key and details together

	flagSparse        = 1
	flagDetailsSealed = 2
	flagContent       = 4
	cipherAES256GCM   = 1
	compressionNone   = 0
	compressionZstd   = 1

	pathWhole  = 0
	pathHashed = 1

	maxLocations       = 2
	maxOverflowDigests = 2

	headerLabel = "kmsfs/1 header"
)

// Header is what a file's header says (FORMAT.md, section 5), with its overflow merged in. Its slices are not to be
// changed in place: copies of a Header share them.
type Header struct {
	// Sparse says that the file may have holes.
	Sparse bool
	FileID FileID
	// Compression is how the content is compressed: CompressionZstd, or not at all. It stays what it was when the file was created.
	Compression Compression
	// Sealed is at least the number of blocks sealed so far under the data key.
	Sealed uint32
	// KeyARN names the KMS key that wraps the data key.
	KeyARN     string
	WrappedKey []byte
	// Owner is the uid that the wrap is bound to, and NextOwner the one that the file is about to have.
	Owner     uint32
	NextOwner *uint32
	// Path is the path, within the volume, that the wrap is bound to.
	Path string
	// Locations are where the file lies: at most 2, and none if there are LinkDigests.
	Locations []Location
	// LinkDigests stand for the locations of a file that lies in more places than the header has room for, sorted.
	LinkDigests []LocationDigest

	content       bool                // the file is not empty
	image         []byte              // the header's bytes, if it was read
	overflow      overflow            // what the file's overflow attribute holds, if the header refers to it
	overflowValue []byte              // that attribute as it is stored; nil if the header refers to none
	digests       [][sha256.Size]byte // of the overflow attributes that the header accepts
}

// Context returns the encryption context that the data key's wrap is bound to.
func (h *Header) Context(v VolumeID) map[string]string {
	return map[string]string{
		"kmsfs:volume": v.String(),
		"kmsfs:path":   h.Path,
		"kmsfs:owner":  "uid:" + strconv.FormatUint(uint64(h.Owner), 10),
	}
}

// OwnedBy says whether the header lets the file belong to uid.
func (h *Header) OwnedBy(uid uint32) bool {
	return h.Owner == uid || h.NextOwner != nil && *h.NextOwner == uid
}

// LiesAt says whether the header lists l.
func (v *Volume) LiesAt(h *Header, l Location) bool {
	if slices.Contains(h.Locations, l) {
		return true
	}
	if len(h.LinkDigests) == 0 {
		return false
	}
	_, found := slices.BinarySearchFunc(h.LinkDigests, v.digest(h.FileID, l), compareDigests)
	return found
}

// AddLocation makes the header list l. The third location moves all of them to LinkDigests.
func (v *Volume) AddLocation(h *Header, l Location) {
	if v.LiesAt(h, l) {
		return
	}
	h.Locations = append(slices.Clip(h.Locations), l)
	if len(h.LinkDigests) > 0 || len(h.Locations) > maxLocations {
		v.spill(h)
	}
}

// RemoveLocation makes the header list l no longer.
func (v *Volume) RemoveLocation(h *Header, l Location) {
	h.Locations = slices.DeleteFunc(slices.Clone(h.Locations), func(m Location) bool { return m == l })
	if len(h.LinkDigests) > 0 {
		gone := v.digest(h.FileID, l)
		h.LinkDigests = slices.DeleteFunc(slices.Clone(h.LinkDigests), func(d LocationDigest) bool { return d == gone })
	}
}

// spill moves all locations to LinkDigests.
func (v *Volume) spill(h *Header) {
	all := overflow{digests: h.LinkDigests}
	for _, l := range h.Locations {
		all = all.union(overflow{digests: []LocationDigest{v.digest(h.FileID, l)}})
	}
	h.Locations, h.LinkDigests = nil, all.digests
}

// clone returns a copy that shares nothing with h.
func (h *Header) clone() Header {
	c := *h
	c.image = nil
	c.WrappedKey = slices.Clone(h.WrappedKey)
	c.Locations = slices.Clone(h.Locations)
	c.LinkDigests = slices.Clone(h.LinkDigests)
	if h.NextOwner != nil {
		next := *h.NextOwner
		c.NextOwner = &next
	}
	return c
}

// ReadHeader reads a file's header, and its overflow if it refers to one. Details that are sealed have been opened, but
// nothing else is authentic before OpenFile. It returns a *CorruptError for what can't be a header and, with tolerant
// (FORMAT.md, section 9), ErrEmpty for a file too short to have one.
func (v *Volume) ReadHeader(st Storage, tolerant bool) (*Header, error) {
	image := make([]byte, headerSize)
	n, err := st.ReadAt(image, 0)
	if n < headerSize {
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("reading header: %w", err)
		}
		if tolerant {
			return nil, ErrEmpty
		}
		return nil, &CorruptError{Part: Part{Kind: PartSize}, Reason: fmt.Sprintf("%d bytes are too few for a header", n), Err: ErrFormat}
	}
	return v.parseHeader(image, st.Overflow)
}

// parseHeader is the inverse of marshalHeader. It keeps image, and calls more for the overflow attribute.
func (v *Volume) parseHeader(image []byte, more func() ([]byte, error)) (*Header, error) {
	u16 := func(at int) int { return int(binary.BigEndian.Uint16(image[at:])) }
	malformed := func(reason string) (*Header, error) { return nil, corruptHeader(reason, ErrFormat) }

	flags := u16(flagsAt)
	wrapLen, detailsLen := u16(wrapLenAt), u16(detailsLenAt)
	switch {
	case string(image[:versionAt]) != headerMagic:
		return malformed("not a sealed file")
	case u16(versionAt) != headerVersion:
		return malformed(fmt.Sprintf("format version %d is unknown", u16(versionAt)))
	case flags&^(flagSparse|flagDetailsSealed|flagContent) != 0:
		return malformed("unknown flag")
	case flags&flagDetailsSealed != 0 == v.config.PlaintextNames:
		return malformed("details are not sealed as the volume's are")
	case allZero(image[fileIDAt:sealedAt]):
		return malformed("file ID is zero")
	case image[cipherAt] != cipherAES256GCM:
		return malformed(fmt.Sprintf("cipher %d is unknown", image[cipherAt]))
	case image[compressionAt] > compressionZstd:
		return malformed(fmt.Sprintf("compression %d is unknown", image[compressionAt]))
	case !allZero(image[reservedAt:wrapLenAt]) || !allZero(image[reserved2At:variableAt]):
		return malformed("reserved byte is set")
	case wrapLen < 1 || wrapLen > maxWrappedKey || wrapLen+detailsLen > maxVariable:
		return malformed("lengths do not fit")
	case !allZero(image[variableAt+wrapLen+detailsLen : macAt]):
		return malformed("bytes are left over")
	}
	h := &Header{
		Sparse:      flags&flagSparse != 0,
		content:     flags&flagContent != 0,
		FileID:      FileID(image[fileIDAt:]),
		Compression: CompressionNone,
		Sealed:      binary.BigEndian.Uint32(image[sealedAt:]),
		WrappedKey:  slices.Clone(image[variableAt:][:wrapLen]),
		image:       image,
	}
	if image[compressionAt] == compressionZstd {
		h.Compression = CompressionZstd
	}
	details := image[variableAt+wrapLen:][:detailsLen]
	if !v.config.PlaintextNames {
		var err error
		if details, err = v.details.DecryptDeterministically(details, v.associateHeader(h)); err != nil {
			return nil, corruptHeader("details do not open", ErrAuthentication)
		}
	}
	hash, ok := h.parseDetails(details)
	if !ok {
		return malformed("details are malformed")
	}
	if err := v.mergeOverflow(h, hash, more); err != nil {
		return nil, err
	}
	// One header has one form: what would be written differently is not what a writer wrote.
	if again, err := v.marshalDetails(h, h.digests); err != nil || string(again) != string(details) {
		return malformed("details have another form than they should")
	}
	return h, nil
}

// parseDetails reads the details' plaintext into h, except for a path that is hashed: then it returns the hash.
func (h *Header) parseDetails(details []byte) (hash []byte, ok bool) {
	d := decoder{b: details}
	h.KeyARN = string(d.len16())
	h.Owner = d.uint32()
	hasNext, next := d.uint8(), d.uint32()
	switch {
	case hasNext == 1:
		h.NextOwner = &next
	case hasNext != 0 || next != 0:
		d.bad = true
	}
	switch d.uint8() {
	case pathWhole:
		h.Path = string(d.len16())
	case pathHashed:
		hash = d.take(sha256.Size)
		d.len16()
	default:
		d.bad = true
	}
	locations := int(d.uint8())
	if locations > maxLocations {
		return nil, false
	}
	for range locations {
		l := Location{Directory: DirectoryID(d.takeID()), Name: string(d.take(int(d.uint8())))}
		if l.Name == "" {
			d.bad = true
		}
		h.Locations = append(h.Locations, l)
	}
	digests := int(d.uint8())
	if digests > maxOverflowDigests {
		return nil, false
	}
	for range digests {
		if b := d.take(sha256.Size); b != nil {
			h.digests = append(h.digests, [sha256.Size]byte(b))
		}
	}
	return hash, d.done()
}

// mergeOverflow reads the overflow, if h refers to one, and takes from it what h lacks: hash is that of the path, if h
// doesn't have it whole.
func (v *Volume) mergeOverflow(h *Header, hash []byte, more func() ([]byte, error)) error {
	if len(h.digests) > 0 {
		value, err := more()
		if err != nil {
			return fmt.Errorf("reading overflow: %w", err)
		}
		if !slices.Contains(h.digests, sha256.Sum256(value)) {
			return corruptOverflow("missing, or not the header's", ErrAuthentication)
		}
		if h.overflow, err = v.openOverflow(value, h.FileID); err != nil {
			return err
		}
		h.overflowValue = value
		h.LinkDigests = h.overflow.digests
	}
	if hash != nil {
		for _, path := range h.overflow.paths {
			if sum := sha256.Sum256([]byte(path)); string(sum[:]) == string(hash) {
				h.Path = path
			}
		}
	}
	if !strings.HasPrefix(h.Path, "/") {
		return corruptHeader("path is missing or malformed", ErrFormat)
	}
	return nil
}

// detailsRoom returns how many bytes are left in h's details for the path, its form excluded. The room for two overflow
// digests counts as taken, so that replacing the overflow never changes the path's form.
func (v *Volume) detailsRoom(h *Header) int {
	room := maxVariable - len(h.WrappedKey)
	if !v.config.PlaintextNames {
		room -= sivOverhead
	}
	room -= 2 + len(h.KeyARN) + 4 + 1 + 4 + 1
	room -= 1
	for _, l := range h.Locations {
		room -= IDSize + 1 + len(l.Name)
	}
	return room - 1 - maxOverflowDigests*sha256.Size
}

// arrange decides what of h goes into the header itself and what into the overflow that it returns.
func (v *Volume) arrange(h *Header) (overflow, error) {
	if len(h.WrappedKey) < 1 || len(h.WrappedKey) > maxWrappedKey || len(h.Path) > 1<<16-1 {
		return overflow{}, fmt.Errorf("header: wrapped key of %d bytes, path of %d: %w", len(h.WrappedKey), len(h.Path), ErrTooLong)
	}
	if !strings.HasPrefix(h.Path, "/") {
		return overflow{}, fmt.Errorf("header: path %q does not begin with /: %w", h.Path, ErrFormat)
	}
	for _, l := range h.Locations {
		if l.Name == "" || len(l.Name) > MaxName {
			return overflow{}, fmt.Errorf("header: name of %d bytes: %w", len(l.Name), ErrFormat)
		}
	}
	const leastPath = sha256.Size + 2
	if len(h.Locations) > maxLocations || len(h.Locations) > 0 && (len(h.LinkDigests) > 0 || v.detailsRoom(h) < leastPath) {
		v.spill(h)
	}
	room := v.detailsRoom(h)
	if room < leastPath {
		return overflow{}, fmt.Errorf("header: wrapped key of %d bytes and key ARN of %d: %w", len(h.WrappedKey), len(h.KeyARN), ErrTooLong)
	}
	more := overflow{digests: h.LinkDigests}
	if 2+len(h.Path) > room {
		more.paths = []string{h.Path}
	}
	return more, nil
}

// marshalDetails returns the plaintext of h's details, which refer to the overflows with those digests. arrange has
// made it fit.
func (v *Volume) marshalDetails(h *Header, digests [][sha256.Size]byte) ([]byte, error) {
	b := appendLen16(make([]byte, 0, maxVariable), h.KeyARN)
	b = binary.BigEndian.AppendUint32(b, h.Owner)
	if h.NextOwner != nil {
		b = binary.BigEndian.AppendUint32(append(b, 1), *h.NextOwner)
	} else {
		b = append(b, 0, 0, 0, 0, 0)
	}
	room := v.detailsRoom(h)
	switch {
	case 2+len(h.Path) <= room:
		b = appendLen16(append(b, pathWhole), h.Path)
	case sha256.Size+2 <= room:
		hash := sha256.Sum256([]byte(h.Path))
		tail := h.Path[max(0, len(h.Path)-(room-sha256.Size-2)):]
		b = appendLen16(append(append(b, pathHashed), hash[:]...), tail)
	default:
		return nil, ErrTooLong
	}
	b = append(b, byte(len(h.Locations)))
	for _, l := range h.Locations {
		b = append(b, l.Directory[:]...)
		b = append(append(b, byte(len(l.Name))), l.Name...)
	}
	b = append(b, byte(len(digests)))
	for _, d := range digests {
		b = append(b, d[:]...)
	}
	return b, nil
}

// marshalHeader returns the header's bytes, with a MAC under key.
func (v *Volume) marshalHeader(h *Header, digests [][sha256.Size]byte, key []byte) ([]byte, error) {
	details, err := v.marshalDetails(h, digests)
	if err != nil {
		return nil, err
	}
	flags := uint16(0)
	if !v.config.PlaintextNames {
		flags = flagDetailsSealed
		if details, err = v.details.EncryptDeterministically(details, v.associateHeader(h)); err != nil {
			return nil, err
		}
	}
	image := make([]byte, headerSize)
	copy(image, headerMagic)
	binary.BigEndian.PutUint16(image[versionAt:], headerVersion)
	binary.BigEndian.PutUint16(image[flagsAt:], flags)
	image[cipherAt], image[compressionAt] = cipherAES256GCM, compressionNone
	if h.Compression == CompressionZstd {
		image[compressionAt] = compressionZstd
	}
	copy(image[fileIDAt:], h.FileID[:])
	binary.BigEndian.PutUint16(image[wrapLenAt:], uint16(len(h.WrappedKey)))
	binary.BigEndian.PutUint16(image[detailsLenAt:], uint16(len(details)))
	copy(image[variableAt:], h.WrappedKey)
	copy(image[variableAt+len(h.WrappedKey):], details)
	h.update(image, key)
	return image, nil
}

// update writes what h says of the file's content into the header's bytes, and their MAC.
func (h *Header) update(image, key []byte) {
	flags := binary.BigEndian.Uint16(image[flagsAt:]) &^ (flagSparse | flagContent)
	if h.Sparse {
		flags |= flagSparse
	}
	if h.content {
		flags |= flagContent
	}
	binary.BigEndian.PutUint16(image[flagsAt:], flags)
	binary.BigEndian.PutUint32(image[sealedAt:], h.Sealed)
	m := hmac.New(sha256.New, key)
	m.Write(image[:macAt])
	m.Sum(image[:macAt])
}

// verifyHeader checks the MAC of a header's bytes.
func verifyHeader(image, key []byte) error {
	m := hmac.New(sha256.New, key)
	m.Write(image[:macAt])
	if subtle.ConstantTimeCompare(m.Sum(nil), image[macAt:]) != 1 {
		return corruptHeader("MAC does not match", ErrAuthentication)
	}
	return nil
}

// associateHeader returns the associated data of h's sealed details.
func (v *Volume) associateHeader(h *Header) []byte {
	return append(v.associate(headerLabel, h.FileID), h.WrappedKey...)
}

func corruptHeader(reason string, err error) error {
	return &CorruptError{Part: Part{Kind: PartHeader}, Reason: reason, Err: err}
}

// decoder takes fields off the front of b. What is not there is zero, and makes it bad.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) take(n int) []byte {
	if d.bad || n > len(d.b) {
		d.bad = true
		return nil
	}
	taken := d.b[:n:n]
	d.b = d.b[n:]
	return taken
}

func (d *decoder) takeID() (id [IDSize]byte) {
	copy(id[:], d.take(IDSize))
	return id
}

func (d *decoder) uint8() (x uint8) {
	if b := d.take(1); b != nil {
		x = b[0]
	}
	return x
}

func (d *decoder) uint16() (x uint16) {
	if b := d.take(2); b != nil {
		x = binary.BigEndian.Uint16(b)
	}
	return x
}

func (d *decoder) uint32() (x uint32) {
	if b := d.take(4); b != nil {
		x = binary.BigEndian.Uint32(b)
	}
	return x
}

func (d *decoder) len16() []byte { return d.take(int(d.uint16())) }

// done says whether all was there, and nothing else.
func (d *decoder) done() bool { return !d.bad && len(d.b) == 0 }

func appendLen16[T string | []byte](b []byte, x T) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(x))), x...)
}

func allZero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}
