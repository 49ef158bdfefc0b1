package audit

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// Signer signs for what a log holds.
type Signer interface {
	// Log names the log, for as long as there is one.
	Log() string
	// Sign makes an Ed25519 signature of a message (RFC 8032).
	Sign(message []byte) ([]byte, error)
}

// Digest says what a closed segment holds.
type Digest struct {
	Version int `json:"version"`
	// Log names the log.
	Log string `json:"log"`
	// FirstSequence and LastSequence are the numbers of the segment's records.
	FirstSequence uint64 `json:"firstSequence"`
	LastSequence  uint64 `json:"lastSequence"`
	// FirstTime and LastTime are the earliest and latest of their times.
	FirstTime time.Time `json:"firstTime"`
	LastTime  time.Time `json:"lastTime"`
	// Bytes is the segment's size, uncompressed.
	Bytes int64 `json:"bytes"`
	// PreviousRecordHash is the hash of the record before the segment, and LastRecordHash of its
	// last, in hex.
	PreviousRecordHash string `json:"previousRecordHash"`
	LastRecordHash     string `json:"lastRecordHash"`
	// PreviousDigest is the SHA-256 of the line of the digest before this one, in hex; empty in the
	// first.
	PreviousDigest string `json:"previousDigest"`
	// RecordHashes are the first four bytes of each record's hash, so that one that was changed can
	// be named.
	RecordHashes []byte `json:"recordHashes"`

	end Position // behind the last record added
}

const (
	digestVersion = 1
	// The prefixes keep signatures of one kind from being taken for those of another.
	digestPrefix  = "kmsfs audit digest 1\n"
	pruningPrefix = "kmsfs audit pruning 1\n"
	// shortHash is how many bytes of each record's hash a digest has.
	shortHash = 4
)

func newDigest(log string, first uint64, previous string) *Digest {
	return &Digest{Version: digestVersion, Log: log, FirstSequence: first, PreviousDigest: previous, RecordHashes: []byte{}}
}

// add takes a record into account.
func (d *Digest) add(line []byte) error {
	if d.Bytes == 0 {
		d.end, _ = parseLink(line) // what is before the segment, verification finds out
		d.end.Sequence = d.FirstSequence - 1
		d.PreviousRecordHash = hex.EncodeToString(d.end.Hash[:])
	}
	end, ok := d.end.step(line)
	if !ok {
		return fmt.Errorf("record %d does not follow the one before it", d.end.Sequence+1)
	}
	at, err := recordTime(line)
	if err != nil {
		return err
	}
	if d.Bytes == 0 || at.Before(d.FirstTime) {
		d.FirstTime = at
	}
	if at.After(d.LastTime) {
		d.LastTime = at
	}
	d.end, d.LastSequence = end, end.Sequence
	d.Bytes += int64(len(line))
	d.RecordHashes = append(d.RecordHashes, end.Hash[:shortHash]...)
	return nil
}

// timeMember is what stands before a record's time. No text of a caller's can hold it, as its
// quotes are escaped there.
const timeMember = `,"eventTime":"`

// recordTime returns the time of a record's line.
func recordTime(line []byte) (time.Time, error) {
	_, rest, ok := bytes.Cut(line, []byte(timeMember))
	if !ok || len(rest) < len(timeLayout) {
		return time.Time{}, errors.New("a record has no time")
	}
	return time.Parse(timeLayout, string(rest[:len(timeLayout)]))
}

// sign returns the digest's file: a line of JSON, and one with its signature in base64.
func (d *Digest) sign(signer Signer) ([]byte, error) {
	if d.Bytes == 0 {
		return nil, errors.New("the segment is empty")
	}
	d.LastRecordHash = hex.EncodeToString(d.end.Hash[:])
	return signLine(d, digestPrefix, signer)
}

func signLine(statement any, prefix string, signer Signer) ([]byte, error) {
	line, err := json.Marshal(statement)
	if err != nil {
		return nil, err
	}
	signature, err := signer.Sign(append([]byte(prefix), line...))
	if err != nil {
		return nil, err
	}
	return append(base64.StdEncoding.AppendEncode(append(line, '\n'), signature), '\n'), nil
}

// parseSigned takes a signed file apart, and verifies it if key is not nil. It returns the hash of
// its line, in hex.
func parseSigned(file []byte, prefix string, key ed25519.PublicKey, statement any) (hash string, err error) {
	lines := bytes.Split(file, []byte("\n"))
	if len(lines) != 3 || len(lines[2]) != 0 {
		return "", errors.New("not two lines")
	}
	signature, err := base64.StdEncoding.Strict().DecodeString(string(lines[1]))
	if err != nil || len(signature) != ed25519.SignatureSize {
		return "", errors.New("no signature")
	}
	if key != nil && !ed25519.Verify(key, append([]byte(prefix), lines[0]...), signature) {
		return "", errSignature
	}
	d := json.NewDecoder(bytes.NewReader(lines[0]))
	d.DisallowUnknownFields()
	if err := d.Decode(statement); err != nil {
		return "", err
	}
	sum := sha256.Sum256(lines[0])
	return hex.EncodeToString(sum[:]), nil
}

var errSignature = errors.New("the signature is not the audit key's")

// maxDigest bounds a digest's file, in bytes: a segment of 16 GiB has less.
const maxDigest = 256 << 20

func readDigest(dir fs.FS, first uint64) (*Digest, error) {
	d, _, err := openDigest(dir, first, nil)
	return d, err
}

// SignedDigest is a digest's file.
type SignedDigest struct {
	// Segment is the number of the segment's first record.
	Segment uint64
	Name    string
	Content []byte
}

// Digests returns the digests of the segments behind one, in their order.
func (l *Log) Digests(segment uint64) (digests []SignedDigest, err error) {
	dir := l.fs()
	segments, err := list(dir, digestSuffix)
	for _, first := range segments {
		if first <= segment {
			continue
		}
		d := SignedDigest{Segment: first, Name: segmentName(first, digestSuffix)}
		if d.Content, err = readLimited(dir, d.Name, maxDigest); err != nil {
			return nil, err
		}
		digests = append(digests, d)
	}
	return digests, err
}

// openDigest reads a digest, verifies it if key is not nil, and returns it with its line's hash.
func openDigest(dir fs.FS, first uint64, key ed25519.PublicKey) (*Digest, string, error) {
	file, err := readLimited(dir, segmentName(first, digestSuffix), maxDigest)
	if err != nil {
		return nil, "", err
	}
	d := new(Digest)
	hash, err := parseSigned(file, digestPrefix, key, d)
	if err == nil && (d.Version != digestVersion || d.FirstSequence != first || d.LastSequence < first ||
		uint64(len(d.RecordHashes)) != shortHash*(d.LastSequence-first+1) || !isHash(d.PreviousRecordHash) || !isHash(d.LastRecordHash)) {
		err = errors.New("its content is malformed")
	}
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", segmentName(first, digestSuffix), err)
	}
	return d, hash, nil
}

func isHash(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == sha256.Size
}

// lastDigest returns the last digest and its line's hash; nil if there is none.
func lastDigest(dir fs.FS) (*Digest, string, error) {
	digests, err := list(dir, digestSuffix)
	if err != nil || len(digests) == 0 {
		return nil, "", err
	}
	return openDigest(dir, digests[len(digests)-1], nil)
}

// pruning states that a segment was removed.
type pruning struct {
	Version       int       `json:"version"`
	Log           string    `json:"log"`
	FirstSequence uint64    `json:"firstSequence"`
	LastSequence  uint64    `json:"lastSequence"`
	Time          time.Time `json:"time"`
}

func signPruning(d *Digest, now time.Time, signer Signer) ([]byte, error) {
	return signLine(&pruning{digestVersion, d.Log, d.FirstSequence, d.LastSequence, now.UTC()}, pruningPrefix, signer)
}

// isPruned says whether there is a statement, which is verified if key is not nil, that the segment
// was removed.
func isPruned(dir fs.FS, d *Digest, key ed25519.PublicKey) (bool, error) {
	name := segmentName(d.FirstSequence, prunedSuffix)
	file, err := readLimited(dir, name, 1<<16)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var p pruning
	if _, err := parseSigned(file, pruningPrefix, key, &p); err != nil {
		return false, fmt.Errorf("%s: %w", name, err)
	}
	if p.Version != digestVersion || p.Log != d.Log || p.FirstSequence != d.FirstSequence || p.LastSequence != d.LastSequence {
		return false, fmt.Errorf("%s: it is about other records", name)
	}
	return true, nil
}
